"""Service and check definitions, as agents take them from HTTP and from configuration files.

After Consul's `structs.ServiceDefinition`, `CheckDefinition` and `CheckType`; the texts of the
validation errors are Consul's, clients see them.
"""

from __future__ import annotations

import ipaddress

from msgspec import field

from proconsul.domain.base import GoStruct
from proconsul.domain.catalog import CRITICAL, HEALTH_STATES, HealthCheck, NodeService
from proconsul.util.errors import ProconsulError


class DefinitionError(ProconsulError):
    """A definition that Consul would refuse; the text is Consul's."""


class UnknownIdError(ProconsulError):
    """No such service or check on this agent; the text is Consul's and goes to the client."""


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

    def how(self) -> CheckType:
        """How to check, without what is checked for whom."""
        return CheckType(**{name: getattr(self, name) for name in CheckType.__struct_fields__})

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


def multierror(problems: list[str]) -> str:
    """hashicorp/go-multierror's text."""
    count = "1 error" if len(problems) == 1 else f"{len(problems)} errors"
    return f"{count} occurred:\n" + "".join(f"\t* {problem}\n" for problem in problems) + "\n"
