"""The agent's configuration, as each layer wants it."""

from __future__ import annotations

import dataclasses
import ipaddress
import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from proconsul import CONSUL_VERSION
from proconsul.app.watches import Plan, parse_plans
from proconsul.config.model import AgentConfig, GossipTuning, Join, ListenAddress, Tls
from proconsul.core.gossip.memberlist import MemberlistConfig
from proconsul.core.gossip.memberlist.config import consul_lan_config, consul_wan_config
from proconsul.core.raft.types import Config as RaftConfig
from proconsul.domain.definitions import CheckDefinition, ServiceDefinition
from proconsul.domain.go_decode import decode_service_definition, decode_struct
from proconsul.domain.operator import AutopilotConfig
from proconsul.drivers.gossip import keyring_file
from proconsul.drivers.http import HttpLimits
from proconsul.drivers.tls_config import AutoTls, TlsConfig, TlsContexts, load_pair
from proconsul.interfaces.http.ports import HttpApiConfig
from proconsul.services.acl_settings import AclSettings
from proconsul.services.agent.cache import CacheOptions
from proconsul.services.agent.check_probes import AgentTls
from proconsul.services.agent.config import AgentSettings, ClientConfig
from proconsul.services.agent.tokens import Kind
from proconsul.services.server.config import GossipSettings, Identity, ServerConfig
from proconsul.util.address import host_port
from proconsul.util.errors import ConfigError
from proconsul.wire.memberlist_crypto import Keyring

JoinCall = Callable[[Sequence[str]], Awaitable[int]]
JoinSettings = Join
_SECOND_NS = 1_000_000_000
SESSION_TTL_MIN_S = 10.0


def identity(config: AgentConfig) -> Identity:
    """Who this agent is."""
    return Identity(
        node_name=config.node_name,
        node_id=config.node_id,
        datacenter=config.datacenter,
        primary_datacenter=config.primary_datacenter,
        domain=config.domain,
        build=CONSUL_VERSION,
        acls_enabled=config.acl.enabled,
    )


def tls_config(config: AgentConfig) -> TlsConfig:
    """TLS between agents."""
    tls, automatic = config.tls, config.auto_encrypt.tls
    return TlsConfig(
        ca_file=tls.ca_file,
        ca_path=tls.ca_path,
        cert_file=tls.cert_file,
        key_file=tls.key_file,
        # A client that has yet to get its certificate accepts nothing on the server port
        verify_incoming=tls.verifies_incoming_rpc and not automatic,
        verify_outgoing=tls.verify_outgoing,
        verify_server_hostname=tls.verify_server_hostname,
        min_version=tls.min_version,
    )


def https_context(tls: Tls, auto: AutoTls | None = None) -> ssl.SSLContext:
    """TLS of the HTTPS listener; `auto` is AutoEncrypt's part. Raises `ConfigError`."""
    if not tls.has_certificate and auto is None:
        raise ConfigError("ports.https needs cert_file and key_file: set both, or disable the port")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if tls.has_certificate:
            context.load_cert_chain(tls.cert_file, tls.key_file)
        if tls.verifies_incoming_https:
            context.verify_mode = ssl.CERT_REQUIRED
            if tls.has_ca:
                context.load_verify_locations(tls.ca_file or None, tls.ca_path or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"cert_file, key_file or ca_file cannot be used for HTTPS: {error}"
        ) from error
    if auto is not None:
        show_on_https(context, tls, auto)
    return context


def show_on_https(context: ssl.SSLContext, tls: Tls, auto: AutoTls) -> None:
    """Let HTTPS show AutoEncrypt's certificate, unless one is configured, and trust its CAs."""
    if not tls.has_certificate:
        load_pair(context, auto.cert_pem, auto.key_pem)
    if tls.verifies_incoming_https:
        for pem in auto.ca_pems:
            try:
                context.load_verify_locations(cadata=pem)
            except ssl.SSLError as error:
                raise ConfigError(f"a CA that the servers gave cannot be used: {error}") from error


