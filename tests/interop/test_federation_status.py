"""Real Consul 1.8.7 servers seen through a gateway: reachable, without `-node` name, not ours."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import uvloop

from proconsul.drivers.tls_config import TlsConfig, TlsContexts
from proconsul.federation.gateway_connect import GatewayConnect, GatewayTraffic
from proconsul.federation.locator import Gateway
from proconsul.federation.status_causes import Cause
from proconsul.federation.status_probe import Outcome, Prober
from proconsul.rpc.dialer import Destination, Hop, HopError, Purpose
from proconsul.testing import peers
from proconsul.testing.certs import CertificateFiles, TestAuthority
from proconsul.testing.sni_gateway import SniGateway

pytestmark = pytest.mark.peer

Address = tuple[str, int]
START_S = 30.0


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [item.getsockname()[1] for item in sockets]
    for item in sockets:
        item.close()
    return ports


@contextmanager
def consul(directory: Path, files: CertificateFiles) -> Iterator[Address]:
    """A server `s1` of dc2 that federates through gateways; its RPC address."""
    binary = peers.consul()
    directory.mkdir()
    rpc, lan, wan, http = free_ports(4)
    config = {
        "server": True, "bootstrap": True, "datacenter": "dc2", "node_name": "s1",
        "data_dir": str(directory / "data"), "bind_addr": "127.0.0.1",
        "ports": {
            "server": rpc, "serf_lan": lan, "serf_wan": wan, "http": http, "dns": -1, "grpc": -1,
        },
        "primary_datacenter": "dc2",
        "ca_file": files.ca, "cert_file": files.certificate, "key_file": files.key,
        "verify_incoming": True, "verify_outgoing": True, "verify_server_hostname": True,
        "connect": {"enabled": True, "enable_mesh_gateway_wan_federation": True},
    }  # fmt: skip
    path = directory / "consul.json"
    path.write_text(json.dumps(config))
    with (directory / "log").open("wb") as output:
        process = subprocess.Popen(
            [binary, "agent", "-config-file", str(path)], stdout=output, stderr=output
        )
    try:
        yield ("127.0.0.1", rpc)
    finally:
        process.terminate()
        process.wait(20)


@asynccontextmanager
async def through_a_gateway(
    at: Address, ours: CertificateFiles
) -> AsyncIterator[tuple[Prober, Gateway]]:
    """A prober whose every call takes a gateway that routes to the server at `at`."""
    gateway = SniGateway({"server.dc2.consul": at, "s1.server.dc2.consul": at})
    tls = TlsConfig(ca_file=ours.ca, cert_file=ours.certificate, key_file=ours.key)
    connect = GatewayConnect(TlsContexts(tls), GatewayTraffic())
    async with AsyncExitStack() as stack:
        via = await stack.enter_async_context(gateway.listening())

        class Through:
            async def dial(self, to: Destination, purpose: Purpose, deadline: float) -> object:
                name = f"{to.node}.server.{to.datacenter}.consul"
                return await connect(via, name, purpose.alpn, deadline)

        deadline = asyncio.get_running_loop().time() + 60
        prober = Prober("consul", Through(), connect, deadline)  # type: ignore[arg-type]
        await listening(connect, via)
        yield prober, Gateway(via)


async def listening(connect: GatewayConnect, via: Address) -> None:
    """Until the port answers, well or badly."""
    loop = asyncio.get_running_loop()
    give_up = loop.time() + START_S
    while loop.time() < give_up:
        try:
            stream = await connect(via, "server.dc2.consul", "consul/rpc-single", loop.time() + 2)
        except HopError as error:
            if error.hop is not Hop.SNI:
                return
            await asyncio.sleep(0.1)
        else:
            stream.abort()
            return
    raise AssertionError("Consul did not start")


def look(
    tmp_path: Path, theirs: CertificateFiles, ours: CertificateFiles
) -> tuple[Outcome, Outcome]:
    """(the server by its own name, any server through the gateway)."""

    async def main() -> tuple[Outcome, Outcome]:
        async with through_a_gateway(at, ours) as (prober, gateway):
            server = await prober.server(Destination("dc2", "s1", ("192.0.2.2", 8300)))
            return server, await prober.gateway(gateway, "dc2")

    with consul(tmp_path / "consul", theirs) as at:
        return uvloop.run(main())


def test_a_good_server_answers(tmp_path: Path) -> None:
    authority = TestAuthority(tmp_path)
    server, gateway = look(tmp_path, authority.server("s1", "dc2"), authority.server("s1", "dc1"))
    assert server.is_ok
    assert gateway.is_ok
    assert server.round_trip_s is not None
    assert 0 < server.round_trip_s < 1


def test_a_certificate_without_the_nodes_name(tmp_path: Path) -> None:
    authority = TestAuthority(tmp_path)
    theirs = authority.issue("plain", ("server.dc2.consul", "localhost"))
    server, gateway = look(tmp_path, theirs, authority.server("s1", "dc1"))
    assert gateway.is_ok
    assert server.failure is not None
    assert (server.failure.hop, server.failure.cause) == (Hop.TLS, Cause.MISSING_NAME)
    assert server.failure.offered == ("server.dc2.consul", "localhost")


def test_consul_refuses_our_certificate_of_another_authority(tmp_path: Path) -> None:
    """Go sends "bad certificate" for what OpenSSL calls an unknown CA."""
    authority, other = TestAuthority(tmp_path), TestAuthority(tmp_path, "other")
    alien = other.server("s1", "dc1")
    ours = CertificateFiles(authority.ca_file, alien.certificate, alien.key)
    server, _ = look(tmp_path, authority.server("s1", "dc2"), ours)
    assert server.failure is not None
    assert server.failure.hop is Hop.TLS
    assert server.failure.cause in (Cause.OUR_CERTIFICATE_REFUSED, Cause.OUR_AUTHORITY_UNKNOWN)


def test_consul_refuses_our_expired_certificate(tmp_path: Path) -> None:
    authority = TestAuthority(tmp_path)
    ours = authority.server("s1", "dc1", expired=True)
    server, _ = look(tmp_path, authority.server("s1", "dc2"), ours)
    assert server.failure is not None
    assert server.failure.hop is Hop.TLS
    assert server.failure.cause in (Cause.OUR_CERTIFICATE_REFUSED, Cause.OUR_CERTIFICATE_EXPIRED)
