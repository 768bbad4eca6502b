"""Messages of hashicorp/memberlist 0.2 (protocol versions 1-5).

A message is one type byte and a msgpack map in Go's flavour. How packets wrap them is in
`wire.memberlist_packet`, streams in `wire.memberlist_stream`, encryption in
`wire.memberlist_crypto`.
"""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache
from typing import Any

import msgspec

from proconsul.util.errors import WireError
from proconsul.wire.msgpack import as_bytes, as_text, as_uint, raw, uint, unpack

META_BYTES_MAX = 512
NAME_BYTES_MAX = 1024
VERSION_MIN, VERSION_MAX = 1, 5
MAP_ITEMS_MAX = 64


class Kind(IntEnum):
    """The first byte of every message."""

    PING = 0
    INDIRECT_PING = 1
    ACK = 2
    SUSPECT = 3
    ALIVE = 4
    DEAD = 5
    PUSH_PULL = 6
    COMPOUND = 7
    USER = 8
    COMPRESS = 9
    ENCRYPT = 10
    NACK = 11
    HAS_CRC = 12
    ERR = 13


class NodeState(IntEnum):
    """What the cluster believes of a node."""

    ALIVE = 0
    SUSPECT = 1
    DEAD = 2
    LEFT = 3


class Ping(msgspec.Struct, frozen=True, gc=False):
    """Are you `node`, and alive? The answer goes to the source, if one is given."""

    seq_no: int
    node: str
    source_addr: bytes = b""
    source_port: int = 0
    source_node: str = ""


class IndirectPing(msgspec.Struct, frozen=True, gc=False):
    """Ping `node` at `target` on my behalf; with `nack`, tell me too if it does not answer."""

    seq_no: int
    target: bytes
    port: int
    node: str
    nack: bool
    source_addr: bytes = b""
    source_port: int = 0
    source_node: str = ""


class Ack(msgspec.Struct, frozen=True, gc=False):
    """Answer to a ping; `payload` is the delegate's (Serf puts a coordinate there)."""

    seq_no: int
    payload: bytes = b""


class Nack(msgspec.Struct, frozen=True, gc=False):
    """The target of an indirect ping stayed silent."""

    seq_no: int


class Suspect(msgspec.Struct, frozen=True, gc=False):
    """`source` suspects `node` as of `incarnation`."""

    incarnation: int
    node: str
    source: str


class Dead(msgspec.Struct, frozen=True, gc=False):
    """`source` declares `node` dead; a node that declares itself dead has left."""

    incarnation: int
    node: str
    source: str


class Alive(msgspec.Struct, frozen=True, gc=False):
    """`node` is alive as of `incarnation`.

    `addr` is a packed IPv4 or IPv6 address; `versions` is (pmin, pmax, pcur, dmin, dmax, dcur) or
    empty.
    """

    incarnation: int
    node: str
    addr: bytes
    port: int
    meta: bytes
    versions: bytes


class NodeRow(msgspec.Struct, frozen=True, gc=False):
    """One node as a push/pull transfers it."""

    name: str
    addr: bytes
    port: int
    meta: bytes
    incarnation: int
    state: NodeState
    versions: bytes


# --- encoding: concatenation of constant keys and values, several times faster than a dict;
# fields in the order of their names, as Go's codec writes them


def _slice(value: bytes) -> bytes:
    """A Go `[]byte`, whose nil is nil."""
    return raw(value) if value else b"\xc0"


@lru_cache(maxsize=8192)
def _text(value: str) -> bytes:
    return raw(value.encode("utf-8", "surrogateescape"))


def _source(m: Ping | IndirectPing) -> tuple[int, bytes]:
    """The three optional source fields: how many are there, and their bytes."""
    parts = []
    if m.source_addr:
        parts.append(b"\xaaSourceAddr" + raw(m.source_addr))
    if m.source_node:
        parts.append(b"\xaaSourceNode" + _text(m.source_node))
    if m.source_port:
        parts.append(b"\xaaSourcePort" + uint(m.source_port))
    return len(parts), b"".join(parts)


