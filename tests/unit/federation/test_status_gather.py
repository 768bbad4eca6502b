"""Reports over real TLS on loopback: what fails where, told apart."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from federation_support import (
    SniGateway,
    TestServer,
    closed_port,
    contexts,
    gateway_node,
    run,
    soon,
    state,
)

from proconsul.domain.catalog import CheckServiceNode
from proconsul.domain.errors import NoPathToDatacenterError, PermissionDeniedError
from proconsul.domain.federation import FederationState
from proconsul.federation import status_probe
from proconsul.federation.dialer import FederationDialer
from proconsul.federation.gateway_connect import GatewayConnect, GatewayTraffic
from proconsul.federation.locator import GatewayLocator
from proconsul.federation.replicator import ReplicationStatus
from proconsul.federation.status import WanServer, gather
from proconsul.interfaces.cli.federation_status import render
from proconsul.rpc.connection import RpcClientStream
from proconsul.rpc.dialer import Destination, Dialer, Purpose
from proconsul.rpc.direct_dialer import DirectDialer
from proconsul.testing.certs import CertificateFiles, TestAuthority
from proconsul.util.errors import ProconsulError
from proconsul.util.metrics import Metrics

Address = tuple[str, int]


@dataclass
class Looker:
    """The server in dc1 (the primary) that looks."""

    files: CertificateFiles
    locals_: list[CheckServiceNode]
    known_states: list[FederationState]
    members: list[WanServer]
    datacenter: str = "dc1"
    primary_datacenter: str = "dc1"
    node: str = "s1"
    domain: str = "consul"
    is_leader: bool = True
    replication: ReplicationStatus | None = None
    fails_with: Exception | None = None
    has_replication_token: bool = False
    publishing_error: str = ""
    read_fails_with: Exception | None = None
    dialer: Dialer = field(init=False)

    def __post_init__(self) -> None:
        tls = contexts(self.files)
        self.connect = GatewayConnect(tls, GatewayTraffic())
        self.locator = GatewayLocator(self.datacenter, self.primary_datacenter, random.Random(1))
        self.locator.update(self.known_states, self.locals_)
        self.dialer = FederationDialer(
            self.datacenter, "consul", DirectDialer(None), self.locator, self.connect, Metrics()
        )

    def wan_servers(self) -> Sequence[WanServer]:
        return self.members

    def states(self) -> Sequence[FederationState]:
        return self.known_states

    def local_gateways(self) -> Sequence[CheckServiceNode]:
        return self.locals_

    async def read_in_primary(self, deadline: float) -> None:
        if self.read_fails_with is not None:
            raise self.read_fails_with

    async def leader_of(self, datacenter: str, deadline: float) -> str:
        if datacenter == self.datacenter:
            return "127.0.0.1:8300"
        if self.fails_with is not None:
            raise self.fails_with
        alive = [m for m in self.members if m.datacenter == datacenter]
        if not alive:
            raise NoPathToDatacenterError(datacenter)
        to = Destination(datacenter, alive[0].node, alive[0].address)
        stream = await self.dialer.dial(to, Purpose.RPC_SINGLE, deadline)
        try:
            await RpcClientStream(stream).call("Status.Leader", b"\x80")  # type: ignore[type-var]
        finally:
            stream.abort()
        return "10.0.0.1:8300"


@dataclass
class World:
    """dc1 with a gateway, dc2 with a gateway and server `s1`."""

    local: SniGateway
    remote: SniGateway
    local_at: Address
    remote_at: Address
    home_at: Address
    server_at: Address
    looker: Looker

    async def row(self, datacenter: str = "dc2") -> dict[str, Any]:
        report = await gather(self.looker, soon(8))
        assert list(render(report))
        return next(r for r in report["Datacenters"] if r["Datacenter"] == datacenter)


@asynccontextmanager
async def world(
    authority: TestAuthority,
    *,
    ours: CertificateFiles | None = None,
    theirs: CertificateFiles | None = None,
    remote_at: Address | None = None,
) -> AsyncIterator[World]:
    ours = ours or authority.server("s1", "dc1")
    theirs = theirs or authority.server("s1", "dc2")
    local, remote = SniGateway(), SniGateway()
    async with AsyncExitStack() as stack:
        server_at = await stack.enter_async_context(TestServer(contexts(theirs)).listening())
        home_files = authority.server("s1", "dc1")
        home_at = await stack.enter_async_context(
            TestServer(contexts(home_files), "dc1").listening()
        )
        listening = await stack.enter_async_context(remote.listening())
        at = remote_at or listening
        local_at = await stack.enter_async_context(local.listening())
        remote.routes = {"server.dc2.consul": server_at, "s1.server.dc2.consul": server_at}
        local.routes = {
            "server.dc1.consul": home_at,
            "server.dc2.consul": at,
            "s1.server.dc2.consul": at,
        }
        looker = Looker(
            ours,
            [gateway_node(local_at)],
            [state("dc2", gateway_node(("10.9.9.9", 1), at, datacenter="dc2"))],
            [
                WanServer("s1", "dc1", home_at, "alive"),
                WanServer("s1", "dc2", ("10.0.0.1", 8300), "alive"),
            ],
        )
        yield World(local, remote, local_at, at, home_at, server_at, looker)


@pytest.fixture
def authority(tmp_path: Path) -> TestAuthority:
    return TestAuthority(tmp_path)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_probe, "PROBE_S", 0.6)


def test_a_healthy_federation(authority: TestAuthority) -> None:
    async def main() -> None:
        async with world(authority) as w:
            row = await w.row()
            assert row["Reachable"] is True
            assert row["Leader"] == "10.0.0.1:8300"
            assert row["RoundTripMS"] > 0
            assert "Hop" not in row
            (server,) = row["Servers"]
            assert server["Reachable"] is True
            assert server["RoundTripMS"] > 0
            (gateway,) = row["Gateways"]
            assert gateway["Source"] == "catalog"
            assert gateway["Reachable"] is True
            assert gateway["LastDial"] == "ok"
            assert row["FederationState"]["UsableGateways"] == 1
            assert "RemoteGateways" not in row

    run(main)


def test_a_datacenter_whose_servers_all_left_is_none(authority: TestAuthority) -> None:
    async def main() -> None:
        async with world(authority) as w:
            gone = [
                WanServer("s1", f"dc{n}", ("192.0.2.1", 8300), s)
                for n, s in ((3, "left"), (4, "failed"))
            ]
            w.looker.members = [*w.looker.members, *gone]
            report = await gather(w.looker, soon(8))
            assert [row["Datacenter"] for row in report["Datacenters"]] == ["dc1", "dc2", "dc4"]

    run(main)


def test_local_gateway_down(authority: TestAuthority) -> None:
    async def main() -> None:
        async with world(authority) as w:
            w.looker.locator.update([], [gateway_node(closed_port())])
            row = await w.row()
            assert (row["Reachable"], row["Hop"], row["Cause"]) == (
                False,
                "dial",
                "gateway-refused",
            )
            assert row["Gateways"][0]["LastDial"] == "failed"
            assert "connection refused" in row["Reason"]
            assert "start the gateway" in row["Remedy"]

    run(main)


def test_local_gateway_up_but_without_any_route(authority: TestAuthority) -> None:
    async def main() -> None:
        async with world(authority) as w:
            w.local.routes = {}
            row = await w.row()
            assert (row["Hop"], row["Cause"]) == ("SNI", "gateway-routes-nothing")
            assert "own datacenter" in row["Reason"]

    run(main)


def test_local_gateway_does_not_route_the_name(authority: TestAuthority) -> None:
    async def main() -> None:
        async with world(authority) as w:
            del w.local.routes["server.dc2.consul"], w.local.routes["s1.server.dc2.consul"]
            row = await w.row()
            assert (row["Hop"], row["Cause"]) == ("SNI", "gateway-lacks-route")
            assert row["RemoteGateways"][0]["Reachable"] is True

    run(main)


def test_no_gateway_of_the_other_datacenter_is_known(authority: TestAuthority) -> None:
    async def main() -> None:
        async with world(authority) as w:
            del w.local.routes["server.dc2.consul"], w.local.routes["s1.server.dc2.consul"]
            w.looker.known_states = []
            row = await w.row()
            assert row["Cause"] == "gateway-lacks-route"
            assert "no healthy gateway of dc2 is known" in row["Reason"]
            assert row["FederationState"] is None

    run(main)


def test_remote_gateway_refuses(authority: TestAuthority) -> None:
    async def main() -> None:
        async with world(authority, remote_at=closed_port()) as w:
            row = await w.row()
            assert (row["Hop"], row["Cause"]) == ("SNI", "remote-gateway-unreachable")
            assert "connection refused" in row["Reason"]
            assert row["RemoteGateways"][0]["Hop"] == "dial"

    run(main)


def test_remote_gateway_swallows_everything(authority: TestAuthority) -> None:
    async def main() -> None:
        async with world(authority) as w:
            w.remote.swallow = True
            row = await w.row()
            assert (row["Hop"], row["Cause"]) == ("SNI", "remote-gateway-unreachable")
            assert "timed out" in row["Reason"]

    run(main)


def test_all_remote_servers_down(authority: TestAuthority) -> None:
    async def main() -> None:
        async with world(authority) as w:
            w.remote.routes = dict.fromkeys(w.remote.routes, closed_port())
            row = await w.row()
            assert (row["Hop"], row["Cause"]) == ("SNI", "remote-servers-unreachable")
            assert "listens" in row["Reason"]

    run(main)


def test_one_remote_server_down_leaves_the_datacenter_reachable(authority: TestAuthority) -> None:
    async def main() -> None:
        async with world(authority) as w:
            w.looker.members.append(WanServer("s2", "dc2", ("10.0.0.2", 8300), "failed"))
            w.local.routes["s2.server.dc2.consul"] = w.remote_at
            row = await w.row()
            assert row["Reachable"] is True
            assert (row["AliveServers"], row["FailedServers"]) == (1, 1)
            down = row["Servers"][1]
            assert (down["Node"], down["Status"], down["Cause"]) == ("s2", "failed", "server-down")

    run(main)


def test_certificate_without_the_nodes_name(authority: TestAuthority) -> None:
    async def main() -> None:
        theirs = authority.issue("plain", ("server.dc2.consul", "localhost"))
        async with world(authority, theirs=theirs) as w:
            row = await w.row()
            assert (row["Hop"], row["Cause"]) == ("TLS", "certificate-lacks-name")
            assert row["NeededName"] == "s1.server.dc2.consul"
            assert row["OfferedNames"] == ["server.dc2.consul", "localhost"]
            assert row["Gateways"][0]["Reachable"] is True

    run(main)


def test_certificate_of_another_authority(authority: TestAuthority, tmp_path: Path) -> None:
    async def main() -> None:
        other = TestAuthority(tmp_path, "other")
        async with world(authority, theirs=other.server("s1", "dc2")) as w:
            row = await w.row()
            assert (row["Hop"], row["Cause"]) == ("TLS", "certificate-of-unknown-authority")

    run(main)


def test_expired_certificate_of_the_peer(authority: TestAuthority) -> None:
    async def main() -> None:
        async with world(authority, theirs=authority.server("s1", "dc2", expired=True)) as w:
            row = await w.row()
            assert (row["Hop"], row["Cause"]) == ("TLS", "certificate-expired")
            assert "clock" in row["Remedy"]

    run(main)


def test_our_own_certificate_is_expired(authority: TestAuthority) -> None:
    async def main() -> None:
        async with world(authority, ours=authority.server("s1", "dc1", expired=True)) as w:
            row = await w.row()
            assert (row["Hop"], row["Cause"]) == ("TLS", "our-certificate-expired")

    run(main)


def test_our_own_certificate_is_of_an_authority_unknown_there(
    authority: TestAuthority, tmp_path: Path
) -> None:
    async def main() -> None:
        alien = TestAuthority(tmp_path, "alien").server("s1", "dc1")
        ours = CertificateFiles(authority.ca_file, alien.certificate, alien.key)
        async with world(authority, ours=ours) as w:
            row = await w.row()
            assert row["Hop"] == "TLS"
            assert row["Cause"] == "our-certificate-of-unknown-authority"

    run(main)


def test_no_gateway_at_all(authority: TestAuthority) -> None:
    async def main() -> None:
        async with world(authority) as w:
            w.looker.locator.update([], [])
            w.looker.locals_ = [gateway_node(w.local_at, status="critical", output="dead")]
            row = await w.row()
            assert (row["Hop"], row["Cause"]) == ("no gateway known", "no-gateway")
            own = await w.row("dc1")
            assert own["UnusableGateways"][0]["Reason"] == "critical check 'alive': dead"

    run(main)


def test_datacenter_without_members(authority: TestAuthority) -> None:
    async def main() -> None:
        async with world(authority) as w:
            w.looker.members = w.looker.members[:1]
            row = await w.row()
            assert (row["Hop"], row["Cause"]) == ("unknown datacenter", "unknown-datacenter")

    run(main)


def test_denied_by_acl(authority: TestAuthority) -> None:
    async def main() -> None:
        async with world(authority) as w:
            w.looker.fails_with = PermissionDeniedError()
            row = await w.row()
            assert (row["Hop"], row["Cause"]) == ("ACL", "acl")

    run(main)


@pytest.mark.parametrize(
    ("has_token", "reads", "publishes", "reason", "remedy"),
    [
        (False, "Permission denied", "", "no replication token is set", "set acl.tokens.repl"),
        (True, "Permission denied", "", 'lacks `operator = "read"`', "give it that right in dc2"),
        (True, "ACL not found", "", "dc2 does not know the replication", "correct acl.tokens.repl"),
        (True, "", "Permission denied", 'lacks `operator = "write"`', "give it that right in dc2"),
        (True, "No cluster leader", "", "", ""),
    ],
)
def test_rights_of_a_secondary_in_the_primary(
    authority: TestAuthority, has_token: bool, reads: str, publishes: str, reason: str, remedy: str
) -> None:
    async def main() -> None:
        async with world(authority) as w:
            looker = w.looker
            looker.primary_datacenter = "dc2"
            looker.has_replication_token, looker.publishing_error = has_token, publishes
            looker.read_fails_with = ProconsulError(reads) if reads else None
            row = await w.row()
            assert row["Reachable"] is not bool(reason)
            if reason:
                assert (row["Hop"], row["Cause"]) == ("ACL", "acl")
                assert reason in row["Reason"]
                assert remedy in row["Remedy"]
            looker.primary_datacenter = "dc1"
            assert (await w.row())["Reachable"] is True, "a primary needs no rights"

    run(main)


def test_replication_in_the_report(authority: TestAuthority) -> None:
    async def main() -> None:
        async with world(authority) as w:
            w.looker.replication = ReplicationStatus(
                running=True, last_success=1.0, last_error="rpc error: Permission denied", lag=2
            )
            report = await gather(w.looker, soon(8))
            found = report["Replication"]
            assert found["LastSuccess"] == "1970-01-01T00:00:01Z"
            assert found["LastFailure"] is None
            assert "replication token" in found["Remedy"]
            assert found["LagStates"] == 2
            assert report["Healthy"] is True

    run(main)


def test_everything_silent_still_ends_in_time(authority: TestAuthority) -> None:
    async def main() -> None:
        async with world(authority) as w:
            w.local.swallow = w.remote.swallow = True
            loop = asyncio.get_running_loop()
            started = loop.time()
            row = await w.row()
            assert loop.time() - started < 2.5
            assert row["Cause"] == "gateway-routes-nothing"

    run(main)
