"""Small helpers for msgpack as Go's old codec (`hashicorp/go-msgpack` 0.5) speaks it.

That codec knows one family for text and bytes ("raw", today's `str`) and never writes `bin` or
`str8`; it writes a nil slice as nil. Decoders accept all of today's forms. Text that is not valid
UTF-8 is a fact of life there, so everything here decodes raw: keys and values are `bytes`.

Every decoder is bounded in size, in the number of items a container may announce and in nesting
(the C extension stops at 1,024 levels).
"""

from __future__ import annotations

from typing import Any

import msgpack

from proconsul.util.errors import WireError

_READ_BYTES = 8192
_ITEMS_MAX = 1 << 16
_ITEMS_TRUSTED = 256
"""Lists of so few may be announced at every level of nesting without being there: 2 MB at most."""
_VALUE_BYTES_MAX = 32 << 20


def pack(value: object) -> bytes:
    """Encode as Go would: `str` and `bytes` both become raw, `None` is nil.

    Maps keep their order, which is how Go structs get their declared field order.
    """
    packed: bytes = msgpack.packb(value, use_bin_type=False, unicode_errors="surrogateescape")
    return packed


def unpack(data: bytes | memoryview, *, items_max: int = _ITEMS_MAX) -> Any:
    """Decode exactly one value that fills `data`; text and keys come as `bytes`.

    Raises `WireError` if it is malformed, has trailing bytes, or announces a container of more
    than `items_max` items.
    """
    if items_max > _ITEMS_TRUSTED and _end_of_first(data) != len(data):
        raise WireError("malformed msgpack: trailing bytes")
    return _unpack_whole(data, items_max)


def unpack_first(data: bytes, *, items_max: int = _ITEMS_MAX) -> tuple[Any, int]:
    """Decode the first value of `data`; returns it and the offset of what follows it."""
    end = _end_of_first(data)
    return _unpack_whole(memoryview(data)[:end], items_max), end


def size_of_first(data: bytes | memoryview) -> int:
    """How many bytes the first value of `data` takes. Raises `WireError`."""
    return _end_of_first(data)


def _end_of_first(data: bytes | memoryview) -> int:
    """Where the first value ends.

    The extension allocates lists as long as announced (since 1.2 at most 10,000 items), at each of
    1,024 levels of nesting, before it has seen an item: skipping a value, which allocates nothing,
    shows first that all of it is there.
    """
    unpacker = msgpack.Unpacker(max_buffer_size=max(len(data), 1))
    unpacker.feed(data)
    try:
        unpacker.skip()
    except msgpack.OutOfData:
        raise WireError("malformed msgpack: truncated") from None
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise WireError(f"malformed msgpack: {_reason(error)}") from error
    return int(unpacker.tell())


def _unpack_whole(data: bytes | memoryview, items_max: int) -> Any:
    try:
        return msgpack.unpackb(
            data,
            raw=True,
            strict_map_key=False,
            max_array_len=items_max,
            max_map_len=items_max,
        )
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise WireError(f"malformed msgpack: {_reason(error)}") from error


class StreamDecoder:
    """Decodes values one after the other from a byte stream that arrives in pieces.

    Between values the owner may take raw bytes instead (`next_raw`), as Go's protocols do when a
    header announces a blob. `value_bytes_max` bounds what may be fed but not yet taken. Keep
    `items_max` to a few thousand: 8 bytes for each are allocated at each level of nesting (1,024).
    """

    __slots__ = ("_fed", "_limit", "_unpacker")

    def __init__(
        self, value_bytes_max: int = _VALUE_BYTES_MAX, items_max: int = _ITEMS_MAX
    ) -> None:
        self._limit = value_bytes_max
        self._fed = 0
        self._unpacker = msgpack.Unpacker(
            raw=True,
            strict_map_key=False,
            # Its buffer to begin with; the default of 1 MB is soon resident, for every stream.
            read_size=min(_READ_BYTES, value_bytes_max),
            max_buffer_size=value_bytes_max,
            max_str_len=value_bytes_max,
            max_bin_len=value_bytes_max,
            max_array_len=items_max,
            max_map_len=items_max,
            max_ext_len=value_bytes_max,
        )

    @property
    def consumed(self) -> int:
        """Bytes taken so far, from the start of the stream; exact between values only."""
        return int(self._unpacker.tell())

    @property
    def buffered(self) -> int:
        """Bytes fed and not yet parsed."""
        return self._fed - self.consumed

    def feed(self, data: bytes) -> None:
        """Append bytes of the stream. Raises `WireError` beyond the bound."""
        try:
            self._unpacker.feed(data)
        except msgpack.BufferFull as error:
            raise WireError(f"msgpack value larger than {self._limit} bytes") from error
        self._fed += len(data)

    def next(self) -> tuple[bool, Any]:
        """`(True, value)`, or `(False, None)` when more bytes are needed."""
        try:
            return True, self._unpacker.unpack()
        except msgpack.OutOfData:
            return False, None
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise WireError(f"malformed msgpack: {_reason(error)}") from error

    def next_raw(self, size: int) -> bytes | None:
        """Exactly `size` bytes as they are, or None when more are needed. Only between values."""
        if size > self._limit:
            raise WireError(f"raw bytes larger than {self._limit} bytes")
        if self.buffered < size:
            return None
        data: bytes = self._unpacker.read_bytes(size)
        return data