def encode_ping(m: Ping) -> bytes:
    """`m` with its type byte."""
    count, source = _source(m)
    start = bytes((Kind.PING, 0x82 + count))
    return b"".join((start, b"\xa4Node", _text(m.node), b"\xa5SeqNo", uint(m.seq_no), source))


def encode_indirect_ping(m: IndirectPing) -> bytes:
    """`m` with its type byte."""
    count, source = _source(m)
    return b"".join(
        (
            bytes((Kind.INDIRECT_PING, 0x85 + count)),
            b"\xa4Nack\xc3" if m.nack else b"\xa4Nack\xc2",
            b"\xa4Node",
            _text(m.node),
            b"\xa4Port",
            uint(m.port),
            b"\xa5SeqNo",
            uint(m.seq_no),
            source,
            b"\xa6Target",
            _slice(m.target),
        )
    )


def encode_ack(m: Ack) -> bytes:
    """`m` with its type byte."""
    return b"\x02\x82\xa7Payload" + _slice(m.payload) + b"\xa5SeqNo" + uint(m.seq_no)


def encode_nack(m: Nack) -> bytes:
    """`m` with its type byte."""
    return b"\x0b\x81\xa5SeqNo" + uint(m.seq_no)


def encode_suspect(m: Suspect) -> bytes:
    """`m` with its type byte."""
    return _accusation(b"\x03\x83\xa4From", m)


def encode_dead(m: Dead) -> bytes:
    """`m` with its type byte."""
    return _accusation(b"\x05\x83\xa4From", m)


def _accusation(start: bytes, m: Suspect | Dead) -> bytes:
    return b"".join(
        (
            start,
            _text(m.source),
            b"\xabIncarnation",
            uint(m.incarnation),
            b"\xa4Node",
            _text(m.node),
        )
    )


def encode_alive(m: Alive) -> bytes:
    """`m` with its type byte."""
    return b"".join(
        (
            b"\x04\x86\xa4Addr",
            _slice(m.addr),
            b"\xabIncarnation",
            uint(m.incarnation),
            b"\xa4Meta",
            _slice(m.meta),
            b"\xa4Node",
            _text(m.node),
            b"\xa4Port",
            uint(m.port),
            b"\xa3Vsn",
            _slice(m.versions),
        )
    )


def encode_row(m: NodeRow) -> bytes:
    """One node of a push/pull (no type byte)."""
    return b"".join(
        (
            b"\x87\xa4Addr",
            _slice(m.addr),
            b"\xabIncarnation",
            uint(m.incarnation),
            b"\xa4Meta",
            _slice(m.meta),
            b"\xa4Name",
            _text(m.name),
            b"\xa4Port",
            uint(m.port),
            b"\xa5State",
            uint(m.state),
            b"\xa3Vsn",
            _slice(m.versions),
        )
    )


# --- decoding


def _fields(body: bytes) -> dict[bytes, Any]:
    value = unpack(body, items_max=MAP_ITEMS_MAX)
    if type(value) is not dict:
        raise WireError("memberlist message is not a map")
    return value


def _name(value: object) -> str:
    name = as_text(value)
    if len(name) > NAME_BYTES_MAX:
        raise WireError(f"node name longer than {NAME_BYTES_MAX} bytes")
    return name


def _addr(value: object) -> bytes:
    addr = as_bytes(value)
    if len(addr) not in {0, 4, 16}:
        raise WireError(f"address of {len(addr)} bytes")
    return addr


def _meta(value: object) -> bytes:
    meta = as_bytes(value)
    if len(meta) > META_BYTES_MAX:
        raise WireError(f"node meta longer than {META_BYTES_MAX} bytes")
    return meta


