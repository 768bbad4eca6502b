"""One look at what a check checks: the statuses and texts of Consul's `agent/checks`."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from proconsul.domain.catalog import CRITICAL, PASSING, WARNING
from proconsul.drivers.check_scripts import ScriptResult, run_script
from proconsul.drivers.docker_exec import DEFAULT_HOST, parse_host, run_in_container
from proconsul.drivers.probes import ProbeError, http_probe, tcp_probe
from proconsul.util.goduration import format_duration

TIMEOUT_S = 10.0
SCRIPT_TIMEOUT_S = 30.0
HTTP_TOO_MANY_REQUESTS = 429

GrpcProbe = Callable[[str, float, bool, bool], Awaitable[None]]
"""(target `host:port[/service]`, timeout in seconds, whether to speak TLS, and without verification)
-> nothing if the service serves. Raises `ProbeError`."""


@dataclass(frozen=True, slots=True)
class CheckSpec:
    """How a check runs: exactly one kind is described. Seconds."""

    check_id: str
    ttl_s: float = 0.0
    http: str = ""
    tcp: str = ""
    grpc: str = ""
    grpc_use_tls: bool = False
    script_args: tuple[str, ...] = ()
    docker_container_id: str = ""
    alias_node: str = ""
    alias_service: str = ""
    token: str = field(default="", repr=False)
    """Of the check; what an alias of another node's service is asked with."""
    method: str = ""
    body: str = ""
    headers: dict[str, list[str]] | None = None
    tls_skip_verify: bool = False
    interval_s: float = 0.0
    timeout_s: float = 0.0
    output_max: int = 4096
    success_before_passing: int = 0
    failures_before_critical: int = 0
    deregister_after_s: float = 0.0
    """Deregister the service once it was critical for this long; 0: never."""

    @property
    def is_alias(self) -> bool:
        return bool(self.alias_node or self.alias_service)


class AgentTls:
    """TLS of probes, if the agent's own is to be used (`enable_agent_tls_for_checks`)."""

    def __init__(self, context: Callable[[bool], ssl.SSLContext], server_name: str) -> None:
        """`context(verify)`: for dialling; `server_name` is what certificates must be for."""
        self.context, self.server_name = context, server_name


class Probes:
    """`await probe(spec)`: (status, output)."""

    def __init__(self, tls: AgentTls | None = None, grpc: GrpcProbe | None = None) -> None:
        self._tls, self._grpc = tls, grpc

    async def probe(self, spec: CheckSpec) -> tuple[str, str]:
        """Look once. Never raises but for cancellation."""
        try:
            if spec.script_args:
                return await self._script(spec)
            if spec.tcp:
                return await self._tcp(spec)
            if spec.grpc:
                return await self._ask_grpc(spec)
            return await self._http(spec)
        except (ProbeError, ValueError, OverflowError) as error:  # a port above 65535
            return CRITICAL, str(error)

    async def _tcp(self, spec: CheckSpec) -> tuple[str, str]:
        host, _, port = spec.tcp.rpartition(":")
        await tcp_probe(host.strip("[]"), int(port), spec.timeout_s or TIMEOUT_S)
        return PASSING, f"TCP connect {spec.tcp}: Success"

    async def _http(self, spec: CheckSpec) -> tuple[str, str]:
        method = spec.method or "GET"
        tls = self._tls
        answer = await http_probe(
            spec.http,
            method=method,
            headers=spec.headers,
            body=spec.body,
            tls_skip_verify=spec.tls_skip_verify,
            context=tls.context(not spec.tls_skip_verify) if tls else None,
            server_name=tls.server_name if tls else "",
            timeout_s=spec.timeout_s or TIMEOUT_S,
            output_max=spec.output_max,
        )
        text = bytes(answer.body).decode("utf-8", "replace")
        output = f"HTTP {method} {spec.http}: {answer.status} {answer.reason} Output: {text}"
        if 200 <= answer.status <= 299:
            return PASSING, output
        return (WARNING if answer.status == HTTP_TOO_MANY_REQUESTS else CRITICAL), output

    async def _ask_grpc(self, spec: CheckSpec) -> tuple[str, str]:
        if self._grpc is None:
            raise ProbeError("gRPC checks need grpcio, which this agent was built without")
        await self._grpc(
            spec.grpc, spec.timeout_s or TIMEOUT_S, spec.grpc_use_tls, spec.tls_skip_verify
        )
        return PASSING, f"gRPC check {spec.grpc}: success"

    @staticmethod
    async def _script(spec: CheckSpec) -> tuple[str, str]:
        if spec.docker_container_id:
            result = await _in_container(spec)
        else:
            result = await run_script(
                spec.script_args, spec.timeout_s or SCRIPT_TIMEOUT_S, spec.output_max
            )
        status = {0: PASSING, 1: WARNING}.get(result.status, CRITICAL)
        return status, result.output


async def _in_container(spec: CheckSpec) -> ScriptResult:
    """An engine that hangs must not leave the check as it was: Consul waits for it for ever."""
    host = parse_host(os.environ.get("DOCKER_HOST") or DEFAULT_HOST)
    timeout_s = spec.timeout_s or SCRIPT_TIMEOUT_S
    try:
        async with asyncio.timeout(timeout_s):
            return await run_in_container(
                host, spec.docker_container_id, spec.script_args, spec.output_max
            )
    except TimeoutError:
        raise ProbeError(f"Timed out ({format_duration(timeout_s)}) running check") from None
