"""Two real Envoys as mesh gateways of two datacenters, driven by the control plane.

Everything on loopback: dc1 is 127.0.21.0/24, dc2 127.0.22.0/24.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvloop
from envoy_support import (
    Client,
    EnvoyProcess,
    HandSource,
    TlsEcho,
    connect,
    connect_when_ready,
    control_plane,
    envoy_binary,
    eventually,
    free_port,
    running_envoy,
    tls_echo,
)

from proconsul.interfaces.xds import server as xds_server
from proconsul.interfaces.xds.server import XdsServer
from proconsul.mesh.gateway import mesh_gateway_resources
from proconsul.mesh.resources import ResourceSet
from proconsul.mesh.snapshot import (
    Bind,
    Endpoint,
    LocalService,
    MeshGatewaySnapshot,
    RemoteDatacenter,
    Server,
)

pytestmark = pytest.mark.peer
TRUST = "11111111-2222-3333-4444-555555555555.consul"


@dataclasses.dataclass
class World:
    source: HandSource
    plane: XdsServer
    gateways: dict[str, tuple[str, int]]
    envoys: dict[str, EnvoyProcess]
    server: TlsEcho
    """The only server, of dc2. Also answers as service `web` of dc2."""

    def remote(self, *endpoints: Endpoint) -> RemoteDatacenter:
        own = endpoints or (Endpoint(*self.gateways["dc2"]),)
        return RemoteDatacenter("dc2", own, own)

    def dc1(self, **changes: object) -> MeshGatewaySnapshot:
        base = MeshGatewaySnapshot(
            proxy_id="gw-dc1",
            datacenter="dc1",
            domain="consul",
            trust_domain=TRUST,
            binds=(Bind("default", *self.gateways["dc1"]),),
            datacenters=(self.remote(),),
            wan_federation=True,
        )
        return dataclasses.replace(base, **changes)  # type: ignore[arg-type]

    def dc2(self) -> MeshGatewaySnapshot:
        backend = Endpoint("127.0.22.2", self.server.port)
        return MeshGatewaySnapshot(
            proxy_id="gw-dc2",
            datacenter="dc2",
            domain="consul",
            trust_domain=TRUST,
            binds=(Bind("default", *self.gateways["dc2"]),),
            servers=(Server("Alpha", backend),),
            services=(LocalService("web", (backend,)),),
            wan_federation=True,
        )

    async def dial(self, name: str) -> Client:
        return await connect_when_ready(self.gateways["dc1"], self.server.client_context, name)


@contextlib.asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    envoy_binary()
    names = ["server.dc2.consul", "alpha.server.dc2.consul", f"web.default.dc2.internal.{TRUST}"]
    server = tls_echo("alpha", names, folder)
    await server.start("127.0.22.2")
    source = HandSource()
    plane = await control_plane(source)
    gateways = {
        "dc1": ("127.0.21.1", free_port("127.0.21.1")),
        "dc2": ("127.0.22.1", free_port("127.0.22.1")),
    }
    port = plane.ports[0]
    async with contextlib.AsyncExitStack() as stack:
        envoys = {
            dc: await stack.enter_async_context(running_envoy(f"gw-{dc}", port, folder))
            for dc in gateways
        }
        built = World(source, plane, gateways, envoys, server)
        try:
            yield built
        finally:
            await built.plane.stop()
            await server.stop()


async def listed(envoy: EnvoyProcess, name: str, wanted: bool) -> None:
    """Wait until Envoy has (or no longer has) what `name` is part of, as listener and cluster."""
    async with asyncio.timeout(10):
        for path in ("/config_dump?resource=dynamic_listeners", "/clusters"):
            while (name in await envoy.admin_get(path)) is not wanted:  # noqa: ASYNC110
                await asyncio.sleep(0.002)


async def stats_of(envoy: EnvoyProcess, prefix: str) -> dict[str, int]:
    lines = (await envoy.admin_get(f"/stats?filter=^{prefix}")).splitlines()
    found = (line.removeprefix(f"{prefix}.").split(": ") for line in lines if prefix in line)
    return {name: int(value) for name, value in found if value.isdigit()}


def test_traffic_by_every_name_and_refusal_of_others(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as w:
            started = time.perf_counter()
            w.source.set(w.dc1())
            w.source.set(w.dc2())
            for name in (
                "server.dc2.consul",
                "alpha.server.dc2.consul",
                "ALPHA.server.dc2.consul",
                f"web.default.dc2.internal.{TRUST}",
            ):
                client = await w.dial(name)
                assert await client.ask("hello") == "alpha:hello"
                await client.close()
            print(f"two gateways up after {time.perf_counter() - started:.2f} s")
            print(f"Envoy resident: {w.envoys['dc1'].resident_kib() / 1024:.0f} MiB")
            # Names of clusters that exist, but are nobody's to name; and a name of nothing.
            for name in ("dc2.internal." + TRUST, "local_agent", "example.com"):
                with pytest.raises((OSError, ssl.SSLError)):
                    await connect(w.gateways["dc1"], w.server.client_context, name)
            assert set(w.source.tokens) == {"a-token"}

    uvloop.run(scenario())


def test_flowing_connection_survives_changes_and_restart_of_the_control_plane(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as w:
            w.source.set(w.dc1())
            w.source.set(w.dc2())
            client = await w.dial("server.dc2.consul")

            # Another datacenter appears, reached through dc2's gateway: its names get their chain.
            more = RemoteDatacenter("dc3", w.remote().gateways, w.remote().gateways)
            pushed = time.perf_counter()
            w.source.set(w.dc1(datacenters=(w.remote(), more)))
            envoy = w.envoys["dc1"]
            await listed(envoy, "server.dc3.consul", True)
            print(f"new datacenter in Envoy after {(time.perf_counter() - pushed) * 1000:.0f} ms")
            assert await client.ask("1") == "alpha:1"

            # dc2 gets a second gateway, in front of the first: endpoints alone change.
            second = Endpoint("127.0.22.9", w.gateways["dc2"][1])
            pushes = w.plane.pushes
            w.source.set(w.dc1(datacenters=(w.remote(*w.remote().gateways, second), more)))
            await eventually(lambda: w.plane.pushes > pushes, "endpoints pushed")
            assert await client.ask("2") == "alpha:2"

            # A mere reordering is no change.
            pushes = w.plane.pushes
            w.source.set(w.dc1(datacenters=(more, w.remote(second, *w.remote().gateways))))
            await asyncio.sleep(0.1)
            assert w.plane.pushes == pushes

            # dc3 goes: chain first, then its clusters.
            w.source.set(w.dc1())
            await listed(envoy, "server.dc3.consul", False)
            assert await client.ask("3") == "alpha:3"

            # The agent restarts: Envoys come back with what they have and need nothing.
            port = w.plane.ports[0]
            await w.plane.stop()
            assert await client.ask("4") == "alpha:4"
            w.plane = await control_plane(w.source, port)
            await eventually(lambda: w.plane.streams == 2, "both Envoys are back")
            await asyncio.sleep(0.2)
            assert w.plane.pushes == 0
            assert await client.ask("5") == "alpha:5"
            w.source.set(w.dc1(datacenters=(w.remote(), more)))
            await eventually(lambda: w.plane.pushes >= 3, "pushes after the restart")
            assert await client.ask("6") == "alpha:6"
            stats = await stats_of(envoy, "listener_manager")
            assert stats["listener_in_place_updated"] == stats["listener_modified"] == 3
            assert stats["lds.update_rejected"] == stats["total_listeners_draining"] == 0
            await client.close()

    uvloop.run(scenario())


def test_refused_configuration_is_logged_once_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = {"now": False}

    def resources(snapshot: MeshGatewaySnapshot) -> ResourceSet:
        good = mesh_gateway_resources(snapshot)
        if not broken["now"] or snapshot.datacenter != "dc1":
            return good
        listeners = {
            name: dataclasses.replace(resource, version="broken", body=resource.body[:-4])
            for name, resource in good.listeners.items()
        }
        return dataclasses.replace(good, listeners=listeners)

    monkeypatch.setattr(xds_server, "mesh_gateway_resources", resources)

    async def scenario() -> None:
        async with world(tmp_path) as w:
            w.source.set(w.dc1())
            w.source.set(w.dc2())
            client = await w.dial("server.dc2.consul")
            broken["now"] = True
            with caplog.at_level(logging.WARNING, "proconsul.envoy"):
                w.source.set(w.dc1(services=()))
                await eventually(lambda: w.plane.refusals == 1, "the NACK")
                w.source.set(w.dc1(services=()))
                await asyncio.sleep(0.2)
            assert w.plane.refusals == 1
            assert sum("refused" in record.message for record in caplog.records) == 1
            assert await client.ask("still") == "alpha:still"
            again = await w.dial("server.dc2.consul")
            assert await again.ask("here") == "alpha:here"
            broken["now"] = False
            w.source.set(w.dc1(services=(LocalService("x", (Endpoint("127.0.21.9", 1),)),)))
            envoy = w.envoys["dc1"]
            await listed(envoy, "x.default.dc1", True)
            await client.close()
            await again.close()

    uvloop.run(scenario())


def test_heals_with_two_dead_gateways_of_three(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as w:
            # One gateway refuses; one blackholes: its backlog is full, so it drops every SYN.
            with socket.socket() as hole, contextlib.ExitStack() as fillers:
                hole.bind(("127.0.22.7", 0))
                hole.listen(0)
                for _ in range(4):
                    filler = fillers.enter_context(socket.socket())
                    filler.setblocking(False)
                    filler.connect_ex(hole.getsockname())
                dead = Endpoint("127.0.22.8", free_port("127.0.22.8"))
                silent = Endpoint(*hole.getsockname())
                w.source.set(w.dc2())
                alive = w.remote().gateways[0]
                w.source.set(w.dc1(datacenters=(w.remote(alive, dead, silent),)))
                worst = 0.0
                for number in range(6):
                    started = time.perf_counter()
                    client = await w.dial("server.dc2.consul")
                    assert await client.ask(str(number)) == f"alpha:{number}"
                    await client.close()
                    worst = max(worst, time.perf_counter() - started)
                print(f"slowest of 6 connections: {worst:.2f} s")
                assert worst < 8

    uvloop.run(scenario())


def test_only_gateway_back_from_the_dead_is_used_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as w:
            w.source.set(w.dc2())
            port = free_port("127.0.22.5")
            # dc1's view: the only gateway of dc2 is a server that is down, reported critical.
            w.source.set(
                w.dc1(datacenters=(w.remote(Endpoint("127.0.22.5", port, healthy=False)),))
            )
            context = w.server.client_context
            for _ in range(3):
                with pytest.raises((OSError, ssl.SSLError, TimeoutError)):
                    await connect(w.gateways["dc1"], context, "server.dc2.consul", 1)
            revived = TlsEcho("revived", w.server.server_context, context)
            await revived.start("127.0.22.5", port)
            started = time.perf_counter()
            client = await w.dial("server.dc2.consul")
            assert await client.ask("hi") == "revived:hi"
            assert time.perf_counter() - started < 2
            await client.close()
            await revived.stop()

    uvloop.run(scenario())
