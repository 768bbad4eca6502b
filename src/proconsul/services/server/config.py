"""What a server is started with. `app` fills it from the agent's configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proconsul.core.gossip.memberlist import MemberlistConfig
from proconsul.core.raft.types import Config as RaftConfig
from proconsul.domain.operator import DEFAULT_AUTOPILOT, AutopilotConfig
from proconsul.drivers.tls_config import TlsConfig
from proconsul.services.acl_settings import AclSettings

if TYPE_CHECKING:
    from proconsul.domain.config_entries import ConfigEntry

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class GossipSettings:
    """One pool. `memberlist.name` is the node's name in that pool."""

    memberlist: MemberlistConfig
    bind: Address
    reconnect_timeout_s: float = 0.0
    """0 takes serf's default."""
    coordinates: bool = True
    keyring_file: Path | None = None
    """Where changed gossip keys are kept; None keeps them in memory."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this agent is, as its tags and catalog entries say."""

    node_name: str
    node_id: str
    datacenter: str
    primary_datacenter: str
    domain: str = "consul"
    build: str = "1.8.7"
    acls_enabled: bool = False

    @property
    def is_primary(self) -> bool:
        return self.datacenter == self.primary_datacenter


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """All a server needs; durations in seconds."""

    identity: Identity
    lan: GossipSettings
    wan: GossipSettings | None
    rpc_bind: Address
    rpc_advertise: Address
    data_dir: Path | None
    """None keeps everything in memory (dev mode)."""
    tls: TlsConfig = field(default_factory=TlsConfig)
    raft: RaftConfig = field(default_factory=RaftConfig)
    bootstrap: bool = False
    bootstrap_expect: int = 0
    rejoin_after_leave: bool = False
    leave_drain_s: float = 5.0
    rpc_hold_s: float = 7.0
    rpc_handshake_s: float = 5.0
    rpc_max_conns_per_client: int = 100
    default_query_s: float = 300.0
    max_query_s: float = 600.0
    session_ttl_min_s: float = 10.0
    reconcile_s: float = 60.0
    coordinate_update_s: float = 5.0
    autopilot: AutopilotConfig = DEFAULT_AUTOPILOT
    connect_enabled: bool = False
    ca_config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """`connect.ca_config`, with which a new mesh CA begins."""
    auto_encrypt: bool = False
    """`auto_encrypt.allow_tls`: clients may get their certificates from the mesh CA."""
    mesh_gateway_federation: bool = False
    federation_anti_entropy: bool = True
    federation_prune_s: float = 3600.0
    config_entries: Sequence[ConfigEntry] = ()
    """What a new primary datacenter begins with."""
    acl: AclSettings = field(default_factory=AclSettings)
    replication_token: Callable[[], str] = lambda: ""
    extra_tags: Mapping[str, str] = field(default_factory=dict)
