"""Asking a gRPC service for its health (`grpc.health.v1`), for checks (`agent/checks/grpc.go`).

Here because only this package may import grpc; the agent is given `probe` and loads it with its first
gRPC check.
"""

from __future__ import annotations

import asyncio
import functools
import ssl

import grpc

from proconsul.drivers.probes import ProbeError

_METHOD = "/grpc.health.v1.Health/Check"
_UNHEALTHY = "gRPC application didn't report service healthy"
_SERVING = b"\x08\x01"
"""`HealthCheckResponse{status: SERVING}`; the other statuses are other numbers, unknown is empty."""
_SERVICE_BYTES_MAX = 127
"""Longer names would need longer lengths; no service has one."""


async def probe(target: str, timeout_s: float, use_tls: bool, skip_verify: bool) -> None:
    """Ask `host:port[/service]` once. Raises `ProbeError` unless it says that it serves."""
    address, _, service = target.partition("/")
    name = service.encode("utf-8", "surrogateescape")
    if len(name) > _SERVICE_BYTES_MAX:
        raise ProbeError(f"the service's name is longer than {_SERVICE_BYTES_MAX} bytes: {service}")
    request = b"\x0a" + bytes((len(name),)) + name if name else b""
    try:
        async with asyncio.timeout(timeout_s):
            channel = await _channel(address, use_tls, skip_verify)
            async with channel:
                check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_METHOD)
                answer: bytes = await check(request, timeout=timeout_s)
    except TimeoutError:
        raise ProbeError(
            "rpc error: code = DeadlineExceeded desc = context deadline exceeded"
        ) from None
    except grpc.aio.AioRpcError as error:
        code = "".join(word.capitalize() for word in error.code().name.split("_"))
        raise ProbeError(f"rpc error: code = {code} desc = {error.details()}") from error
    except OSError as error:
        raise ProbeError(f"rpc error: code = Unavailable desc = {error}") from error
    if not answer.startswith(_SERVING):
        raise ProbeError(_UNHEALTHY)


async def _channel(address: str, use_tls: bool, skip_verify: bool) -> grpc.aio.Channel:
    if not use_tls:
        return grpc.aio.insecure_channel(address)
    roots, options = None, []
    if skip_verify:
        # grpc always verifies: against the very certificate that the server shows, then.
        host, _, port = address.rpartition(":")
        shown = functools.partial(ssl.get_server_certificate, (host.strip("[]"), int(port)))
        roots = (await asyncio.to_thread(shown)).encode()
        options = [("grpc.ssl_target_name_override", _name_of(roots))]
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(roots), options)


def _name_of(certificate: bytes) -> str:
    """A name that the certificate is for."""
    from cryptography import x509

    parsed = x509.load_pem_x509_certificate(certificate)
    try:
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return "localhost"
    dns = names.get_values_for_type(x509.DNSName)
    return dns[0].replace("*", "x", 1) if dns else "localhost"
