"""Contradictions between settings: each ends the start, naming key, file and remedy.

The rules and texts of `agent/config/builder.go` (Validate) and `tlsutil/config.go` (check), and
what federation through mesh gateways demands in addition.
"""

from __future__ import annotations

import ipaddress
import os
import re
import resource
import uuid
from collections.abc import Iterable

from proconsul.config import auto_encrypt
from proconsul.config.errors import SettingError
from proconsul.config.merge import Merged
from proconsul.config.model import AgentConfig, ListenAddress
from proconsul.config.providers import check_providers
from proconsul.config.schema import DEPRECATED, UNSUPPORTED

_DATACENTER = re.compile(r"[a-z0-9_-]+")
_BAD_NODE_NAME = re.compile(r"[^A-Za-z0-9-]")
_LOG_LEVELS = ("TRACE", "DEBUG", "INFO", "WARN", "ERR", "ERROR")
_TLS_VERSIONS = ("tls10", "tls11", "tls12", "tls13")
_FEDERATION = "connect.enable_mesh_gateway_wan_federation"
_META_KEY = re.compile(r"[A-Za-z0-9_-]+")
_META_MAX_PAIRS, _META_MAX_KEY, _META_MAX_VALUE = 64, 128, 512


class _Rules:
    def __init__(self, config: AgentConfig, merged: Merged, warnings: list[str]) -> None:
        self.c = config
        self._m = merged
        self._warnings = warnings

    def refuse(self, when: bool, key: str, message: str, remedy: str) -> None:
        if when:
            raise SettingError(message, key=key, source=self._m.origin(key), remedy=remedy)

    def warn(self, text: str) -> None:
        self._warnings.append(text)

    def identity(self) -> None:
        c = self.c
        self.refuse(not c.datacenter, "datacenter", "datacenter cannot be empty", "Name it")
        for key, value in (
            ("datacenter", c.datacenter),
            ("primary_datacenter", c.primary_datacenter),
        ):
            self.refuse(
                not _DATACENTER.fullmatch(value), key,
                f'{key} cannot be "{value}". Please use only [a-z0-9-_]', "Rename it",
            )  # fmt: skip
        self.refuse(
            not c.data_dir and not c.dev_mode, "data_dir", "data_dir cannot be empty",
            "Set data_dir (-data-dir), or start with -dev",
        )  # fmt: skip
        self.refuse(
            bool(c.data_dir) and os.path.exists(c.data_dir) and not os.path.isdir(c.data_dir),
            "data_dir", f'data_dir "{c.data_dir}" is not a directory', "Name a directory",
        )  # fmt: skip
        self.refuse(not c.node_name, "node_name", "node_name cannot be empty", "Name the node")
        if _BAD_NODE_NAME.search(c.node_name):
            self.warn(
                f'Node name "{c.node_name}" will not be discoverable via DNS due to invalid'
                " characters. Valid characters include all alpha-numerics and dashes."
            )
        elif len(c.node_name) > 63:
            self.warn(
                f'Node name "{c.node_name}" will not be discoverable via DNS due to it being too'
                " long. Valid lengths are between 1 and 63 bytes."
            )
        if c.node_id:
            try:
                uuid.UUID(c.node_id)
                valid = len(c.node_id) == 36
            except ValueError:
                valid = False
            self.refuse(
                not valid, "node_id", f'node_id "{c.node_id}" is not a UUID',
                "Remove it, and a random one is made and kept",
            )  # fmt: skip
        self._node_meta()

    def _node_meta(self) -> None:
        meta = self.c.node_meta
        problem = ""
        if len(meta) > _META_MAX_PAIRS:
            problem = f"Node metadata cannot contain more than {_META_MAX_PAIRS} key/value pairs"
        for key, value in meta.items():
            reason = ""
            if not key:
                reason = "Key cannot be blank"
            elif not _META_KEY.fullmatch(key):
                reason = "Key contains invalid characters"
            elif len(key) > _META_MAX_KEY:
                reason = f"Key is too long (limit: {_META_MAX_KEY} characters)"
            elif key.startswith("consul-"):
                reason = "Key prefix 'consul-' is reserved for internal use"
            elif len(value) > _META_MAX_VALUE:
                reason = f"Value is too long (limit: {_META_MAX_VALUE} characters)"
            if reason:
                problem = f"Couldn't load metadata pair ('{key}', '{value}'): {reason}"
                break
        self.refuse(
            bool(problem),
            "node_meta",
            f"node_meta invalid: {problem}",
            "Correct or remove the pair",
        )

    def servers(self) -> None:
        c = self.c
        self.refuse(
            c.bootstrap and not c.server, "bootstrap",
            "'bootstrap = true' requires 'server = true'", "Set server = true, or remove it",
        )  # fmt: skip
        expect = c.bootstrap_expect
        key = "bootstrap_expect"
        self.refuse(
            expect < 0, key,
            f"bootstrap_expect cannot be {expect}. Must be greater than or equal to zero",
            "Give the number of servers",
        )  # fmt: skip
        self.refuse(
            expect > 0 and not c.server, key, "'bootstrap_expect > 0' requires 'server = true'",
            "Set server = true, or remove it",
        )  # fmt: skip
        self.refuse(
            expect > 0 and c.dev_mode, key, "'bootstrap_expect > 0' not allowed in dev mode",
            "Remove it, or start without -dev",
        )  # fmt: skip
        self.refuse(
            expect > 0 and c.bootstrap, key,
            "'bootstrap_expect > 0' and 'bootstrap = true' are mutually exclusive",
            "Keep bootstrap_expect",
        )  # fmt: skip
        self.refuse(
            c.raft.protocol != 3, "raft_protocol",
            f"raft_protocol {c.raft.protocol} is not supported", "Remove it: 3 is the default",
        )  # fmt: skip
        self.refuse(
            not 2 <= c.rpc_protocol <= 3, "protocol",
            f"Protocol version '{c.rpc_protocol}' not supported. Must be in range: [2, 3]",
            "Remove it",
        )  # fmt: skip
        if not c.server or c.dev_mode:
            return
        link = "See https://www.consul.io/docs/internals/consensus.html#deployment-table"
        if expect == 2:
            self.warn(
                "bootstrap_expect = 2: A cluster with 2 servers will provide no failure tolerance."
                f" {link}"
            )
        elif expect > 2 and expect % 2 == 0:
            self.warn(
                "bootstrap_expect is even number: A cluster with an even number of servers does"
                f" not achieve optimum fault tolerance. {link}"
            )
        if c.bootstrap:
            self.warn("bootstrap = true: do not enable unless necessary")
        elif expect > 1:
            self.warn(f"bootstrap_expect > 0: expecting {expect} servers")

    def tls(self) -> None:
        t = self.c.tls
        auto_encrypt.check(self.c, self.refuse)
        self._warnings.extend(auto_encrypt.warnings(self.c))
        self.refuse(
            t.min_version not in _TLS_VERSIONS, "tls_min_version",
            f"TLSMinVersion: value {t.min_version} not supported, please specify one of"
            f" [{','.join(_TLS_VERSIONS)}]", "Use tls12",
        )  # fmt: skip
        self.refuse(
            bool(t.cert_file) != bool(t.key_file), "cert_file" if t.cert_file else "key_file",
            "cert_file and key_file must be set together", "Set both, or neither",
        )  # fmt: skip
        key = "verify_server_hostname" if t.verify_server_hostname else "verify_outgoing"
        self.refuse(
            t.verify_outgoing and not t.has_ca, key,
            "VerifyOutgoing set, and no CA certificate provided!", "Set ca_file",
        )  # fmt: skip
        for key in ("verify_incoming", "verify_incoming_rpc", "verify_incoming_https"):
            wanted = getattr(t, key)
            self.refuse(
                wanted and not t.has_ca, key,
                "VerifyIncoming set but no CA certificates were provided", "Set ca_file",
            )  # fmt: skip
            self.refuse(
                wanted and not t.has_certificate and not self.c.auto_encrypt.tls, key,
                "VerifyIncoming requires a Cert and Key pair in the configuration file",
                "Set cert_file and key_file",
            )  # fmt: skip
        for key, path in (
            ("ca_file", t.ca_file), ("ca_path", t.ca_path),
            ("cert_file", t.cert_file), ("key_file", t.key_file),
        ):  # fmt: skip
            self.refuse(
                bool(path) and not os.access(path, os.R_OK), key,
                f"{key}: cannot read {path}", "Name a file that the agent may read",
            )  # fmt: skip

    def federation(self) -> None:
        c = self.c
        on = c.federates_through_gateways
        for when, key, message, remedy in (
            (not c.connect.enabled, _FEDERATION,
             f"'{_FEDERATION}=true' requires 'connect.enabled=true'", "Set connect.enabled = true"),
            (not c.server, _FEDERATION,
             f"'{_FEDERATION} = true' requires 'server = true'", "Remove it on clients"),
            ("/" in c.node_name, "node_name",
             f"'{_FEDERATION} = true' requires that 'node_name' not contain '/' characters",
             "Rename the node"),
            (bool(c.join_wan.start_join), "start_join_wan",
             f"'start_join_wan' is incompatible with '{_FEDERATION} = true'",
             "Remove it; in a secondary datacenter set primary_gateways"),
            (bool(c.join_wan.retry_join), "retry_join_wan",
             f"'retry_join_wan' is incompatible with '{_FEDERATION} = true'",
             "Remove it; in a secondary datacenter set primary_gateways"),
            (c.ports.serf_wan < 0, "ports.serf_wan",
             f"'{_FEDERATION} = true' requires the WAN gossip port", "Set ports.serf_wan = 8302"),
            (not c.tls.has_ca, "ca_file",
             f"'{_FEDERATION} = true' requires 'ca_file' or 'ca_path': gateways are reached by TLS"
             " alone", "Make one by: proconsul tls ca create"),
            (not c.tls.has_certificate, "cert_file",
             f"'{_FEDERATION} = true' requires 'cert_file' and 'key_file': gateways are reached by"
             " TLS alone", f"Make them by: proconsul tls cert create -server -dc {c.datacenter}"
             f" -node {c.node_name}"),
        ):  # fmt: skip
            self.refuse(on and when, key, message, remedy)
        key = "primary_gateways"
        if c.primary_gateways:
            self.refuse(
                not c.server, key, "'primary_gateways' requires 'server = true'",
                "Remove it; clients reach other datacenters through their servers",
            )  # fmt: skip
            self.refuse(
                c.is_primary, key,
                "'primary_gateways' should only be configured in a secondary datacenter",
                "Remove it, or set primary_datacenter",
            )  # fmt: skip
            self.refuse(
                not on, key, f"'primary_gateways' requires '{_FEDERATION} = true'",
                f"Set {_FEDERATION} = true",
            )  # fmt: skip
            self.refuse(
                c.primary_gateways_interval_s <= 0, "primary_gateways_interval",
                "primary_gateways_interval must be positive", "Remove it: 30s is the default",
            )  # fmt: skip
        self.refuse(
            c.federation_state_prune_interval_s <= 0, "federation_state_prune_interval",
            "federation_state_prune_interval must be positive", "Remove it: 1h is the default",
        )  # fmt: skip
        if on and not c.is_primary and not c.primary_gateways:
            self.warn(
                "primary_gateways is not set: this datacenter finds the primary only by gateways"
                " that it learned before"
            )
        if on and "." in c.node_name:
            self.warn(
                f'Node name "{c.node_name}" contains a dot: servers of Consul 1.8 reject such names'
                " in a federation through mesh gateways"
            )

    def access(self) -> None:
        c = self.c
        policies = {"acl.default_policy": ("allow", "deny"),
                    "acl.down_policy": ("allow", "deny", "extend-cache", "async-cache"),
        }  # fmt: skip
        for key, known in policies.items():
            name = key.rpartition(".")[2]
            value = getattr(c.acl, name)
            self.refuse(
                value not in known, key,
                f"Unsupported {name.replace('_policy', '')} ACL policy: {value}",
                f"Use one of {', '.join(known)}",
            )  # fmt: skip
        if c.checks.enable_script_checks and not c.acl.enabled and not c.http.allow_write_http_from:
            self.warn(
                "using enable-script-checks without ACLs and without allow_write_http_from is"
                " DANGEROUS, use enable-local-script-checks instead, see"
                " https://www.hashicorp.com/blog/"
                "protecting-consul-from-rce-risk-in-specific-configurations/"
            )

    def cache(self) -> None:
        for key, value in (
            ("entry_fetch_max_burst", self.c.cache.entry_fetch_max_burst),
            ("entry_fetch_rate", self.c.cache.entry_fetch_rate),
        ):
            self.refuse(
                value is not None and value <= 0, f"cache.{key}",
                f"cache.{key} must be strictly positive, was: {value}", "Leave it out",
            )  # fmt: skip

    def limits(self) -> None:
        c = self.c
        self.refuse(
            c.checks.output_max_size < 1, "check_output_max_size",
            "check_output_max_size must be positive, to discard check output use the"
            " discard_check_output flag", "Set discard_check_output = true",
        )  # fmt: skip
        for key, number in (
            ("autopilot.max_trailing_logs", c.autopilot.max_trailing_logs),
            ("dns_config.udp_answer_limit", c.dns.udp_answer_limit),
            ("dns_config.a_record_limit", c.dns.a_record_limit),
            ("retry_max", c.join_lan.retry_max),
            ("retry_max_wan", c.join_wan.retry_max),
        ):
            self.refuse(
                number < 0, key,
                f"{key} cannot be {number}. Must be greater than or equal to zero", "Correct it",
            )  # fmt: skip
        for section, tuning in (("gossip_lan", c.gossip_lan), ("gossip_wan", c.gossip_wan)):
            for name in tuning.__dataclass_fields__:
                key = f"{section}.{name.removesuffix('_s')}"
                self.refuse(getattr(tuning, name) <= 0, key, f"{key} must be positive", "Remove it")
        self.refuse(
            c.log.level not in _LOG_LEVELS, "log_level",
            f"Invalid log level: {c.log.level}. Valid log levels are: {list(_LOG_LEVELS)}",
            "Use INFO",
        )  # fmt: skip
        conns = c.limits.http_max_conns_per_client
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.refuse(
            conns > 0 and soft != resource.RLIM_INFINITY and soft < conns + 20,
            "limits.http_max_conns_per_client",
            f"system allows a max of {soft} file descriptors, but"
            f" limits.http_max_conns_per_client: {conns} needs at least {conns + 20}",
            "Raise the limit of open files (ulimit -n)",
        )  # fmt: skip
        self.refuse(
            c.connect.ca_provider not in ("", "consul"), "connect.ca_provider",
            f"connect.ca_provider \"{c.connect.ca_provider}\" is not supported yet"
            if c.connect.ca_provider in ("vault", "aws-pca")
            else f"{c.connect.ca_provider} is not a valid CA provider",
            'Use "consul"',
        )  # fmt: skip

    def dns(self) -> None:
        c = self.c
        words = f"service|connect|node|query|addr|{re.escape(c.datacenter)}"
        self.refuse(
            bool(re.match(rf"({words})\.", c.dns.alt_domain)), "alt_domain",
            f"alt_domain cannot start with {{service,connect,node,query,addr,{c.datacenter}}}",
            "Choose another domain",
        )  # fmt: skip
        for recursor in c.dns.recursors:
            self.refuse(
                recursor.startswith("unix://"), "recursors",
                f"DNS Recursors cannot be unix sockets: {recursor}", "Give an IP address",
            )  # fmt: skip
            self.refuse(
                recursor in ("0.0.0.0", "::", "[::]"), "recursors",
                "DNS recursor address cannot be 0.0.0.0, :: or [::]", "Give an IP address",
            )  # fmt: skip

    def unique_addresses(self) -> None:
        a = self.c.addresses
        in_use: dict[ListenAddress, str] = {}
        groups: tuple[tuple[str, str, Iterable[ListenAddress]], ...] = (
            ("DNS", "ports.dns", a.dns),
            ("HTTP", "ports.http", a.http),
            ("HTTPS", "ports.https", a.https),
            ("gRPC", "ports.grpc", a.grpc),
            ("RPC Advertise", "ports.server", (a.rpc_advertise,)),
            ("Serf Advertise LAN", "ports.serf_lan", (a.serf_lan_advertise,)),
            (
                "Serf Advertise WAN",
                "ports.serf_wan",
                (a.serf_wan_advertise,) if a.serf_wan_advertise else (),
            ),
        )
        for name, key, addresses in groups:
            for address in addresses:
                other = in_use.setdefault(address, name)
                self.refuse(
                    other is not name, key,
                    f"{name} address {_show(address)} already configured for {other}",
                    "Give each its own port",
                )  # fmt: skip


