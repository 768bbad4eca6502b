"""What the agent makes of files and flags: defaults, merging, conversion, node id, reload."""

from __future__ import annotations

import base64
import ipaddress
from dataclasses import replace
from pathlib import Path

import pytest

from proconsul.config.errors import SettingError
from proconsul.config.goflags import FlagError
from proconsul.config.load import Loaded, load_config
from proconsul.config.node_id import resolve_node_id
from proconsul.config.reload import reloadable
from proconsul.config.sockaddr import Interface


def interface(name: str, address: str) -> Interface:
    return Interface(name, ipaddress.ip_address(address), True)


LOOPBACK = interface("lo", "127.0.0.1")
ONE = [LOOPBACK, interface("eth0", "10.0.0.5"), interface("eth0", "fe80::1")]


def load(*argv: str, table: list[Interface] | None = None) -> Loaded:
    return load_config(argv, interfaces=lambda: table or ONE, hostname=lambda: "host1")


def hcl(text: str, *argv: str) -> Loaded:
    return load("-data-dir", "/nonexistent/d", "-hcl", text, *argv)


def test_defaults_of_a_client() -> None:
    config, warnings = hcl("")
    assert warnings == []
    assert not config.server
    assert config.leave_on_terminate
    assert not config.skip_leave_on_interrupt
    assert config.node_name == "host1"
    assert config.datacenter == config.primary_datacenter == "dc1"
    assert config.addresses.advertise == "10.0.0.5"
    assert config.addresses.rpc_bind == ("0.0.0.0", 8300)
    assert config.addresses.http == (("127.0.0.1", 8500),)
    assert config.addresses.grpc == ()
    assert config.raft.election_timeout_s == 5.0
    assert config.gossip_wan.probe_interval_s == 5.0


def test_dev_mode() -> None:
    config = load("-dev").config
    assert config.server
    assert config.connect.enabled
    assert config.ports.grpc == 8502
    assert config.raft.heartbeat_timeout_s == pytest.approx(0.035)
    assert config.addresses.bind == "127.0.0.1"
    assert config.log.level == "DEBUG"


