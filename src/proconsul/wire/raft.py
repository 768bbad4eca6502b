"""Raft's network messages as hashicorp/raft 1.1.2 (protocol version 3) puts them on the wire.

A request is one type byte and a msgpack map; an answer is a msgpack string (the error, empty if
none) and a msgpack map (nil if there was an error and no answer). Go's codec flattens the embedded
header into the map and sorts the fields by name. `InstallSnapshot` is followed by exactly `size`
raw bytes. Follows `commands.go`, `net_transport.go` and `configuration.go` of the reference.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from proconsul.util.errors import WireError
from proconsul.wire.msgpack import as_bytes, as_text, as_uint, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Callable

PROTOCOL_VERSION: Final = 3
PROTOCOL_VERSION_MIN: Final = 0
SNAPSHOT_VERSION: Final = 1
SNAPSHOT_VERSION_MIN: Final = 0

MESSAGE_BYTES_MAX: Final = 64 << 20
"""One request: the reference sends at most 64 entries, Consul bounds each to about 512 KiB."""

ENTRIES_MAX: Final = 4096
"""Entries in one AppendEntries: the reference refuses a configuration above 1,024."""

SERVERS_MAX: Final = 1024
"""Servers in one configuration."""

UNSUPPORTED_PROTOCOL: Final = "operation not supported with current protocol version"


class RpcType(IntEnum):
    """The byte in front of a request."""

    APPEND_ENTRIES = 0
    REQUEST_VOTE = 1
    INSTALL_SNAPSHOT = 2
    TIMEOUT_NOW = 3


class LogType(IntEnum):
    """What an entry is for. The numbers are in every log, old and new."""

    COMMAND = 0
    NOOP = 1
    ADD_PEER_DEPRECATED = 2
    REMOVE_PEER_DEPRECATED = 3
    BARRIER = 4
    CONFIGURATION = 5


class Suffrage(IntEnum):
    """Whether a server's vote counts."""

    VOTER = 0
    NONVOTER = 1
    STAGING = 2


class Entry(Struct, frozen=True, gc=False):
    """One log entry; `data` is opaque to Raft unless `type` is CONFIGURATION."""

    index: int
    term: int
    type: LogType
    data: bytes = b""
    extensions: bytes = b""


class Server(Struct, frozen=True):
    """One member. `id` is Consul's node UUID, `address` its "ip:port"."""

    suffrage: Suffrage
    id: str
    address: str


class Configuration(Struct, frozen=True):
    """The members of the cluster, in no particular order, each once."""

    servers: tuple[Server, ...] = ()


class AppendEntriesRequest(Struct, frozen=True):
    """Replicates entries. A heartbeat has neither entries, previous entry nor commit index."""

    term: int
    leader: bytes
    prev_log_index: int = 0
    prev_log_term: int = 0
    entries: tuple[Entry, ...] | None = None
    leader_commit: int = 0
    protocol_version: int = PROTOCOL_VERSION

    @property
    def is_heartbeat(self) -> bool:
        """True for what followers answer without looking at their log."""
        return not (self.prev_log_index or self.entries or self.leader_commit) and self.term > 0


class AppendEntriesResponse(Struct, frozen=True):
    """`last_log` is the follower's last index before the append, a hint for a faster backoff."""

    term: int
    last_log: int
    success: bool
    no_retry_backoff: bool = False
    protocol_version: int = PROTOCOL_VERSION


class RequestVoteRequest(Struct, frozen=True):
    """`candidate` is an address, not an id."""

    term: int
    candidate: bytes
    last_log_index: int
    last_log_term: int
    leadership_transfer: bool = False
    protocol_version: int = PROTOCOL_VERSION


class RequestVoteResponse(Struct, frozen=True):
    """The answer to `RequestVoteRequest`."""

    term: int
    granted: bool
    protocol_version: int = PROTOCOL_VERSION


class InstallSnapshotRequest(Struct, frozen=True):
    """Announces `size` raw bytes of a snapshot that reaches up to `last_log_index`."""

    term: int
    leader: bytes
    last_log_index: int
    last_log_term: int
    configuration: bytes
    configuration_index: int
    size: int
    peers: bytes = b""
    snapshot_version: int = SNAPSHOT_VERSION
    protocol_version: int = PROTOCOL_VERSION


class InstallSnapshotResponse(Struct, frozen=True):
    """The answer to `InstallSnapshotRequest`; the reference leaves its version 0."""

    term: int
    success: bool
    protocol_version: int = 0


class TimeoutNowRequest(Struct, frozen=True):
    """Tells a server to start an election at once."""

    protocol_version: int = PROTOCOL_VERSION


class TimeoutNowResponse(Struct, frozen=True):
    """The answer to `TimeoutNowRequest`; the reference leaves its version 0."""

    protocol_version: int = 0


