"""What the HTTP interface needs of an agent (`services.agent` has it), and its own settings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Protocol

from proconsul.domain.acl import Authorizer
from proconsul.domain.catalog import HealthCheck, NodeService
from proconsul.domain.definitions import CheckDefinition, ServiceDefinition
from proconsul.domain.snapshot import SnapshotRequest, SnapshotResponse
from proconsul.rpc.snapshot_stream import Answer
from proconsul.services.agent.cache import Cache
from proconsul.services.agent.connect import AgentConnect
from proconsul.services.agent.events import UserEvents
from proconsul.util.metrics import Metrics

KV_VALUE_BYTES_MAX = 512 * 1024


class MemberLike(Protocol):
    """`core.gossip.serf.Member`, as far as `/v1/agent/members` shows it."""

    @property
    def name(self) -> str: ...
    @property
    def address(self) -> tuple[str, int]: ...
    @property
    def tags(self) -> Mapping[str, str]: ...
    @property
    def status(self) -> int: ...
    @property
    def protocol_min(self) -> int: ...
    @property
    def protocol_max(self) -> int: ...
    @property
    def protocol_cur(self) -> int: ...
    @property
    def delegate_min(self) -> int: ...
    @property
    def delegate_max(self) -> int: ...
    @property
    def delegate_cur(self) -> int: ...


class AgentPort(Protocol):
    """An agent as HTTP sees it.

    Every method that takes `token` checks its rights and raises a `ProconsulError` whose text is
    Consul's (`Permission denied`, ...); texts become the bodies of the answers as they are.
    """

    metrics: Metrics
    cache: Cache
    connect: AgentConnect
    events: UserEvents

    @property
    def is_server(self) -> bool: ...

    def try_rpc(self, method: str, request: Any) -> Any | None:
        """The answer of `rpc`, if it can be had without waiting (a local read); else None.

        It may always answer None: this spares hot reads their task.
        """
        ...

    async def rpc(self, method: str, request: Any) -> Any:
        """Call an endpoint (`KVS.Get`) with a struct of `proconsul.domain`, wherever it is served.

        Blocks as long as the request's `min_query_index` and `max_query_time_ns` ask for.
        """
        ...

    async def snapshot(
        self, request: SnapshotRequest, body: AsyncIterator[bytes]
    ) -> tuple[SnapshotResponse, Answer]:
        """Save or restore the state of all servers; the second, to be closed, is the archive."""
        ...

    async def self_info(self, token: str) -> Mapping[str, Any]:
        """`Config`, `DebugConfig`, `Coord`, `Member`, `Stats`, `Meta`, and `xDS` if served."""
        ...

    async def members(self, wan: bool, segment: str, token: str) -> Sequence[MemberLike]: ...

    async def services(self, token: str) -> Mapping[str, NodeService]:
        """Local services by id, those that the token may read."""
        ...

    async def service(self, service_id: str, token: str) -> NodeService | None: ...

    async def services_named(self, name: str, token: str) -> Sequence[NodeService]:
        """Local instances of a service, by id."""
        ...

    def checks_of(self, service_id: str) -> Sequence[HealthCheck]:
        """A service's checks and the node's, for whoever may read the service."""
        ...

    async def service_changed(self, service_id: str, timeout_s: float) -> None:
        """Return once the local service changes or goes, at the latest after `timeout_s`."""
        ...

    async def checks(self, token: str) -> Mapping[str, HealthCheck]: ...

    async def add_service(
        self,
        definition: ServiceDefinition,
        *,
        persist: bool,
        replace_existing_checks: bool,
        token: str,
    ) -> None: ...

    async def remove_service(self, service_id: str, token: str) -> None: ...

    async def add_check(
        self, definition: CheckDefinition, *, persist: bool, token: str
    ) -> None: ...

    async def remove_check(self, check_id: str, token: str) -> None: ...

    async def update_ttl(self, check_id: str, status: str, output: str, token: str) -> None:
        """Raises with `CheckID "x" does not have associated TTL` if there is no such TTL check."""
        ...

    async def service_maintenance(
        self, service_id: str, enable: bool, reason: str, token: str
    ) -> None:
        """Raises `UnknownIdError` with `No service registered with ID "x"`."""
        ...

    async def node_maintenance(self, enable: bool, reason: str, token: str) -> None: ...

    async def join(self, address: str, wan: bool, token: str) -> None: ...

    async def leave(self, token: str) -> None:
        """Leave gracefully and begin to shut down; returns so that the answer can be sent."""
        ...

    async def force_leave(self, node: str, prune: bool, token: str) -> None: ...

    async def reload(self, token: str) -> None: ...

    async def authorizer(self, token: str) -> Authorizer:
        """Rights of a token on this agent. Raises `ACL not found`."""
        ...

    async def set_token(self, name: str, token: str) -> bool:
        """Replace one of the agent's own tokens; False if there is none of that name."""
        ...

    async def federation_status(self, token: str) -> Any:
        """What JSON can hold, for `/v1/internal/federation-status`."""
        ...


@dataclass(frozen=True, slots=True)
class HttpApiConfig:
    """Settings of the HTTP interface."""

    datacenter: str
    node_name: str
    default_token: Any = ""
    """The token for requests without one (`acl.tokens.default`): text, or a callable giving it."""
    response_headers: Mapping[str, str] = field(default_factory=dict)
    allow_write_from: tuple[IPv4Network | IPv6Network, ...] = ()
    block_endpoints: tuple[str, ...] = ()
    kv_value_bytes_max: int = KV_VALUE_BYTES_MAX
    txn_bytes_max: int = KV_VALUE_BYTES_MAX
    discovery_max_stale_ns: int = 0
    prometheus_retention_s: float = 0.0
    """Prometheus output is refused unless positive, as in Consul."""
    dev_mode: bool = False
    """All JSON is indented."""
    translate_wan_addrs: bool = False
    unprintable_paths_allowed: bool = False
    acls_enabled: bool = False
    primary_datacenter: str = ""
    """Where legacy tokens are kept."""
    coordinates_disabled: bool = False
    dns_domains: tuple[str, ...] = ("consul.",)
    """What DNS answers for: `domain` and `alt_domain`."""
    wan_join_disabled: bool = False
    """WAN federation through mesh gateways is on."""
    use_cache: bool = True
    """`?cached` is answered from the agent's cache."""
