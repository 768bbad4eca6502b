"""Federation as seen from one server: which datacenters are reachable, or which hop fails and why.

Everything is asked at once: every server by the way that calls take, every gateway by itself. Behind
a gateway most failures look alike, an end of the connection before ServerHello; then the same
gateway is asked for a name of its own datacenter, and the other datacenter's gateways directly
(where they are routable), which tells the local gateway from what lies beyond it.

The report is plain JSON; `docs/architecture.md` has its shape.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from proconsul.domain.catalog import CheckServiceNode
from proconsul.domain.federation import FederationState
from proconsul.drivers.scope import TaskScope
from proconsul.federation.locator import Gateway, GatewayLocator, Source, addresses
from proconsul.federation.replicator import ReplicationStatus
from proconsul.federation.status_causes import (
    Cause,
    Failure,
    denied,
    failure_of,
    is_denial,
    is_silent,
)
from proconsul.federation.status_probe import Outcome, Prober, TlsConnect
from proconsul.federation.status_rows import replication_json, state_json, unusable_json
from proconsul.rpc.dialer import Destination, Dialer, Hop, HopError
from proconsul.util.errors import ProconsulError

STATUS_S = 8.0
"""For a whole report, whatever fails."""
SERVERS_MAX = 16
GATEWAYS_MAX = 16
"""Of one datacenter in a report."""


@dataclass(frozen=True, slots=True)
class WanServer:
    """A server of the WAN pool. `status` is Serf's: alive, failed, leaving, left."""

    node: str
    datacenter: str
    address: tuple[str, int]
    status: str


class StatusServer(Protocol):
    """The server that looks; all methods run on the event loop."""

    @property
    def datacenter(self) -> str: ...

    @property
    def primary_datacenter(self) -> str: ...

    @property
    def node(self) -> str: ...

    @property
    def domain(self) -> str: ...

    @property
    def is_leader(self) -> bool: ...

    @property
    def dialer(self) -> Dialer:
        """The ways that every call takes."""
        ...

    @property
    def locator(self) -> GatewayLocator | None:
        """None without federation through mesh gateways."""
        ...

    @property
    def connect(self) -> TlsConnect | None:
        """One connection through one gateway; None as above."""
        ...

    @property
    def replication(self) -> ReplicationStatus | None:
        """None in the primary."""
        ...

    def wan_servers(self) -> Sequence[WanServer]: ...

    def states(self) -> Sequence[FederationState]: ...

    def local_gateways(self) -> Sequence[CheckServiceNode]: ...

    async def leader_of(self, datacenter: str, deadline: float) -> str:
        """`Status.Leader` there, by the whole way; "" without leader. Raises ProconsulError."""
        ...

    @property
    def has_replication_token(self) -> bool: ...

    @property
    def publishing_error(self) -> str:
        """What the primary last said to our gateways being written there; "" if it took them."""
        ...

    async def read_in_primary(self, deadline: float) -> None:
        """Read a federation state there as replication does. Raises ProconsulError."""
        ...


async def gather(server: StatusServer, deadline: float) -> dict[str, Any]:
    """The report, at the latest at `deadline` (loop's clock; `STATUS_S` from now if that is less)."""
    loop = asyncio.get_running_loop()
    deadline = min(deadline, loop.time() + STATUS_S)
    prober = Prober(server.domain, server.dialer, server.connect, deadline)
    names = {m.datacenter for m in server.wan_servers() if m.status != "left"}
    names |= {state.datacenter for state in server.states()}
    names |= {server.datacenter, server.primary_datacenter}
    rows = await concurrently([_Datacenter(server, prober, name).report for name in sorted(names)])
    locator = server.locator
    return {
        "Datacenter": server.datacenter,
        "PrimaryDatacenter": server.primary_datacenter,
        "Node": server.node,
        "Leader": server.is_leader,
        "Healthy": all(row["Reachable"] for row in rows),
        "Route": locator.describe() if locator is not None else "mesh gateways are not used",
        "Replication": replication_json(server.replication),
        "Datacenters": rows,
    }