def _memberlist(
    base: MemberlistConfig, tuning: GossipTuning, config: AgentConfig, keyring: Keyring | None
) -> MemberlistConfig:
    return dataclasses.replace(
        base,
        gossip_interval_s=tuning.gossip_interval_s,
        gossip_nodes=tuning.gossip_nodes,
        probe_interval_s=tuning.probe_interval_s,
        probe_timeout_s=tuning.probe_timeout_s,
        suspicion_mult=tuning.suspicion_mult,
        retransmit_mult=tuning.retransmit_mult,
        keyring=keyring,
        verify_incoming=config.encrypt.verify_incoming,
        verify_outgoing=config.encrypt.verify_outgoing,
    )


def _keyring(config: AgentConfig, file: str, pool: str) -> tuple[Keyring | None, Path | None]:
    """The pool's gossip keys, and where changes of them are kept. Raises `ConfigError`."""
    key, directory = config.encrypt.key, _data_dir(config)
    if not config.encrypt.keyring_file or directory is None:
        return (Keyring(key) if key is not None else None), None
    path = directory / file
    keyring = keyring_file.load(path, key, pool)
    return keyring, path if keyring is not None else None


def _lan(config: AgentConfig) -> GossipSettings:
    addresses = config.addresses
    base = consul_lan_config(config.node_name, addresses.serf_lan_advertise)
    base = dataclasses.replace(base, log_name="memberlist.lan", suspects_may_move=True)
    keyring, file = _keyring(config, keyring_file.LAN_FILE, "LAN")
    return GossipSettings(
        memberlist=_memberlist(base, config.gossip_lan, config, keyring),
        coordinates=not config.disable_coordinates,
        keyring_file=file,
        bind=addresses.serf_lan_bind,
        reconnect_timeout_s=config.join_lan.reconnect_timeout_s,
    )


def _wan(config: AgentConfig) -> GossipSettings | None:
    addresses = config.addresses
    if addresses.serf_wan_bind is None or addresses.serf_wan_advertise is None:
        return None
    name = f"{config.node_name}.{config.datacenter}"
    base = consul_wan_config(name, addresses.serf_wan_advertise)
    base = dataclasses.replace(base, log_name="memberlist.wan", suspects_may_move=True)
    if config.federates_through_gateways:
        own = config.datacenter
        base = dataclasses.replace(
            base,
            require_node_names=True,
            # A stream through gateways would only repeat what the packet through them tried.
            disable_tcp_pings=lambda node: node.rpartition(".")[2] != own,
            # Gateways route by name, and the certificate proves it.
            addressed_by_name=lambda node: node.rpartition(".")[2] != own,
        )
    keyring, file = _keyring(config, keyring_file.WAN_FILE, "WAN")
    return GossipSettings(
        memberlist=_memberlist(base, config.gossip_wan, config, keyring),
        coordinates=not config.disable_coordinates,
        keyring_file=file,
        bind=addresses.serf_wan_bind,
        reconnect_timeout_s=config.join_wan.reconnect_timeout_s,
    )


def _data_dir(config: AgentConfig) -> Path | None:
    return Path(config.data_dir) if config.data_dir else None


def _autopilot(config: AgentConfig) -> AutopilotConfig:
    auto = config.autopilot
    return AutopilotConfig(
        cleanup_dead_servers=auto.cleanup_dead_servers,
        last_contact_threshold_ns=int(auto.last_contact_threshold_s * _SECOND_NS),
        max_trailing_logs=auto.max_trailing_logs,
        min_quorum=auto.min_quorum,
        server_stabilization_time_ns=int(auto.server_stabilization_time_s * _SECOND_NS),
    )


def acl_settings(config: AgentConfig) -> AclSettings:
    """How the ACL system works, the agent's own tokens excepted."""
    acl = config.acl
    return AclSettings(
        enabled=acl.enabled,
        default_policy=acl.default_policy,
        down_policy=acl.down_policy,
        token_ttl_s=acl.token_ttl_s,
        policy_ttl_s=acl.policy_ttl_s,
        role_ttl_s=acl.role_ttl_s,
        disabled_ttl_s=acl.disabled_ttl_s,
        enable_key_list_policy=acl.enable_key_list_policy,
        token_replication=acl.enable_token_replication,
        master_token=acl.tokens.master,
    )


