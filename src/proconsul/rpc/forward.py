"""Answering a call here, or forwarding it: to its datacenter, then to the leader.

Follows `ForwardRPC` in agent/consul/rpc.go. While there is no leader a call is held for
`rpc_hold_timeout`, so that an election does not show as errors, and goes on as soon as one is known.
A forwarded body is passed on as it came, never decoded and encoded again. What may be repeated is in
`rpc.outcome`. A leader that fell silent is not waited for once another one leads.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from proconsul.domain import errors
from proconsul.domain.acl import Authorizer
from proconsul.domain.base import decode, encode
from proconsul.drivers.timing import timed
from proconsul.rpc.dialer import Destination
from proconsul.rpc.methods import METHODS
from proconsul.rpc.outcome import may_repeat, told
from proconsul.rpc.table import Call, Endpoint, EndpointTable, Method, Requires, Route
from proconsul.rpc.token_resolver import EVERYTHING, NOBODY
from proconsul.util.errors import ProconsulError

if TYPE_CHECKING:
    from proconsul.drivers.stream import PeerInfo
    from proconsul.util.clock import Rng
    from proconsul.util.metrics import Metrics
from proconsul.util.throttle import News

log = logging.getLogger("proconsul.rpc")

CALL_S = 15.0
"""Deadline of a forwarded call that does not block; a blocking query gets its wait on top."""
HOLD_STEP_FRACTION = 16
SUPERSEDED_S = 0.5
"""How long the old leader's answers are still awaited once another one is known to lead."""
SHARED_BYTES_MIN = 4096
"""Smaller answers are encoded faster than kept."""
CROSS_DC_SERVERS_MAX = 3
"""How many servers of another datacenter one call may try."""
_TIMERS = {
    "ACL.Apply": "consul.acl.apply",
    "ACL.PolicyDelete": "consul.acl.policy.delete",
    "ACL.PolicySet": "consul.acl.policy.upsert",
    "ACL.RoleDelete": "consul.acl.role.delete",
    "ACL.RoleSet": "consul.acl.role.upsert",
    "ACL.TokenClone": "consul.acl.token.clone",
    "ACL.TokenDelete": "consul.acl.token.delete",
    "ACL.TokenSet": "consul.acl.token.upsert",
    "Catalog.Register": "consul.catalog.register",
    "Catalog.Deregister": "consul.catalog.deregister",
    "ConfigEntry.Apply": "consul.config_entry.apply",
    "ConfigEntry.Delete": "consul.config_entry.delete",
    "ConfigEntry.Get": "consul.config_entry.get",
    "ConfigEntry.List": "consul.config_entry.list",
    "ConfigEntry.ListAll": "consul.config_entry.listAll",
    "ConfigEntry.ResolveServiceConfig": "consul.config_entry.resolve_service_config",
    "DiscoveryChain.Get": "consul.discovery_chain.get",
    "Intention.Apply": "consul.intention.apply",
    "FederationState.Apply": "consul.federation_state.apply",
    "FederationState.Get": "consul.federation_state.get",
    "FederationState.List": "consul.federation_state.list",
    "FederationState.ListMeshGateways": "consul.federation_state.list_mesh_gateways",
    "KVS.Apply": "consul.kvs.apply",
    "Session.Apply": "consul.session.apply",
    "Txn.Apply": "consul.txn.apply",
    "Txn.Read": "consul.txn.read",
}
"""The methods that Consul times where they are answered; of reads the waiting counts, too."""


class Forwarding(Protocol):
    """What forwarding needs to know of its server."""

    @property
    def is_leader(self) -> bool: ...

    @property
    def is_leaving(self) -> bool: ...

    def heard_from_leader(self) -> bool:
        """Whether our state has ever been in step with a leader, so that stale reads make sense."""
        ...

    def leader(self) -> Destination | None:
        """The leader's node and address; None if unknown."""
        ...

    def servers(self, datacenter: str) -> list[Destination]:
        """Servers of another datacenter in the order to try; empty if none is alive."""
        ...

    def knows_datacenter(self, datacenter: str) -> bool: ...

    def failed_server(self, to: Destination) -> None:
        """A call to this server failed: prefer others."""
        ...

    async def send(self, to: Destination, method: str, body: bytes, deadline: float) -> bytes:
        """One RPC through the connection pool."""
        ...

    def resolve_token(self, token: str) -> Authorizer | None:
        """Whatever this token may do; None if that is not known at once. Raises `DomainError`."""
        ...

    async def resolve_token_later(self, token: str) -> Authorizer:
        """The same, though other servers have to be asked."""
        ...


@dataclass(frozen=True, slots=True)
class ForwardConfig:
    """`hold_s` is `performance.rpc_hold_timeout`."""

    datacenter: str
    primary_datacenter: str
    hold_s: float = 7.0


