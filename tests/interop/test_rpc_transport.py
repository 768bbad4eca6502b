"""Our RPC transport towards a real Consul 1.8.7 server: type bytes, yamux, TLS, native TLS."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import msgpack
import pytest
import uvloop

from proconsul.drivers.stream import PushStream, StreamError
from proconsul.drivers.tcp import connect
from proconsul.drivers.tls import client_handshake
from proconsul.drivers.tls_config import TlsConfig, TlsContexts
from proconsul.drivers.tls_errors import TlsClientCertificateError
from proconsul.rpc.connection import RpcClientStream
from proconsul.rpc.dialer import Destination, Dialer, Purpose
from proconsul.rpc.direct_dialer import DirectDialer
from proconsul.rpc.errors import DeadlineError, RemoteError, TransportError
from proconsul.rpc.pool import ConnectionPool
from proconsul.rpc.yamux_session import YamuxSession
from proconsul.testing.certs import CertificateFiles, TestAuthority
from proconsul.util.metrics import Metrics

ROOT = Path(__file__).resolve().parents[2]
BINARY = os.environ.get("PROCONSUL_CONSUL_BIN", str(ROOT / ".peers/root/usr/bin/consul"))

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(shutil.which(BINARY) is None, reason="no Consul: set PROCONSUL_CONSUL_BIN"),
]


@dataclass
class Peer:
    to: Destination
    authority: TestAuthority
    files: CertificateFiles


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [item.getsockname()[1] for item in sockets]
    for item in sockets:
        item.close()
    return ports


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    directory = tmp_path_factory.mktemp("consul")
    authority = TestAuthority(directory)
    files = authority.server("s1", "dc1")
    rpc, lan, wan, http = _free_ports(4)
    config = {
        "server": True, "bootstrap": True, "datacenter": "dc1", "node_name": "s1",
        "data_dir": str(directory / "data"), "bind_addr": "127.0.0.1",
        "ports": {
            "server": rpc, "serf_lan": lan, "serf_wan": wan, "http": http, "dns": -1, "grpc": -1,
        },
        "ca_file": files.ca, "cert_file": files.certificate, "key_file": files.key,
        "verify_incoming": True, "verify_outgoing": True, "verify_server_hostname": True,
        "connect": {"enabled": True, "enable_mesh_gateway_wan_federation": True},
        "performance": {"raft_multiplier": 1},
    }  # fmt: skip
    path = directory / "consul.json"
    path.write_text(json.dumps(config))
    with (directory / "log").open("wb") as output:
        process = subprocess.Popen(
            [BINARY, "agent", "-config-file", str(path)], stdout=output, stderr=output
        )
    try:
        to = Destination("dc1", "s1", ("127.0.0.1", rpc))
        asyncio.run(_leading(to, files))
        yield Peer(to, authority, files)
    finally:
        process.terminate()
        process.wait(20)


async def _leading(to: Destination, files: CertificateFiles) -> None:
    give_up = time.monotonic() + 30
    pool = ConnectionPool(DirectDialer(_contexts(files)), Metrics())
    leader = b""
    while len(leader) < 5:
        assert time.monotonic() < give_up, "Consul did not come up"
        try:
            deadline = asyncio.get_running_loop().time() + 1
            leader = await pool.rpc(to, "Status.Leader", b"\x80", deadline)
        except Exception:  # noqa: BLE001 - not listening yet, whatever way that shows
            leader = b""
        await asyncio.sleep(0.1)
    await pool.aclose()


def _contexts(files: CertificateFiles) -> TlsContexts:
    return TlsContexts(
        TlsConfig(
            ca_file=files.ca,
            cert_file=files.certificate,
            key_file=files.key,
            verify_outgoing=True,
            verify_server_hostname=True,
        )
    )


class NativeDialer:
    """As a mesh gateway would pass it on: native TLS, SNI and ALPN."""

    def __init__(self, tls: TlsContexts) -> None:
        self._tls = tls

    async def dial(self, to: Destination, purpose: Purpose, deadline: float) -> PushStream:
        name = f"{to.node}.server.{to.datacenter}.consul"
        return await client_handshake(
            await connect(to.address, deadline),
            self._tls.client(alpn=purpose.alpn),
            deadline=deadline,
            server_name=name,
            needed_name=name,
            alpn=purpose.alpn,
        )


def _pack(value: object) -> bytes:
    return bytes(msgpack.packb(value, use_bin_type=False))


def _soon(seconds: float = 10.0) -> float:
    return asyncio.get_running_loop().time() + seconds


@pytest.fixture(params=["wrapped", "native"])
def dialer(request: pytest.FixtureRequest, peer: Peer) -> Dialer:
    if request.param == "wrapped":
        return DirectDialer(_contexts(peer.files))
    return NativeDialer(_contexts(peer.authority.server("s9", "dc2")))


def test_calls(peer: Peer, dialer: Dialer) -> None:
    async def main() -> None:
        async with aclosing(ConnectionPool(dialer, Metrics())) as pool:
            await calls(pool)

    async def calls(pool: ConnectionPool) -> None:
        to = peer.to
        assert await pool.ping(to, _soon())
        expected = _pack(f"127.0.0.1:{to.address[1]}")
        assert await pool.rpc(to, "Status.Leader", b"\x80", _soon()) == expected
        assert await pool.rpc_single(to, "Status.Leader", b"\x80", _soon()) == expected
        with pytest.raises(RemoteError, match=r"^rpc: can't find service No\.Such$"):
            await pool.rpc(to, "No.Such", b"\x80", _soon())
        value = os.urandom(400_000)  # more than one window
        entry = {"Key": "k", "Value": value}
        apply = {"Datacenter": "dc1", "Op": "set", "DirEnt": entry}
        await pool.rpc(to, "KVS.Apply", _pack(apply), _soon())
        got = await pool.rpc(to, "KVS.Get", _pack({"Datacenter": "dc1", "Key": "k"}), _soon())
        assert value in got
        waiting = {"Datacenter": "dc1", "Key": "k", "MinQueryIndex": 1 << 40}
        with pytest.raises(DeadlineError):
            await pool.rpc(to, "KVS.Get", _pack(waiting), _soon(0.2))
        for _ in range(300):
            await pool.rpc(to, "Status.Ping", b"\x80", _soon())
        async with asyncio.TaskGroup() as group:
            for _ in range(400):  # more than yamux's backlog
                group.create_task(pool.rpc(to, "Status.Ping", b"\x80", _soon()))
        assert len(pool) == 1

    uvloop.run(main())


def test_an_unknown_method_ends_its_stream(peer: Peer, dialer: Dialer) -> None:
    """Not so on our servers (docs/divergence.md)."""

    async def main() -> None:
        stream = await dialer.dial(peer.to, Purpose.RPC_MULTI, _soon())
        async with aclosing(YamuxSession(stream, client=True)) as session:
            calls = RpcClientStream(await session.open_stream())
            assert await calls.call("Status.Leader", b"\x80")
            with pytest.raises(RemoteError, match="can't find service"):
                await calls.call("No.Such", b"\x80")
            with pytest.raises(TransportError):
                await calls.call("Status.Leader", b"\x80")

    uvloop.run(main())


async def _rest(stream: PushStream) -> bytes:
    data = bytearray()
    while chunk := await stream.read():
        data += chunk
    await stream.aclose()
    return bytes(data)


def test_snapshot_save(peer: Peer, dialer: Dialer) -> None:
    async def main() -> None:
        stream = await dialer.dial(peer.to, Purpose.RPC_SNAPSHOT, _soon())
        await stream.write(_pack({"Datacenter": "dc1", "Op": 0, "AllowStale": True}))
        # No half-close here: Consul would not read it, and closing with something unread makes
        # its kernel drop the end of a long answer.
        assert b"\x1f\x8b" in await _rest(stream)  # the gzip archive

    uvloop.run(main())


def test_snapshot_restore_needs_a_half_closed_stream(peer: Peer, dialer: Dialer) -> None:
    async def restore() -> bytes:
        stream = await dialer.dial(peer.to, Purpose.RPC_SNAPSHOT, _soon())
        await stream.write(_pack({"Datacenter": "dc1", "Op": 1}) + b"no archive")
        await stream.write_eof()
        return await _rest(stream)

    async def main() -> None:
        answer = b""
        for _ in range(5):
            try:
                answer = await restore()
                break
            except StreamError:
                # Consul closes without reading our close_notify; if that came late, its kernel
                # resets the connection and drops the answer with it.
                continue
        assert b"failed to decompress snapshot" in answer

    uvloop.run(main())


def test_refusals(peer: Peer) -> None:
    async def main() -> None:
        async with aclosing(ConnectionPool(DirectDialer(), Metrics())) as plain:
            with pytest.raises(TransportError):
                await plain.rpc(peer.to, "Status.Ping", b"\x80", _soon())

        async def without_certificate() -> None:
            bare = NativeDialer(TlsContexts(TlsConfig(ca_file=peer.authority.ca_file)))
            stream = await bare.dial(peer.to, Purpose.RPC_MULTI, _soon())
            try:
                await stream.read()
            finally:
                await stream.aclose()

        with pytest.raises(TlsClientCertificateError):
            await without_certificate()

    uvloop.run(main())
