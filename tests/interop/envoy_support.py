"""Real Envoys, a control plane with snapshots set by hand, and TLS servers behind them."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from proconsul.interfaces.cli.envoy_bootstrap import AgentAddress, Bootstrap, envoy_argv, find_envoy
from proconsul.interfaces.xds.server import XdsConfig, XdsServer
from proconsul.mesh.snapshot import MeshGatewaySnapshot
from proconsul.util.errors import ProconsulError


def envoy_binary() -> str:
    try:
        return find_envoy(os.environ.get("PROCONSUL_ENVOY_BIN", ""))
    except ProconsulError as error:
        pytest.skip(str(error))


class HandSource:
    """A snapshot source whose snapshots a test sets."""

    def __init__(self) -> None:
        self._snapshots: dict[str, MeshGatewaySnapshot] = {}
        self._changed = asyncio.Event()
        self.tokens: list[str] = []

    def set(self, snapshot: MeshGatewaySnapshot) -> None:
        self._snapshots[snapshot.proxy_id] = snapshot
        self._changed.set()
        self._changed = asyncio.Event()

    async def watch(self, proxy_id: str, token: str) -> AsyncIterator[MeshGatewaySnapshot]:
        self.tokens.append(token)
        seen = None
        while True:
            changed = self._changed
            snapshot = self._snapshots.get(proxy_id)
            if snapshot is not None and snapshot is not seen:
                seen = snapshot
                yield snapshot
            else:
                await changed.wait()


async def control_plane(source: HandSource, port: int = 0) -> XdsServer:
    server = XdsServer(XdsConfig(binds=(f"127.0.0.1:{port}",), stop_grace_s=0.05), source)
    await server.start()
    return server


@dataclass
class EnvoyProcess:
    """One Envoy for one proxy id."""

    process: subprocess.Popen[bytes]
    log: Path
    admin: tuple[str, int]

    def resident_kib(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0])

    async def admin_get(self, path: str) -> str:
        reader, writer = await asyncio.open_connection(*self.admin)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        return answer.decode(errors="replace")


@contextlib.asynccontextmanager
async def running_envoy(proxy_id: str, xds_port: int, folder: Path) -> AsyncIterator[EnvoyProcess]:
    admin = ("127.0.0.1", free_port("127.0.0.1"))
    bootstrap = Bootstrap(
        proxy_id, "mesh-gateway", AgentAddress("127.0.0.1", xds_port), admin, token="a-token"
    )
    config = folder / f"{proxy_id}.json"
    config.write_bytes(bootstrap.as_json())
    log = folder / f"{proxy_id}.log"
    argv = envoy_argv(envoy_binary(), str(config), ["--concurrency", "1", "-l", "warning"])
    with log.open("wb") as output:
        process = subprocess.Popen(argv, stdout=output, stderr=output)  # noqa: ASYNC220 - at once
    try:
        yield EnvoyProcess(process, log, admin)
    finally:
        process.kill()
        process.wait()


def free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


async def eventually(check: Callable[[], bool], what: str, timeout_s: float = 10.0) -> None:
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not check():
        assert asyncio.get_running_loop().time() < deadline, f"not within {timeout_s} s: {what}"
        await asyncio.sleep(0.01)


@dataclass
class TlsEcho:
    """A TLS server that answers every line with its name and the line."""

    name: str
    server_context: ssl.SSLContext
    client_context: ssl.SSLContext
    port: int = 0
    _server: asyncio.Server | None = None
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def start(self, host: str, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._serve, host, port, ssl=self.server_context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while line := await reader.readline():
                writer.write(self.name.encode() + b":" + line)
        writer.close()

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)


def tls_echo(name: str, names: list[str], folder: Path) -> TlsEcho:
    """A server with a self-signed certificate for `names`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), False)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / f"{name}.pem", folder / f"{name}-key.pem"
    cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert_file, key_file)
    client = ssl.create_default_context(cafile=str(cert_file))
    return TlsEcho(name, server, client)


@dataclass
class Client:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, text: str) -> str:
        self.writer.write(text.encode() + b"\n")
        async with asyncio.timeout(5):
            return (await self.reader.readline()).decode().strip()

    async def close(self) -> None:
        self.writer.transport.abort()
        with contextlib.suppress(OSError, ssl.SSLError):
            await self.writer.wait_closed()


async def connect(
    gateway: tuple[str, int], context: ssl.SSLContext, name: str, timeout_s: float = 10.0
) -> Client:
    async with asyncio.timeout(timeout_s):
        return Client(*await asyncio.open_connection(*gateway, ssl=context, server_hostname=name))


async def connect_when_ready(
    gateway: tuple[str, int], context: ssl.SSLContext, name: str, timeout_s: float = 10.0
) -> Client:
    deadline = asyncio.get_running_loop().time() + timeout_s
    while True:
        try:
            return await connect(gateway, context, name)
        except (OSError, ssl.SSLError, EOFError):
            assert asyncio.get_running_loop().time() < deadline, f"{name} not reachable"
            await asyncio.sleep(0.02)