def test_later_files_and_flags_win_and_lists_append(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text(
        '{"datacenter": "B", "retry_join": ["b"], "ports": {"dns": 2}}'
    )
    (tmp_path / "a.hcl").write_text(
        'datacenter = "a"\nretry_join = ["a"]\nnode_meta { x = "1" }\nports { http = 1 }'
    )
    (tmp_path / "c.txt").write_text("not read")
    loaded = load(
        "-config-dir", str(tmp_path), "-data-dir", "/nonexistent/d", "-retry-join", "flag",
        "-node-meta", "y:2", "--http-port=3",
    )  # fmt: skip
    config = loaded.config
    assert config.datacenter == "b"
    assert config.join_lan.retry_join == ("flag", "a", "b")
    assert config.node_meta == {"x": "1", "y": "2"}
    assert (config.ports.http, config.ports.dns) == (3, 2)
    assert loaded.warnings == [
        f"skipping file {tmp_path / 'c.txt'}, extension must be .hcl or .json, or config format"
        " must be set"
    ]


def test_services_and_checks_take_the_shape_of_the_api() -> None:
    config = hcl(
        'service { name = "web" port = 80 check { id = "w" http = "http://x" interval = "90s" } }'
        'service { name = "db" tagged_addresses { lan { address = "1.2.3.4" port = 1 } } }'
        'check { id = "c" name = "c" ttl = "30s" DeregisterCriticalServiceAfter = "1h" }'
    ).config
    assert config.service_definitions == (
        {
            "Name": "web",
            "Port": 80,
            "Check": {"CheckID": "w", "HTTP": "http://x", "Interval": "1m30s"},
        },
        {"Name": "db", "TaggedAddresses": {"lan": {"Address": "1.2.3.4", "Port": 1}}},
    )
    assert config.check_definitions == (
        {"ID": "c", "Name": "c", "TTL": "30s", "DeregisterCriticalServiceAfter": "1h0m0s"},
    )


def test_expect_of_one_is_bootstrap() -> None:
    config, warnings = hcl("server = true bootstrap_expect = 1")
    assert config.bootstrap
    assert config.bootstrap_expect == 0
    assert "BootstrapExpect is set to 1; this is the same as Bootstrap mode." in warnings


def test_templates() -> None:
    config = hcl(
        'bind_addr = "{{ GetInterfaceIP \\"eth0\\" }}" client_addr = "127.0.0.1 {{GetPrivateIP}}"'
    ).config
    assert config.addresses.bind == "10.0.0.5"
    assert config.addresses.client == ("127.0.0.1", "10.0.0.5")


def test_secrets_stay_out_of_repr() -> None:
    key = base64.b64encode(b"k" * 32).decode()
    config = hcl(f'encrypt = "{key}" acl {{ tokens {{ master = "s3cret" }} }}').config
    assert config.encrypt.key == b"k" * 32
    assert key not in repr(config)
    assert "s3cret" not in repr(config)


def test_all_invalid_keys_are_named_at_once() -> None:
    with pytest.raises(SettingError) as caught:
        hcl(
            'a = 1 acl { tokens { mastr = "x" } } service { name = "s" check { tll = "1s" } } b = 2'
        )
    assert "Invalid too: acl.tokens.mastr, service[0].check.tll, b" in str(caught.value)
    with pytest.raises(SettingError, match="Not supported either: "):
        hcl('ui = true autopilot { redundancy_zone_tag = "az" }')


REFUSED = [
    ('foo = "x"', "invalid config key foo", "foo"),
    ("connect { enabld = true }", "Did you mean 'connect.enabled'?", "connect.enabld"),
    ('server = "true"', "'server' expected type 'bool', got 'string'", "server"),
    ('retry_join = "x"', "expected type 'list of strings'", "retry_join"),
    ('retry_interval = "5"', "missing unit", "retry_interval"),
    ('datacenter = "a b"', 'datacenter cannot be "a b"', "datacenter"),
    ("bootstrap = true", "'bootstrap = true' requires 'server = true'", "bootstrap"),
    ("bootstrap_expect = 3", "'bootstrap_expect > 0' requires 'server", "bootstrap_expect"),
    ("server = true bootstrap = true bootstrap_expect = 3", "mutually exclusive",
     "bootstrap_expect"),
    ("performance { raft_multiplier = 11 }", "Must be between 1 and 10",
     "performance.raft_multiplier"),
    ("ports { http = 70000 }", "ports.http: invalid port: 70000", "ports.http"),
    ("ports { http = 8300 } client_addr = \"10.0.0.5\"", "already configured for HTTP",
     "ports.server"),
    ('encrypt = "AAAA"', "key size must be 16, 24 or 32", "encrypt"),
    ('advertise_addr = "0.0.0.0"', "Advertise address cannot be 0.0.0.0", "advertise_addr"),
    ('bind_addr = "1.1.1.1 2.2.2.2"', "multiple addresses", "bind_addr"),
    ('bind_addr = "{{ GetAllInterfaces }}"', "is not supported", "bind_addr"),
    ("verify_outgoing = true", "VerifyOutgoing set, and no CA", "verify_outgoing"),
    ("verify_incoming = true", "VerifyIncoming set but no CA", "verify_incoming"),
    ("ui = true", "ui is not supported yet", "ui"),
    ("server = true auto_encrypt { tls = true }", "can only be used on a client",
     "auto_encrypt.tls"),
    ("auto_encrypt { allow_tls = true }", "can only be used on a server",
     "auto_encrypt.allow_tls"),
    ("server = true auto_encrypt { allow_tls = true }", "needs a certificate of the server's own",
     "auto_encrypt.allow_tls"),
    ('connect { ca_provider = "consul" ca_config { leaf_cert_ttl = "1m" } }',
     "leaf cert TTL must be greater", "connect.ca_config"),
    ('node_meta { "a b" = "x" }', "Key contains invalid characters", "node_meta"),
    ('node_id = "x"', "is not a UUID", "node_id"),
    ('service { name = "x" check { http = "y" } }', "Interval must be > 0", "check"),
    ('alt_domain = "service.x"', "alt_domain cannot start with", "alt_domain"),
    ('primary_gateways = ["x"]', "'primary_gateways' requires 'server = true'",
     "primary_gateways"),
    ('server = true primary_gateways = ["x"]', "only be configured in a secondary",
     "primary_gateways"),
    ('federation_state_prune_interval = "0s"', "must be positive",
     "federation_state_prune_interval"),
    ('retry_join = ["a", "provider=vsphere user=me"]', "not built in here", "retry_join"),
    ('server = true retry_join_wan = ["provider=aws tag_key"]', "tag_key: missing '='",
     "retry_join_wan"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message", "key"), REFUSED)
def test_refused(text: str, message: str, key: str) -> None:
    with pytest.raises(SettingError) as caught:
        hcl(text)
    assert message in str(caught.value)
    assert caught.value.key == key
    assert caught.value.source == "flags-0.hcl" or key == "ports.server"
    assert caught.value.remedy


def test_entries_with_providers_that_exist() -> None:
    entry = "provider=aws region=eu-west-1 tag_key=role tag_value=gw"
    assert hcl(f'retry_join = ["{entry}"]').config.join_lan.retry_join == (entry,)


FEDERATION = "connect { enabled = true enable_mesh_gateway_wan_federation = true }"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "requires 'server = true'"),
        ('server = true node_name = "a/b"', "not contain '/' characters"),
        ('server = true start_join_wan = ["x"]', "'start_join_wan' is incompatible"),
        ('server = true retry_join_wan = ["x"]', "'retry_join_wan' is incompatible"),
        ("server = true ports { serf_wan = -1 }", "requires the WAN gossip port"),
        ("server = true", "requires 'ca_file' or 'ca_path'"),
        ('server = true ca_file = "/etc/hostname"', "requires 'cert_file' and 'key_file'"),
    ],
)
def test_federation_refuses(text: str, message: str) -> None:
    with pytest.raises(SettingError, match=message.replace("/", ".")):
        hcl(f"{FEDERATION} {text}")


