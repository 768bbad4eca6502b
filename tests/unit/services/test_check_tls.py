"""HTTP checks over TLS, with the system's authorities or the agent's own certificates."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from proconsul.domain.catalog import CRITICAL, PASSING
from proconsul.drivers.tls_config import TlsConfig, TlsContexts
from proconsul.services.agent.check_probes import AgentTls, CheckSpec, Probes
from proconsul.testing.certs import CertificateFiles, TestAuthority


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
    await writer.drain()
    writer.close()


def probe(site: CertificateFiles, tls: AgentTls | None, *, skip: bool = False) -> tuple[str, str]:
    """One look at a site that demands a client certificate of its CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(site.certificate, site.key)
    context.load_verify_locations(site.ca)
    context.verify_mode = ssl.CERT_REQUIRED if tls else ssl.CERT_NONE

    async def run() -> tuple[str, str]:
        async with await asyncio.start_server(_answer, "127.0.0.1", 0, ssl=context) as server:
            port = server.sockets[0].getsockname()[1]
            url = f"https://127.0.0.1:{port}/"
            spec = CheckSpec("c", http=url, interval_s=1, tls_skip_verify=skip, timeout_s=5)
            return await Probes(tls).probe(spec)

    return asyncio.run(run())


def agent_tls(files: CertificateFiles, server_name: str) -> AgentTls:
    contexts = TlsContexts(
        TlsConfig(ca_file=files.ca, cert_file=files.certificate, key_file=files.key)
    )

    def context(verify: bool) -> ssl.SSLContext:
        found = contexts.client(verify=verify)
        found.check_hostname = verify
        return found

    return AgentTls(context, server_name)


def test_the_systems_authorities_unless_verification_is_skipped(tmp_path: Path) -> None:
    site = TestAuthority(tmp_path).issue("site", ["site"])
    status, output = probe(site, None)
    assert status == CRITICAL
    assert "certificate verify failed" in output
    status, output = probe(site, None, skip=True)
    assert (status, output.endswith("200 OK Output: hi")) == (PASSING, True)


@pytest.mark.parametrize(
    ("name", "skip", "status"),
    [("node1", False, PASSING), ("node2", False, CRITICAL), ("node2", True, PASSING)],
)
def test_the_agents_own_certificates(tmp_path: Path, name: str, skip: bool, status: str) -> None:
    site = TestAuthority(tmp_path).issue("site", ["node1"])
    assert probe(site, agent_tls(site, name), skip=skip)[0] == status
