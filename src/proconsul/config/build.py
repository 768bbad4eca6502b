"""Merged settings -> `AgentConfig`. Conversion only; contradictions are found by `validate`."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import socket
from collections.abc import Callable
from typing import Any

from proconsul.config import auto_encrypt, model, sockaddr
from proconsul.config.addresses import AddressBuilder
from proconsul.config.config_entries import bootstrap_entries
from proconsul.config.decode import Tree
from proconsul.config.defaults import (
    DEV_RAFT_TIMEOUTS_S,
    MAX_RAFT_MULTIPLIER,
    RAFT_TIMEOUTS_S,
)
from proconsul.config.definitions import check_body, service_body
from proconsul.config.errors import SettingError
from proconsul.config.merge import Merged
from proconsul.util.naming import go_name

ACL_ROLE_TTL_S = 30.0
_PORTS = (
    "dns", "http", "https", "grpc", "serf_lan", "serf_wan", "server", "sidecar_min_port",
    "sidecar_max_port", "expose_min_port", "expose_max_port",
)  # fmt: skip


class Builder:
    """Builds one configuration. `interfaces` and `hostname` are the machine's, or a test's."""

    def __init__(
        self,
        merged: Merged,
        warnings: list[str],
        *,
        dev_mode: bool = False,
        interfaces: Callable[[], list[sockaddr.Interface]] = sockaddr.interfaces,
        hostname: Callable[[], str] = socket.gethostname,
    ) -> None:
        self._m = merged
        self._warnings = warnings
        self._dev = dev_mode
        self._interfaces = interfaces
        self._hostname = hostname

    def _fail(self, key: str, message: str, remedy: str) -> SettingError:
        return SettingError(message, key=key, source=self._m.origin(key), remedy=remedy)

    def _either(self, new: str, old: str, default: Any = "") -> Any:
        """A setting that has an old, deprecated spelling; the new one wins where a user set it."""
        if self._m.origin(new) or self._m.get(old) is None:
            return self._m.get(new, default)
        return self._m.get(old)

    def build(self) -> model.AgentConfig:
        """Raises SettingError for values that cannot be converted."""
        get = self._m.get
        ports = self._ports()
        addresses = AddressBuilder(self._m, ports, self._interfaces)
        datacenter = get("datacenter", "").lower()
        server = get("server")
        bootstrap, expect = get("bootstrap", False), get("bootstrap_expect", 0)
        if expect == 1:
            self._warnings.append(
                "BootstrapExpect is set to 1; this is the same as Bootstrap mode."
            )
            bootstrap, expect = True, 0
        primary = get("primary_datacenter", "") or get("acl_datacenter", "")
        return model.AgentConfig(
            node_name=(get("node_name") or self._hostname()).strip(),
            node_id=get("node_id", "").lower(),
            node_meta=get("node_meta", {}),
            datacenter=datacenter,
            primary_datacenter=primary.lower() or datacenter,
            server=server,
            bootstrap=bootstrap,
            bootstrap_expect=expect,
            dev_mode=self._dev,
            data_dir=get("data_dir", ""),
            addresses=addresses.build(),
            ports=ports,
            primary_gateways=addresses.expand_strings("primary_gateways"),
            primary_gateways_interval_s=get("primary_gateways_interval"),
            federation_state_prune_interval_s=get("federation_state_prune_interval"),
            join_lan=self._join(addresses, ""),
            join_wan=self._join(addresses, "_wan"),
            rejoin_after_leave=get("rejoin_after_leave", False),
            leave_on_terminate=get("leave_on_terminate", not server),
            skip_leave_on_interrupt=get("skip_leave_on_interrupt", server),
            leave_drain_time_s=get("performance.leave_drain_time"),
            rpc_hold_timeout_s=get("performance.rpc_hold_timeout"),
            rpc_protocol=get("protocol"),
            session_ttl_min_s=get("session_ttl_min", 0.0),
            coordinate_update_period_s=0.1 if self._dev else 5.0,
            disable_coordinates=get("disable_coordinates", False),
            discovery_max_stale_s=get("discovery_max_stale", 0.0),
            translate_wan_addrs=get("translate_wan_addrs", False),
            disable_remote_exec=get("disable_remote_exec"),
            enable_debug=get("enable_debug", False),
            pid_file=get("pid_file", ""),
            raft=self._raft(),
            gossip_lan=self._gossip("gossip_lan"),
            gossip_wan=self._gossip("gossip_wan"),
            tls=self._tls(),
            encrypt=self._encryption(),
            connect=self._connect(),
            auto_encrypt=auto_encrypt.build(self._m.get("auto_encrypt", {}), self._warnings),
            limits=self._limits(),
            acl=self._acl(),
            autopilot=self._autopilot(),
            telemetry=self._telemetry(),
            http=self._http(),
            dns=self._dns(addresses),
            log=self._logging(),
            cache=self._cache(),
            checks=self._checks(),
            service_definitions=tuple(
                service_body(tree, self._m.origin("services")) for tree in get("services", ())
            ),
            check_definitions=tuple(
                check_body(tree, self._m.origin("checks")) for tree in get("checks", ())
            ),
            watches=tuple(get("watches", ())),
            config_entries=bootstrap_entries(
                get("config_entries.bootstrap", ()), self._m.origin("config_entries.bootstrap")
            ),
            central_service_config=get("enable_central_service_config", False),
        )

    def _ports(self) -> model.Ports:
        values: dict[str, int] = {}
        for name in _PORTS:
            port = self._m.get(f"ports.{name}")
            if port > 65535:
                raise self._fail(
                    f"ports.{name}",
                    f"ports.{name}: invalid port: {port}",
                    "Give a port between 1 and 65535, or -1 to disable it",
                )
            values[name] = port if port > 0 else -1
        for name in ("sidecar", "expose"):
            if values[f"{name}_max_port"] < values[f"{name}_min_port"]:
                raise self._fail(
                    f"ports.{name}_min_port",
                    f"{name}_min_port must be less than {name}_max_port",
                    "To disable, set both to zero",
                )
        return model.Ports(**values)

    def _join(self, addresses: AddressBuilder, suffix: str) -> model.Join:
        get = self._m.get
        pool = "wan" if suffix else "lan"
        cidrs = f"serf_{pool}_allowed_cidrs"
        return model.Join(
            start_join=addresses.expand_strings(f"start_join{suffix}"),
            retry_join=addresses.expand_strings(f"retry_join{suffix}"),
            retry_interval_s=get(f"retry_interval{suffix}"),
            retry_max=get(f"retry_max{suffix}", 0),
            reconnect_timeout_s=get(f"reconnect_timeout{suffix}", 0.0),
            allowed_cidrs=self._cidrs(cidrs),
        )

    def _cidrs(self, key: str) -> tuple[str, ...]:
        out: list[str] = []
        for text in self._m.get(key, ()):
            try:
                out.append(str(ipaddress.ip_network(text.strip(), strict=False)))
            except ValueError:
                name = key.rpartition(".")[2]
                raise self._fail(
                    key, f"{name}: invalid cidr: {text}", 'Write it as "192.168.1.0/24"'
                ) from None
        return tuple(out)

    def _raft(self) -> model.Raft:
        get = self._m.get
        multiplier = get("performance.raft_multiplier")
        if not 1 <= multiplier <= MAX_RAFT_MULTIPLIER:
            raise self._fail(
                "performance.raft_multiplier",
                f"performance.raft_multiplier cannot be {multiplier}. Must be between 1 and"
                f" {MAX_RAFT_MULTIPLIER}",
                "Use 1 for fast machines, 5 (the default) for small ones",
            )
        base = DEV_RAFT_TIMEOUTS_S if self._dev else RAFT_TIMEOUTS_S
        return model.Raft(
            election_timeout_s=base["election"] * multiplier,
            heartbeat_timeout_s=base["heartbeat"] * multiplier,
            leader_lease_timeout_s=base["leader_lease"] * multiplier,
            raft_multiplier=multiplier,
            protocol=get("raft_protocol"),
            # 0 means unset, as in the reference
            snapshot_threshold=get("raft_snapshot_threshold", 0) or 16384,
            snapshot_interval_s=get("raft_snapshot_interval", 0.0) or 30.0,
            trailing_logs=get("raft_trailing_logs", 0) or 10240,
        )

    def _gossip(self, section: str) -> model.GossipTuning:
        tree = self._m.get(section)
        return model.GossipTuning(
            gossip_interval_s=tree["gossip_interval"],
            gossip_nodes=tree["gossip_nodes"],
            probe_interval_s=tree["probe_interval"],
            probe_timeout_s=tree["probe_timeout"],
            suspicion_mult=tree["suspicion_mult"],
            retransmit_mult=tree["retransmit_mult"],
        )

    def _tls(self) -> model.Tls:
        get = self._m.get
        hostname = get("verify_server_hostname", False)
        return model.Tls(
            **{k: get(k, "") for k in ("ca_file", "ca_path", "cert_file", "key_file")},
            **{
                k: get(k, False)
                for k in ("verify_incoming", "verify_incoming_rpc", "verify_incoming_https")
            },
            # Checking names without TLS would check nothing (CVE-2018-19653)
            verify_outgoing=get("verify_outgoing", False) or hostname,
            verify_server_hostname=hostname,
            min_version=get("tls_min_version") or "tls12",
            cipher_suites=get("tls_cipher_suites", ""),
            prefer_server_cipher_suites=get("tls_prefer_server_cipher_suites", False),
            server_name=get("server_name", ""),
        )

    def _encryption(self) -> model.Encryption:
        get = self._m.get
        key = None
        if text := get("encrypt", ""):
            remedy = "Make a key by: proconsul keygen"
            try:
                key = base64.b64decode(text, validate=True)
            except (binascii.Error, ValueError):
                raise self._fail(
                    "encrypt", "encrypt has invalid key: illegal base64 data", remedy
                ) from None
            if len(key) not in (16, 24, 32):
                raise self._fail(
                    "encrypt",
                    f"encrypt has invalid key: key size must be 16, 24 or 32 bytes, got {len(key)}",
                    remedy,
                )
        return model.Encryption(
            key=key,
            verify_incoming=get("encrypt_verify_incoming"),
            verify_outgoing=get("encrypt_verify_outgoing"),
            keyring_file=not get("disable_keyring_file", False),
        )

    def _connect(self) -> model.Connect:
        tree: Tree = self._m.get("connect", {})
        return model.Connect(
            enabled=tree.get("enabled", False)
            or self._m.get("auto_encrypt", {}).get("allow_tls", False),
            enable_mesh_gateway_wan_federation=tree.get(
                "enable_mesh_gateway_wan_federation", False
            ),
            ca_provider=tree.get("ca_provider", ""),
            ca_config={
                k if k[:1].isupper() else _CA_KEYS.get(k) or go_name(k): v
                for k, v in tree.get("ca_config", {}).items()
            },
        )

    def _limits(self) -> model.Limits:
        tree = self._m.get("limits")
        return model.Limits(
            http_max_conns_per_client=tree["http_max_conns_per_client"],
            https_handshake_timeout_s=tree["https_handshake_timeout"],
            rpc_handshake_timeout_s=tree["rpc_handshake_timeout"],
            rpc_rate=float(tree["rpc_rate"]),
            rpc_max_burst=tree["rpc_max_burst"],
            rpc_max_conns_per_client=tree["rpc_max_conns_per_client"],
            kv_max_value_size=tree["kv_max_value_size"],
            txn_max_req_len=tree["txn_max_req_len"],
        )

    def _acl(self) -> model.Acl:
        get, either = self._m.get, self._either
        return model.Acl(
            enabled=get("acl.enabled", get("acl_datacenter") is not None),
            default_policy=either("acl.default_policy", "acl_default_policy"),
            down_policy=either("acl.down_policy", "acl_down_policy"),
            token_ttl_s=either("acl.token_ttl", "acl_ttl"),
            policy_ttl_s=get("acl.policy_ttl"),
            # As Consul's servers take it: no time at all is the default.
            role_ttl_s=get("acl.role_ttl", 0.0) or ACL_ROLE_TTL_S,
            disabled_ttl_s=get("acl.disabled_ttl"),
            enable_key_list_policy=either(
                "acl.enable_key_list_policy", "acl_enable_key_list_policy", False
            ),
            enable_token_replication=either(
                "acl.enable_token_replication",
                "enable_acl_replication",
                get("acl_replication_token") is not None,
            ),
            enable_token_persistence=get("acl.enable_token_persistence", False),
            tokens=model.AclTokens(
                **{
                    name: either(f"acl.tokens.{name}", old)
                    for name, old in (
                        ("default", "acl_token"),
                        ("agent", "acl_agent_token"),
                        ("agent_master", "acl_agent_master_token"),
                        ("master", "acl_master_token"),
                        ("replication", "acl_replication_token"),
                    )
                }
            ),
        )

    def _autopilot(self) -> model.Autopilot:
        tree = self._m.get("autopilot")
        return model.Autopilot(
            cleanup_dead_servers=tree["cleanup_dead_servers"],
            last_contact_threshold_s=tree["last_contact_threshold"],
            max_trailing_logs=tree["max_trailing_logs"],
            min_quorum=tree.get("min_quorum", 0),
            server_stabilization_time_s=tree["server_stabilization_time"],
            server_health_interval_s=0.010 if self._dev else 2.0,
        )

    def _telemetry(self) -> model.Telemetry:
        tree = self._m.get("telemetry")
        allowed: list[str] = []
        blocked: list[str] = []
        for rule in tree.get("prefix_filter", ()):
            if not rule:
                self._warnings.append("Cannot have empty filter rule in prefix_filter")
            elif rule[0] not in "+-":
                self._warnings.append(f"Filter rule must begin with either '+' or '-': \"{rule}\"")
            else:
                (allowed if rule[0] == "+" else blocked).append(rule[1:])
        return model.Telemetry(
            metrics_prefix=tree["metrics_prefix"],
            disable_hostname=tree.get("disable_hostname", False),
            prometheus_retention_time_s=tree.get("prometheus_retention_time", 0.0),
            filter_default=tree["filter_default"],
            allowed_prefixes=tuple(allowed),
            blocked_prefixes=tuple(blocked),
        )

    def _http(self) -> model.Http:
        get = self._m.get
        tree: Tree = get("http_config", {})
        sockets: Tree = get("unix_sockets", {})
        return model.Http(
            response_headers=tree.get("response_headers", {}),
            block_endpoints=tuple(tree.get("block_endpoints", ())),
            allow_write_http_from=self._cidrs("http_config.allow_write_http_from"),
            use_cache=tree.get("use_cache", True),
            default_query_time_s=get("default_query_time"),
            max_query_time_s=get("max_query_time"),
            filter_unprintable=not get("disable_http_unprintable_char_filter", False),
            unix_socket_user=sockets.get("user", ""),
            unix_socket_group=sockets.get("group", ""),
            unix_socket_mode=sockets.get("mode", ""),
        )

    def _dns(self, addresses: AddressBuilder) -> model.Dns:
        get = self._m.get
        tree = get("dns_config")
        soa = tree.get("soa", {})
        return model.Dns(
            domain=get("domain"),
            alt_domain=get("alt_domain", ""),
            recursors=tuple(dict.fromkeys(addresses.expand_strings("recursors"))),
            recursor_timeout_s=tree["recursor_timeout"],
            allow_stale=tree["allow_stale"],
            max_stale_s=tree["max_stale"],
            a_record_limit=tree["a_record_limit"],
            udp_answer_limit=tree["udp_answer_limit"],
            node_ttl_s=tree.get("node_ttl", 0.0),
            service_ttl_s=tree.get("service_ttl", {}),
            enable_additional_node_meta_txt=tree.get("enable_additional_node_meta_txt", True),
            cache_max_age_s=tree.get("cache_max_age", 0.0),
            soa=model.Soa(**{**_SOA, **soa}),
            **{
                k: tree.get(k, False)
                for k in ("disable_compression", "enable_truncate", "only_passing", "use_cache")
            },
        )

    def _logging(self) -> model.Logging:
        get = self._m.get
        return model.Logging(
            level=get("log_level").upper(),
            json=get("log_json", False),
            file=get("log_file", ""),
            rotate_bytes=get("log_rotate_bytes", 0),
            rotate_duration_s=get("log_rotate_duration", 0.0),
            rotate_max_files=get("log_rotate_max_files", 0),
        )

    def _cache(self) -> model.Cache:
        tree = self._m.get("cache", {})
        return model.Cache(
            entry_fetch_rate=tree.get("entry_fetch_rate"),
            entry_fetch_max_burst=tree.get("entry_fetch_max_burst", 2),
        )

    def _checks(self) -> model.Checks:
        get = self._m.get
        remote = get("enable_script_checks", False)
        return model.Checks(
            output_max_size=get("check_output_max_size"),
            update_interval_s=get("check_update_interval"),
            discard_output=get("discard_check_output", False),
            enable_script_checks=remote,
            enable_local_script_checks=get("enable_local_script_checks", remote),
            use_agent_tls=get("enable_agent_tls_for_checks", False),
        )


_SOA = {"refresh": 3600, "retry": 600, "expire": 86400, "min_ttl": 0}
_CA_KEYS = {
    "private_key": "PrivateKey",
    "root_pki_path": "RootPKIPath",
    "intermediate_pki_path": "IntermediatePKIPath",
    "existing_arn": "ExistingARN",
    "csr_max_per_second": "CSRMaxPerSecond",
    "csr_max_concurrent": "CSRMaxConcurrent",
}
"""Go's names for keys of `connect.ca_config` that the general rule does not give."""