def test_federation_needs_connect() -> None:
    with pytest.raises(SettingError, match=r"requires 'connect.enabled=true'"):
        hcl("server = true connect { enable_mesh_gateway_wan_federation = true }")


def test_federation_accepted_in_a_secondary(tmp_path: Path) -> None:
    for name in ("ca", "cert", "key"):
        (tmp_path / name).write_text("x")
    text = f"""{FEDERATION} server = true datacenter = "dc2" primary_datacenter = "dc1"
    ca_file = "{tmp_path}/ca" cert_file = "{tmp_path}/cert" key_file = "{tmp_path}/key" """
    config, warnings = hcl(text, "-primary-gateway", "gw:8443", "-primary-gateway=gw2:8443")
    assert config.primary_gateways == ("gw:8443", "gw2:8443")
    assert config.federates_through_gateways
    assert config.federation_state_prune_interval_s == 3600.0
    assert hcl(f'{text} federation_state_prune_interval = "90m"').config == replace(
        hcl(text).config, federation_state_prune_interval_s=5400.0
    )
    assert warnings == []
    assert any("primary_gateways is not set" in w for w in hcl(text).warnings)


def test_several_private_addresses_are_an_error() -> None:
    table = [*ONE, interface("eth1", "192.168.1.1")]
    with pytest.raises(SettingError, match="Multiple private IPv4 addresses found"):
        load("-data-dir", "/nonexistent/d", table=table)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["-nope"], "flag provided but not defined: -nope"),
        (["-node"], "flag needs an argument: -node"),
        (["-server=maybe"], 'invalid boolean value "maybe" for -server: parse error'),
        (["-http-port", "x"], 'invalid value "x" for flag -http-port: parse error'),
        (["-dev", "extra"], r"Unexpected extra arguments: \[extra\]"),
    ],
)
def test_flags_refused(argv: list[str], message: str) -> None:
    with pytest.raises(FlagError, match=message):
        load(*argv)


def test_broken_file_is_named(tmp_path: Path) -> None:
    for name, text in (("x.hcl", "a = ["), ("x.json", "{")):
        (tmp_path / name).write_text(text)
        with pytest.raises(SettingError, match=name):
            load("-config-file", str(tmp_path / name))


def test_node_id_is_made_once(tmp_path: Path) -> None:
    config = load("-data-dir", str(tmp_path)).config
    first = resolve_node_id(config)
    assert resolve_node_id(config) == first
    (tmp_path / "node-id").write_text("rubbish")
    with pytest.raises(SettingError, match="holds no UUID"):
        resolve_node_id(config)


def test_a_data_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    config = load("-data-dir", str(tmp_path / "file" / "data")).config
    with pytest.raises(SettingError, match=r"data_dir cannot be used: .*not a directory") as caught:
        resolve_node_id(config)
    assert caught.value.key == "data_dir"


def test_reload_sorts_the_changes() -> None:
    old = replace(hcl("").config, node_id="resolved")
    new = hcl(
        """log_level = "WARN" domain = "x" node_meta { rack = "2" } discard_check_output = true
        limits { rpc_rate = 5 kv_max_value_size = 1000 } acl { tokens { replication = "x" } }"""
    ).config
    assert reloadable(old, new) == (
        ["node_meta", "limits.rpc_rate", "acl.tokens.replication", "log.level",
         "checks.discard_output"],
        ["limits.kv_max_value_size", "dns.domain"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("ui = true", "ui"),
        ('ui_dir = "/x"', "ui_dir"),
        ('telemetry { statsd_address = "127.0.0.1:1" }', "telemetry.statsd_address"),
        ('telemetry { statsite_address = "127.0.0.1:1" }', "telemetry.statsite_address"),
        ('telemetry { dogstatsd_addr = "127.0.0.1:1" }', "telemetry.dogstatsd_addr"),
        ("enable_syslog = true", "enable_syslog"),
        ('connect { ca_provider = "vault" }', "connect.ca_provider"),
        ('connect { ca_provider = "aws-pca" }', "connect.ca_provider"),
    ],
)
def test_what_is_not_supported_is_refused_with_a_remedy(text: str, key: str) -> None:
    with pytest.raises(SettingError, match="not supported yet") as caught:
        hcl(text)
    assert caught.value.key == key
    assert caught.value.remedy


def test_escapes_in_hcl_stay_and_in_json_do_not(tmp_path: Path) -> None:
    value = r"a\tb\u00e4"
    assert hcl(f'node_meta {{ k = "{value}" }}').config.node_meta == {"k": value}
    (tmp_path / "a.json").write_text(f'{{"node_meta": {{"k": "{value}"}}}}')
    loaded = load("-data-dir", "/nonexistent/d", "-config-file", str(tmp_path / "a.json"))
    assert loaded.config.node_meta == {"k": "a\tb\u00e4"}