class Forwarder:
    """The entrance of every RPC on a server, from the network and from this process."""

    def __init__(
        self,
        config: ForwardConfig,
        server: Forwarding,
        table: EndpointTable,
        metrics: Metrics,
        rng: Rng,
    ) -> None:
        self._config, self._server, self._table = config, server, table
        self._metrics, self._rng = metrics, rng
        self._failures = News()
        self._last_encoded: tuple[Any, bytes] = (None, b"")
        self._changed = asyncio.Event()
        self._under_way: dict[Destination, set[asyncio.Timeout]] = {}

    def leader_changed(self) -> None:
        """To be called whenever `Forwarding.is_leader` or `leader()` may have changed."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        leader = self._server.leader()
        if leader is None:
            return
        patience = asyncio.get_running_loop().time() + SUPERSEDED_S
        for to, calls in self._under_way.items():
            if to.address != leader.address:
                for call in calls:
                    if not call.expired():
                        call.reschedule(patience)

    async def dispatch(self, name: str, body: bytes, peer: PeerInfo) -> bytes:
        """A call from the network: encoded in, encoded out."""
        self._metrics.incr("consul.rpc.request", 1)
        endpoint = self._table[name]
        request = decode(body, endpoint.method.request)
        request, body = self._prepared(endpoint, request, body)
        answer, value = await self._answer(endpoint, request, lambda: body, peer.address)
        return self._encoded(value) if answer is None else answer

    def _encoded(self, answer: Any) -> bytes:
        """One write wakes all who wait for the same: large answers in a row are often equal."""
        last, body = self._last_encoded
        if type(answer) is type(last) and answer == last:
            return body
        body = encode(answer)
        if len(body) >= SHARED_BYTES_MIN:
            self._last_encoded = (answer, body)
        return body

    async def call(self, name: str, request: Any) -> Any:
        """See `rpc.caller.RpcCaller.call`."""
        endpoint = self._table[name]
        method = endpoint.method
        request, _ = self._prepared(endpoint, request, b"")
        answer, value = await self._answer(endpoint, request, lambda: encode(request), None)
        return value if answer is None else decode(answer, method.response)

    def try_call(self, name: str, request: Any) -> Any | None:
        """The answer to a read that this server can give at once; None if it has to wait.

        Such a read runs through its handler without ever suspending, which spares hot reads a task.
        """
        endpoint = self._table[name]
        method = endpoint.method
        if endpoint.prepare is not None:
            request = endpoint.prepare(request)
        if (
            not method.is_read
            or bool(getattr(request, "min_query_index", 0))
            or bool(getattr(request, "require_consistent", False))
            or not self._answers(method, request)
        ):
            return None
        running = self._here(endpoint, request, None)
        try:
            running.send(None)
        except StopIteration as finished:
            return finished.value
        running.close()
        return None

    def _answers(self, method: Method, request: Any) -> bool:
        """Whether this very server is the one to answer, as things are now."""
        if method.route is Route.HERE:
            return True
        datacenter = getattr(request, method.datacenter_field)
        if datacenter not in ("", self._config.datacenter):
            return False
        if method.route is Route.DATACENTER:
            return True
        server = self._server
        if method.is_read and request.allow_stale and server.heard_from_leader():
            return True
        return server.is_leader and not server.is_leaving

    async def call_datacenter(self, name: str, datacenter: str, request: Any) -> Any:
        """Send to another datacenter's servers whatever the method's route says."""
        answer = await self._to_datacenter(METHODS[name], datacenter, request, encode(request))
        return decode(answer, METHODS[name].response)

    def _prepared(self, endpoint: Endpoint, request: Any, body: bytes) -> tuple[Any, bytes]:
        """The request as it is to be answered, and its encoding if there was one."""
        if endpoint.prepare is not None:
            prepared = endpoint.prepare(request)
            if prepared is not request:
                request, body = prepared, encode(prepared) if body else b""
        method = endpoint.method
        if method.route is Route.PRIMARY and request.datacenter != self._config.primary_datacenter:
            request = msgspec.structs.replace(request, datacenter=self._config.primary_datacenter)
            return request, encode(request) if body else b""
        return request, body

    async def _here(self, endpoint: Endpoint, request: Any, source: tuple[str, int] | None) -> Any:
        if endpoint.requires is Requires.NOTHING or (
            endpoint.resolves is not None and not endpoint.resolves(request)
        ):
            return await self._handled(endpoint, request, Call(NOBODY, source))
        token = getattr(request, "token", "")
        refusal: errors.DomainError | None = None
        try:
            may = self._server.resolve_token(token) or await self._server.resolve_token_later(token)
        except errors.DomainError as error:
            refusal, may = error, NOBODY
        if refusal is not None:
            if endpoint.token_last:
                await self._complain_of_the_rest(endpoint, request, source)
            raise refusal
        answer = await self._handled(endpoint, request, Call(may, source))
        if not getattr(request, "min_query_index", 0) or may is EVERYTHING:
            return answer
        # It may have waited for minutes, in which the token was taken back or got other rights.
        now = self._server.resolve_token(token) or await self._server.resolve_token_later(token)
        if now is may:
            return answer
        request = msgspec.structs.replace(request, min_query_index=0)
        return await self._handled(endpoint, request, Call(now, source))

    async def _complain_of_the_rest(
        self, endpoint: Endpoint, request: Any, source: tuple[str, int] | None
    ) -> None:
        """Raise what is wrong with a request beside its token; without any right it does nothing."""
        if getattr(request, "min_query_index", 0):
            request = msgspec.structs.replace(request, min_query_index=0)
        try:
            await endpoint.handler(request, Call(NOBODY, source))
        except errors.PermissionDeniedError:
            return

    async def _handled(self, endpoint: Endpoint, request: Any, call: Call) -> Any:
        timer = _TIMERS.get(endpoint.method.name)
        if timer is None:
            return await endpoint.handler(request, call)
        with timed(self._metrics, timer):
            return await endpoint.handler(request, call)

    async def _answer(
        self,
        endpoint: Endpoint,
        request: Any,
        body: Callable[[], bytes],
        source: tuple[str, int] | None,
    ) -> tuple[bytes | None, Any]:
        """(the encoded answer of another server, None) or (None, our own answer)."""
        method = endpoint.method
        routed = method.route is not Route.HERE
        datacenter = getattr(request, method.datacenter_field) if routed else ""
        if datacenter not in ("", self._config.datacenter):
            return await self._to_datacenter(method, datacenter, request, body()), None
        loop = asyncio.get_running_loop()
        give_up = 0.0
        while True:
            changed, began, deadline = self._changed, loop.time(), self._deadline(request)
            try:
                if self._answers(method, request):
                    return None, await self._here(endpoint, request, source)
                return await self._to_leader(method, deadline, body()), None
            except (ProconsulError, TimeoutError) as error:
                now, hold_s = loop.time(), self._config.hold_s
                if not give_up or now - began >= hold_s:
                    give_up = now + hold_s  # a query may have waited at its leader for minutes
                again = may_repeat(method, error) and not self._server.is_leaving
                if not again or now >= min(give_up, deadline):
                    failure = told(method, error)
                    if failure is error:
                        raise
                    raise failure from error
            await self._pause(changed)

    async def _pause(self, changed: asyncio.Event) -> None:
        """Until the leader changed, or a moment has passed: it may have been elsewhere only."""
        step = self._config.hold_s / HOLD_STEP_FRACTION
        try:
            async with asyncio.timeout(self._rng.uniform(step / 8, step)):
                await changed.wait()
        except TimeoutError:
            return

    async def _to_leader(self, method: Method, deadline: float, body: bytes) -> bytes:
        leader = None if self._server.is_leaving else self._server.leader()
        if leader is None or self._server.is_leader:
            raise errors.NoLeaderError
        with self._awaited(leader) as superseded:
            try:
                async with superseded:
                    return await self._server.send(leader, method.name, body, deadline)
            except TimeoutError:
                if superseded.expired():
                    raise TimeoutError(f"{leader.node} does not lead any more") from None
                raise

    @contextmanager
    def _awaited(self, leader: Destination) -> Iterator[asyncio.Timeout]:
        """A timeout that is set when another leader appears."""
        superseded = asyncio.timeout(None)
        calls = self._under_way.setdefault(leader, set())
        calls.add(superseded)
        try:
            yield superseded
        finally:
            calls.discard(superseded)
            if not calls and self._under_way.get(leader) is calls:
                del self._under_way[leader]

    async def _to_datacenter(
        self, method: Method, datacenter: str, request: Any, body: bytes
    ) -> bytes:
        servers = self._server.servers(datacenter)
        if not servers:
            if self._server.knows_datacenter(datacenter):
                self._complain("no server can be reached", datacenter)
                raise errors.DatacenterNotAvailableError
            self._complain("no path was found", datacenter)
            raise errors.NoPathToDatacenterError
        self._metrics.incr("consul.rpc.cross-dc", 1, (("datacenter", datacenter),))
        deadline = self._deadline(request)
        failure: ProconsulError = errors.DatacenterNotAvailableError()
        for to in servers[:CROSS_DC_SERVERS_MAX]:
            try:
                return await self._server.send(to, method.name, body, deadline)
            except (ProconsulError, TimeoutError) as error:
                if isinstance(error, errors.DomainError) or getattr(error, "is_remote", False):
                    raise
                failure = told(method, error)
                self._server.failed_server(to)
                again = not self._is_news(f"{to.node}.{datacenter} {failure}")
                log.log(
                    logging.DEBUG if again else logging.ERROR,
                    "RPC failed to server in DC: server=%s datacenter=%s method=%s error=%s",
                    to.node,
                    datacenter,
                    method.name,
                    failure,
                )
                if not may_repeat(method, error):
                    break
        raise failure

    def _complain(self, reason: str, datacenter: str) -> None:
        if self._is_news(datacenter):
            log.warning(
                "RPC request for DC is currently failing as %s: datacenter=%s", reason, datacenter
            )

    def _is_news(self, what: str) -> bool:
        return self._failures.is_news(what, asyncio.get_running_loop().time())

    def _deadline(self, request: Any) -> float:
        now = asyncio.get_running_loop().time()
        if getattr(request, "min_query_index", 0):
            wait = request.max_query_time_ns / 1e9 or 300.0
            return now + min(wait, 600.0) * (1 + 1 / 16) + CALL_S
        return now + CALL_S
