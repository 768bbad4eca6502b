"""The flags of `agent`, and which configuration key each one sets (`agent/config/flags.go`)."""

# ruff: noqa: E501 (the usage texts)
from __future__ import annotations

from typing import Any, NamedTuple

from proconsul.config.decode import Tree
from proconsul.config.goflags import Flag, Parsed, bool_flag, int_flag, string_flag, strings_flag
from proconsul.config.schema import ROOT, Kind
from proconsul.config.sources import Source
from proconsul.util.goduration import parse_duration

# fmt: off
_KEYS: tuple[tuple[str, str, str], ...] = (
    ("advertise", "advertise_addr", "Sets the advertise address to use."),
    ("advertise-wan", "advertise_addr_wan", "Sets address to advertise on WAN instead of -advertise address."),
    ("allow-write-http-from", "http_config.allow_write_http_from", "Only allow write endpoint calls from given network. CIDR format, can be specified multiple times."),
    ("alt-domain", "alt_domain", "Alternate domain to use for DNS interface."),
    ("bind", "bind_addr", "Sets the bind address for cluster communication."),
    ("bootstrap", "bootstrap", "Sets server to bootstrap mode."),
    ("bootstrap-expect", "bootstrap_expect", "Sets server to expect bootstrap mode."),
    ("check_output_max_size", "check_output_max_size", "Sets the maximum output size for checks on this agent"),
    ("client", "client_addr", "Sets the address to bind for client access. This includes RPC, DNS, HTTP, HTTPS and gRPC (if configured)."),
    ("data-dir", "data_dir", "Path to a data directory to store agent state."),
    ("datacenter", "datacenter", "Datacenter of the agent."),
    ("default-query-time", "default_query_time", "the amount of time a blocking query will wait before a response is forced. This value can be overridden by the 'wait' query parameter."),
    ("disable-host-node-id", "disable_host_node_id", "Accepted for compatibility: node IDs are always random and persisted in the data-dir."),
    ("disable-keyring-file", "disable_keyring_file", "Disables the backing up of the keyring to a file."),
    ("dns-port", "ports.dns", "DNS port to use."),
    ("domain", "domain", "Domain to use for DNS interface."),
    ("enable-local-script-checks", "enable_local_script_checks", "Enables health check scripts from configuration file."),
    ("enable-script-checks", "enable_script_checks", "Enables health check scripts."),
    ("encrypt", "encrypt", "Provides the gossip encryption key."),
    ("grpc-port", "ports.grpc", "Sets the gRPC API port to listen on (currently needed for Envoy xDS only)."),
    ("http-port", "ports.http", "Sets the HTTP API port to listen on."),
    ("https-port", "ports.https", "Sets the HTTPS API port to listen on."),
    ("join", "start_join", "Address of an agent to join at start time. Can be specified multiple times."),
    ("join-wan", "start_join_wan", "Address of an agent to join -wan at start time. Can be specified multiple times."),
    ("log-file", "log_file", "Path to the file the logs get written to"),
    ("log-json", "log_json", "Output logs in JSON format."),
    ("log-level", "log_level", "Log level of the agent."),
    ("log-rotate-bytes", "log_rotate_bytes", "Maximum number of bytes that should be written to a log file"),
    ("log-rotate-duration", "log_rotate_duration", "Time after which log rotation needs to be performed"),
    ("log-rotate-max-files", "log_rotate_max_files", "Maximum number of log file archives to keep"),
    ("max-query-time", "max_query_time", "the maximum amount of time a blocking query can wait before a response is forced. Jitter is applied to the wait time; the jittered time will be capped to this."),
    ("node", "node_name", "Name of this node. Must be unique in the cluster."),
    ("node-id", "node_id", "A unique ID for this node across space and time. Defaults to a randomly-generated ID that persists in the data-dir."),
    ("node-meta", "node_meta", "An arbitrary metadata key/value pair for this node, of the format `key:value`. Can be specified multiple times."),
    ("non-voting-server", "non_voting_server", "(Enterprise-only) Not supported."),
    ("pid-file", "pid_file", "Path to file to store agent PID."),
    ("primary-gateway", "primary_gateways", "Address of a mesh gateway in the primary datacenter to use to bootstrap WAN federation at start time with retries enabled. Can be specified multiple times."),
    ("protocol", "protocol", "Sets the protocol version. Defaults to latest."),
    ("raft-protocol", "raft_protocol", "Sets the Raft protocol version. Defaults to latest."),
    ("recursor", "recursors", "Address of an upstream DNS server. Can be specified multiple times."),
    ("rejoin", "rejoin_after_leave", "Ignores a previous leave and attempts to rejoin the cluster."),
    ("retry-interval", "retry_interval", "Time to wait between join attempts."),
    ("retry-interval-wan", "retry_interval_wan", "Time to wait between join -wan attempts."),
    ("retry-join", "retry_join", "Address of an agent to join at start time with retries enabled. Can be specified multiple times."),
    ("retry-join-wan", "retry_join_wan", "Address of an agent to join -wan at start time with retries enabled. Can be specified multiple times."),
    ("retry-max", "retry_max", "Maximum number of join attempts. Defaults to 0, which will retry indefinitely."),
    ("retry-max-wan", "retry_max_wan", "Maximum number of join -wan attempts. Defaults to 0, which will retry indefinitely."),
    ("segment", "segment", "(Enterprise-only) Not supported."),
    ("serf-lan-allowed-cidrs", "serf_lan_allowed_cidrs", "Networks (eg: 192.168.1.0/24) allowed for Serf LAN. Can be specified multiple times."),
    ("serf-lan-bind", "serf_lan", "Address to bind Serf LAN listeners to."),
    ("serf-lan-port", "ports.serf_lan", "Sets the Serf LAN port to listen on."),
    ("serf-wan-allowed-cidrs", "serf_wan_allowed_cidrs", "Networks (eg: 192.168.1.0/24) allowed for Serf WAN (other datacenters). Can be specified multiple times."),
    ("serf-wan-bind", "serf_wan", "Address to bind Serf WAN listeners to."),
    ("serf-wan-port", "ports.serf_wan", "Sets the Serf WAN port to listen on."),
    ("server", "server", "Switches agent to server mode."),
    ("server-port", "ports.server", "Sets the server port to listen on."),
    ("syslog", "enable_syslog", "Enables logging to syslog. Not supported."),
    ("ui", "ui", "Enables the built-in static web UI server. Not supported."),
    ("ui-content-path", "ui_content_path", "Sets the external UI path to a string. Defaults to: /ui/ "),
    ("ui-dir", "ui_dir", "Path to directory containing the web UI resources. Not supported."),
)
# fmt: on