def agent_tokens(config: AgentConfig) -> dict[Kind, str]:
    """The agent's own tokens, as the configuration has them."""
    tokens = config.acl.tokens
    return {
        Kind.DEFAULT: tokens.default,
        Kind.AGENT: tokens.agent,
        Kind.AGENT_MASTER: tokens.agent_master,
        Kind.REPLICATION: tokens.replication,
    }


def tokens_directory(config: AgentConfig) -> Path | None:
    """Where tokens that are set at run time are kept, if they are."""
    return _data_dir(config) if config.acl.enable_token_persistence else None


def server_config(config: AgentConfig, replication_token: Callable[[], str]) -> ServerConfig:
    """What a server core is started with. The token is asked for at every use: it may change."""
    addresses, raft, limits = config.addresses, config.raft, config.limits
    return ServerConfig(
        identity=identity(config),
        lan=_lan(config),
        wan=_wan(config),
        rpc_bind=addresses.rpc_bind,
        rpc_advertise=addresses.rpc_advertise,
        data_dir=_data_dir(config),
        tls=tls_config(config),
        raft=RaftConfig(
            heartbeat_timeout_s=raft.heartbeat_timeout_s,
            election_timeout_s=raft.election_timeout_s,
            leader_lease_s=raft.leader_lease_timeout_s,
            snapshot_threshold=raft.snapshot_threshold,
            snapshot_interval_s=raft.snapshot_interval_s,
            trailing_logs=raft.trailing_logs,
        ),
        bootstrap=config.bootstrap,
        bootstrap_expect=config.bootstrap_expect,
        rejoin_after_leave=config.rejoin_after_leave,
        leave_drain_s=config.leave_drain_time_s,
        rpc_hold_s=config.rpc_hold_timeout_s,
        rpc_handshake_s=limits.rpc_handshake_timeout_s,
        rpc_max_conns_per_client=limits.rpc_max_conns_per_client,
        default_query_s=config.http.default_query_time_s,
        max_query_s=config.http.max_query_time_s,
        coordinate_update_s=config.coordinate_update_period_s,
        session_ttl_min_s=config.session_ttl_min_s or SESSION_TTL_MIN_S,
        autopilot=_autopilot(config),
        acl=acl_settings(config),
        connect_enabled=config.connect.enabled,
        ca_config=config.connect.ca_config,
        auto_encrypt=config.auto_encrypt.allow_tls,
        mesh_gateway_federation=config.federates_through_gateways,
        federation_prune_s=config.federation_state_prune_interval_s,
        config_entries=config.config_entries,
        replication_token=replication_token,
    )


def client_config(config: AgentConfig) -> ClientConfig:
    """What a client core is started with."""
    return ClientConfig(
        identity=identity(config),
        lan=_lan(config),
        rpc_source=config.addresses.rpc_bind[0],
        acl=acl_settings(config),
        data_dir=_data_dir(config),
        rejoin_after_leave=config.rejoin_after_leave,
        auto_encrypt=config.auto_encrypt.tls,
        rpc_hold_s=config.rpc_hold_timeout_s,
        rpc_rate=config.limits.rpc_rate,
        rpc_burst=config.limits.rpc_max_burst,
    )


