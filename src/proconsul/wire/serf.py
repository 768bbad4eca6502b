"""Serf's gossip messages: values and their encoders, as in serf 0.9.4 `messages.go` (versions 2-5).

A message is one type byte and one msgpack map with Go's field names. `wire.serf_decode` is the way
back. Go's codec writes strings and byte slices alike as the old raw type, a nil slice as nil, and
the fields in alphabetical order; so do the encoders, which makes golden bytes comparable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from ipaddress import ip_address
from typing import Final

import msgspec

from proconsul.wire.msgpack import pack

Address = tuple[str, int]

MESSAGE_BYTES_MAX: Final = 64 * 1024
"""No gossip message but a push/pull state is larger: it has to fit into one datagram."""
STATE_BYTES_MAX: Final = 20 * 1024 * 1024
"""memberlist's own bound for the user state in a push/pull."""
FILTERS_MAX: Final = 64
VERSION_PARTS: Final = ("Min", "Max", "Cur")

TAG_MAGIC_BYTE: Final = 255
PING_VERSION: Final = 1

FLAG_ACK: Final = 1
FLAG_NO_BROADCAST: Final = 2


class MessageType(IntEnum):
    """The first byte of every serf message."""

    LEAVE = 0
    JOIN = 1
    PUSH_PULL = 2
    USER_EVENT = 3
    QUERY = 4
    QUERY_RESPONSE = 5
    CONFLICT_RESPONSE = 6
    KEY_REQUEST = 7
    KEY_RESPONSE = 8
    RELAY = 9


class Join(msgspec.Struct, frozen=True):
    """A node has joined at Lamport time `ltime`."""

    ltime: int
    node: str


class Leave(msgspec.Struct, frozen=True):
    """A node leaves, or is made to leave; `prune` erases it at once."""

    ltime: int
    node: str
    prune: bool = False


class UserEventMessage(msgspec.Struct, frozen=True):
    """An event of the application, `coalesce` allows receivers to keep the last one only."""

    ltime: int
    name: str
    payload: bytes = b""
    coalesce: bool = False


class RecentEvents(msgspec.Struct, frozen=True):
    """All user events (name, payload) of one Lamport time."""

    ltime: int
    events: tuple[tuple[str, bytes], ...]


class PushPull(msgspec.Struct, frozen=True):
    """The serf part of memberlist's push/pull state exchange."""

    ltime: int
    status_ltimes: dict[str, int]
    left_members: list[str]
    event_ltime: int
    events: list[RecentEvents]
    query_ltime: int


class Query(msgspec.Struct, frozen=True):
    """A question to all nodes that pass `filters`; answers go straight to `source` at `address`."""

    ltime: int
    id: int
    address: Address
    source: str
    filters: tuple[bytes, ...]
    flags: int
    relay_factor: int
    timeout_ns: int
    name: str
    payload: bytes

    @property
    def ack(self) -> bool:
        return bool(self.flags & FLAG_ACK)

    @property
    def no_broadcast(self) -> bool:
        return bool(self.flags & FLAG_NO_BROADCAST)


class QueryResponse(msgspec.Struct, frozen=True):
    """An answer, or with the ack flag the mere receipt, of the query (`ltime`, `id`)."""

    ltime: int
    id: int
    sender: str
    flags: int = 0
    payload: bytes = b""

    @property
    def ack(self) -> bool:
        return bool(self.flags & FLAG_ACK)


class Relay(msgspec.Struct, frozen=True):
    """`message` is to be sent on, unchanged, to `node` at `address`."""

    address: Address
    node: str
    message: bytes


class NodeFilter(msgspec.Struct, frozen=True):
    """Only these nodes answer."""

    names: tuple[str, ...]


class TagFilter(msgspec.Struct, frozen=True):
    """Only nodes answer whose tag matches the (unanchored) regular expression."""

    tag: str
    expression: str


class WireMember(msgspec.Struct, frozen=True):
    """serf.Member as a conflict response carries it; versions are min, max, current."""

    name: str
    address: Address
    tags: dict[str, str]
    status: int
    protocol: tuple[int, int, int]
    delegate: tuple[int, int, int]


class KeyResponse(msgspec.Struct, frozen=True):
    """One node's answer to a key query; keys are base64."""

    result: bool
    message: str = ""
    keys: tuple[str, ...] = ()
    primary_key: str = ""


def _message(kind: MessageType, fields: Mapping[str, object]) -> bytes:
    return bytes((kind,)) + pack(fields)


def _ip_bytes(host: str) -> bytes:
    return ip_address(host).packed


