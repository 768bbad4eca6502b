"""Config entries of every kind (`agent/structs/config_entry*.go`), as Raft, RPC and HTTP share them.

Fields are in Go's order, which is that of the JSON. A field is `| None` where Go has a pointer, a map
or a slice. Rules about them are in `config_entry_rules`, their forms in `config_entry_forms`.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from msgspec import Meta, field

from proconsul.domain.base import GoStruct, Int64, Uint64
from proconsul.domain.catalog import ExposeConfig, MeshGatewayConfig

SERVICE_DEFAULTS = "service-defaults"
PROXY_DEFAULTS = "proxy-defaults"
SERVICE_ROUTER = "service-router"
SERVICE_SPLITTER = "service-splitter"
SERVICE_RESOLVER = "service-resolver"
INGRESS_GATEWAY = "ingress-gateway"
TERMINATING_GATEWAY = "terminating-gateway"

PROXY_CONFIG_GLOBAL = "global"
WILDCARD = "*"
DEFAULT_NAMESPACE = "default"

Uint32 = Annotated[int, Meta(ge=0, lt=1 << 32)]

UPSERT, UPSERT_CAS, DELETE = "upsert", "upsert-cas", "delete"


class ServiceConfigEntry(GoStruct, frozen=True, gc=False):
    """`service-defaults`: what all instances of a service have in common."""

    kind: str = ""
    name: str = ""
    protocol: str = ""
    mesh_gateway: MeshGatewayConfig = MeshGatewayConfig()
    expose: ExposeConfig = ExposeConfig()
    external_sni: str = ""
    meta: dict[str, str] | None = None
    create_index: Uint64 = 0
    modify_index: Uint64 = 0


class ProxyConfigEntry(GoStruct, frozen=True, gc=False):
    """`proxy-defaults`, of which there is one, called `global`."""

    kind: str = ""
    name: str = ""
    config: dict[str, Any] | None = None
    mesh_gateway: MeshGatewayConfig = MeshGatewayConfig()
    expose: ExposeConfig = ExposeConfig()
    meta: dict[str, str] | None = None
    create_index: Uint64 = 0
    modify_index: Uint64 = 0


class ServiceRouteHTTPMatchHeader(GoStruct, frozen=True, gc=False):
    name: str = ""
    present: bool = False
    exact: str = ""
    prefix: str = ""
    suffix: str = ""
    regex: str = ""
    invert: bool = False


class ServiceRouteHTTPMatchQueryParam(GoStruct, frozen=True, gc=False):
    name: str = ""
    present: bool = False
    exact: str = ""
    regex: str = ""


class ServiceRouteHTTPMatch(GoStruct, frozen=True, gc=False):
    """All that is set must fit a request."""

    path_exact: str = ""
    path_prefix: str = ""
    path_regex: str = ""
    header: list[ServiceRouteHTTPMatchHeader] | None = None
    query_param: list[ServiceRouteHTTPMatchQueryParam] | None = None
    methods: list[str] | None = None


class ServiceRouteMatch(GoStruct, frozen=True, gc=False):
    http: ServiceRouteHTTPMatch | None = None


class ServiceRouteDestination(GoStruct, frozen=True, gc=False):
    """Where requests of a route go, and how often they are tried."""

    service: str = ""
    service_subset: str = ""
    namespace: str = ""
    prefix_rewrite: str = ""
    request_timeout_ns: Int64 = 0
    num_retries: Uint32 = 0
    retry_on_connect_failure: bool = False
    retry_on_status_codes: list[Uint32] | None = None


class ServiceRoute(GoStruct, frozen=True, gc=False):
    match: ServiceRouteMatch | None = None
    destination: ServiceRouteDestination | None = None


class ServiceRouterConfigEntry(GoStruct, frozen=True, gc=False):
    """`service-router`: the first route that fits a request decides where it goes."""

    kind: str = ""
    name: str = ""
    routes: list[ServiceRoute] | None = None
    meta: dict[str, str] | None = None
    create_index: Uint64 = 0
    modify_index: Uint64 = 0


class ServiceSplit(GoStruct, frozen=True, gc=False):
    """`weight` is in percent, in steps of 0.01; Go has a float32 here."""

    weight: float = 0.0
    service: str = ""
    service_subset: str = ""
    namespace: str = ""


class ServiceSplitterConfigEntry(GoStruct, frozen=True, gc=False):
    """`service-splitter`: shares of the requests; all weights together are 100."""

    kind: str = ""
    name: str = ""
    splits: list[ServiceSplit] | None = None
    meta: dict[str, str] | None = None
    create_index: Uint64 = 0
    modify_index: Uint64 = 0


class ServiceResolverSubset(GoStruct, frozen=True, gc=False):
    filter: str = ""
    only_passing: bool = False


class ServiceResolverRedirect(GoStruct, frozen=True, gc=False):
    service: str = ""
    service_subset: str = ""
    namespace: str = ""
    datacenter: str = ""


class ServiceResolverFailover(GoStruct, frozen=True, gc=False):
    service: str = ""
    service_subset: str = ""
    namespace: str = ""
    datacenters: list[str] | None = None


class ServiceResolverConfigEntry(GoStruct, frozen=True, gc=False):
    """`service-resolver`: which instances a name means, and where to go if there are none."""

    kind: str = ""
    name: str = ""
    default_subset: str = ""
    subsets: dict[str, ServiceResolverSubset] | None = None
    redirect: ServiceResolverRedirect | None = None
    failover: dict[str, ServiceResolverFailover] | None = None
    connect_timeout_ns: Int64 = 0
    meta: dict[str, str] | None = None
    create_index: Uint64 = 0
    modify_index: Uint64 = 0


class GatewayTLSConfig(GoStruct, frozen=True, gc=False):
    enabled: bool = False


class IngressService(GoStruct, frozen=True, gc=False):
    """A service behind a listener, or `*` for all of the listener's protocol."""

    name: str = ""
    hosts: list[str] | None = None
    meta: dict[str, str] | None = None


