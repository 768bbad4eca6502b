"""What a started agent knows of its settings: frozen, resolved, validated.

Durations are seconds (`_s`), addresses are resolved IP literals, and an address list may hold the
path of a Unix socket as a plain string. Names are Consul's configuration keys wherever one exists.
Secrets are kept out of `repr`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Any

Address = tuple[str, int]
"""(IP literal, port)."""

ListenAddress = Address | str
"""An address to listen on; a string is the path of a Unix socket."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports by listener; -1 means disabled."""

    dns: int = 8600
    http: int = 8500
    https: int = -1
    grpc: int = -1
    serf_lan: int = 8301
    serf_wan: int = 8302
    server: int = 8300
    sidecar_min_port: int = 21000
    sidecar_max_port: int = 21255
    expose_min_port: int = 21500
    expose_max_port: int = 21755


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where to listen, and what to tell others; everything derived from bind/client/advertise."""

    bind: str
    advertise: str
    """LAN address that others are told (an IP literal)."""
    advertise_wan: str
    client: tuple[str, ...]
    dns: tuple[Address, ...]
    http: tuple[ListenAddress, ...]
    https: tuple[ListenAddress, ...]
    grpc: tuple[ListenAddress, ...]
    rpc_bind: Address
    rpc_advertise: Address
    serf_lan_bind: Address
    serf_lan_advertise: Address
    serf_wan_bind: Address | None
    """None where `ports.serf_wan` is disabled."""
    serf_wan_advertise: Address | None
    tagged: Mapping[str, str] = field(default_factory=dict)
    """TaggedAddresses of the node: lan, lan_ipv4, wan, wan_ipv4, ..."""


@dataclass(frozen=True, slots=True)
class GossipTuning:
    """`gossip_lan` / `gossip_wan`."""

    gossip_interval_s: float
    gossip_nodes: int
    probe_interval_s: float
    probe_timeout_s: float
    suspicion_mult: int
    retransmit_mult: int


@dataclass(frozen=True, slots=True)
class Encryption:
    """Gossip encryption (`encrypt`, `encrypt_verify_*`)."""

    key: bytes | None = field(default=None, repr=False)
    """16, 24 or 32 bytes, or None where gossip is not encrypted."""
    verify_incoming: bool = True
    verify_outgoing: bool = True
    keyring_file: bool = True
    """Whether the keyring is kept in data_dir/serf (`disable_keyring_file` inverted)."""


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS between agents, and of the HTTPS listener."""

    ca_file: str = ""
    ca_path: str = ""
    cert_file: str = ""
    key_file: str = ""
    verify_incoming: bool = False
    verify_incoming_rpc: bool = False
    verify_incoming_https: bool = False
    verify_outgoing: bool = False
    verify_server_hostname: bool = False
    min_version: str = "tls12"
    """tls10, tls11, tls12 or tls13."""
    cipher_suites: str = ""
    prefer_server_cipher_suites: bool = False
    server_name: str = ""

    @property
    def has_ca(self) -> bool:
        return bool(self.ca_file or self.ca_path)

    @property
    def has_certificate(self) -> bool:
        return bool(self.cert_file and self.key_file)

    @property
    def verifies_incoming_rpc(self) -> bool:
        return self.verify_incoming or self.verify_incoming_rpc

    @property
    def verifies_incoming_https(self) -> bool:
        return self.verify_incoming or self.verify_incoming_https


@dataclass(frozen=True, slots=True)
class AutoEncrypt:
    """Clients (`tls`) get their certificates from servers (`allow_tls`)."""

    tls: bool = False
    allow_tls: bool = False
    dns_san: tuple[str, ...] = ()
    ip_san: tuple[IPv4Address | IPv6Address, ...] = ()


@dataclass(frozen=True, slots=True)
class Connect:
    """`connect` and the primary's gateways."""

    enabled: bool = False
    enable_mesh_gateway_wan_federation: bool = False
    ca_provider: str = ""
    ca_config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Keys in Go's names (`PrivateKey`, `LeafCertTTL`, ...)."""