Request = AppendEntriesRequest | RequestVoteRequest | InstallSnapshotRequest | TimeoutNowRequest
Response = (
    AppendEntriesResponse | RequestVoteResponse | InstallSnapshotResponse | TimeoutNowResponse
)


def encode_request(request: Request) -> bytes:
    """Type byte and body; an InstallSnapshot's raw bytes are the caller's to send."""
    match request:
        case AppendEntriesRequest():
            return b"\x00" + pack(_append_fields(request))
        case RequestVoteRequest():
            return b"\x01" + pack(
                {
                    "Candidate": request.candidate,
                    "LastLogIndex": request.last_log_index,
                    "LastLogTerm": request.last_log_term,
                    "LeadershipTransfer": request.leadership_transfer,
                    "ProtocolVersion": request.protocol_version,
                    "Term": request.term,
                }
            )
        case InstallSnapshotRequest():
            return b"\x02" + pack(
                {
                    "Configuration": request.configuration,
                    "ConfigurationIndex": request.configuration_index,
                    "LastLogIndex": request.last_log_index,
                    "LastLogTerm": request.last_log_term,
                    "Leader": request.leader,
                    "Peers": request.peers or None,
                    "ProtocolVersion": request.protocol_version,
                    "Size": request.size,
                    "SnapshotVersion": request.snapshot_version,
                    "Term": request.term,
                }
            )
        case TimeoutNowRequest():
            return b"\x03" + pack({"ProtocolVersion": request.protocol_version})


def encode_response(response: Response | None, error: str = "") -> bytes:
    """The error string and the answer, nil if there is none."""
    return pack(error) + pack(_response_fields(response))


def decode_request(rpc_type: int, value: Any) -> Request:
    """The request of an unpacked body (keys are `bytes`). Raises `WireError`."""
    try:
        decode = _REQUEST_DECODERS[RpcType(rpc_type)]
    except ValueError as error:
        raise WireError(f"unknown raft rpc type {rpc_type}") from error
    return decode(_fields(value))


def decode_response(request: Request, value: Any) -> Response | None:
    """The answer to `request` of an unpacked body, None if it is nil. Raises `WireError`."""
    if value is None:
        return None
    f = _fields(value)
    term, version = as_uint(f.get(b"Term")), _version(f)
    match request:
        case AppendEntriesRequest():
            return AppendEntriesResponse(
                term,
                as_uint(f.get(b"LastLog")),
                _flag(f, b"Success"),
                _flag(f, b"NoRetryBackoff"),
                version,
            )
        case RequestVoteRequest():
            return RequestVoteResponse(term, _flag(f, b"Granted"), version)
        case InstallSnapshotRequest():
            return InstallSnapshotResponse(term, _flag(f, b"Success"), version)
        case TimeoutNowRequest():
            return TimeoutNowResponse(version)


def encode_configuration(configuration: Configuration) -> bytes:
    """The `data` of a CONFIGURATION entry, and the configuration inside a snapshot's request."""
    servers = [
        {"Address": server.address, "ID": server.id, "Suffrage": int(server.suffrage)}
        for server in configuration.servers
    ]
    return pack({"Servers": servers or None})


def decode_configuration(data: bytes) -> Configuration:
    """The reverse of `encode_configuration`. Raises `WireError`."""
    servers = _fields(unpack(data, items_max=SERVERS_MAX)).get(b"Servers") or ()
    if not isinstance(servers, list | tuple):
        raise WireError("raft configuration: Servers is not a list")
    return Configuration(tuple(_server(_fields(server)) for server in servers))


def encode_peers(configuration: Configuration) -> bytes:
    """The voters' addresses in the format of protocol version 0, which snapshots still carry."""
    return pack([s.address for s in configuration.servers if s.suffrage is Suffrage.VOTER])


def decode_peers(data: bytes) -> Configuration:
    """A configuration from the format of protocol version 0: ids are the addresses."""
    peers = unpack(data, items_max=SERVERS_MAX) or ()
    if not isinstance(peers, list | tuple):
        raise WireError("raft peers: not a list")
    return Configuration(
        tuple(Server(Suffrage.VOTER, as_text(peer), as_text(peer)) for peer in peers)
    )


def encode_entry(entry: Entry) -> bytes:
    """One entry alone, for a log store."""
    return pack(_entry_fields(entry))


def decode_entry(data: bytes | memoryview) -> Entry:
    """The reverse of `encode_entry`. Raises `WireError`."""
    return _entry(unpack(data, items_max=16))


def _entry_fields(entry: Entry) -> dict[str, object]:
    return {
        "Data": entry.data or None,
        "Extensions": entry.extensions or None,
        "Index": entry.index,
        "Term": entry.term,
        "Type": int(entry.type),
    }


