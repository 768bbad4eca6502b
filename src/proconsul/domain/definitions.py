"""Service and check definitions, as agents take them from HTTP and from configuration files.

After Consul's `structs.ServiceDefinition`, `CheckDefinition` and `CheckType`; the texts of the
validation errors are Consul's, clients see them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

from msgspec import field

from proconsul.domain.base import GoStruct
from proconsul.domain.catalog import (
    CONNECT_PROXY,
    CRITICAL,
    HEALTH_STATES,
    INGRESS_GATEWAY,
    MESH_GATEWAY,
    META_WAN_FEDERATION,
    HealthCheck,
    NodeService,
    Weights,
)
from proconsul.util.errors import ProconsulError

META_PAIRS_MAX = 64
META_KEY_CHARS_MAX = 128
META_VALUE_CHARS_MAX = 512
_META_RESERVED_PREFIX = "consul-"
_META_KEY = re.compile(r"[a-zA-Z0-9_-]+")
_EXPOSE_PROTOCOLS = ("http", "http2")


class DefinitionError(ProconsulError):
    """A definition that Consul would refuse; the text is Consul's."""


class CheckType(GoStruct, frozen=True, gc=False):
    """How to check something. Exactly one kind of check must be described (see `validate`)."""

    check_id: str = ""
    name: str = ""
    status: str = ""
    notes: str = ""
    script_args: list[str] | None = None
    http: str = ""
    header: dict[str, list[str]] | None = None
    method: str = ""
    body: str = ""
    tcp: str = ""
    interval_ns: int = 0
    alias_node: str = ""
    alias_service: str = ""
    docker_container_id: str = ""
    shell: str = ""
    grpc: str = ""
    grpc_use_tls: bool = field(default=False, name="GRPCUseTLS")
    tls_skip_verify: bool = False
    timeout_ns: int = 0
    ttl_ns: int = 0
    success_before_passing: int = 0
    failures_before_critical: int = 0
    proxy_http: str = ""
    proxy_grpc: str = ""
    deregister_critical_service_after_ns: int = 0
    output_max_size: int = 0

    @property
    def is_alias(self) -> bool:
        return bool(self.alias_node or self.alias_service)

    @property
    def kind(self) -> str:
        """`grpc`, `http`, `ttl`, `tcp`, `alias`, `docker`, `script`, or "" of nothing."""
        if self.grpc and self.interval_ns > 0:
            return "grpc"
        if self.http and self.interval_ns > 0:
            return "http"
        if self.ttl_ns > 0:
            return "ttl"
        if self.tcp and self.interval_ns > 0:
            return "tcp"
        if self.is_alias:
            return "alias"
        if self.script_args:
            return "docker" if self.docker_container_id and self.interval_ns > 0 else "script"
        return ""

    def validate(self) -> None:
        """Raises `DefinitionError` unless this describes one check."""
        probes = bool(self.script_args or self.http or self.tcp or self.grpc)
        if self.interval_ns > 0 and self.ttl_ns > 0:
            raise DefinitionError("Interval and TTL cannot both be specified")
        if probes and self.interval_ns <= 0:
            raise DefinitionError("Interval must be > 0 for Script, HTTP, or TCP checks")
        if probes and self.is_alias:
            raise DefinitionError("Interval cannot be set for Alias checks")
        if self.is_alias and self.ttl_ns > 0:
            raise DefinitionError("TTL must be not be set for Alias checks")
        if not probes and not self.is_alias and self.ttl_ns <= 0:
            raise DefinitionError("TTL must be > 0 for TTL checks")
        if self.output_max_size < 0:
            raise DefinitionError("MaxOutputMaxSize must be positive")


class CheckDefinition(CheckType, frozen=True, gc=False):
    """A check of its own: of the node, or of the service `service_id`. Go calls `check_id` ID."""

    check_id: str = field(default="", name="ID")
    service_id: str = ""
    token: str = ""

    def health_check(self, node: str) -> HealthCheck:
        """The catalog's view of it, critical unless the definition says otherwise."""
        return HealthCheck(
            node=node,
            check_id=self.check_id or self.name,
            name=self.name,
            status=self.status or CRITICAL,
            notes=self.notes,
            service_id=self.service_id,
            type=self.kind,
        )


class ServiceDefinition(GoStruct, frozen=True, gc=False):
    """A service with its checks. `token` is used for its registration in the catalog."""

    service: NodeService
    checks: tuple[CheckType, ...] = ()
    token: str = ""


def is_any_address(text: str) -> bool:
    """Whether an address is the unspecified one (0.0.0.0, ::), where nobody can be reached."""
    try:
        return ipaddress.ip_address(text).is_unspecified
    except ValueError:
        return False


def validate_status(status: str) -> bool:
    """Whether a check may have it."""
    return status in HEALTH_STATES


def validate_weights(weights: Weights | None) -> None:
    """Raises `DefinitionError`."""
    if weights is None:
        return
    if weights.passing < 1:
        raise DefinitionError("Passing must be greater than 0")
    if weights.warning < 0:
        raise DefinitionError("Warning must be greater or equal than 0")
    if weights.passing > 65535 or weights.warning > 65535:
        raise DefinitionError("DNS Weight must be between 0 and 65535")


