"""Every decoder of bytes from outside: how it is called, valid samples, the errors it may raise.

A new decoder belongs into `targets`. `errors` is the whole contract: anything else that escapes is
a bug, and so are a long time or much memory for a small input.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec
from fuzz_certificates import certificates
from fuzz_connections import connections
from fuzz_dns import dns_targets
from fuzz_inputs import GOLDEN, Target

import proconsul.domain
from proconsul.config.errors import SettingError
from proconsul.config.sources import parse_text
from proconsul.core.gossip.memberlist import MemberlistConfig
from proconsul.core.gossip.serf import Serf, SerfConfig
from proconsul.core.gossip.serf.snapshot import parse_address, replay
from proconsul.core.yamux.session import Session, YamuxConfig
from proconsul.domain.acl_authorizers import authorizer
from proconsul.domain.acl_rules import RulesError, Syntax, parse_rules
from proconsul.domain.acl_translate import translate_legacy_rules
from proconsul.domain.base import GoStruct, SelfMarshalled, decode, encode, raw_bytes
from proconsul.domain.catalog import CheckServiceNode
from proconsul.domain.config_entry_forms import ConfigEntryError, from_map, view
from proconsul.domain.config_entry_messages import ConfigEntryRequest
from proconsul.domain.config_entry_rules import InvalidEntryError, normalize, validate
from proconsul.domain.filter import FilterError, create_filter
from proconsul.domain.go_decode import (
    GoDecodeError,
    decode_service_definition,
    parse_json,
    with_floats,
)
from proconsul.domain.go_json import to_json
from proconsul.domain.messages import MessageType
from proconsul.domain.regexps import RegexpError, compile_regexp
from proconsul.domain.weak_decode import WeakDecodeError
from proconsul.drivers.gossip import keyring_file
from proconsul.federation.discovery import args
from proconsul.interfaces.http import acl_views
from proconsul.rpc.server_meta import parse_server
from proconsul.services.agent.events import UserEvent, decode_event, encode_event
from proconsul.services.agent.remote_exec import ExecEvent, ExecSpec, decode_json
from proconsul.state.errors import FsmError
from proconsul.state.fsm import Fsm
from proconsul.util import gobase64, goduration
from proconsul.util.errors import ConfigError
from proconsul.wire import (
    gotime,
    lzw,
    memberlist,
    msgpack,
    netrpc,
    raft,
    serf,
    serf_decode,
    yamux,
)
from proconsul.wire.memberlist_crypto import Keyring
from proconsul.wire.memberlist_packet import encode_compress, unwrap_packet
from proconsul.wire.memberlist_stream import StreamReader, wrap_stream

_KEY = b"k" * 16
_SOURCE = ("127.0.0.9", 7946)


def targets() -> list[Target]:
    """The table."""
    return [
        *_memberlist(),
        *_serf(),
        *_raft(),
        *_rpc(),
        *_state(),
        *_domain(),
        *_text(),
        *connections(),
        *dns_targets(),
        *certificates(),
    ]


def _text_of(decoder: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: decoder(data.decode("utf-8", "surrogateescape"))


# --- gossip


def _memberlist_samples() -> tuple[list[bytes], list[bytes]]:
    vectors = json.loads((GOLDEN / "memberlist.json").read_text())
    ring = Keyring(b"another key, 16!", (bytes(range(16)),))
    packets = [bytes.fromhex(p) for peer in ("consul", "serf") for p in vectors[peer]["packets"]]
    packets += [ring.open(bytes.fromhex(p)) for p in vectors["encrypted"]["packets"]]
    streams = [bytes.fromhex(s) for peer in ("consul", "serf") for s in vectors[peer]["streams"]]
    return packets, streams


def _memberlist() -> list[Target]:
    packets, streams = _memberlist_samples()
    plain = [part for packet in packets for part in unwrap_packet(packet)]
    sealed = [Keyring(_KEY).seal(packet, v, b"n" * 12) for packet in packets[:6] for v in (0, 1)]
    bomb = lzw.compress(bytes(8 << 20))
    found = [
        Target(f"memberlist {kind.name}", decoder, [b for k, b in plain if k == kind] or [b"\x80"])
        for kind, decoder in {
            memberlist.Kind.PING: memberlist.decode_ping,
            memberlist.Kind.INDIRECT_PING: memberlist.decode_indirect_ping,
            memberlist.Kind.ACK: memberlist.decode_ack,
            memberlist.Kind.NACK: memberlist.decode_nack,
            memberlist.Kind.SUSPECT: memberlist.decode_suspect,
            memberlist.Kind.ALIVE: memberlist.decode_alive,
            memberlist.Kind.DEAD: memberlist.decode_dead,
        }.items()
    ]
    ring = Keyring(_KEY)
    plain_streams = [s for s in streams if s[0] != memberlist.Kind.ENCRYPT]
    return [
        *found,
        Target("lzw", lambda d: lzw.decompress(d, 1 << 20), [lzw.compress(packets[0]), bomb[:4096]],
               weight=0.5),
        Target("memberlist sealed packet", ring.open, sealed),
        Target("memberlist packet", unwrap_packet, [*packets, encode_compress(bytes(60_000))]),
        Target("memberlist stream", _in_pieces(StreamReader), [*streams, b"\x09\x82\xa4Algo\0\xa3Buf"
               + msgpack.raw(bomb)], weight=0.5),
        Target("sealed memberlist stream", _in_pieces(lambda: StreamReader(Keyring(_KEY))),
               [wrap_stream(s, compress=False, keyring=ring, nonce=b"n" * 12) for s in plain_streams]),
        Target("serf machine, packets", _serf_packets(), packets, ()),
        Target("serf machine, streams", _serf_streams(), streams, (), weight=0.5),
    ]  # fmt: skip


def _in_pieces(make: Callable[[], Any]) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        reader = make()
        step = max(1, len(data) // 3)
        for start in range(0, len(data), step):
            if reader.feed(data[start : start + step]) is not None:
                return

    return run


def _machine() -> Serf:
    config = MemberlistConfig(name="me", advertise=("127.0.0.1", 7946))
    machine = Serf(SerfConfig(node_name="me", memberlist=config), random.Random(1))
    machine.start(0.0)
    return machine


def _serf_packets() -> Callable[[bytes], None]:
    machine, now = _machine(), [0.0]

    def run(data: bytes) -> None:
        now[0] += 0.01
        machine.handle_packet(data, _SOURCE, now[0])
        machine.handle_timer(now[0])
        machine.take_outputs()

    return run


def _serf_streams() -> Callable[[bytes], None]:
    machine, count = _machine(), [1]

    def run(data: bytes) -> None:
        count[0] += 2
        now = count[0] / 100
        machine.stream_accepted(count[0], _SOURCE, now)
        machine.stream_data(count[0], data, now)
        machine.stream_eof(count[0], now)
        machine.handle_timer(now)
        machine.take_outputs()

    return run


def _serf() -> list[Target]:
    lines = (GOLDEN / "serf" / "messages.txt").read_text().splitlines()
    rows = [line.split() for line in lines if line and not line.startswith("#")]
    captured = [bytes.fromhex(row[-1]) for row in rows]
    member = serf.WireMember("n", ("127.0.0.1", 1), {"a": "b"}, 1, (1, 5, 2), (2, 5, 4))
    made = [
        serf.encode_conflict_response(member),
        serf.encode_key_request(_KEY),
        serf.encode_key_response(serf.KeyResponse(True, "m", ("k",), "k")),
        serf.encode_filter(serf.NodeFilter(("a",))),
        serf.encode_filter(serf.TagFilter("a", ".*")),
        serf.encode_coordinate([1.0] * 8, 1.0, 1.0, 1.0),
        serf.encode_relay(serf.Relay(("127.0.0.1", 1), "n", captured[1])),
    ]
    names = sorted(name for name in vars(serf_decode) if name.startswith("decode_"))
    found = [
        Target(f"serf {name}", getattr(serf_decode, name), captured + made, weight=0.4)
        for name in [*names, "message_type"]
    ]
    snapshot = b"alive: a 127.0.0.1:1\nclock: 5\nnot-alive: a\nevent-clock: 3\nleave\n"
    return [
        *found,
        Target("serf snapshot file", _text_of(lambda t: replay(t.splitlines())), [snapshot]),
        Target("serf address", _text_of(parse_address), [b"127.0.0.1:80", b"[::1]:80"]),
        Target(
            "server tags", _server_tags, [b"role=consul\0dc=dc1\0port=8300\0vsn=2\0expect=3\0id=x"]
        ),
    ]


def _server_tags(data: bytes) -> object:
    pairs = (part.partition("=") for part in data.decode("utf-8", "surrogateescape").split("\0"))
    return parse_server("n.dc1", "127.0.0.1", {key: value for key, _, value in pairs})


# --- Raft, RPC


def _raft() -> list[Target]:
    vectors = json.loads((GOLDEN / "raft" / "messages.json").read_text())
    requests = [bytes.fromhex(v["request"]) for v in vectors.values() if "request" in v]
    responses = [bytes.fromhex(v["response"]) for v in vectors.values() if "response" in v]
    entry = raft.encode_entry(raft.Entry(1, 1, raft.LogType.COMMAND, b"data", b"ext"))
    servers = raft.Configuration((raft.Server(raft.Suffrage.VOTER, "id", "127.0.0.1:1"),))
    asked = raft.AppendEntriesRequest(1, b"")
    return [
        Target("raft entry", raft.decode_entry, [entry]),
        Target("raft configuration", raft.decode_configuration, [raft.encode_configuration(servers)]),
        Target("raft peers", raft.decode_peers, [raft.encode_peers(servers)]),
        Target("raft response", lambda d: raft.decode_response(asked, msgpack.unpack(d)),
               [r[1:] for r in responses if r[:1] == b"\xa0"]),
        Target("raft request", lambda d: raft.decode_request(d[0] if d else 9, msgpack.unpack(d[1:])),
               requests),
    ]  # fmt: skip


def _rpc() -> list[Target]:
    call = netrpc.encode_request("KVS.Get", 5, encode({"Key": "a"}))
    answer = netrpc.encode_response("KVS.Get", 5, b"\x80")
    failed = netrpc.encode_response("KVS.Get", 5, b"", "No cluster leader")
    frames = b"".join(
        (
            yamux.encode_header(yamux.WINDOW_UPDATE, yamux.SYN, 1, 0),
            yamux.encode_header(yamux.DATA, 0, 1, 4) + b"data",
            yamux.encode_header(yamux.PING, yamux.SYN, 0, 7),
            yamux.encode_header(yamux.DATA, yamux.FIN, 1, 0),
            yamux.encode_header(yamux.GO_AWAY, 0, 0, 0),
        )
    )
    return [
        Target("RPC requests", _all_of(netrpc.request_decoder), [call, call * 3]),
        Target(
            "RPC responses", _all_of(netrpc.response_decoder), [answer, failed, answer + failed]
        ),
        Target("yamux header", lambda d: yamux.decode_header(d.ljust(12, b"\0")), [frames[:12]]),
        Target("yamux server session", _yamux(client=False), [frames, frames * 3], ()),
        Target("yamux client session", _yamux(client=True), [frames, frames * 3], ()),
    ]


def _all_of(make: Callable[[], Any]) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        decoder = make()
        for half in (data[: len(data) // 2], data[len(data) // 2 :]):
            decoder.feed(half)
            while decoder.next() is not None:
                pass

    return run


def _yamux(*, client: bool) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        session = Session(YamuxConfig(), client=client, now=0.0)
        if client:
            session.open()
        session.receive(data[:50], 0.0)
        session.receive(data[50:], 0.0)
        assert len(session.take_output()) < 1 << 20
        session.handle_timer(1000.0)

    return run


# --- state and domain


def _state() -> list[Target]:
    state = (GOLDEN / "consul" / "state.bin").read_bytes()
    log = (GOLDEN / "consul" / "raft_log.bin").read_bytes()
    commands = [bytes((kind,)) + encode(_filled(type_)) for kind, type_ in _commands().items()]
    return [
        Target("snapshot", lambda d: Fsm().restore([d[:1000], d[1000:]]), [state], (FsmError,), 0.2),
        Target("Raft log commands", _apply, [*commands, log[:4000]], (FsmError,)),
        Target("Raft log extensions", lambda d: Fsm().apply(1, b"\x80\x80", d, 1),
               [b"\x08\x01\x10\x00\x18\x02", b"\x08\x01\x10\x01\x18\x02\x22\x01a"], (FsmError,)),
    ]  # fmt: skip


def _commands() -> dict[int, Any]:
    structs = {type_.__name__: type_ for type_ in structs_of_domain()}
    names = {
        MessageType.REGISTER: "RegisterRequest",
        MessageType.DEREGISTER: "DeregisterRequest",
        MessageType.KVS: "KVSRequest",
        MessageType.SESSION: "SessionRequest",
        MessageType.TXN: "TxnRequest",
        MessageType.AUTOPILOT: "AutopilotSetConfigRequest",
        MessageType.CONNECT_CA: "CARequest",
        MessageType.FEDERATION_STATE: "FederationStateRequest",
    }
    return {int(kind): structs[name] for kind, name in names.items()}


def _apply(data: bytes) -> None:
    fsm = Fsm()
    fsm.apply(1, data)
    b"".join(fsm.snapshot())


def structs_of_domain() -> list[type]:
    """Every wire struct of the domain row."""
    for module in pkgutil.walk_packages(proconsul.domain.__path__, "proconsul.domain."):
        importlib.import_module(module.name)

    def below(type_: type) -> Iterable[type]:
        for child in type_.__subclasses__():
            yield child
            yield from below(child)

    return sorted(
        (
            t
            for t in below(GoStruct)
            if t.__module__.startswith("proconsul.domain.")
            and getattr(t, "to_wire", None) is not SelfMarshalled.to_wire
        ),
        key=lambda t: (t.__module__, t.__name__),
    )


def _filled(type_: Any, depth: int = 0) -> Any:
    """A value of `type_` in which nothing is empty."""
    origin = get_origin(type_)
    if origin in {UnionType, Union}:
        return _filled(next(a for a in get_args(type_) if a is not NoneType), depth)
    if type_ is msgspec.Raw:
        return raw_bytes(b"value")
    if origin is tuple:
        return (_filled(get_args(type_)[0], depth + 1),)
    if origin is list:
        return [_filled(get_args(type_)[0], depth + 1)] if depth < 6 else []
    if origin is dict:
        key, value = get_args(type_)
        return {_filled(key, depth): _filled(value, depth + 1)} if depth < 6 else {}
    if isinstance(type_, type) and issubclass(type_, msgspec.Struct):
        hints = get_type_hints(type_)
        fields = msgspec.structs.fields(type_)
        return type_(**{f.name: _filled(hints[f.name], depth + 1) for f in fields})
    scalars: dict[Any, Any] = {str: "set", int: 7, bool: True, float: 1.5, bytes: b"b"}
    return scalars.get(type_, "any")


_ENTRY_ERRORS = (ConfigEntryError, WeakDecodeError, InvalidEntryError)
_ENTRIES = [
    b'{"Kind": "service-router", "name": "a", "routes": [{"match": {"http": {"path_prefix": "/",'
    b' "header": [{"name": "h", "present": "1"}]}}, "Destination": {"num_retries": "3"}}]}',
    b'{"kind": "service-splitter", "Name": "a", "Splits": [{"Weight": "33.4"}, {"Weight": 66.6,'
    b' "Service": "b"}]}',
    b'{"Kind": "proxy-defaults", "Config": {"a": [{"b": [1]}], "c": 1.5}, "mesh_gateway": [{}]}',
    b'{"Kind": "ingress-gateway", "Name": "a", "Listeners": {"Port": 1, "Services": [{"Name":'
    b' "b", "Hosts": "c.d"}]}}',
    b'{"Kind": "service-resolver", "Name": "a", "Subsets": {"v": {"only_passing": true}},'
    b' "Failover": {"*": {"Datacenters": "b"}}, "connect_timeout": "5s"}',
]


def _config_entry(data: bytes) -> None:
    """Decoded, normalised, validated, shown, sent and received."""
    entry = normalize(from_map(with_floats(parse_json(data))))
    to_json(view(entry))
    validate(entry)
    request = ConfigEntryRequest("upsert", "dc1", entry)
    assert decode(encode(request), ConfigEntryRequest) == request


def _domain() -> list[Target]:
    def target(type_: type) -> Target:
        samples = [encode(_filled(type_)), b"\x80"]
        with suppress(TypeError):  # an empty one, where there is such a thing
            samples.append(encode(type_()))
        return Target(f"struct {type_.__name__}", lambda d: decode(d, type_), samples, weight=0.15)

    definition = json.dumps(
        {"Name": "web", "Port": 1, "Tags": ["a"], "Meta": {"a": "b"}, "Weights": {"Passing": 1},
         "Check": {"TTL": "10s", "Interval": "1s"}, "Checks": [{"HTTP": "http://a", "Header": {"a": ["b"]}}],
         "Connect": {"SidecarService": {}}, "Proxy": {"Config": {"a": [1, 1.5, None]}}}
    ).encode()  # fmt: skip
    return [
        *map(target, structs_of_domain()),
        Target("JSON body", parse_json, [definition, b"[]", b'"a"'], (GoDecodeError,)),
        Target("service definition", lambda d: decode_service_definition(parse_json(d)),
               [definition], (GoDecodeError,)),
        Target("config entry", _config_entry, _ENTRIES, (GoDecodeError, *_ENTRY_ERRORS)),
        Target("Go time", gotime.decode_time, [gotime.encode_time(1)]),
        Target("RFC 3339 time", _text_of(gotime.parse_time), [b"2020-01-01T00:00:00.5Z"]),
        Target("Go duration", _text_of(goduration.parse_duration_ns), [b"1h2m3.5s", b"-5ns"],
               (ValueError,)),
        Target("Go time as text", lambda d: gotime.format_time(gotime.decode_time(d)),
               [gotime.encode_time(1)]),
    ]  # fmt: skip


# --- configuration, discovery


_FILTERS = [
    b'Service.Tags contains "v1" and (Node.Meta["a b"] != 7 or not Checks is empty)',
    b"`x` not in Service.Meta or Service.Port == 0x1f or Checks.Status matches `^(a|b)+$`",
]
_EVENT_ID = "b54fe110-7af5-cafc-d1fb-afc8ba432b1c"
_RULES = [
    b'acl = "read" key_prefix "" { policy = "write" } // c\nservice "a\\t" { policy = "read" }',
    b'# c\nkey "a" { policy = <<-E\n read\n E\n } node a { policy = "deny", x = [1, {y = 2.5}] }',
    b'{"key": {"a": {"policy": "read"}}, "node_prefix": [{"": {"policy": "deny"}}], "acl": "list"}',
]
_TOKENS = [
    b'{"AccessorID":"a","Policies":[{"ID":"p","Name":"n"}],"Local":true,"ExpirationTTL":"1h","Hash":"x"}',
    b'{"ID":"a","Name":"n","Datacenters":["a"],"ExpirationTime":"2020-01-01T00:00:00Z","NodeIdentities":[{}]}',
]
_REGEXPS = [b"^geo-(.*?)-([^-]+?)$", rb"(?i)[[:alpha:]a-z\d]{2,5}|(?P<n>\bx\pL\x{41})*?"]


def _acl_rules(text: str) -> object:
    parse_rules(text, Syntax.LEGACY)
    return authorizer([parse_rules(text)], default_allow=False).key_write_prefix("a")


def _text() -> list[Target]:
    hcl = (
        b'server = true\ndatacenter = "dc1"\nports { dns = -1\n grpc = 8502 }\n'
        b'retry_join = ["a", "b"]\nservice { name = "web"\n check { ttl = "5s" } }\n'
        b'node_meta { "a" = "b" }\n# end\n/* c */\nlog_level = <<EOF\ndebug\nEOF\n'
    )
    body = b'{"server": true, "ports": {"dns": -1}, "retry_join": ["a"], "node_meta": {"a": "b"}}'
    joins = [b"provider=dns name=gw.example type=srv", b"provider=aws tag_key=\"a b\" x='\\u00e4'"]
    return [
        Target("HCL", _text_of(lambda t: parse_text(t[:1500], "hcl", "fuzz")), [hcl], (SettingError,), 0.1,
               traced=False),
        Target("JSON configuration", _text_of(lambda t: parse_text(t, "json", "fuzz")), [body],
               (SettingError,)),
        Target("discovery arguments", _text_of(args.parse), joins, (args.ArgsError,)),
        Target("discovery description", _text_of(args.describe), joins, ()),
        Target("keyring file", keyring_file.decode, [b'["MDEyMzQ1Njc4OWFiY2RlZg=="]', b"[]"], (ConfigError,)),
        Target("Go base64", _text_of(gobase64.decode), [b"aGk=", b"!"], (ValueError,)),
        Target("remote exec event", lambda d: decode_json(d, ExecEvent), [b'{"Prefix":"p","Session":"s"}']),
        Target("remote exec job", lambda d: decode_json(d, ExecSpec),
               [b'{"Command":"x","Args":["a"],"Script":"aGk=","Wait":2000000000}']),
        Target("user event", decode_event, [encode_event(UserEvent(_EVENT_ID, "n", version=1)),
               encode_event(UserEvent(_EVENT_ID, "n", "a", raw_bytes(b"x"), "b", "c", 1))]),
        Target("filter", _text_of(lambda t: create_filter(t, CheckServiceNode)), _FILTERS, (FilterError,)),
        Target("ACL rules", _text_of(_acl_rules), _RULES, (RulesError,)),
        Target("legacy ACL rules", _text_of(translate_legacy_rules), _RULES, (RulesError,)),
        Target("ACL token", acl_views.read_token, _TOKENS, (GoDecodeError,)),
        Target("ACL policy", acl_views.read_policy,
               [b'{"Name":"p","Rules":"key_prefix \\"\\" {}","Datacenters":["dc1"]}', *_TOKENS],
               (GoDecodeError,)),
        Target("ACL role", acl_views.read_role,
               [b'{"Name":"r","Policies":[{"Name":"p"}]}', *_TOKENS], (GoDecodeError,)),
        Target("regular expression", _text_of(lambda t: compile_regexp(t).groups(t)), _REGEXPS,
               (RegexpError,)),
    ]  # fmt: skip
