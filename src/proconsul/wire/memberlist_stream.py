"""memberlist over a byte stream: push/pull, fallback ping and its ack, user message, error.

A stream carries one message each way. It may be wrapped whole in encryption (type byte, 4-byte
length, sealed bytes), and then in compression; what is left is a type byte, msgpack values and,
for push/pull and user messages, a blob whose length a header announced.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from proconsul.util.errors import WireError
from proconsul.wire.memberlist import (
    MAP_ITEMS_MAX,
    Ack,
    Kind,
    NodeRow,
    Ping,
    ack_of,
    encode_row,
    ping_of,
    row_of,
)
from proconsul.wire.memberlist_crypto import Keyring, sealed_bytes
from proconsul.wire.memberlist_packet import decompress_fields, encode_compress
from proconsul.wire.msgpack import StreamDecoder, as_text, as_uint, pack

STATE_BYTES_MAX = 20 << 20
"""Of a push/pull or user message as it travels (memberlist's own bound for encrypted ones)."""
PLAIN_BYTES_MAX = 32 << 20
"""Of the same after decompression."""
NODES_MAX = 100_000
_HEADER_BYTES = 5


class PushPull(msgspec.Struct, frozen=True):
    """A node's whole view: all nodes, and the delegate's state (None if it sent none)."""

    join: bool
    rows: tuple[NodeRow, ...]
    user_state: bytes | None


class UserMessage(msgspec.Struct, frozen=True):
    """A reliable message for the delegate."""

    data: bytes


class ErrorReply(msgspec.Struct, frozen=True):
    """The peer could not read what was sent."""

    text: str


StreamMessage = PushPull | UserMessage | ErrorReply | Ping | Ack


def encode_push_pull(join: bool, rows: Sequence[NodeRow], user_state: bytes) -> bytes:
    """A push/pull with its type byte, unwrapped."""
    header = pack({"Join": join, "Nodes": len(rows), "UserStateLen": len(user_state)})
    return b"".join((b"\x06", header, *map(encode_row, rows), user_state))


def encode_user_stream(data: bytes) -> bytes:
    """A user message with its type byte, unwrapped."""
    return b"\x08" + pack({"UserMsgLen": len(data)}) + data


def encode_error(text: str) -> bytes:
    """An error reply with its type byte, unwrapped."""
    return b"\x0d" + pack({"Error": text})


def wrap_stream(
    message: bytes,
    *,
    compress: bool,
    keyring: Keyring | None = None,
    encryption_version: int = 1,
    nonce: bytes = b"",
) -> bytes:
    """`message` as it is written to a stream."""
    if compress:
        message = encode_compress(message)
    if keyring is None:
        return message
    size = sealed_bytes(encryption_version, len(message))
    header = bytes((Kind.ENCRYPT,)) + size.to_bytes(4, "big")
    return header + keyring.seal(message, encryption_version, nonce, header)


class StreamReader:
    """Reads the one message of a stream, however it is cut into pieces."""

    __slots__ = (
        "_buffer",
        "_decoder",
        "_keyring",
        "_kind",
        "_push_pull",
        "_received",
        "_require_encryption",
        "_rows",
        "_sealed_size",
        "_unwrapped",
        "_user_size",
    )

    def __init__(self, keyring: Keyring | None = None, require_encryption: bool = True) -> None:
        self._keyring = keyring
        self._require_encryption = require_encryption and keyring is not None
        self._buffer = bytearray()
        self._received = 0
        self._kind = -1
        self._sealed_size = -1
        self._unwrapped = False
        self._decoder: StreamDecoder | None = None
        self._push_pull: tuple[bool, int, int] | None = None
        self._user_size = -1
        self._rows: list[NodeRow] = []

    @property
    def received(self) -> int:
        """Bytes fed so far."""
        return self._received

    def feed(self, data: bytes) -> StreamMessage | None:
        """Add bytes; returns the message once it is whole. Raises `WireError`."""
        self._received += len(data)
        if self._received > STATE_BYTES_MAX + 64:
            raise WireError(f"Remote node state is larger than limit ({STATE_BYTES_MAX})")
        if self._decoder is None:
            self._buffer += data
            if not self._open():
                return None
        else:
            self._decoder.feed(data)
        return self._read()

    def _open(self) -> bool:
        """Consume the type byte and any encryption; True once messages can be decoded."""
        buffer = self._buffer
        if not buffer:
            return False
        if buffer[0] != Kind.ENCRYPT:
            if self._require_encryption:
                raise WireError("Encryption is configured but remote state is not encrypted")
            self._start(bytes(buffer))
            return True
        if self._keyring is None:
            raise WireError("Remote state is encrypted and encryption is not configured")
        if len(buffer) < _HEADER_BYTES:
            return False
        if self._sealed_size < 0:
            self._sealed_size = int.from_bytes(buffer[1:_HEADER_BYTES], "big")
            if self._sealed_size > STATE_BYTES_MAX:
                raise WireError(f"Remote node state is larger than limit ({self._sealed_size})")
        end = _HEADER_BYTES + self._sealed_size
        if len(buffer) < end:
            return False
        header = bytes(buffer[:_HEADER_BYTES])
        self._start(self._keyring.open(bytes(buffer[_HEADER_BYTES:end]), header))
        self._unwrapped = True
        return True

    def _start(self, plain: bytes) -> None:
        if not plain:
            raise WireError("empty message")
        self._buffer = bytearray()
        self._kind = plain[0]
        self._decoder = StreamDecoder(PLAIN_BYTES_MAX, MAP_ITEMS_MAX)
        self._decoder.feed(plain[1:])

    def _read(self) -> StreamMessage | None:
        message = self._read_kind()
        if message is None and self._unwrapped:
            # The whole plaintext was there already: more bytes cannot complete it.
            raise WireError("truncated message")
        return message

    def _read_kind(self) -> StreamMessage | None:
        decoder = self._decoder
        if decoder is None:
            return None
        kind = self._kind
        if kind == Kind.PUSH_PULL:
            return self._read_push_pull(decoder)
        if kind == Kind.USER and self._user_size >= 0:
            return self._read_user(decoder)
        if kind not in {Kind.COMPRESS, Kind.USER, Kind.PING, Kind.ACK, Kind.ERR}:
            raise WireError(f"Received invalid msgType ({kind})")
        found, value = decoder.next()
        if not found:
            return None
        if type(value) is not dict:
            raise WireError("memberlist message is not a map")
        if kind == Kind.COMPRESS:
            self._start(decompress_fields(value, PLAIN_BYTES_MAX))
            if self._kind == Kind.COMPRESS:
                raise WireError("compressed twice")
            self._unwrapped = True
            return self._read_kind()
        if kind == Kind.USER:
            self._user_size = _length(value.get(b"UserMsgLen"))
            return self._read_user(decoder)
        if kind == Kind.PING:
            return ping_of(value)
        if kind == Kind.ACK:
            return ack_of(value)
        return ErrorReply(as_text(value.get(b"Error"))[:1024])

    def _read_user(self, decoder: StreamDecoder) -> UserMessage | None:
        data = decoder.next_raw(self._user_size)
        return None if data is None else UserMessage(data)

    def _read_push_pull(self, decoder: StreamDecoder) -> PushPull | None:
        if self._push_pull is None:
            found, value = decoder.next()
            if not found:
                return None
            if type(value) is not dict:
                raise WireError("push/pull header is not a map")
            nodes = as_uint(value.get(b"Nodes"), 32)
            if nodes > NODES_MAX:
                raise WireError(f"push/pull of more than {NODES_MAX} nodes")
            join = value.get(b"Join") is True
            self._push_pull = join, nodes, _length(value.get(b"UserStateLen"))
        join, nodes, user_size = self._push_pull
        rows = self._rows
        while len(rows) < nodes:
            found, value = decoder.next()
            if not found:
                return None
            rows.append(row_of(value))
        user_state = decoder.next_raw(user_size) if user_size else b""
        if user_state is None:
            return None
        return PushPull(join, tuple(rows), user_state or None)


def _length(value: object) -> int:
    size = as_uint(value, 32)
    if size > PLAIN_BYTES_MAX:
        raise WireError(f"announced {size} bytes, more than {PLAIN_BYTES_MAX}")
    return size