def _show(address: ListenAddress) -> str:
    if isinstance(address, str):
        return address
    host, port = address
    return f"[{host}]:{port}" if ipaddress.ip_address(host).version == 6 else f"{host}:{port}"


def validate(config: AgentConfig, merged: Merged, warnings: list[str]) -> None:
    """Raise SettingError for the first contradiction; append what is unwise to `warnings`."""
    rules = _Rules(config, merged, warnings)
    rules.identity()
    rules.dns()
    rules.servers()
    rules.access()
    rules.cache()
    rules.limits()
    rules.federation()
    rules.tls()
    rules.unique_addresses()
    check_providers(config, merged)


def check_supported(merged: Merged, warnings: list[str]) -> None:
    """Raise SettingError for a key of Consul's that would promise what is not done yet."""
    given = [key for key in UNSUPPORTED if merged.get(key)]
    if given:
        key, *others = given
        remedy = UNSUPPORTED[key]
        if others:
            remedy += f". Not supported either: {', '.join(others)}"
        raise SettingError(
            f"{key} is not supported yet", key=key, source=merged.origin(key), remedy=remedy
        )
    for key, new in DEPRECATED.items():
        if merged.origin(key):
            hint = f"Use the '{new}' field instead." if new else "It should be removed."
            warnings.append(f"The '{key}' field is deprecated. {hint}")
    if merged.get("disable_host_node_id") is False:
        warnings.append("disable_host_node_id = false has no effect: node IDs are always random")
