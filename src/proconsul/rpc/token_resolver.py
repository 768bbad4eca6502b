"""Tokens to authorizers, on servers and on client agents (`ACLResolver` in agent/consul/acl.go).

`known` answers at once, which for most calls is one look into a dictionary; `resolve` may wait for
what `rpc.token_rows` has to ask of others. What follows from this server's own state stays true
until that state changes. Tokens with equal rules get the same authorizer, so that their reads are
shared.
"""

from __future__ import annotations

import logging

from proconsul.domain import errors
from proconsul.domain.acl import AllowAll, Authorizer
from proconsul.domain.acl_authorizers import PolicyAuthorizer, authorizer
from proconsul.domain.acl_rules import NO_RULES, PolicyRules, RulesError, Syntax, parse_rules
from proconsul.domain.acl_types import ACLPolicy, ACLRole, ACLToken
from proconsul.rpc.token_rows import (
    AclRemoteError,
    Environment,
    Settings,
    TokenRows,
    TokenSource,
    Until,
)
from proconsul.util.throttle import News

log = logging.getLogger("proconsul.acl")

ANONYMOUS = "anonymous"
"""The secret of whoever has none."""
ROOTS = frozenset({"allow", "deny", "manage"})
"""Names of default policies, never secrets."""
ENTRIES_MAX = 10_240
POLICIES_MAX = 1024

EVERYTHING = AllowAll()
NOBODY = PolicyAuthorizer(NO_RULES, default_allow=False)
"""For calls that look up no token."""


class RootDeniedError(errors.DomainError):
    def __init__(self) -> None:
        super().__init__(errors.ACL_ROOT_DENIED)


class TokenResolver:
    """The resolver of one agent."""

    def __init__(
        self,
        settings: Settings,
        source: TokenSource,
        environment: Environment,
        *,
        may_be_disabled: bool = False,
    ) -> None:
        """`may_be_disabled`: believe servers that say that ACLs are off (client agents)."""
        self.settings = settings
        self._source, self._env = source, environment
        self._rows = TokenRows(settings, source, environment, may_be_disabled=may_be_disabled)
        allow = settings.allows_by_default
        # With the cache extended there may be nothing in it; Consul 1.8 then refuses nothing.
        down = {"allow": True, "deny": False}.get(settings.down_policy, allow)
        self._default_allow = allow
        self._down = PolicyAuthorizer(NO_RULES, default_allow=down)
        self._known: dict[str, tuple[Authorizer, float | None]] = {}
        self._following = False
        self._failures = News()
        self._parsed: dict[tuple[str, int], PolicyRules] = {}
        self._authorizers: dict[tuple[tuple[str, int], ...], Authorizer] = {}

    # -- what everybody asks ---------------------------------------------------------------

    @property
    def enabled(self) -> bool:
        """Whether ACLs are on, here and as far as we know on the servers."""
        return self._rows.enabled

    def known(self, secret: str) -> Authorizer | None:
        """The rights of a token, or None if somebody has to be asked: `resolve` does.

        Raises `AclNotFoundError`, `RootDeniedError`, `PermissionDeniedError`, `RulesError`.
        """
        entry = self._known.get(secret)
        if entry is not None and (entry[1] is None or self._env.monotonic() < entry[1]):
            return entry[0]
        # Whatever is known here runs through without suspending.
        running = self.resolve(secret)
        try:
            running.send(None)
        except StopIteration as finished:
            found: Authorizer = finished.value
            return found
        running.close()
        return None

    async def resolve(self, secret: str) -> Authorizer:
        """The rights of a token. Raises as `known` does."""
        if not self.enabled:
            return EVERYTHING
        if secret in ROOTS:
            raise RootDeniedError
        until = Until()
        try:
            _, policies = await self._rows.with_token(
                secret or ANONYMOUS, until, self._rows.policies_of
            )
        except AclRemoteError as error:
            news = self._failures.is_news(str(error), self._env.monotonic())
            log.log(
                logging.ERROR if news else logging.DEBUG, "Error resolving token: error=%s", error
            )
            return self._down if self.enabled else EVERYTHING
        found = self._compiled(policies)
        self._remember(secret, found, until.moment)
        return found

    async def rows_of(self, secret: str) -> tuple[ACLToken, list[ACLRole], list[ACLPolicy]]:
        """A token, its roles, and all policies that are valid for it here, made up ones too.

        Raises `AclNotFoundError`, `PermissionDeniedError`, `AclRemoteError`.
        """

        async def find(token: ACLToken, until: Until) -> tuple[list[ACLRole], list[ACLPolicy]]:
            roles = await self._rows.roles_of(token, until)
            return roles, await self._rows.policies_of(token, until)

        token, (roles, policies) = await self._rows.with_token(secret or ANONYMOUS, Until(), find)
        return token, roles, policies

    def forget(self, noun: str, row_id: str) -> None:
        """A `token` (its secret), `policy` or `role` changed: what was remembered counts no more."""
        self._rows.forget(noun, row_id)
        self._known.clear()

    # -- rules -----------------------------------------------------------------------------

    def _remember(self, secret: str, found: Authorizer, until: float | None) -> None:
        if len(self._known) >= ENTRIES_MAX:
            self._known.clear()
        self._known[secret] = found, until
        if not self._following:
            self._following = True
            self._source.on_change(self._changed)

    def _changed(self) -> None:
        self._following = False
        self._known.clear()

    def _compiled(self, policies: list[ACLPolicy]) -> Authorizer:
        # Of rules that contradict each other in levels like "Read" the first one stands.
        key = tuple((policy.rules, policy.syntax) for policy in policies)
        found = self._authorizers.get(key)
        if found is None:
            rules = [self._rules(policy) for policy in policies]
            found = authorizer(rules, default_allow=self._default_allow)
            if len(self._authorizers) >= POLICIES_MAX:
                self._authorizers.clear()
            self._authorizers[key] = found
        return found

    def _rules(self, policy: ACLPolicy) -> PolicyRules:
        key = policy.rules, policy.syntax
        found = self._parsed.get(key)
        if found is None:
            try:
                found = parse_rules(policy.rules, Syntax(policy.syntax))
            except (RulesError, ValueError) as error:
                raise RulesError(
                    f'failed to parse the ACL policies: failed to parse "{policy.name}": {error}'
                ) from None
            if len(self._parsed) >= POLICIES_MAX:
                self._parsed.clear()
            self._parsed[key] = found
        return found