@dataclass(frozen=True, slots=True)
class Join:
    """How members of a pool are found. One for the LAN, one for the WAN."""

    start_join: tuple[str, ...] = ()
    retry_join: tuple[str, ...] = ()
    """Addresses, host names, or `provider=...` strings of go-discover."""
    retry_interval_s: float = 30.0
    retry_max: int = 0
    """Attempts before the agent gives up and ends; 0 is never."""
    reconnect_timeout_s: float = 0.0
    """0 takes Serf's default of 72 hours."""
    allowed_cidrs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Raft:
    """Timings are those of a leader's WAN-friendly default times `raft_multiplier`."""

    election_timeout_s: float
    heartbeat_timeout_s: float
    leader_lease_timeout_s: float
    raft_multiplier: int = 5
    protocol: int = 3
    snapshot_threshold: int = 16384
    snapshot_interval_s: float = 30.0
    trailing_logs: int = 10240


@dataclass(frozen=True, slots=True)
class Autopilot:
    cleanup_dead_servers: bool = True
    last_contact_threshold_s: float = 0.2
    max_trailing_logs: int = 250
    min_quorum: int = 0
    server_stabilization_time_s: float = 10.0
    server_health_interval_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Limits:
    http_max_conns_per_client: int = 200
    https_handshake_timeout_s: float = 5.0
    rpc_handshake_timeout_s: float = 5.0
    rpc_rate: float = -1.0
    """Requests per second of a client agent; negative is unlimited."""
    rpc_max_burst: int = 1000
    rpc_max_conns_per_client: int = 100
    """Connections to a server's RPC port by client; 0 is unlimited."""
    kv_max_value_size: int = 512 * 1024
    txn_max_req_len: int = 512 * 1024


@dataclass(frozen=True, slots=True)
class AclTokens:
    default: str = field(default="", repr=False)
    agent: str = field(default="", repr=False)
    agent_master: str = field(default="", repr=False)
    master: str = field(default="", repr=False)
    replication: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Acl:
    enabled: bool = False
    default_policy: str = "allow"
    down_policy: str = "extend-cache"
    token_ttl_s: float = 30.0
    policy_ttl_s: float = 30.0
    role_ttl_s: float = 30.0
    disabled_ttl_s: float = 120.0
    enable_key_list_policy: bool = False
    enable_token_replication: bool = False
    enable_token_persistence: bool = False
    tokens: AclTokens = field(default_factory=AclTokens)


@dataclass(frozen=True, slots=True)
class Telemetry:
    metrics_prefix: str = "consul"
    disable_hostname: bool = False
    prometheus_retention_time_s: float = 0.0
    """0 turns the Prometheus format off."""
    filter_default: bool = True
    allowed_prefixes: tuple[str, ...] = ()
    blocked_prefixes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Http:
    """`http_config`, and the times of blocking queries."""

    response_headers: Mapping[str, str] = field(default_factory=dict)
    block_endpoints: tuple[str, ...] = ()
    allow_write_http_from: tuple[str, ...] = ()
    """CIDRs; empty allows everyone."""
    use_cache: bool = True
    default_query_time_s: float = 300.0
    max_query_time_s: float = 600.0
    filter_unprintable: bool = True
    unix_socket_user: str = ""
    unix_socket_group: str = ""
    unix_socket_mode: str = ""


@dataclass(frozen=True, slots=True)
class Soa:
    refresh: int = 3600
    retry: int = 600
    expire: int = 86400
    min_ttl: int = 0


@dataclass(frozen=True, slots=True)
class Dns:
    domain: str = "consul."
    alt_domain: str = ""
    recursors: tuple[str, ...] = ()
    recursor_timeout_s: float = 2.0
    allow_stale: bool = True
    max_stale_s: float = 87600 * 3600.0
    a_record_limit: int = 0
    udp_answer_limit: int = 3
    disable_compression: bool = False
    enable_truncate: bool = False
    only_passing: bool = False
    node_ttl_s: float = 0.0
    service_ttl_s: Mapping[str, float] = field(default_factory=dict)
    enable_additional_node_meta_txt: bool = True
    use_cache: bool = False
    cache_max_age_s: float = 0.0
    soa: Soa = field(default_factory=Soa)


@dataclass(frozen=True, slots=True)
class Logging:
    level: str = "INFO"
    """TRACE, DEBUG, INFO, WARN or ERROR."""
    json: bool = False
    file: str = ""
    rotate_bytes: int = 0
    rotate_duration_s: float = 0.0
    rotate_max_files: int = 0


