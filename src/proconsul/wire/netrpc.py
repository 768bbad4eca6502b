"""Go's net/rpc over msgpack, as hashicorp/net-rpc-msgpackrpc writes it.

A request is the map `{ServiceMethod, Seq}` followed by a body, a response `{ServiceMethod, Seq,
Error}` followed by a body; nothing frames them, so the end of a body is found by skipping one
msgpack value (in C). Bodies stay bytes: who knows the method decodes them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Generic, NamedTuple, TypeVar

import msgpack

from proconsul.util.errors import WireError

T = TypeVar("T")
Header = dict[object, object]

MESSAGE_BYTES_MAX = 64 * 1024 * 1024
"""A message (header and body) beyond this ends the stream. KV values are at most 512 KB."""
HEADER_TEXT_BYTES_MAX = 256 * 1024
"""Of a header, the error text is the only part that can be long."""
_HEADER_FIELDS_MAX = 16
READ_BYTES = 8192

EMPTY_BODY = b"\x80"
"""An empty struct: the body of a request without arguments, and of a response with an error."""

_SEQ = struct.Struct(">Q")


class Request(NamedTuple):
    """One call. `body` is one msgpack value."""

    method: str
    seq: int
    body: bytes


class Response(NamedTuple):
    """One answer. With `error` not empty, `body` means nothing."""

    method: str
    seq: int
    error: str
    body: bytes


def encode_request(method: str, seq: int, body: bytes) -> bytes:
    """The bytes of a call."""
    return _request_prefix(method) + _SEQ.pack(seq) + body


def encode_response(method: str, seq: int, body: bytes, error: str = "") -> bytes:
    """The bytes of an answer."""
    if error:
        text = error.encode("utf-8", "replace")[:HEADER_TEXT_BYTES_MAX]
        return (
            b"\x83\xa5Error"
            + _raw(text)
            + b"\xa3Seq\xcf"
            + _SEQ.pack(seq)
            + b"\xadServiceMethod"
            + _raw(method.encode())
            + EMPTY_BODY
        )
    return b"".join((_RESPONSE_PREFIX, _SEQ.pack(seq), _response_suffix(method), body))


_RESPONSE_PREFIX = b"\x83\xa5Error\xa0\xa3Seq\xcf"


@lru_cache(maxsize=512)
def _request_prefix(method: str) -> bytes:
    return b"\x82\xadServiceMethod" + _raw(method.encode()) + b"\xa3Seq\xcf"


@lru_cache(maxsize=512)
def _response_suffix(method: str) -> bytes:
    return b"\xadServiceMethod" + _raw(method.encode())


def _raw(data: bytes) -> bytes:
    """A string in msgpack's old form, without str8, which is all that Consul's codec reads."""
    size = len(data)
    if size < 32:
        return bytes((0xA0 | size,)) + data
    if size < 65536:
        return b"\xda" + struct.pack(">H", size) + data
    return b"\xdb" + struct.pack(">I", size) + data


class _Splitter:
    """Finds (header, body) pairs in a stream of msgpack values, resuming where bytes ran out."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._unpacker = msgpack.Unpacker(
            # Its buffer to begin with; the default of 1 MB is soon resident, for every stream.
            read_size=READ_BYTES,
            max_buffer_size=2 * bytes_max + 65536,
            max_str_len=HEADER_TEXT_BYTES_MAX,
            max_bin_len=0,
            max_array_len=0,
            max_map_len=_HEADER_FIELDS_MAX,
            max_ext_len=0,
            unicode_errors="replace",
        )
        self._pending = bytearray()
        self._base = 0
        """Offset in the stream of the first byte in `_pending`."""
        self._header: Header | None = None
        self._body_start = 0

    @property
    def idle(self) -> bool:
        """True between two messages: an end of the stream here is a clean one."""
        return not self._pending and self._header is None

    @property
    def pending_bytes(self) -> int:
        return len(self._pending)

    def feed(self, data: bytes) -> None:
        if len(self._pending) + len(data) > self._bytes_max + 65536:
            raise WireError(f"RPC message is larger than {self._bytes_max} bytes")
        self._pending += data
        self._unpacker.feed(data)

    def next(self) -> tuple[Header, bytes] | None:
        """The next pair, None if more bytes are needed."""
        unpacker = self._unpacker
        try:
            if self._header is None:
                header = unpacker.unpack()
                if not isinstance(header, dict):
                    raise WireError("RPC header is not a map")
                self._header = header
                self._body_start = unpacker.tell()
            unpacker.skip()
        except msgpack.OutOfData:
            return None
        except (ValueError, TypeError, OverflowError) as error:
            # FormatError, StackError (nesting beyond 1024) and exceeded limits are ValueErrors.
            raise WireError(f"malformed RPC message: {error or type(error).__name__}") from error
        end = unpacker.tell()
        body = bytes(memoryview(self._pending)[self._body_start - self._base : end - self._base])
        del self._pending[: end - self._base]
        self._base = end
        header, self._header = self._header, None
        return header, body


class MessageDecoder(Generic[T]):
    """Bytes of a stream -> messages. Raises `WireError`, after which it is of no more use.

    Made by `request_decoder` and `response_decoder`.
    """

    def __init__(self, build: Callable[[Header, bytes], T], bytes_max: int) -> None:
        self._build = build
        self._splitter = _Splitter(bytes_max)

    @property
    def idle(self) -> bool:
        """True if no message has begun and not ended."""
        return self._splitter.idle

    @property
    def pending_bytes(self) -> int:
        """Bytes of messages that have not been taken by `next`."""
        return self._splitter.pending_bytes

    def feed(self, data: bytes) -> None:
        """Take bytes as they came."""
        self._splitter.feed(data)

    def next(self) -> T | None:
        """The next message, None if more bytes are needed."""
        pair = self._splitter.next()
        return None if pair is None else self._build(*pair)


def request_decoder(bytes_max: int = MESSAGE_BYTES_MAX) -> MessageDecoder[Request]:
    """For the server's side of a stream."""
    return MessageDecoder(_request, bytes_max)


def response_decoder(bytes_max: int = MESSAGE_BYTES_MAX) -> MessageDecoder[Response]:
    """For the client's side of a stream."""
    return MessageDecoder(_response, bytes_max)


def _request(header: Header, body: bytes) -> Request:
    return Request(_text(header, "ServiceMethod"), _seq(header), body)


def _response(header: Header, body: bytes) -> Response:
    method, error = _text(header, "ServiceMethod"), _text(header, "Error")
    return Response(method, _seq(header), error, body)


def _text(header: Header, key: str) -> str:
    value = header.get(key, "")
    if not isinstance(value, str):
        raise WireError(f"RPC header: {key} is not a string")
    return value


def _seq(header: Header) -> int:
    value = header.get("Seq", 0)
    if not isinstance(value, int) or not 0 <= value < 1 << 64:
        raise WireError("RPC header: Seq is not an unsigned integer")
    return value
