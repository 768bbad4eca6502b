"""What an agent needs beside its server or client core. `app` fills it from the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from proconsul.services.acl_settings import AclSettings
from proconsul.services.agent.cache import CacheOptions
from proconsul.services.agent.check_probes import AgentTls, GrpcProbe
from proconsul.services.server.config import GossipSettings, Identity


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """Durations in seconds."""

    identity: Identity
    is_server: bool
    address: str
    """LAN address of the node in the catalog."""
    tagged_addresses: Mapping[str, str] = field(default_factory=dict)
    node_meta: Mapping[str, str] = field(default_factory=dict)
    data_dir: Path | None = None
    grpc_port: int = -1
    anti_entropy_s: float = 60.0
    check_update_interval_s: float = 300.0
    check_output_max: int = 4096
    discard_check_output: bool = False
    remote_scripts: bool = False
    """Checks that are registered over HTTP may run scripts."""
    local_scripts: bool = False
    """Checks in the configuration may run scripts."""
    sidecar_ports: tuple[int, int] = (21000, 21255)
    """First and last of those that sidecars without a port of their own get."""
    check_tls: AgentTls | None = None
    grpc_probe: GrpcProbe | None = None
    deregister_after_min_s: float = 60.0
    check_reap_s: float = 30.0
    coordinate_min_s: float = 15.0
    coordinate_rate: float = 64.0
    coordinates: bool = True
    remote_exec: bool = False
    """Whether operators may run commands here."""
    central_service_config: bool = False
    """Config entries are overlaid onto the proxies that are registered here."""
    rpc_rate: float = -1.0
    """Calls per second of a server's own HTTP clients; negative is unlimited."""
    rpc_burst: int = 1000
    cache: CacheOptions = field(default_factory=CacheOptions)


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """What a client core is started with."""

    identity: Identity
    lan: GossipSettings
    rpc_source: str
    data_dir: Path | None
    acl: AclSettings = field(default_factory=AclSettings)
    rejoin_after_leave: bool = False
    auto_encrypt: bool = False
    """TLS though no CA and no certificate is configured: both come from the servers."""
    rpc_hold_s: float = 7.0
    rpc_rate: float = -1.0
    """Calls per second; negative is unlimited."""
    rpc_burst: int = 1000