class StreamSplitter:
    """Cuts a byte stream into whole msgpack values without decoding them.

    For typed decoders (`msgspec.msgpack.Decoder`) that want exactly one value's bytes. The
    extent search is incremental: bytes are looked at once, however small the pieces.
    """

    __slots__ = ("_buffer", "_limit", "_start", "_unpacker")

    def __init__(self, value_bytes_max: int = _VALUE_BYTES_MAX, items_max: int = 1 << 24) -> None:
        self._limit = value_bytes_max
        self._buffer = bytearray()
        self._start = 0
        self._unpacker = msgpack.Unpacker(
            raw=True,
            strict_map_key=False,
            max_buffer_size=value_bytes_max,
            max_str_len=value_bytes_max,
            max_bin_len=value_bytes_max,
            max_array_len=items_max,
            max_map_len=items_max,
            max_ext_len=value_bytes_max,
        )

    @property
    def buffered(self) -> int:
        """Bytes fed and not yet taken."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Append bytes of the stream. Raises `WireError` beyond the bound."""
        if len(self._buffer) + len(data) > self._limit:
            raise WireError(f"msgpack value larger than {self._limit} bytes")
        self._buffer += data
        self._unpacker.feed(data)

    def next(self) -> bytes | None:
        """The bytes of the next whole value, or None when more are needed."""
        if not self._buffer:
            return None
        try:
            self._unpacker.skip()
        except msgpack.OutOfData:
            return None
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise WireError(f"malformed msgpack: {_reason(error)}") from error
        return self._cut(int(self._unpacker.tell()) - self._start)

    def next_raw(self, size: int) -> bytes | None:
        """Exactly `size` bytes as they are, or None when more are needed. Only between values."""
        if size > self._limit:
            raise WireError(f"raw bytes larger than {self._limit} bytes")
        if len(self._buffer) < size:
            return None
        self._unpacker.read_bytes(size)
        return self._cut(size)

    def _cut(self, size: int) -> bytes:
        value = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._start += size
        return value


def uint(value: int) -> bytes:
    """The bytes of an unsigned integer, for encoders that concatenate."""
    if value < 0x80:
        return bytes((value,))
    if value < 0x100:
        return b"\xcc" + bytes((value,))
    if value < 0x10000:
        return b"\xcd" + value.to_bytes(2, "big")
    if value < 0x100000000:
        return b"\xce" + value.to_bytes(4, "big")
    return b"\xcf" + value.to_bytes(8, "big")


def raw(value: bytes) -> bytes:
    """The bytes of a raw value (a Go string or non-nil `[]byte`)."""
    size = len(value)
    if size < 32:
        return bytes((0xA0 | size,)) + value
    if size < 0x10000:
        return b"\xda" + size.to_bytes(2, "big") + value
    return b"\xdb" + size.to_bytes(4, "big") + value


def as_text(value: object) -> str:
    """A Go string as `str`; what is not UTF-8 survives a round trip (surrogateescape)."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    raise WireError(f"expected text, got {type(value).__name__}")


def as_bytes(value: object) -> bytes:
    """A Go `[]byte` (nil is empty). Some codec versions write small ones as arrays of ints."""
    if isinstance(value, bytes):
        return value
    if value is None:
        return b""
    if isinstance(value, list):
        try:
            return bytes(value)
        except (ValueError, TypeError) as error:
            raise WireError("expected bytes, got a list") from error
    raise WireError(f"expected bytes, got {type(value).__name__}")


def as_uint(value: object, bits: int = 64) -> int:
    """An unsigned integer that fits `bits` bits (nil is 0, as Go decodes it)."""
    if value is None:
        return 0
    if type(value) is int and 0 <= value < (1 << bits):
        return value
    raise WireError(f"expected an unsigned {bits}-bit integer")


def _reason(error: Exception) -> str:
    return str(error)[:120] or type(error).__name__