class IngressListener(GoStruct, frozen=True, gc=False):
    port: Int64 = 0
    protocol: str = ""
    services: list[IngressService] | None = None


class IngressGatewayConfigEntry(GoStruct, frozen=True, gc=False):
    """`ingress-gateway`: the listeners of the gateways that are registered under this name."""

    kind: str = ""
    name: str = ""
    tls: GatewayTLSConfig = GatewayTLSConfig()
    listeners: list[IngressListener] | None = None
    meta: dict[str, str] | None = None
    create_index: Uint64 = 0
    modify_index: Uint64 = 0


class LinkedService(GoStruct, frozen=True, gc=False):
    """A service outside of the mesh, and the files with which a gateway makes TLS to it."""

    name: str = ""
    ca_file: str = field(default="", name="CAFile")
    cert_file: str = ""
    key_file: str = ""
    sni: str = ""


class TerminatingGatewayConfigEntry(GoStruct, frozen=True, gc=False):
    """`terminating-gateway`: the services that are reached through it."""

    kind: str = ""
    name: str = ""
    services: list[LinkedService] | None = None
    meta: dict[str, str] | None = None
    create_index: Uint64 = 0
    modify_index: Uint64 = 0


ConfigEntry: TypeAlias = (
    ServiceConfigEntry
    | ProxyConfigEntry
    | ServiceRouterConfigEntry
    | ServiceSplitterConfigEntry
    | ServiceResolverConfigEntry
    | IngressGatewayConfigEntry
    | TerminatingGatewayConfigEntry
)

ENTRY_TYPES: dict[str, type[ConfigEntry]] = {
    SERVICE_DEFAULTS: ServiceConfigEntry,
    PROXY_DEFAULTS: ProxyConfigEntry,
    SERVICE_ROUTER: ServiceRouterConfigEntry,
    SERVICE_SPLITTER: ServiceSplitterConfigEntry,
    SERVICE_RESOLVER: ServiceResolverConfigEntry,
    INGRESS_GATEWAY: IngressGatewayConfigEntry,
    TERMINATING_GATEWAY: TerminatingGatewayConfigEntry,
}
"""By kind."""