def _versions(value: object) -> bytes:
    versions = as_bytes(value)
    if len(versions) not in {0, 6}:
        raise WireError(f"version vector of {len(versions)} entries, not 6")
    return versions


def ping_of(fields: dict[bytes, Any]) -> Ping:
    """A decoded map as a ping. Raises `WireError`."""
    get = fields.get
    return Ping(
        as_uint(get(b"SeqNo"), 32),
        _name(get(b"Node")),
        _addr(get(b"SourceAddr")),
        as_uint(get(b"SourcePort"), 16),
        _name(get(b"SourceNode")),
    )


def decode_indirect_ping(body: bytes) -> IndirectPing:
    """The message after its type byte. Raises `WireError`."""
    get = _fields(body).get
    return IndirectPing(
        as_uint(get(b"SeqNo"), 32),
        _addr(get(b"Target")),
        as_uint(get(b"Port"), 16),
        _name(get(b"Node")),
        get(b"Nack") is True,
        _addr(get(b"SourceAddr")),
        as_uint(get(b"SourcePort"), 16),
        _name(get(b"SourceNode")),
    )


def decode_ping(body: bytes) -> Ping:
    """The message after its type byte. Raises `WireError`."""
    return ping_of(_fields(body))


def ack_of(fields: dict[bytes, Any]) -> Ack:
    """A decoded map as an ack. Raises `WireError`."""
    return Ack(as_uint(fields.get(b"SeqNo"), 32), as_bytes(fields.get(b"Payload")))


def decode_ack(body: bytes) -> Ack:
    """The message after its type byte. Raises `WireError`."""
    return ack_of(_fields(body))


def decode_nack(body: bytes) -> Nack:
    """The message after its type byte. Raises `WireError`."""
    return Nack(as_uint(_fields(body).get(b"SeqNo"), 32))


# The three rumours below arrive a dozen times each, byte for byte, as gossip spreads: decoding
# is a pure function of the bytes, so it is remembered (bounded: bodies are small, see `_bounded`).


@lru_cache(maxsize=1024)
def decode_suspect(body: bytes) -> Suspect:
    """The message after its type byte. Raises `WireError`."""
    get = _fields(_bounded(body)).get
    return Suspect(as_uint(get(b"Incarnation"), 32), _name(get(b"Node")), _name(get(b"From")))


@lru_cache(maxsize=1024)
def decode_dead(body: bytes) -> Dead:
    """The message after its type byte. Raises `WireError`."""
    get = _fields(_bounded(body)).get
    return Dead(as_uint(get(b"Incarnation"), 32), _name(get(b"Node")), _name(get(b"From")))


@lru_cache(maxsize=1024)
def decode_alive(body: bytes) -> Alive:
    """The message after its type byte. Raises `WireError`."""
    get = _fields(_bounded(body)).get
    return Alive(
        as_uint(get(b"Incarnation"), 32),
        _name(get(b"Node")),
        _addr(get(b"Addr")),
        as_uint(get(b"Port"), 16),
        _meta(get(b"Meta")),
        _versions(get(b"Vsn")),
    )


def _bounded(body: bytes) -> bytes:
    if len(body) > 4 * NAME_BYTES_MAX:
        raise WireError("memberlist message too large")
    return body


def row_of(value: object) -> NodeRow:
    """One decoded map of a push/pull as a row. Raises `WireError`."""
    if type(value) is not dict:
        raise WireError("push/pull: a node is not a map")
    get = value.get
    state = as_uint(get(b"State"), 8)
    if state > NodeState.LEFT:
        raise WireError(f"push/pull: unknown node state {state}")
    return NodeRow(
        _name(get(b"Name")),
        _addr(get(b"Addr")),
        as_uint(get(b"Port"), 16),
        _meta(get(b"Meta")),
        as_uint(get(b"Incarnation"), 32),
        NodeState(state),
        _versions(get(b"Vsn")),
    )
