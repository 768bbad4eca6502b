"""Snapshots of another datacenter: native TLS through a gateway, half-closed, either program there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvloop
from agent_support import OURS, THEIRS, Agents, needs_consul, ready

from proconsul.domain.snapshot import SnapshotOp, SnapshotRequest
from proconsul.drivers.stream import Stream
from proconsul.drivers.tls_config import TlsConfig, TlsContexts
from proconsul.federation.gateway_connect import GatewayConnect, GatewayTraffic
from proconsul.rpc.dialer import Destination, Purpose
from proconsul.rpc.snapshot_stream import SnapshotFailed, call, nothing
from proconsul.testing.certs import TestAuthority
from proconsul.testing.sni_gateway import SniGateway

pytestmark = needs_consul

THERE = Destination("dc2", "s1", ("192.0.2.2", 8300))


class _Through:
    """Every stream takes the gateway at `via`."""

    def __init__(self, connect: GatewayConnect, via: tuple[str, int]) -> None:
        self._connect, self._via = connect, via

    async def dial(self, to: Destination, purpose: Purpose, deadline: float) -> Stream:
        name = f"{to.node}.server.{to.datacenter}.consul"
        return await self._connect(self._via, name, purpose.alpn, deadline)


async def _bytes(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 1000):
        yield data[at : at + 1000]


@pytest.mark.parametrize("command", [OURS, THEIRS], ids=["ours", "theirs"])
def test_saved_and_restored_from_afar(command: tuple[str, ...], tmp_path: Path) -> None:
    authority = TestAuthority(tmp_path)
    files, mine = authority.server("s1", "dc2"), authority.server("s1", "dc1")
    agents = Agents(tmp_path)

    async def main(address: str) -> None:
        tls = TlsConfig(ca_file=mine.ca, cert_file=mine.certificate, key_file=mine.key)
        connect = GatewayConnect(TlsContexts(tls), GatewayTraffic())
        gateway = SniGateway({"s1.server.dc2.consul": (address, 8300)})
        async with asyncio.timeout(60), gateway.listening() as via:
            dialer, deadline = _Through(connect, via), asyncio.get_running_loop().time() + 30
            save = SnapshotRequest("dc2", op=SnapshotOp.SAVE)
            response, answer = await call(dialer, THERE, save, nothing(), deadline)
            archive = b"".join([part async for part in answer])
            assert response.index > 1
            assert archive[:2] == b"\x1f\x8b"
            await asyncio.to_thread(server.put, "/v1/kv/goes", "1")
            restore = SnapshotRequest("dc2", op=SnapshotOp.RESTORE)
            with pytest.raises(SnapshotFailed, match="unexpected EOF"):
                await call(dialer, THERE, restore, _bytes(archive[:-8]), deadline)
            _, rest = await call(dialer, THERE, restore, _bytes(archive), deadline)
            assert [part async for part in rest] == []

    try:
        server = agents.server(
            command,
            "s1",
            datacenter="dc2",
            primary_datacenter="dc2",
            ca_file=files.ca,
            cert_file=files.certificate,
            key_file=files.key,
            verify_incoming_rpc=True,
            verify_outgoing=True,
            verify_server_hostname=True,
            connect={"enabled": True, "enable_mesh_gateway_wan_federation": True},
        )
        ready(server, 40)
        server.put("/v1/kv/kept", "1")
        uvloop.run(main(server.address))
        assert server.ask("GET", "/v1/kv/kept")[0] == 200
        assert server.ask("GET", "/v1/kv/goes")[0] == 404
    finally:
        agents.close()