def agent_settings(config: AgentConfig) -> AgentSettings:
    """What the agent around its core is started with."""
    checks = config.checks
    return AgentSettings(
        identity=identity(config),
        is_server=config.server,
        address=config.addresses.advertise,
        tagged_addresses=config.addresses.tagged,
        node_meta={"consul-network-segment": "", **config.node_meta},
        data_dir=_data_dir(config),
        grpc_port=config.ports.grpc,
        sidecar_ports=(config.ports.sidecar_min_port, config.ports.sidecar_max_port),
        anti_entropy_s=config.ae_interval_s,
        check_update_interval_s=checks.update_interval_s,
        check_output_max=checks.output_max_size,
        discard_check_output=checks.discard_output,
        remote_scripts=checks.enable_script_checks,
        local_scripts=checks.enable_local_script_checks,
        check_tls=_check_tls(config),
        grpc_probe=_grpc_probe,
        deregister_after_min_s=checks.deregister_interval_min_s,
        check_reap_s=checks.reap_interval_s,
        coordinate_min_s=config.sync_coordinate_interval_min_s,
        coordinate_rate=config.sync_coordinate_rate_target,
        coordinates=not config.disable_coordinates,
        remote_exec=not config.disable_remote_exec,
        central_service_config=config.central_service_config,
        rpc_rate=config.limits.rpc_rate,
        rpc_burst=config.limits.rpc_max_burst,
        cache=CacheOptions(config.cache.entry_fetch_rate, config.cache.entry_fetch_max_burst),
    )


def _check_tls(config: AgentConfig) -> AgentTls | None:
    """The agent's own certificates for its probes, if they are to use them."""
    if not config.checks.use_agent_tls:
        return None
    contexts = TlsContexts(tls_config(config))

    def context(verify: bool) -> ssl.SSLContext:
        found = contexts.client(verify=verify)
        found.check_hostname = verify
        return found

    return AgentTls(context, config.tls.server_name or config.node_name)


async def _grpc_probe(target: str, timeout_s: float, use_tls: bool, skip_verify: bool) -> None:
    """grpc is large: it is loaded with the first check that needs it."""
    from proconsul.interfaces.xds.health_probe import probe

    await probe(target, timeout_s, use_tls, skip_verify)


def http_limits(config: AgentConfig) -> HttpLimits:
    """What one client may open."""
    return HttpLimits(connections_per_client_max=config.limits.http_max_conns_per_client)


def http_config(config: AgentConfig, default_token: Callable[[], str]) -> HttpApiConfig:
    """The HTTP interface's settings. The default token may change with a reload."""
    return HttpApiConfig(
        datacenter=config.datacenter,
        node_name=config.node_name,
        default_token=default_token,
        response_headers=config.http.response_headers,
        allow_write_from=tuple(
            ipaddress.ip_network(cidr) for cidr in config.http.allow_write_http_from
        ),
        block_endpoints=config.http.block_endpoints,
        kv_value_bytes_max=config.limits.kv_max_value_size,
        txn_bytes_max=config.limits.txn_max_req_len,
        discovery_max_stale_ns=int(config.discovery_max_stale_s * 1e9),
        prometheus_retention_s=config.telemetry.prometheus_retention_time_s,
        dev_mode=config.dev_mode,
        translate_wan_addrs=config.translate_wan_addrs,
        acls_enabled=config.acl.enabled,
        primary_datacenter=config.primary_datacenter,
        coordinates_disabled=config.disable_coordinates,
        dns_domains=tuple(name for name in (config.dns.domain, config.dns.alt_domain) if name),
        wan_join_disabled=config.federates_through_gateways,
        use_cache=config.http.use_cache,
    )


def watch_plans(config: AgentConfig) -> list[Plan]:
    """The configured watches. Raises `ConfigError`."""
    addresses = config.addresses
    return parse_plans(config.watches, has_http=bool(addresses.http or addresses.https))


def definitions(
    config: AgentConfig,
) -> tuple[list[ServiceDefinition], list[CheckDefinition]]:
    """The services and checks of the configuration files. Raises `ProconsulError`."""
    services = [decode_service_definition(dict(body)) for body in config.service_definitions]
    checks = [decode_struct(dict(body), CheckDefinition) for body in config.check_definitions]
    return services, checks


def grpc_bind(address: ListenAddress) -> str:
    """The address as gRPC wants it."""
    if isinstance(address, str):
        return f"unix:{address}"
    return host_port(address)


def after_reload(old: AgentConfig, new: AgentConfig) -> AgentConfig:
    """What is in force now: the new one, but for who we are."""
    return dataclasses.replace(new, node_id=old.node_id)
