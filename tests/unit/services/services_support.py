"""A catalog in memory that answers like a server's RPCs, and a clock that stands still."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from proconsul.domain import catalog as c
from proconsul.domain.errors import PermissionDeniedError
from proconsul.rpc.methods import Empty
from proconsul.services.agent.anti_entropy import NodeIdentity
from proconsul.util.errors import ProconsulError

NODE = NodeIdentity("dc1", "web", "11111111-2222-3333-4444-555555555555", "10.0.0.1")


class RefusedError(ProconsulError):
    """As an error that came over RPC."""

    is_remote = True


@dataclass
class FakeClock:
    """`util.clock.Clock`, set by hand."""

    at: float = 100.0
    unix: float = 1_000_000.0

    def monotonic(self) -> float:
        return self.at

    def wall(self) -> float:
        return self.unix


@dataclass
class FakeCatalog:
    """One node's part of the catalog. `fail` is asked before every call."""

    node: c.Node | None = None
    services: dict[str, c.NodeService] = field(default_factory=dict)
    checks: dict[str, c.HealthCheck] = field(default_factory=dict)
    calls: list[tuple[str, Any]] = field(default_factory=list)
    errors: dict[str, ProconsulError] = field(default_factory=dict)
    """By service or check id, or by method."""

    async def call(self, method: str, request: Any) -> Any:
        self.calls.append((method, request))
        if (error := self.errors.get(method)) is not None:
            raise error
        match method:
            case "Catalog.NodeServiceList":
                services = list(self.services.values())
                listed = c.NodeServiceList(self.node, services)
                return c.IndexedNodeServiceList(node_services=listed, index=1)
            case "Health.NodeChecks":
                return c.IndexedHealthChecks(health_checks=list(self.checks.values()), index=1)
            case "Catalog.Register":
                self._register(request)
            case "Catalog.Deregister":
                self._deregister(request)
        return Empty()

    def _register(self, request: c.RegisterRequest) -> None:
        service = request.service
        if service is not None and (error := self.errors.get(service.id)) is not None:
            raise error
        if request.changes_node(self.node):
            self.node = request.as_node()
        if service is not None:
            self.services[service.id] = replace(service, modify_index=7)
        for check in [*(request.checks or ()), *([request.check] if request.check else ())]:
            if (error := self.errors.get(check.check_id)) is not None:
                raise error
            if check.service_id and check.service_id not in self.services:
                raise RefusedError("Missing service registration")
            self.checks[check.check_id] = check

    def _deregister(self, request: c.DeregisterRequest) -> None:
        name = request.service_id or request.check_id
        if (error := self.errors.get(name)) is not None:
            raise error
        if request.service_id:
            if self.services.pop(request.service_id, None) is None:
                raise RefusedError(f"Unknown service '{request.service_id}'")
            self.checks = {
                i: check
                for i, check in self.checks.items()
                if check.service_id != request.service_id
            }
        else:
            self.checks.pop(request.check_id, None)


def denied() -> ProconsulError:
    return PermissionDeniedError()
