"""Which services are behind which ingress and terminating gateways (`structs.GatewayService`)."""

from __future__ import annotations

from msgspec import field
from msgspec.structs import replace

from proconsul.domain.base import GoStruct, Int64, Uint64
from proconsul.domain.catalog import HealthCheck, Node, NodeService, ServiceName
from proconsul.domain.options import QueryMeta


class GatewayService(GoStruct, frozen=True, gc=False):
    """A service behind a gateway. `*` stands for services that come later."""

    gateway: ServiceName = ServiceName()
    service: ServiceName = ServiceName()
    gateway_kind: str = ""
    port: Int64 = 0
    protocol: str = ""
    hosts: list[str] | None = None
    ca_file: str = field(default="", name="CAFile")
    cert_file: str = ""
    key_file: str = ""
    sni: str = ""
    from_wildcard: bool = False
    create_index: Uint64 = 0
    modify_index: Uint64 = 0

    def is_same(self, other: GatewayService) -> bool:
        """But for the indexes."""
        return replace(self, create_index=0, modify_index=0, hosts=self.hosts or None) == replace(
            other, create_index=0, modify_index=0, hosts=other.hosts or None
        )


class IndexedGatewayServices(QueryMeta, frozen=True, gc=False):
    services: list[GatewayService] | None = None


class ServiceInfo(GoStruct, frozen=True, gc=False):
    """An instance of a service behind a gateway; without instances the relation alone."""

    node: Node | None = None
    service: NodeService | None = None
    checks: list[HealthCheck] | None = None
    gateway_service: GatewayService | None = None


class IndexedServiceDump(QueryMeta, frozen=True, gc=False):
    dump: list[ServiceInfo] | None = None