def _append_fields(request: AppendEntriesRequest) -> dict[str, object]:
    entries = request.entries
    return {
        "Entries": None if entries is None else [_entry_fields(entry) for entry in entries],
        "Leader": request.leader,
        "LeaderCommitIndex": request.leader_commit,
        "PrevLogEntry": request.prev_log_index,
        "PrevLogTerm": request.prev_log_term,
        "ProtocolVersion": request.protocol_version,
        "Term": request.term,
    }


def _response_fields(response: Response | None) -> dict[str, object] | None:
    match response:
        case None:
            return None
        case AppendEntriesResponse():
            return {
                "LastLog": response.last_log,
                "NoRetryBackoff": response.no_retry_backoff,
                "ProtocolVersion": response.protocol_version,
                "Success": response.success,
                "Term": response.term,
            }
        case RequestVoteResponse():
            return {
                "Granted": response.granted,
                "Peers": None,
                "ProtocolVersion": response.protocol_version,
                "Term": response.term,
            }
        case InstallSnapshotResponse():
            return {
                "ProtocolVersion": response.protocol_version,
                "Success": response.success,
                "Term": response.term,
            }
        case TimeoutNowResponse():
            return {"ProtocolVersion": response.protocol_version}


def _fields(value: Any) -> dict[bytes, Any]:
    if not isinstance(value, dict):
        raise WireError(f"raft message: expected a map, got {type(value).__name__}")
    return value


def _flag(fields: dict[bytes, Any], name: bytes) -> bool:
    value = fields.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise WireError(f"raft message: {name.decode()} is not a boolean")


def _version(fields: dict[bytes, Any]) -> int:
    return as_uint(fields.get(b"ProtocolVersion"), 31)


def _server(f: dict[bytes, Any]) -> Server:
    try:
        suffrage = Suffrage(as_uint(f.get(b"Suffrage"), 31))
    except ValueError as error:
        raise WireError(f"raft configuration: unknown suffrage {f.get(b'Suffrage')}") from error
    return Server(suffrage, as_text(f.get(b"ID")), as_text(f.get(b"Address")))


def _entry(value: Any) -> Entry:
    f = _fields(value)
    kind = f.get(b"Type", 0)
    log_type = _LOG_TYPES.get(kind) if type(kind) is int else None
    if log_type is None:
        raise WireError(f"raft entry: unknown log type {kind!r:.40}")
    return Entry(
        as_uint(f.get(b"Index")),
        as_uint(f.get(b"Term")),
        log_type,
        as_bytes(f.get(b"Data")),
        as_bytes(f.get(b"Extensions")),
    )


def _append_request(f: dict[bytes, Any]) -> Request:
    entries = f.get(b"Entries")
    if entries is not None and (not isinstance(entries, list) or len(entries) > ENTRIES_MAX):
        raise WireError("raft AppendEntries: Entries is no list, or too long")
    return AppendEntriesRequest(
        as_uint(f.get(b"Term")),
        as_bytes(f.get(b"Leader")),
        as_uint(f.get(b"PrevLogEntry")),
        as_uint(f.get(b"PrevLogTerm")),
        None if entries is None else tuple(_entry(entry) for entry in entries),
        as_uint(f.get(b"LeaderCommitIndex")),
        _version(f),
    )


def _vote_request(f: dict[bytes, Any]) -> Request:
    return RequestVoteRequest(
        as_uint(f.get(b"Term")),
        as_bytes(f.get(b"Candidate")),
        as_uint(f.get(b"LastLogIndex")),
        as_uint(f.get(b"LastLogTerm")),
        _flag(f, b"LeadershipTransfer"),
        _version(f),
    )


def _snapshot_request(f: dict[bytes, Any]) -> Request:
    return InstallSnapshotRequest(
        as_uint(f.get(b"Term")),
        as_bytes(f.get(b"Leader")),
        as_uint(f.get(b"LastLogIndex")),
        as_uint(f.get(b"LastLogTerm")),
        as_bytes(f.get(b"Configuration")),
        as_uint(f.get(b"ConfigurationIndex")),
        as_uint(f.get(b"Size"), 63),
        as_bytes(f.get(b"Peers")),
        as_uint(f.get(b"SnapshotVersion"), 31),
        _version(f),
    )


def _timeout_request(f: dict[bytes, Any]) -> Request:
    return TimeoutNowRequest(_version(f))


_LOG_TYPES: Final[dict[int, LogType]] = {int(kind): kind for kind in LogType}

_REQUEST_DECODERS: Final[dict[RpcType, Callable[[dict[bytes, Any]], Request]]] = {
    RpcType.APPEND_ENTRIES: _append_request,
    RpcType.REQUEST_VOTE: _vote_request,
    RpcType.INSTALL_SNAPSHOT: _snapshot_request,
    RpcType.TIMEOUT_NOW: _timeout_request,
}