CONTROL_FLAGS: tuple[Flag, ...] = (
    Flag(
        "config-dir",
        "Path to a directory to read configuration files from. This will read every file ending in"
        " '.json' or '.hcl' as configuration in this directory in alphabetical order. Can be"
        " specified multiple times.",
        many=True,
        dest="config-file",
    ),
    strings_flag(
        "config-file",
        "Path to a file in JSON or HCL format with a matching file extension. Can be specified"
        " multiple times.",
    ),
    string_flag(
        "config-format",
        "Config files are in this format irrespective of their extension. Must be 'hcl' or 'json'",
    ),
    bool_flag("dev", "Starts the agent in development mode."),
    strings_flag("hcl", "hcl config fragment. Can be specified multiple times."),
)
"""Flags that say where settings come from, rather than set one."""


class FlagSources(NamedTuple):
    """The command line as sources: lists go below the files, everything else above them."""

    lists: Source
    values: Source
    fragments: tuple[str, ...]


def _kind(key: str) -> Kind:
    node: Any = ROOT
    for part in key.split("."):
        node = node[part]
    assert isinstance(node, Kind)
    return node


def _flag(name: str, key: str, usage: str) -> Flag:
    match _kind(key):
        case Kind.BOOL:
            return bool_flag(name, usage)
        case Kind.INT:
            return int_flag(name, usage)
        case Kind.DURATION:
            return Flag(name, usage, parse_duration, 0.0)
        case Kind.STRS | Kind.STR_MAP:
            return strings_flag(name, usage)
        case _:
            return string_flag(name, usage)


def agent_flags() -> list[Flag]:
    """All flags of `agent`, sorted by name as in its usage."""
    return sorted([*CONTROL_FLAGS, *(_flag(*entry) for entry in _KEYS)], key=lambda flag: flag.name)


def flag_sources(parsed: Parsed) -> FlagSources:
    """Turn parsed flags into sources."""
    lists: Tree = {}
    values: Tree = {}
    for name, key, _ in _KEYS:
        if name not in parsed.given:
            continue
        value = parsed.given[name]
        kind = _kind(key)
        if kind is Kind.STR_MAP:
            value = dict(_pair(item) for item in value)
        _put(lists if kind is Kind.STRS else values, key, value)
    return FlagSources(
        Source("the command line", lists),
        Source("the command line", values),
        tuple(parsed["hcl"]),
    )


def _pair(text: str) -> tuple[str, str]:
    key, _, value = text.partition(":")
    return key, value


def _put(tree: Tree, path: str, value: Any) -> None:
    *parents, leaf = path.split(".")
    for part in parents:
        tree = tree.setdefault(part, {})
    tree[leaf] = value
