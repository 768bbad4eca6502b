"""Tokens and what they refer to: known here, remembered, or asked of other servers.

The lower half of `ACLResolver` in agent/consul/acl.go. What is not known here is asked of the servers
(by a client agent) or of the primary datacenter (by a secondary without token replication),
remembered for the TTLs of the configuration, and asked once however many wait. `down_policy` says
whether what is too old still serves where nobody answers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, cast

from proconsul.domain import errors
from proconsul.domain.acl_identities import (
    embedded_policy,
    has_links,
    linked_policies,
    synthetic_policies,
    valid_in,
)
from proconsul.domain.acl_requests import (
    ACLPolicyBatchGetRequest,
    ACLRoleBatchGetRequest,
    ACLTokenGetRequest,
)
from proconsul.domain.acl_types import ID_SECRET, ACLPolicy, ACLRole, ACLToken
from proconsul.util.errors import ProconsulError
from proconsul.util.metrics import Metrics

log = logging.getLogger("proconsul.acl")

T = TypeVar("T")

ATTEMPTS_MAX = 5
"""A token that changes while its policies are asked for is looked up again so often."""
TOKENS_MAX = 10_240
ROWS_MAX = 1024


class Settings(Protocol):
    """What resolution needs of `services.acl_settings`; durations in seconds."""

    @property
    def enabled(self) -> bool: ...

    @property
    def allows_by_default(self) -> bool: ...

    @property
    def down_policy(self) -> str: ...

    @property
    def token_ttl_s(self) -> float: ...

    @property
    def policy_ttl_s(self) -> float: ...

    @property
    def role_ttl_s(self) -> float: ...

    @property
    def disabled_ttl_s(self) -> float: ...


class TokenSource(Protocol):
    """What is known here: (whether that is the last word, the row)."""

    def token(self, secret: str) -> tuple[bool, ACLToken | None]: ...

    def policy(self, policy_id: str) -> tuple[bool, ACLPolicy | None]: ...

    def role(self, role_id: str) -> tuple[bool, ACLRole | None]: ...

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call once, as soon as any answer may be another."""
        ...


class NothingKnown:
    """The source of a client agent."""

    def token(self, _secret: str) -> tuple[bool, ACLToken | None]:
        """See `TokenSource.token`."""
        return False, None

    def policy(self, _policy_id: str) -> tuple[bool, ACLPolicy | None]:
        """See `TokenSource.policy`."""
        return False, None

    def role(self, _role_id: str) -> tuple[bool, ACLRole | None]:
        """See `TokenSource.role`."""
        return False, None

    def on_change(self, callback: Callable[[], None]) -> None:
        """See `TokenSource.on_change`: nothing changes here."""


class Environment(NamedTuple):
    """Where a resolver runs."""

    datacenter: str
    acl_datacenter: str
    """Whose servers are asked for what is not known here."""
    call: Callable[[str, Any], Awaitable[Any]]
    """`rpc.caller.RpcCaller.call`."""
    spawn: Callable[[str, Coroutine[Any, Any, Any]], asyncio.Future[Any]]
    monotonic: Callable[[], float]
    unix_ns: Callable[[], int]
    metrics: Metrics