def encode_join(message: Join) -> bytes:
    """The type byte and the message."""
    return _message(MessageType.JOIN, {"LTime": message.ltime, "Node": message.node})


def encode_leave(message: Leave) -> bytes:
    """The type byte and the message."""
    return _message(
        MessageType.LEAVE,
        {"LTime": message.ltime, "Node": message.node, "Prune": message.prune},
    )


def encode_user_event(message: UserEventMessage) -> bytes:
    """The type byte and the message."""
    return _message(
        MessageType.USER_EVENT,
        {
            "CC": message.coalesce,
            "LTime": message.ltime,
            "Name": message.name,
            "Payload": message.payload,
        },
    )


def encode_push_pull(message: PushPull) -> bytes:
    """The type byte and the message."""
    events = [
        {
            "Events": [{"Name": name, "Payload": payload} for name, payload in at.events],
            "LTime": at.ltime,
        }
        for at in message.events
    ]
    return _message(
        MessageType.PUSH_PULL,
        {
            "EventLTime": message.event_ltime,
            "Events": events,
            "LTime": message.ltime,
            "LeftMembers": message.left_members,
            "QueryLTime": message.query_ltime,
            "StatusLTimes": message.status_ltimes,
        },
    )


def encode_query(message: Query) -> bytes:
    """The type byte and the message."""
    return _message(
        MessageType.QUERY,
        {
            "Addr": _ip_bytes(message.address[0]),
            "Filters": list(message.filters) or None,
            "Flags": message.flags,
            "ID": message.id,
            "LTime": message.ltime,
            "Name": message.name,
            "Payload": message.payload or None,
            "Port": message.address[1],
            "RelayFactor": message.relay_factor,
            "SourceNode": message.source,
            "Timeout": message.timeout_ns,
        },
    )


def encode_query_response(message: QueryResponse) -> bytes:
    """The type byte and the message."""
    return _message(
        MessageType.QUERY_RESPONSE,
        {
            "Flags": message.flags,
            "From": message.sender,
            "ID": message.id,
            "LTime": message.ltime,
            "Payload": message.payload or None,
        },
    )


def encode_relay(message: Relay) -> bytes:
    """The type byte, the header and the message to be sent on."""
    host, port = message.address
    header = {
        "DestAddr": {"IP": _ip_bytes(host), "Port": port, "Zone": ""},
        "DestName": message.node,
    }
    return _message(MessageType.RELAY, header) + message.message


def encode_filter(condition: NodeFilter | TagFilter) -> bytes:
    """One entry of `Query.filters`: a filter type byte and its msgpack."""
    match condition:
        case NodeFilter(names):
            return b"\x00" + pack(list(names))
        case TagFilter(tag, expression):
            return b"\x01" + pack({"Expr": expression, "Tag": tag})


def encode_conflict_response(member: WireMember | None) -> bytes:
    """The type byte and the member; None (Go: a nil pointer) if the node is unknown."""
    kind = bytes((MessageType.CONFLICT_RESPONSE,))
    if member is None:
        return kind + pack(None)
    host, port = member.address
    fields: dict[str, object] = {
        "Addr": _ip_bytes(host),
        "Name": member.name,
        "Port": port,
        "Tags": member.tags,
        "Status": member.status,
    }
    for name, versions in (("Protocol", member.protocol), ("Delegate", member.delegate)):
        fields |= {f"{name}{part}": v for part, v in zip(VERSION_PARTS, versions, strict=True)}
    return kind + pack(dict(sorted(fields.items())))


def encode_key_request(key: bytes) -> bytes:
    """The payload of a key query; `key` is empty for list-keys."""
    return _message(MessageType.KEY_REQUEST, {"Key": key})


def encode_key_response(response: KeyResponse) -> bytes:
    """The type byte and the message."""
    return _message(
        MessageType.KEY_RESPONSE,
        {
            "Keys": list(response.keys) or None,
            "Message": response.message,
            "PrimaryKey": response.primary_key,
            "Result": response.result,
        },
    )


def encode_tags(tags: Mapping[str, str], protocol_version: int) -> bytes:
    """A node's meta data. Before protocol version 3 that is the bare role."""
    if protocol_version < 3:
        return tags.get("role", "").encode()
    return bytes((TAG_MAGIC_BYTE,)) + pack(dict(tags))


def encode_coordinate(
    vec: Sequence[float], error: float, adjustment: float, height: float
) -> bytes:
    """What an ack carries: the ping version and serf's `Coordinate`."""
    return bytes((PING_VERSION,)) + pack(
        {
            "Adjustment": float(adjustment),
            "Error": float(error),
            "Height": float(height),
            "Vec": [float(part) for part in vec],
        }
    )
