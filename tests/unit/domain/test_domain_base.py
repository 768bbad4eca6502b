from __future__ import annotations

from typing import Any

import msgpack
import pytest

from proconsul.domain.base import NIL, bytes_of, decode, encode, is_nil, raw_bytes, wire_name
from proconsul.domain.catalog import (
    ConnectProxyConfig,
    HealthCheckDefinition,
    NodeService,
    RegisterRequest,
    Upstream,
)
from proconsul.domain.go_json import free_form, number, to_json
from proconsul.domain.kv import DirEntry, KVSRequest
from proconsul.domain.session import Session
from proconsul.domain.validate import check_service
from proconsul.util.errors import WireError


@pytest.mark.parametrize(
    ("name", "wire"),
    [
        ("service_id", "ServiceID"),
        ("lock_delay_ns", "LockDelay"),
        ("raw_value", "Value"),
        ("tls_skip_verify", "TLSSkipVerify"),
        ("external_trust_domain", "ExternalTrustDomain"),
    ],
)
def test_wire_names(name: str, wire: str) -> None:
    assert wire_name(name) == wire


@pytest.mark.parametrize("size", [0, 1, 31, 32, 255, 256, 65535, 65536])
def test_byte_fields_are_written_as_go_writes_them(size: int) -> None:
    data = b"\xff" * size
    raw = raw_bytes(data)
    assert bytes(raw) == msgpack.packb(data, use_bin_type=False)
    assert bytes_of(raw) == data
    assert not is_nil(raw)


def test_byte_fields_accept_bin_and_nil() -> None:
    entry = decode(msgpack.packb({"Value": b"\xfe\x00"}, use_bin_type=True), DirEntry)
    assert entry.value == b"\xfe\x00"
    assert bytes_of(NIL) == b""
    assert is_nil(DirEntry.of("k").raw_value)
    with pytest.raises(WireError):
        _ = decode(msgpack.packb({"Value": 5}), DirEntry).value


@pytest.mark.parametrize("key", [b"k", b"k\xff"])
@pytest.mark.parametrize(
    ("type_", "field", "number"),
    [(DirEntry, "Flags", -1), (Session, "LockDelay", 1 << 63), (NodeService, "Port", 1 << 63)],
)
def test_numbers_that_go_cannot_hold_are_refused(
    type_: type, field: str, number: int, key: bytes
) -> None:
    """In the log they would stop every real server; text that is not UTF-8 is no way around it."""
    name = {DirEntry: "Key", Session: "Name", NodeService: "Service"}[type_]
    body = msgpack.packb({name: key, field: number}, use_bin_type=False)
    with pytest.raises(WireError):
        decode(body, type_)
    assert decode(msgpack.packb({name: key, field: 7}, use_bin_type=False), type_)


def test_free_form_data_that_go_cannot_read_is_refused() -> None:
    def problems(config: dict[str, Any]) -> list[str]:
        upstream = Upstream(destination_name="a", config=config)
        return check_service(NodeService(proxy=ConnectProxyConfig(upstreams=[upstream])))

    assert problems({"a": [None, {"b": 1.5}], "c": "x"}) == []
    assert problems({"a": [{2: "x"}]}) == ["Proxy.Upstreams[0].Config.a[0]: 2 is a key and no text"]


def test_text_that_is_not_utf8_survives() -> None:
    body = {
        "Op": "set",
        "DirEnt": {"Key": b"k\xff", "Value": b"\xfe" * 40, "Flags": 7},
        "Unknown": [b"\xff"],
    }
    request = decode(msgpack.packb(body, use_bin_type=False), KVSRequest)
    assert request.dir_ent.key == "k\udcff"
    assert request.dir_ent.value == b"\xfe" * 40
    again = msgpack.unpackb(encode(request), raw=True)
    assert again[b"DirEnt"][b"Key"] == b"k\xff"
    assert again[b"DirEnt"][b"Value"] == b"\xfe" * 40
    assert to_json({"Key": request.dir_ent.key}) == b'{"Key":"k\\ufffd"}'


def test_slow_path_knows_nested_types() -> None:
    body = {
        "Node": b"n\xff",
        "Service": {"ID": "s", "Proxy": {"Config": {"f": 1.5, "l": [b"\xfe", 1]}}, "Tags": None},
        "Checks": [{"CheckID": "c", "Definition": {"Interval": 5}}],
        "NodeMeta": {"a": b"\xff"},
    }
    request = decode(msgpack.packb(body, use_bin_type=False), RegisterRequest)
    assert request.service is not None
    assert request.service.proxy.config == {"f": 1.5, "l": ["\udcfe", 1]}
    assert request.checks is not None
    assert request.checks[0].definition == HealthCheckDefinition(interval_ns=5)
    assert request.node_meta == {"a": "\udcff"}
    assert decode(encode(request), RegisterRequest) == request


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x81\xa3Key\x05", b"\x81\xa3Key", b"\x93" * 2000])
def test_malformed(body: bytes) -> None:
    with pytest.raises(WireError):
        decode(body, DirEntry)


def test_go_json() -> None:
    assert to_json({"k": "<a&b>"}) == b'{"k":"\\u003ca\\u0026b\\u003e"}'
    assert to_json(free_form({"b": 1.0, "a": [0.5, 1e-7, 1e21]})) == (
        b'{"a":[0.5,1e-7,1e+21],"b":1}'
    )
    assert to_json([number(one) for one in (1e-05, 1.5e-6, 0.0001, 0.001, -2.5, 0.0)]) == (
        b"[0.00001,0.0000015,0.0001,0.001,-2.5,0]"
    )


@pytest.mark.parametrize("flags", [-1, -(1 << 63), "1", 1.5])
def test_a_number_that_go_s_unsigned_fields_refuse_is_refused(flags: object) -> None:
    """In the log it would stop Consul's servers."""
    with pytest.raises(WireError, match="Flags"):
        decode(msgpack.packb({"DirEnt": {"Key": "k", "Flags": flags}}), KVSRequest)


def test_unsigned_fields_hold_64_bits() -> None:
    entry = decode(msgpack.packb({"Key": "k", "Flags": (1 << 64) - 1}), DirEntry)
    assert entry.flags == (1 << 64) - 1
    assert decode(encode(entry), DirEntry) == entry


@pytest.mark.parametrize(("size", "head"), [(31, b"\xbf"), (32, b"\xd9\x20"), (255, b"\xd9\xff")])
def test_text_of_middling_length_has_a_head_of_its_own(size: int, head: bytes) -> None:
    """Where Go's older msgpack writes raw16; both read either."""
    data = encode(Session(name="a" * size))
    assert head + b"a" * size in data
    assert decode(data, Session).name == "a" * size
    old = data.replace(head + b"a", b"\xda" + size.to_bytes(2, "big") + b"a", 1)
    assert decode(old, Session).name == "a" * size