@dataclass(frozen=True, slots=True)
class Cache:
    """`cache`: how often one entry of the agent's cache may be fetched."""

    entry_fetch_rate: float | None = None
    """Per second; None is unlimited."""
    entry_fetch_max_burst: int = 2


@dataclass(frozen=True, slots=True)
class Checks:
    """How the agent's own checks run."""

    output_max_size: int = 4096
    update_interval_s: float = 300.0
    discard_output: bool = False
    enable_script_checks: bool = False
    """Scripts registered over HTTP may run."""
    enable_local_script_checks: bool = False
    """Scripts from configuration files may run."""
    use_agent_tls: bool = False
    deregister_interval_min_s: float = 60.0
    reap_interval_s: float = 30.0


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Everything that an agent is started with. Built by `config.load.load_config`."""

    node_name: str
    datacenter: str
    primary_datacenter: str
    """Equal to `datacenter` in the primary itself."""
    server: bool
    addresses: Addresses
    raft: Raft
    gossip_lan: GossipTuning
    gossip_wan: GossipTuning
    ports: Ports = field(default_factory=Ports)
    node_id: str = ""
    """As configured; empty: `config.node_id.resolve_node_id` gives the persisted one."""
    node_meta: Mapping[str, str] = field(default_factory=dict)
    data_dir: str = ""
    """Empty only in dev mode."""
    dev_mode: bool = False
    bootstrap: bool = False
    bootstrap_expect: int = 0
    """Servers to wait for; 1 has already become `bootstrap`."""
    primary_gateways: tuple[str, ...] = ()
    """Addresses of the primary's gateways; each as `Join.retry_join` may have them."""
    primary_gateways_interval_s: float = 30.0
    federation_state_prune_interval_s: float = 3600.0
    """How often the primary looks for federation states of datacenters that left."""
    join_lan: Join = field(default_factory=Join)
    join_wan: Join = field(default_factory=Join)
    rejoin_after_leave: bool = False
    leave_on_terminate: bool = True
    skip_leave_on_interrupt: bool = False
    leave_drain_time_s: float = 5.0
    rpc_hold_timeout_s: float = 7.0
    rpc_protocol: int = 2
    session_ttl_min_s: float = 0.0
    ae_interval_s: float = 60.0
    """Base interval of the agent's anti-entropy."""
    coordinate_update_period_s: float = 5.0
    sync_coordinate_interval_min_s: float = 15.0
    sync_coordinate_rate_target: float = 64.0
    disable_coordinates: bool = False
    discovery_max_stale_s: float = 0.0
    translate_wan_addrs: bool = False
    disable_remote_exec: bool = True
    enable_debug: bool = False
    enable_ui: bool = False
    pid_file: str = ""
    tls: Tls = field(default_factory=Tls)
    encrypt: Encryption = field(default_factory=Encryption)
    connect: Connect = field(default_factory=Connect)
    auto_encrypt: AutoEncrypt = field(default_factory=AutoEncrypt)
    limits: Limits = field(default_factory=Limits)
    acl: Acl = field(default_factory=Acl)
    autopilot: Autopilot = field(default_factory=Autopilot)
    telemetry: Telemetry = field(default_factory=Telemetry)
    http: Http = field(default_factory=Http)
    dns: Dns = field(default_factory=Dns)
    log: Logging = field(default_factory=Logging)
    cache: Cache = field(default_factory=Cache)
    checks: Checks = field(default_factory=Checks)
    service_definitions: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    """Each a body of `PUT /v1/agent/service/register` (Go's names, durations as "10s")."""
    check_definitions: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    """Each a body of `PUT /v1/agent/check/register`."""
    watches: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    config_entries: tuple[Any, ...] = ()
    """`domain.config_entries` that a new primary datacenter begins with."""
    central_service_config: bool = False
    """Config entries are overlaid onto the proxies that are registered with this agent."""
    """As `domain.watches.parse_watch` takes them."""

    argv: tuple[str, ...] = field(default=(), repr=False, compare=False)
    """The flags this was built from; a reload gives them to `load.load_config` again."""

    @property
    def domain(self) -> str:
        """The DNS domain without its trailing dot, as TLS names and SNI use it."""
        return self.dns.domain.rstrip(".")

    @property
    def is_primary(self) -> bool:
        return self.datacenter == self.primary_datacenter

    @property
    def federates_through_gateways(self) -> bool:
        return self.connect.enable_mesh_gateway_wan_federation