async def concurrently(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Results in order of the calls."""
    async with TaskScope("federation-status") as scope:
        tasks = [scope.spawn(str(index), call()) for index, call in enumerate(calls)]
        return [await task for task in tasks]


class _Datacenter:
    """One row of the report."""

    def __init__(self, server: StatusServer, prober: Prober, name: str) -> None:
        self._server, self._prober, self.name = server, prober, name
        self._is_own = name == server.datacenter
        members = sorted(
            (m for m in server.wan_servers() if m.datacenter == name and m.status != "left"),
            key=lambda m: (m.status != "alive", m.node),
        )
        self._members = members[:SERVERS_MAX]
        self._state = next((s for s in server.states() if s.datacenter == name), None)
        locator = server.locator
        self._gateways: list[Gateway] = []
        if locator is not None and server.connect is not None:
            self._gateways = locator.known(name)[:GATEWAYS_MAX]

    async def report(self) -> dict[str, Any]:
        """Ask, and where the answers do not explain themselves, ask more."""
        name, prober, server = self.name, self._prober, self._server
        calls: list[Callable[[], Any]] = [
            lambda: prober.timed(lambda until: server.leader_of(name, until))
        ]
        calls.append(self._rights)
        calls += [_bind(prober.gateway, gateway, name) for gateway in self._gateways]
        calls += [_bind(self._ask_server, member) for member in self._members]
        (leader, whole_way), refused, *rest = await concurrently(calls)
        through: list[Outcome] = rest[: len(self._gateways)]
        direct: list[Outcome] = rest[len(self._gateways) :]
        remote: list[tuple[Gateway, Outcome]] = []
        if any(o.failure is not None and is_silent(o.failure) for o in through):
            through, remote = await self._look_beyond(through)
        servers = [
            self._judge_server(m, o, through) for m, o in zip(self._members, direct, strict=True)
        ]
        failure = self._verdict(whole_way, leader, servers, through) or refused
        row: dict[str, Any] = {
            "Datacenter": name,
            "Primary": name == server.primary_datacenter,
            "Local": self._is_own,
            **Outcome(failure, whole_way.round_trip_s).as_json(),
            "Leader": leader,
            "AliveServers": sum(m.status == "alive" for m in self._members),
            "FailedServers": sum(m.status != "alive" for m in self._members),
            "Servers": [
                {
                    "Node": m.node,
                    "Address": str(Gateway(m.address)),
                    "Status": m.status,
                    **o.as_json(),
                }
                for m, o in zip(self._members, servers, strict=True)
            ],
            "Gateways": self._gateway_rows(through),
            "FederationState": state_json(self._state),
            "UnusableGateways": unusable_json(self._registered()),
        }
        if remote:
            row["RemoteGateways"] = [{"Address": str(g), **o.as_json()} for g, o in remote]
        return row

    def _registered(self) -> Sequence[CheckServiceNode]:
        """Every gateway that we know of, healthy or not."""
        if self._is_own:
            return self._server.local_gateways()
        return self._state.mesh_gateways or () if self._state is not None else ()

    async def _ask_server(self, member: WanServer) -> Outcome:
        to = Destination(self.name, member.node, member.address)
        return await self._prober.server(to)

    async def _rights(self) -> Failure | None:
        """What a secondary may not do in the primary although federation needs it."""
        server = self._server
        if self._is_own or self.name != server.primary_datacenter or server.locator is None:
            return None

        async def ask(until: float) -> str:
            await server.read_in_primary(until)
            return ""

        read = (await self._prober.timed(ask))[1].failure
        if read is not None and read.cause is Cause.ACL:
            return denied(self.name, "read", read.reason, has_token=server.has_replication_token)
        if is_denial(error := server.publishing_error):
            return denied(self.name, "write", error, has_token=server.has_replication_token)
        return None

    # -- behind a gateway ------------------------------------------------------------------

    async def _look_beyond(
        self, through: list[Outcome]
    ) -> tuple[list[Outcome], list[tuple[Gateway, Outcome]]]:
        """Ask silent gateways for their own datacenter, and the remote ones directly."""
        silent = [
            gateway
            for gateway, outcome in zip(self._gateways, through, strict=True)
            if outcome.failure is not None and is_silent(outcome.failure)
        ]
        local = [g for g in silent if g.source is Source.CATALOG and not self._is_own]
        remote = [] if self._is_own else _remote(self._registered())
        calls = [_bind(self._prober.gateway, g, self._server.datacenter) for g in local]
        calls += [_bind(self._prober.gateway, g, self.name) for g in remote]
        answers: list[Outcome] = await concurrently(calls)
        home = dict(zip(local, answers, strict=False))
        beyond = list(zip(remote, answers[len(local) :], strict=True))
        judged = [
            self._judge_gateway(gateway, outcome, home.get(gateway), beyond)
            for gateway, outcome in zip(self._gateways, through, strict=True)
        ]
        return judged, beyond

    def _judge_gateway(
        self,
        gateway: Gateway,
        outcome: Outcome,
        home: Outcome | None,
        beyond: Sequence[tuple[Gateway, Outcome]],
    ) -> Outcome:
        failure = outcome.failure
        if failure is None or not is_silent(failure):
            return outcome
        # Silence may end in a timeout of the handshake; it is the routing by name that failed
        failure = replace(failure, hop=Hop.SNI)
        if home is None:
            return Outcome(self._nothing_behind(failure, gateway))
        if not home.is_ok:
            return Outcome(
                replace(
                    failure,
                    cause=Cause.GATEWAY_ROUTES_NOTHING,
                    reason=f"{failure.reason}; the local gateway {gateway} does not answer for a "
                    "server of our own datacenter either",
                    remedy="look at this gateway: was it started with -expose-servers, does it get "
                    "its configuration from its agent, and can it reach our servers' port 8300?",
                )
            )
        return Outcome(self._beyond(failure, gateway, beyond))

    def _nothing_behind(self, failure: Failure, gateway: Gateway) -> Failure:
        """A gateway of the very datacenter that is asked for, reached directly."""
        whose = "our own" if self._is_own else f"{self.name}'s"
        return replace(
            failure,
            cause=Cause.REMOTE_SERVERS_UNREACHABLE
            if not self._is_own
            else Cause.GATEWAY_ROUTES_NOTHING,
            reason=f"{failure.reason}; {whose} gateway {gateway} listens",
            remedy="are that datacenter's servers running, can the gateway reach their port 8300, "
            "and was it started with -expose-servers?",
        )

    def _beyond(
        self, failure: Failure, gateway: Gateway, beyond: Sequence[tuple[Gateway, Outcome]]
    ) -> Failure:
        """The local gateway works for our own servers: what of the rest of the way?"""
        works = f"the local gateway {gateway} works for our own servers"
        if not beyond:
            return replace(
                failure,
                cause=Cause.GATEWAY_LACKS_ROUTE,
                reason=f"{works}; no healthy gateway of {self.name} is known here, so it has no route",
                remedy=f"register a mesh gateway in {self.name} and wait for its federation state; "
                "see Replication for what keeps it from us",
            )
        if any(outcome.is_ok for _, outcome in beyond):
            reached = next(str(g) for g, outcome in beyond if outcome.is_ok)
            return replace(
                failure,
                cause=Cause.GATEWAY_LACKS_ROUTE,
                reason=f"{works}, and {self.name}'s gateway {reached} answers when asked directly: "
                "the local gateway does not route the name, or cannot reach that gateway",
                remedy="look at the local gateway's configuration (its agent's log, Envoy's admin "
                f"port) and at its route to {reached}",
            )
        failures = [(g, o.failure) for g, o in beyond if o.failure is not None]
        details = "; ".join(f"{g}: {f.reason}" for g, f in failures)
        listening = [g for g, f in failures if is_silent(f) and f.hop is Hop.SNI]
        if listening:
            return replace(
                failure,
                cause=Cause.REMOTE_SERVERS_UNREACHABLE,
                reason=f"{works}; {self.name}'s gateway {listening[0]} listens but has no server that "
                f"answers ({details})",
                remedy=f"are {self.name}'s servers running, and can its gateway reach their port 8300?",
            )
        return replace(
            failure,
            cause=Cause.REMOTE_GATEWAY_UNREACHABLE,
            reason=f"{works}; {self.name}'s gateways do not answer ({details})",
            remedy=f"are {self.name}'s gateways running, reachable from {gateway} at their WAN "
            "addresses, and not behind a firewall? (Asked from this server, which need not have a "
            "route to them)",
        )

    # -- verdicts --------------------------------------------------------------------------

    def _judge_server(self, member: WanServer, outcome: Outcome, through: list[Outcome]) -> Outcome:
        failure = outcome.failure
        if failure is None or not self._gateways or self._is_own:
            if failure is not None and failure.hop is Hop.DIAL:
                text = "the server does not answer: is it running, and its RPC port open?"
                changed = replace(failure, cause=Cause.SERVER_UNREACHABLE, remedy=text)
                return Outcome(changed)
            return outcome
        if not is_silent(failure):
            return outcome
        if any(o.is_ok for o in through):
            return Outcome(
                replace(
                    failure,
                    hop=Hop.SNI,
                    cause=Cause.SERVER_DOWN,
                    reason=f"{failure.reason}; other servers of {self.name} answer through a gateway",
                    remedy=f"is {member.node} running? If it is: does {self.name}'s gateway know it "
                    "(catalog), and can it reach its port 8300?",
                )
            )
        better = next((o.failure for o in through if o.failure is not None), failure)
        return Outcome(better)

    def _verdict(
        self, whole_way: Outcome, leader: str, servers: list[Outcome], through: list[Outcome]
    ) -> Failure | None:
        """Why the datacenter is not reachable; None if it is."""
        if whole_way.is_ok:
            if leader:
                return None
            return failure_of(ProconsulError("No cluster leader"))
        failure = whole_way.failure
        assert failure is not None
        if failure.cause in (Cause.ACL, Cause.NO_LEADER) or self._is_own:
            return failure
        for outcomes in (servers, through):
            explained = [o.failure for o in outcomes if o.failure is not None]
            telling = [f for f in explained if not is_silent(f)]
            if telling and len(explained) == len(outcomes):
                return telling[0]
        if self._server.locator is not None and not self._gateways:
            return failure_of(HopError(Hop.NO_GATEWAY, self.name, self._no_gateway()))
        if not self._members:
            return Failure(
                Hop.UNKNOWN_DATACENTER,
                Cause.UNKNOWN_DATACENTER,
                f"no server of {self.name} is in the WAN pool",
                "its servers have not joined yet, or were forgotten: look at `members -wan` here "
                "and at the log of its servers",
            )
        return failure

    def _no_gateway(self) -> str:
        locator = self._server.locator
        return locator.describe() if locator is not None else ""

    def _gateway_rows(self, through: Sequence[Outcome]) -> list[dict[str, Any]]:
        locator = self._server.locator
        now = asyncio.get_running_loop().time()
        rows = []
        for gateway, outcome in zip(self._gateways, through, strict=True):
            failed = locator is not None and locator.is_failed(gateway, self.name, now)
            rows.append(
                {
                    "Address": str(gateway),
                    "Source": gateway.source.value,
                    # Towards our own datacenter nobody goes by gateway, so there is none to tell of
                    "LastDial": "none" if self._is_own else "failed" if failed else "ok",
                    **outcome.as_json(),
                }
            )
        return rows


def _bind(call: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    return lambda: call(*args)


def _remote(nodes: Sequence[CheckServiceNode]) -> list[Gateway]:
    found = addresses(nodes, wan=True)
    return [Gateway(address, Source.REPLICATED) for address in found[:GATEWAYS_MAX]]
