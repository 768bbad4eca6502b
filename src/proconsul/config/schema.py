"""The configuration keys of Consul 1.8, their types, and which of them are supported.

Pure data after `agent/config/config.go`. A key missing here is unknown; a key in `UNSUPPORTED` is
Consul's but would promise something that this program does not do yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any


class Kind(Enum):
    """How a leaf is typed. What Consul's decoder refuses (a string for a number) is refused."""

    STR = "string"
    BOOL = "bool"
    INT = "int"
    FLOAT = "float64"
    DURATION = "duration"
    STRS = "list of strings"
    STR_MAP = "map of strings"
    STRS_MAP = "map of lists of strings"
    DURATION_MAP = "map of durations"
    MAP = "map"
    MAPS = "list of maps"


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of sections; a single section stands for a list of one."""

    section: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class MapOf:
    """Sections by a name that the user chooses."""

    section: Mapping[str, Any]


Spec = Kind | ListOf | MapOf | Mapping[str, Any]

_S, _B, _I, _F, _D = Kind.STR, Kind.BOOL, Kind.INT, Kind.FLOAT, Kind.DURATION
_L = Kind.STRS


def _keys(kind: Kind, names: str) -> dict[str, Spec]:
    return dict.fromkeys(names.split(), kind)


CHECK: dict[str, Spec] = {
    **_keys(
        _S,
        "id name notes service_id token status http method body tcp docker_container_id shell grpc"
        " alias_node alias_service",
    ),
    **_keys(_D, "interval timeout ttl deregister_critical_service_after"),
    **_keys(_B, "grpc_use_tls tls_skip_verify"),
    **_keys(_I, "output_max_size success_before_passing failures_before_critical"),
    "args": _L,
    "header": Kind.STRS_MAP,
}
"""A `check` definition."""

CHECK_ALIASES = {
    "serviceid": "service_id",
    "scriptargs": "args",
    "dockercontainerid": "docker_container_id",
    "tlsskipverify": "tls_skip_verify",
    "deregistercriticalserviceafter": "deregister_critical_service_after",
}
"""Spellings that Consul also takes within a check."""

_MESH_GATEWAY: dict[str, Spec] = {"mode": _S}
_UPSTREAM: dict[str, Spec] = {
    **_keys(
        _S,
        "destination_type destination_namespace destination_name datacenter local_bind_address",
    ),
    "local_bind_port": _I,
    "config": Kind.MAP,
    "mesh_gateway": _MESH_GATEWAY,
}
_EXPOSE: dict[str, Spec] = {
    "checks": _B,
    "port": _I,
    "paths": ListOf({**_keys(_I, "listener_port local_path_port"), **_keys(_S, "path protocol")}),
}
_SERVICE_BASE: dict[str, Spec] = {
    **_keys(_S, "kind id name address token"),
    "tags": _L,
    "tagged_addresses": MapOf({"address": _S, "port": _I}),
    "meta": Kind.STR_MAP,
    "port": _I,
    "check": CHECK,
    "checks": ListOf(CHECK),
    "weights": {"passing": _I, "warning": _I},
    "enable_tag_override": _B,
    "proxy": {
        **_keys(_S, "destination_service_name destination_service_id local_service_address"),
        "local_service_port": _I,
        "config": Kind.MAP,
        "upstreams": ListOf(_UPSTREAM),
        "mesh_gateway": _MESH_GATEWAY,
        "expose": _EXPOSE,
    },
}
SERVICE: dict[str, Spec] = {
    **_SERVICE_BASE,
    "connect": {
        "native": _B,
        "sidecar_service": {**_SERVICE_BASE, "connect": {"native": _B}},
    },
}
"""A `service` definition."""

_GOSSIP: dict[str, Spec] = {
    **_keys(_D, "gossip_interval probe_interval probe_timeout"),
    **_keys(_I, "gossip_nodes suspicion_mult retransmit_mult"),
}
_CIRCONUS = (
    "circonus_api_app circonus_api_token circonus_api_url circonus_broker_id"
    " circonus_broker_select_tag circonus_check_display_name"
    " circonus_check_force_metric_activation circonus_check_id circonus_check_instance_id"
    " circonus_check_search_tag circonus_check_tags circonus_submission_interval"
    " circonus_submission_url"
)

SECTIONS: dict[str, Spec] = {
    "acl": {
        **_keys(_B, "enabled enable_token_replication enable_key_list_policy"),
        **_keys(_B, "enable_token_persistence msp_disable_bootstrap"),
        **_keys(_D, "policy_ttl role_ttl token_ttl disabled_ttl"),
        **_keys(_S, "down_policy default_policy"),
        "tokens": {
            **_keys(_S, "master replication agent_master default agent"),
            "managed_service_provider": Kind.MAPS,
        },
    },
    "addresses": _keys(_S, "dns http https grpc"),
    "autopilot": {
        **_keys(_B, "cleanup_dead_servers disable_upgrade_migration"),
        **_keys(_D, "last_contact_threshold server_stabilization_time"),
        **_keys(_I, "max_trailing_logs min_quorum"),
        **_keys(_S, "redundancy_zone_tag upgrade_version_tag"),
    },
    "auto_encrypt": {**_keys(_B, "tls allow_tls"), **_keys(_L, "dns_san ip_san")},
    "cache": {"entry_fetch_max_burst": _I, "entry_fetch_rate": _F},
    "connect": {
        **_keys(_B, "enabled enable_mesh_gateway_wan_federation"),
        "ca_provider": _S,
        "ca_config": Kind.MAP,
    },
    "dns_config": {
        **_keys(_B, "allow_stale disable_compression enable_truncate only_passing use_cache"),
        **_keys(_B, "enable_additional_node_meta_txt prefer_namespace"),
        **_keys(_I, "a_record_limit udp_answer_limit"),
        **_keys(_D, "max_stale node_ttl recursor_timeout cache_max_age"),
        "service_ttl": Kind.DURATION_MAP,
        "soa": _keys(_I, "refresh retry expire min_ttl"),
    },
    "gossip_lan": _GOSSIP,
    "gossip_wan": _GOSSIP,
    "http_config": {
        **_keys(_L, "block_endpoints allow_write_http_from"),
        "response_headers": Kind.STR_MAP,
        "use_cache": _B,
    },
    "limits": {
        **_keys(_I, "http_max_conns_per_client rpc_max_burst rpc_max_conns_per_client"),
        **_keys(_I, "kv_max_value_size txn_max_req_len"),
        **_keys(_D, "https_handshake_timeout rpc_handshake_timeout"),
        "rpc_rate": _F,
    },
    "performance": {**_keys(_D, "leave_drain_time rpc_hold_timeout"), "raft_multiplier": _I},
    "ports": _keys(
        _I,
        "dns http https serf_lan serf_wan server grpc proxy_min_port proxy_max_port"
        " sidecar_min_port sidecar_max_port expose_min_port expose_max_port",
    ),
    "telemetry": {
        **_keys(_S, f"{_CIRCONUS} dogstatsd_addr metrics_prefix statsd_address statsite_address"),
        **_keys(_B, "disable_hostname filter_default"),
        **_keys(_L, "dogstatsd_tags prefix_filter"),
        "prometheus_retention_time": _D,
    },
    "unix_sockets": _keys(_S, "group mode user"),
}

ROOT: dict[str, Spec] = {
    **SECTIONS,
    **_keys(
        _S,
        "acl_agent_master_token acl_agent_token acl_datacenter acl_default_policy acl_down_policy"
        " acl_master_token acl_replication_token acl_token advertise_addr advertise_addr_ipv4"
        " advertise_addr_ipv6 advertise_addr_wan advertise_addr_wan_ipv4 advertise_addr_wan_ipv6"
        " bind_addr ca_file ca_path cert_file client_addr domain alt_domain data_dir datacenter"
        " encrypt key_file log_level log_file node_id node_name pid_file primary_datacenter"
        " serf_lan serf_wan server_name syslog_facility tls_cipher_suites tls_min_version"
        " ui_content_path ui_dir segment",
    ),
    **_keys(
        _B,
        "acl_enable_key_list_policy bootstrap disable_anonymous_signature disable_coordinates"
        " disable_host_node_id disable_http_unprintable_char_filter disable_keyring_file"
        " disable_remote_exec disable_update_check discard_check_output enable_acl_replication"
        " enable_agent_tls_for_checks enable_central_service_config enable_debug"
        " enable_script_checks enable_local_script_checks enable_syslog encrypt_verify_incoming"
        " encrypt_verify_outgoing leave_on_terminate log_json rejoin_after_leave server"
        " skip_leave_on_interrupt tls_prefer_server_cipher_suites translate_wan_addrs ui"
        " verify_incoming verify_incoming_https verify_incoming_rpc verify_outgoing"
        " verify_server_hostname non_voting_server acl_enforce_version_8",
    ),
    **_keys(
        _I,
        "bootstrap_expect check_output_max_size log_rotate_bytes log_rotate_max_files protocol"
        " raft_protocol raft_snapshot_threshold raft_trailing_logs retry_max retry_max_wan",
    ),
    **_keys(
        _D,
        "acl_ttl check_update_interval default_query_time discovery_max_stale"
        " federation_state_prune_interval log_rotate_duration max_query_time primary_gateways_interval"
        " raft_snapshot_interval reconnect_timeout reconnect_timeout_wan retry_interval"
        " retry_interval_wan session_ttl_min",
    ),
    **_keys(
        _L,
        "recursors primary_gateways retry_join retry_join_wan serf_lan_allowed_cidrs"
        " serf_wan_allowed_cidrs start_join start_join_wan",
    ),
    **_keys(Kind.STR_MAP, "node_meta tagged_addresses"),
    # Blocks may repeat, which the reference refuses
    "check": ListOf(CHECK),
    "checks": ListOf(CHECK),
    "service": ListOf(SERVICE),
    "services": ListOf(SERVICE),
    "watches": Kind.MAPS,
    "segments": Kind.MAPS,
    "audit": Kind.MAP,
    "auto_config": Kind.MAP,
    "snapshot_agent": Kind.MAP,
    "config_entries": {"bootstrap": Kind.MAPS},
}

_SCRAPE = "Set telemetry.prometheus_retention_time and scrape /v1/agent/metrics"

UNSUPPORTED: dict[str, str] = {
    "auto_config": "Distribute certificates, gossip key and tokens to clients by other means",
    "segments": "Network segments are a feature of Consul Enterprise; remove it",
    "segment": "Network segments are a feature of Consul Enterprise; remove it",
    "non_voting_server": "Read replicas are a feature of Consul Enterprise; remove it",
    "audit": "Audit logs are a feature of Consul Enterprise; remove it",
    "enable_syslog": "Remove it and let the service manager collect the output, or set log_file",
    "ui": "Remove it; the HTTP API and the command line are there",
    "ui_dir": "Remove it and serve the directory by a web server",
    "telemetry.statsd_address": _SCRAPE,
    "telemetry.statsite_address": _SCRAPE,
    "telemetry.dogstatsd_addr": _SCRAPE,
    "telemetry.circonus_api_token": _SCRAPE,
    "telemetry.circonus_submission_url": _SCRAPE,
    "autopilot.redundancy_zone_tag": "It is a feature of Consul Enterprise; remove it",
    "autopilot.upgrade_version_tag": "It is a feature of Consul Enterprise; remove it",
    "dns_config.prefer_namespace": "Namespaces are a feature of Consul Enterprise; remove it",
    "acl.tokens.managed_service_provider": "It is a feature of Consul Enterprise; remove it",
}  # fmt: skip
"""Keys of Consul's that are refused when set to anything but false or empty, with the remedy."""

DEPRECATED: dict[str, str] = {
    "acl_enforce_version_8": "",
    "acl_datacenter": "primary_datacenter",
    "acl_agent_master_token": "acl.tokens.agent_master",
    "acl_agent_token": "acl.tokens.agent",
    "acl_default_policy": "acl.default_policy",
    "acl_down_policy": "acl.down_policy",
    "acl_master_token": "acl.tokens.master",
    "acl_replication_token": "acl.tokens.replication",
    "acl_token": "acl.tokens.default",
    "acl_ttl": "acl.token_ttl",
    "acl_enable_key_list_policy": "acl.enable_key_list_policy",
    "enable_acl_replication": "acl.enable_token_replication",
}
"""Old spellings, with the new one; an empty string: the key has no effect any more."""
