"""Decoders of serf's gossip messages (`wire.serf`).

Trailing bytes and unknown keys are ignored, absent keys are zero values: that is how Go reads, and
what lets versions mix. Every decoder raises `WireError` for anything else. `data` always includes
the type byte.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from proconsul.util.errors import WireError
from proconsul.wire.msgpack import as_bytes, as_text, as_uint, unpack_first
from proconsul.wire.serf import (
    FILTERS_MAX,
    MESSAGE_BYTES_MAX,
    PING_VERSION,
    STATE_BYTES_MAX,
    TAG_MAGIC_BYTE,
    VERSION_PARTS,
    Address,
    Join,
    KeyResponse,
    Leave,
    MessageType,
    NodeFilter,
    PushPull,
    Query,
    QueryResponse,
    RecentEvents,
    Relay,
    TagFilter,
    UserEventMessage,
    WireMember,
)

_ITEMS_MAX = 1 << 20


def _unpack(data: bytes, limit: int) -> Any:
    if len(data) > limit:
        raise WireError(f"serf message of {len(data)} bytes exceeds {limit}")
    return unpack_first(data, items_max=_ITEMS_MAX)[0]


def _map(data: bytes, limit: int = MESSAGE_BYTES_MAX) -> dict[Any, Any]:
    return _as_map(_unpack(data, limit))


def _as_map(value: Any) -> dict[Any, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise WireError(f"serf: a map was expected, not {type(value).__name__}")
    return value


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise WireError(f"serf: a list was expected, not {type(value).__name__}")
    return value


def _flag(value: Any) -> bool:
    if value is None:
        return False
    if not isinstance(value, bool):
        raise WireError("serf: a boolean was expected")
    return value


def _address(ip: Any, port: Any) -> Address:
    raw = as_bytes(ip)
    try:
        parsed = ip_address(raw)
    except ValueError as error:
        raise WireError(f"serf: {len(raw)} bytes are no IP address") from error
    # Go holds IPv4 addresses as 16 bytes too; their canonical text is the short one.
    if parsed.version == 6 and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return str(parsed), as_uint(port, 16)


def _float(value: Any) -> float:
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WireError("serf: a number was expected")
    return float(value)


def message_type(data: bytes) -> MessageType:
    """The type of a message. Raises `WireError` for an empty or unknown one."""
    if not data:
        raise WireError("empty serf message")
    try:
        return MessageType(data[0])
    except ValueError:
        raise WireError(f"serf message of unknown type {data[0]}") from None


def decode_join(data: bytes) -> Join:
    """The message."""
    fields = _map(data[1:])
    return Join(as_uint(fields.get(b"LTime")), as_text(fields.get(b"Node")))


def decode_leave(data: bytes) -> Leave:
    """The message."""
    fields = _map(data[1:])
    return Leave(
        as_uint(fields.get(b"LTime")), as_text(fields.get(b"Node")), _flag(fields.get(b"Prune"))
    )


def decode_user_event(data: bytes) -> UserEventMessage:
    """The message."""
    fields = _map(data[1:])
    return UserEventMessage(
        as_uint(fields.get(b"LTime")),
        as_text(fields.get(b"Name")),
        as_bytes(fields.get(b"Payload")),
        _flag(fields.get(b"CC")),
    )


def decode_push_pull(data: bytes) -> PushPull:
    """The state; also checks its type byte."""
    if message_type(data) is not MessageType.PUSH_PULL:
        raise WireError(f"remote serf state has the bad type prefix {data[0]}")
    fields = _map(data[1:], STATE_BYTES_MAX)
    times = _as_map(fields.get(b"StatusLTimes"))
    return PushPull(
        ltime=as_uint(fields.get(b"LTime")),
        status_ltimes={as_text(name): as_uint(at) for name, at in times.items()},
        left_members=[as_text(name) for name in _as_list(fields.get(b"LeftMembers"))],
        event_ltime=as_uint(fields.get(b"EventLTime")),
        events=[
            _recent_events(_as_map(entry))
            for entry in _as_list(fields.get(b"Events"))
            if entry is not None
        ],
        query_ltime=as_uint(fields.get(b"QueryLTime")),
    )


def _recent_events(fields: dict[Any, Any]) -> RecentEvents:
    events = (_as_map(event) for event in _as_list(fields.get(b"Events")))
    return RecentEvents(
        as_uint(fields.get(b"LTime")),
        tuple((as_text(event.get(b"Name")), as_bytes(event.get(b"Payload"))) for event in events),
    )


def decode_query(data: bytes) -> Query:
    """The message. At most `FILTERS_MAX` filters."""
    fields = _map(data[1:])
    filters = _as_list(fields.get(b"Filters"))
    if len(filters) > FILTERS_MAX:
        raise WireError(f"serf query with {len(filters)} filters")
    return Query(
        ltime=as_uint(fields.get(b"LTime")),
        id=as_uint(fields.get(b"ID"), 32),
        address=_address(fields.get(b"Addr"), fields.get(b"Port")),
        source=as_text(fields.get(b"SourceNode")),
        filters=tuple(as_bytes(entry) for entry in filters),
        flags=as_uint(fields.get(b"Flags"), 32),
        relay_factor=as_uint(fields.get(b"RelayFactor"), 8),
        timeout_ns=as_uint(fields.get(b"Timeout"), 63),
        name=as_text(fields.get(b"Name")),
        payload=as_bytes(fields.get(b"Payload")),
    )


def decode_query_response(data: bytes) -> QueryResponse:
    """The message."""
    fields = _map(data[1:])
    return QueryResponse(
        ltime=as_uint(fields.get(b"LTime")),
        id=as_uint(fields.get(b"ID"), 32),
        sender=as_text(fields.get(b"From")),
        flags=as_uint(fields.get(b"Flags"), 32),
        payload=as_bytes(fields.get(b"Payload")),
    )


def decode_relay(data: bytes) -> Relay:
    """The header, and what follows it."""
    if len(data) > MESSAGE_BYTES_MAX:
        raise WireError(f"serf relay of {len(data)} bytes")
    header, size = unpack_first(data[1:], items_max=_ITEMS_MAX)
    fields = _as_map(header)
    to = _as_map(fields.get(b"DestAddr"))
    return Relay(
        _address(to.get(b"IP"), to.get(b"Port")),
        as_text(fields.get(b"DestName")),
        data[1 + size :],
    )


def decode_filter(data: bytes) -> NodeFilter | TagFilter:
    """One entry of `Query.filters`. Raises `WireError` for an unknown kind."""
    if not data:
        raise WireError("empty serf query filter")
    if data[0] == 0:
        names = _as_list(_unpack(data[1:], MESSAGE_BYTES_MAX))
        return NodeFilter(tuple(as_text(name) for name in names))
    if data[0] == 1:
        fields = _map(data[1:])
        return TagFilter(as_text(fields.get(b"Tag")), as_text(fields.get(b"Expr")))
    raise WireError(f"serf query has an unrecognized filter type: {data[0]}")


def decode_conflict_response(data: bytes) -> WireMember | None:
    """The member, None if the answering node did not know it."""
    if message_type(data) is not MessageType.CONFLICT_RESPONSE:
        raise WireError(f"invalid conflict query response type {data[0]}")
    fields = _map(data[1:])
    if not fields:
        return None
    versions = [
        tuple(as_uint(fields.get(f"{name}{part}".encode()), 8) for part in VERSION_PARTS)
        for name in ("Protocol", "Delegate")
    ]
    return WireMember(
        name=as_text(fields.get(b"Name")),
        address=_address(fields.get(b"Addr"), fields.get(b"Port")),
        tags=_string_map(fields.get(b"Tags")),
        status=as_uint(fields.get(b"Status"), 8),
        protocol=(versions[0][0], versions[0][1], versions[0][2]),
        delegate=(versions[1][0], versions[1][1], versions[1][2]),
    )


def _string_map(value: Any) -> dict[str, str]:
    return {as_text(name): as_text(entry) for name, entry in _as_map(value).items()}


def decode_key_request(data: bytes) -> bytes:
    """The key in the payload of a key query."""
    if message_type(data) is not MessageType.KEY_REQUEST:
        raise WireError(f"invalid key query type {data[0]}")
    return as_bytes(_map(data[1:]).get(b"Key"))


def decode_key_response(data: bytes) -> KeyResponse:
    """One node's answer to a key query."""
    if message_type(data) is not MessageType.KEY_RESPONSE:
        raise WireError(f"invalid key query response type {data[0]}")
    fields = _map(data[1:])
    return KeyResponse(
        _flag(fields.get(b"Result")),
        as_text(fields.get(b"Message")),
        tuple(as_text(key) for key in _as_list(fields.get(b"Keys"))),
        as_text(fields.get(b"PrimaryKey")),
    )


def decode_tags(meta: bytes) -> dict[str, str]:
    """A node's tags from its meta data; without the magic byte that is the role of an old node."""
    if not meta or meta[0] != TAG_MAGIC_BYTE:
        return {"role": meta.decode(errors="replace")}
    return _string_map(_unpack(meta[1:], MESSAGE_BYTES_MAX))


def decode_coordinate(payload: bytes) -> tuple[list[float], float, float, float]:
    """(vec, error, adjustment, height), all but the dimensionless error in seconds."""
    if not payload or payload[0] != PING_VERSION:
        raise WireError("unsupported ping version")
    fields = _map(payload[1:], 4096)
    return (
        [_float(part) for part in _as_list(fields.get(b"Vec"))],
        _float(fields.get(b"Error")),
        _float(fields.get(b"Adjustment")),
        _float(fields.get(b"Height")),
    )
