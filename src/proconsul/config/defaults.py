"""Consul's defaults (`agent/config/default.go`), and those of -dev. Durations in seconds."""

from __future__ import annotations

from proconsul.config.decode import Tree
from proconsul.config.sources import Source

RAFT_TIMEOUTS_S = {"election": 1.0, "heartbeat": 1.0, "leader_lease": 0.5}
"""Of hashicorp/raft, before `performance.raft_multiplier`."""

DEV_RAFT_TIMEOUTS_S = {"election": 0.052, "heartbeat": 0.035, "leader_lease": 0.020}

MAX_RAFT_MULTIPLIER = 10


def default_source() -> Source:
    """What every agent starts from."""
    gossip = {"gossip_nodes": 3, "retransmit_mult": 4}
    tree: Tree = {
        "acl": {
            "default_policy": "allow", "down_policy": "extend-cache", "token_ttl": 30.0,
            "policy_ttl": 30.0, "disabled_ttl": 120.0,
        },
        "bind_addr": "0.0.0.0",
        "check_output_max_size": 4096,
        "check_update_interval": 300.0,
        "client_addr": "127.0.0.1",
        "datacenter": "dc1",
        "default_query_time": 300.0,
        "disable_remote_exec": True,
        "domain": "consul.",
        "federation_state_prune_interval": 3600.0,
        "encrypt_verify_incoming": True,
        "encrypt_verify_outgoing": True,
        "log_level": "INFO",
        "max_query_time": 600.0,
        "primary_gateways_interval": 30.0,
        "protocol": 2,
        "raft_protocol": 3,
        "retry_interval": 30.0,
        "retry_interval_wan": 30.0,
        "server": False,
        "tls_min_version": "tls12",
        "autopilot": {
            "cleanup_dead_servers": True, "last_contact_threshold": 0.2,
            "max_trailing_logs": 250, "server_stabilization_time": 10.0,
        },
        "gossip_lan": {
            **gossip, "gossip_interval": 0.2, "probe_interval": 1.0, "probe_timeout": 0.5,
            "suspicion_mult": 4,
        },
        "gossip_wan": {
            **gossip, "gossip_interval": 0.5, "probe_interval": 5.0, "probe_timeout": 3.0,
            "suspicion_mult": 6,
        },
        "dns_config": {
            "allow_stale": True, "a_record_limit": 0, "udp_answer_limit": 3,
            "max_stale": 87600 * 3600.0, "recursor_timeout": 2.0,
        },
        "limits": {
            "http_max_conns_per_client": 200, "https_handshake_timeout": 5.0,
            "rpc_handshake_timeout": 5.0, "rpc_rate": -1.0, "rpc_max_burst": 1000,
            "rpc_max_conns_per_client": 100, "kv_max_value_size": 512 * 1024,
            "txn_max_req_len": 512 * 1024,
        },
        "performance": {"leave_drain_time": 5.0, "raft_multiplier": 5, "rpc_hold_timeout": 7.0},
        "ports": {
            "dns": 8600, "http": 8500, "https": -1, "grpc": -1, "serf_lan": 8301,
            "serf_wan": 8302, "server": 8300, "proxy_min_port": 20000, "proxy_max_port": 20255,
            "sidecar_min_port": 21000, "sidecar_max_port": 21255, "expose_min_port": 21500,
            "expose_max_port": 21755,
        },
        "telemetry": {"metrics_prefix": "consul", "filter_default": True},
    }  # fmt: skip
    return Source("", tree)


def dev_source() -> Source:
    """What -dev puts over the defaults."""
    gossip = {
        "gossip_interval": 0.1, "probe_interval": 0.1, "probe_timeout": 0.1, "suspicion_mult": 3,
    }  # fmt: skip
    tree: Tree = {
        "bind_addr": "127.0.0.1",
        "disable_keyring_file": True,
        "enable_debug": True,
        "log_level": "DEBUG",
        "server": True,
        "gossip_lan": dict(gossip),
        "gossip_wan": dict(gossip),
        "connect": {"enabled": True},
        "performance": {"raft_multiplier": 1},
        "ports": {"grpc": 8502},
    }
    return Source("the defaults of -dev", tree)