def validate_service_meta(kind: str, meta: Mapping[str, str] | None) -> None:
    """Raises `DefinitionError`; gateways alone may state that they serve WAN federation."""
    allowed = {META_WAN_FEDERATION} if kind == MESH_GATEWAY else set()
    if meta is None:
        return
    if len(meta) > META_PAIRS_MAX:
        raise DefinitionError(
            f"Node metadata cannot contain more than {META_PAIRS_MAX} key/value pairs"
        )
    for key, value in meta.items():
        if problem := _meta_problem(key, value, allowed):
            raise DefinitionError(f"Couldn't load metadata pair ('{key}', '{value}'): {problem}")


def _meta_problem(key: str, value: str, allowed: set[str]) -> str:
    if not key:
        return "Key cannot be blank"
    if not _META_KEY.fullmatch(key):
        return "Key contains invalid characters"
    if len(key) > META_KEY_CHARS_MAX:
        return f"Key is too long (limit: {META_KEY_CHARS_MAX} characters)"
    if key.startswith(_META_RESERVED_PREFIX) and key not in allowed:
        return f"Key prefix '{_META_RESERVED_PREFIX}' is reserved for internal use"
    if len(value.encode("utf-8", "surrogateescape")) > META_VALUE_CHARS_MAX:
        return f"Value is too long (limit: {META_VALUE_CHARS_MAX} characters)"
    return ""


def validate_node_service(service: NodeService) -> None:
    """Raises `DefinitionError` with all that is wrong, in the layout of go-multierror."""
    problems: list[str] = []
    if service.kind == CONNECT_PROXY:
        problems += _proxy_problems(service)
    if service.is_gateway:
        problems += _gateway_problems(service)
    sidecar = service.connect.sidecar_service
    if sidecar is not None:
        lowered = {key.lower(): value for key, value in sidecar.items()}
        if lowered.get("id"):
            problems.append("A SidecarService cannot specify an ID as this is managed by the agent")
        nested = lowered.get("connect")
        if isinstance(nested, dict) and any(
            key.lower().replace("_", "") == "sidecarservice" and value
            for key, value in nested.items()
        ):
            problems.append("A SidecarService cannot have a nested SidecarService")
    if problems:
        raise DefinitionError(multierror(problems))


def multierror(problems: list[str]) -> str:
    """hashicorp/go-multierror's text."""
    count = "1 error" if len(problems) == 1 else f"{len(problems)} errors"
    return f"{count} occurred:\n" + "".join(f"\t* {problem}\n" for problem in problems) + "\n"


def _proxy_problems(service: NodeService) -> list[str]:
    problems = []
    proxy = service.proxy
    if not proxy.destination_service_name.strip():
        problems.append("Proxy.DestinationServiceName must be non-empty for Connect proxy services")
    if service.port == 0:
        problems.append("Port must be set for a Connect proxy")
    if service.connect.native:
        problems.append("A Proxy cannot also be Connect Native, only typical services")
    binds: set[tuple[str, int]] = set()
    for upstream in proxy.upstreams or ():
        if not upstream.destination_name:
            problems.append("upstream destination name cannot be empty")
            continue
        if upstream.local_bind_port == 0:
            problems.append("upstream local bind port cannot be zero")
            continue
        bind = (upstream.local_bind_address or "127.0.0.1", upstream.local_bind_port)
        if bind in binds:
            problems.append(
                "upstreams cannot contain duplicates by local bind address and port; "
                f'"{bind[0]}:{bind[1]}" is specified twice'
            )
        binds.add(bind)
    paths: set[str] = set()
    ports: set[int] = set()
    for path in proxy.expose.paths or ():
        if not path.path:
            problems.append("expose.paths: empty path exposed")
        if path.path in paths:
            problems.append("expose.paths: duplicate paths exposed")
        if path.listener_port in ports:
            problems.append("expose.paths: duplicate listener ports exposed")
        if not 0 < path.listener_port <= 65535:
            problems.append(f"expose.paths: invalid listener port: {path.listener_port}")
        protocol = path.protocol.lower()
        if protocol and protocol not in _EXPOSE_PROTOCOLS:
            problems.append(
                f"protocol '{protocol}' not supported for path: {path.path}, "
                f"must be in: [{' '.join(_EXPOSE_PROTOCOLS)}]"
            )
        paths.add(path.path)
        ports.add(path.listener_port)
    return problems


def _gateway_problems(service: NodeService) -> list[str]:
    kind, proxy = service.kind, service.proxy
    problems = []
    if service.port == 0 and kind != INGRESS_GATEWAY:
        problems.append(f"Port must be non-zero for a {kind}")
    if service.connect.sidecar_service is not None:
        problems.append(f"A {kind} cannot have a sidecar service defined")
    for given, name in (
        (proxy.destination_service_name, "DestinationServiceName"),
        (proxy.destination_service_id, "DestinationServiceID"),
        (proxy.local_service_address, "LocalServiceAddress"),
        (proxy.local_service_port, "LocalServicePort"),
        (proxy.upstreams, "Upstreams"),
    ):
        if given:
            problems.append(f"The Proxy.{name} configuration is invalid for a {kind}")
    return problems
