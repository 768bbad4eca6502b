"""gRPC checks over TLS: whom they trust."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from proconsul.drivers.probes import ProbeError
from proconsul.interfaces.xds.health_probe import probe
from proconsul.testing.certs import TestAuthority

SERVING = b"\x08\x01"


async def _serving(_request: bytes, _context: object) -> bytes:
    return SERVING


def test_the_systems_authorities_alone_unless_verification_is_skipped(tmp_path: Path) -> None:
    """`probe` is not given the agent's own: a site of its CA is unknown to it."""
    site = TestAuthority(tmp_path).issue("site", ["site.example"])
    pair = Path(site.key).read_bytes(), Path(site.certificate).read_bytes()

    async def run() -> None:
        handler = grpc.method_handlers_generic_handler(
            "grpc.health.v1.Health", {"Check": grpc.unary_unary_rpc_method_handler(_serving)}
        )
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((handler,))
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
        await server.start()
        try:
            with pytest.raises(ProbeError, match=r"Unavailable|DeadlineExceeded"):
                await probe(f"127.0.0.1:{port}", 2.0, use_tls=True, skip_verify=False)
            await probe(f"127.0.0.1:{port}", 5.0, use_tls=True, skip_verify=True)
        finally:
            await server.stop(None)

    asyncio.run(run())