class AclRemoteError(ProconsulError):
    """Whoever knows the token could not be asked."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(f"Error communicating with the ACL Datacenter: {cause}")


class _TokenChanged(Exception):
    """The servers know the token otherwise than we remember it."""


class Until:
    """The first moment at which an answer made of several parts is too old."""

    def __init__(self) -> None:
        self.moment: float | None = None

    def limit(self, moment: float) -> None:
        self.moment = moment if self.moment is None else min(self.moment, moment)


class _Remembered(NamedTuple, Generic[T]):
    value: T | None
    at: float


class _Cache(Generic[T]):
    """Answers of other servers, of bounded number; the oldest go first."""

    def __init__(self, monotonic: Callable[[], float], most: int) -> None:
        self._monotonic, self._most = monotonic, most
        self._rows: dict[str, _Remembered[T]] = {}

    def get(self, key: str) -> _Remembered[T] | None:
        return self._rows.get(key)

    def put(self, key: str, value: T | None) -> None:
        self._rows.pop(key, None)
        self._rows[key] = _Remembered(value, self._monotonic())
        if len(self._rows) > self._most:
            del self._rows[next(iter(self._rows))]

    def forget(self, key: str) -> None:
        self._rows.pop(key, None)


class TokenRows:
    """The rows of one agent's resolver."""

    def __init__(
        self,
        settings: Settings,
        source: TokenSource,
        environment: Environment,
        *,
        may_be_disabled: bool,
    ) -> None:
        """`may_be_disabled`: believe servers that say that ACLs are off (client agents)."""
        self.settings = settings
        self._source, self._env = source, environment
        self._may_be_disabled = may_be_disabled
        self._disabled_until = 0.0
        now = environment.monotonic
        self._tokens: _Cache[ACLToken] = _Cache(now, TOKENS_MAX)
        self._policies: _Cache[ACLPolicy] = _Cache(now, ROWS_MAX)
        self._roles: _Cache[ACLRole] = _Cache(now, ROWS_MAX)
        self._flights: dict[tuple[str, ...], asyncio.Future[Any]] = {}

    @property
    def enabled(self) -> bool:
        """Whether ACLs are on, here and as far as we know on the servers."""
        return self.settings.enabled and not self._disabled_until > self._env.monotonic()

    def forget(self, noun: str, row_id: str) -> None:
        """What was remembered of a `token`, `policy` or `role`."""
        caches: dict[str, _Cache[Any]] = {
            "token": self._tokens, "policy": self._policies, "role": self._roles,
        }  # fmt: skip
        caches[noun].forget(row_id)

    async def with_token(
        self, secret: str, until: Until, find: Callable[[ACLToken, Until], Awaitable[T]]
    ) -> tuple[ACLToken, T]:
        """A token that has not expired, and what `find` finds for it.

        Raises `AclNotFoundError`, `PermissionDeniedError`, `AclRemoteError`.
        """
        for _ in range(ATTEMPTS_MAX):
            token = await self.token(secret, until)
            now_ns, ends_ns = self._env.unix_ns(), token.expires_ns
            if ends_ns is not None:
                if ends_ns < now_ns:
                    raise errors.AclNotFoundError
                until.limit(self._env.monotonic() + (ends_ns - now_ns) / 1e9)
            try:
                return token, await find(token, until)
            except _TokenChanged:
                continue
        raise errors.PermissionDeniedError

    async def token(self, secret: str, until: Until) -> ACLToken:
        final, token = self._source.token(secret)
        if not final:
            remembered = self._tokens.get(secret)
            ttl_s = self.settings.token_ttl_s
            if remembered is None or self._env.monotonic() - remembered.at > ttl_s:
                self._env.metrics.incr("consul.acl.token.cache_miss", 1)
                flight = self._fly(("token", secret), lambda: self._fetch_token(secret, remembered))
                if remembered is None or self.settings.down_policy != "async-cache":
                    token = await _landed(flight)
                    until.limit(self._env.monotonic() + ttl_s)
                else:
                    token = remembered.value
                    until.limit(self._env.monotonic())
            else:
                self._env.metrics.incr("consul.acl.token.cache_hit", 1)
                token = remembered.value
                until.limit(remembered.at + ttl_s)
        if token is None:
            raise errors.AclNotFoundError
        return token

    async def policies_of(self, token: ACLToken, until: Until) -> list[ACLPolicy]:
        if not has_links(token):
            embedded = embedded_policy(token)
            return [] if embedded is None else [embedded]
        roles = await self.roles_of(token, until)
        linked = await self._linked(
            _Subject("policy", token, self._source.policy, self._policies, self._ask_policies),
            linked_policies(token, roles),
            self.settings.policy_ttl_s,
            until,
        )
        return valid_in((*linked, *synthetic_policies(token, roles)), self._env.datacenter)

    async def roles_of(self, token: ACLToken, until: Until) -> list[ACLRole]:
        return await self._linked(
            _Subject("role", token, self._source.role, self._roles, self._ask_roles),
            [link.id for link in token.roles or ()],
            self.settings.role_ttl_s,
            until,
        )

    async def _linked(
        self, subject: _Subject[T], ids: Iterable[str], ttl_s: float, until: Until
    ) -> list[T]:
        """What a token refers to; whatever is gone is left out."""
        found, missing, old = list[T](), list[str](), dict[str, _Remembered[T]]()
        now = self._env.monotonic()
        for row_id in ids:
            final, row = subject.here(row_id)
            if row is not None:
                found.append(row)
                continue
            if final:
                log.warning(
                    "%s not found for identity: id=%s accessorID=%s",
                    subject.noun, row_id, subject.token.accessor_id,
                )  # fmt: skip
                continue
            remembered = subject.cache.get(row_id)
            if remembered is None:
                missing.append(row_id)
            elif now - remembered.at >= ttl_s:
                old[row_id] = remembered
            else:
                until.limit(remembered.at + ttl_s)
                if remembered.value is not None:
                    found.append(remembered.value)
        if not missing and not old:
            return found
        wanted = [*missing, *old]
        flight = self._fly(
            (subject.noun, subject.token.secret_id, *wanted),
            lambda: self._fetch_linked(subject, wanted, old),
        )
        if missing or self.settings.down_policy != "async-cache":
            until.limit(now + ttl_s)
            return found + cast("list[T]", await _landed(flight))
        until.limit(now)
        return found + [one.value for one in old.values() if one.value is not None]

    # -- asking others ---------------------------------------------------------------------

    def _fly(
        self, key: tuple[str, ...], fetch: Callable[[], Coroutine[Any, Any, Any]]
    ) -> asyncio.Future[Any]:
        """One question at a time for the same: all who wait get its answer."""
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = self._env.spawn(f"acl {key[0]}", _outcome(fetch()))
            flight.add_done_callback(lambda _: self._flights.pop(key, None))
        return flight

    async def _fetch_token(
        self, secret: str, remembered: _Remembered[ACLToken] | None
    ) -> ACLToken | None:
        request = ACLTokenGetRequest(
            datacenter=self._env.acl_datacenter,
            token_id=secret,
            token_id_type=ID_SECRET,
            token=secret,
            allow_stale=True,
        )
        try:
            answer = await self._env.call("ACL.TokenRead", request)
        except (ProconsulError, TimeoutError) as error:
            self._look_if_disabled(error)
            if errors.ACL_NOT_FOUND in str(error):
                self._tokens.put(secret, None)
                return None
            if remembered is not None and self._extends:
                self._tokens.put(secret, remembered.value)
                return remembered.value
            self._tokens.forget(secret)
            raise AclRemoteError(error) from error
        token: ACLToken | None = answer.token
        if token is not None and token.local and answer.source_datacenter != self._env.datacenter:
            self._tokens.put(secret, None)
            raise errors.PermissionDeniedError(
                f'This is a local token in datacenter "{answer.source_datacenter}"'
            )
        self._tokens.put(secret, token)
        return token

    async def _fetch_linked(
        self, subject: _Subject[T], ids: list[str], old: dict[str, _Remembered[T]]
    ) -> list[T]:
        secret = subject.token.secret_id
        try:
            rows = await subject.ask(secret, ids)
        except (ProconsulError, TimeoutError) as error:
            self._look_if_disabled(error)
            if errors.ACL_NOT_FOUND in str(error):
                self._tokens.put(secret, None)
                raise errors.AclNotFoundError from error
            if errors.is_permission_denied(error):
                self._tokens.forget(secret)
                raise _TokenChanged from error
            if self._extends and all(row_id in old for row_id in ids):
                for row_id in ids:
                    subject.cache.put(row_id, old[row_id].value)
                return [one.value for one in old.values() if one.value is not None]
            raise AclRemoteError(error) from error
        for row_id in ids:
            subject.cache.put(row_id, rows.get(row_id))
        return list(rows.values())

    async def _ask_policies(self, secret: str, ids: list[str]) -> dict[str, ACLPolicy]:
        request = ACLPolicyBatchGetRequest(
            datacenter=self._env.acl_datacenter, policy_ids=ids, token=secret, allow_stale=True
        )
        answer = await self._env.call("ACL.PolicyResolve", request)
        return {policy.id: policy for policy in answer.policies or ()}

    async def _ask_roles(self, secret: str, ids: list[str]) -> dict[str, ACLRole]:
        request = ACLRoleBatchGetRequest(
            datacenter=self._env.acl_datacenter, role_ids=ids, token=secret, allow_stale=True
        )
        answer = await self._env.call("ACL.RoleResolve", request)
        return {role.id: role for role in answer.roles or ()}

    @property
    def _extends(self) -> bool:
        return self.settings.down_policy in {"extend-cache", "async-cache"}

    def _look_if_disabled(self, error: Exception) -> None:
        if self._may_be_disabled and errors.ACL_DISABLED in str(error):
            ttl_s = self.settings.disabled_ttl_s
            log.debug("ACLs disabled on upstream servers, will retry: retry_interval=%gs", ttl_s)
            self._disabled_until = self._env.monotonic() + ttl_s


class _Subject(NamedTuple, Generic[T]):
    """Policies or roles: where they are looked for."""

    noun: str
    token: ACLToken
    here: Callable[[str], tuple[bool, T | None]]
    cache: _Cache[T]
    ask: Callable[[str, list[str]], Awaitable[dict[str, T]]]


async def _outcome(fetch: Coroutine[Any, Any, Any]) -> Any:
    """What it gives or raises, as a value: nobody may be left who wants to know."""
    try:
        return await fetch
    except (ProconsulError, _TokenChanged) as error:
        return error


async def _landed(flight: asyncio.Future[Any]) -> Any:
    found = await asyncio.shield(flight)
    if isinstance(found, Exception):
        raise found
    return found
