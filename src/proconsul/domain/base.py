"""What all of Consul's structs share: field names, byte fields, and the msgpack codec.

Consul's codec (`hashicorp/go-msgpack` 0.5, `MsgpackHandle`) writes a struct as a map with Go's
field names, flattens embedded structs, writes `[]byte` and `time.Time` as raw (today's `str`),
nil maps and slices as nil, and durations as integers of nanoseconds. It reads both `str8` and
`bin`, so msgspec's own encoding needs no translation. A field that Go may leave nil is `| None`
here, because nil and empty are different to Consul's anti-entropy.

Go strings may hold any bytes. Text that is not UTF-8 takes a slow path through `msgpack` with
surrogate escapes, so that such keys survive; msgspec alone would refuse the whole message.
"""

from __future__ import annotations

from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Self, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import msgpack
import msgspec
from msgspec import Raw

from proconsul.util.errors import WireError
from proconsul.util.naming import go_name
from proconsul.wire.msgpack import unpack

T = TypeVar("T")

Uint64 = Annotated[int, msgspec.Meta(ge=0)]
"""Go refuses a negative number here, and where it stands in the log it stops Consul's servers."""
Int64 = Annotated[int, msgspec.Meta(le=(1 << 63) - 1)]
"""Likewise a number that Go's `int` and durations cannot hold. No msgpack number is below them."""

NIL = Raw(b"\xc0")
"""A nil byte field."""

_MESSAGE_BYTES_MAX = 64 << 20
_NESTING_MAX = 64
_encoder = msgspec.msgpack.Encoder(order="sorted")
"""Go's codec sorts the fields of structs."""
_unsorted = msgspec.msgpack.Encoder()


def wire_name(name: str) -> str:
    """Go's field name; the unit suffix `_ns` of durations and the prefix `raw_` are ours."""
    return go_name(name.removesuffix("_ns").removeprefix("raw_"))


class GoStruct(msgspec.Struct, frozen=True, gc=False, rename=wire_name):
    """Base of every wire struct: immutable, untracked by the collector, Go's names outside."""


class SelfMarshalled(GoStruct, frozen=True, gc=False):
    """A struct whose Go type implements `BinaryMarshaler`: the codec writes bytes of its own making.

    `encode` and `decode` honour that for a whole message, not for a part of one.
    """

    def to_wire(self) -> bytes:
        """The message. Every subclass has its own."""
        raise NotImplementedError

    @classmethod
    def from_wire(cls, data: bytes | memoryview) -> Self:
        """The inverse. Raises `WireError`."""
        raise NotImplementedError


def raw_bytes(data: bytes | None) -> Raw:
    """A byte field holding `data`, in the raw form that Go writes. None is nil."""
    if data is None:
        return NIL
    size = len(data)
    if size < 32:
        return Raw(bytes((0xA0 | size,)) + data)
    if size < 1 << 16:
        return Raw(b"\xda" + size.to_bytes(2, "big") + data)
    return Raw(b"\xdb" + size.to_bytes(4, "big") + data)


def bytes_of(raw: Raw) -> bytes:
    """The content of a byte field; nil is empty. Raises `WireError` if it is not one."""
    view = memoryview(raw)
    if len(view) == 0:
        return b""
    first = view[0]
    if 0xA0 <= first <= 0xBF:
        return bytes(view[1:])
    if first == 0xC0:
        return b""
    header = _RAW_HEADER.get(first)
    if header is None:
        raise WireError("a field that should be bytes is not")
    return bytes(view[header:])


_RAW_HEADER = {0xC4: 2, 0xC5: 3, 0xC6: 5, 0xD9: 2, 0xDA: 3, 0xDB: 5}


def is_byte_field(raw: Raw) -> bool:
    """Whether it is bytes, text or nil: what Go takes for `[]byte`, and nothing else."""
    first = bytes(memoryview(raw)[:1]) or b"\xc0"
    return 0xA0 <= first[0] <= 0xBF or first[0] == 0xC0 or first[0] in _RAW_HEADER


def is_nil(raw: Raw) -> bool:
    """Whether a byte field is nil, which JSON shows as null."""
    view = memoryview(raw)
    return len(view) == 0 or view[0] == 0xC0


class _OwnDecoder:
    """A decoder of a `SelfMarshalled` type."""

    def __init__(self, type_: type[SelfMarshalled]) -> None:
        self.decode: Any = type_.from_wire


@cache
def _decoder(type_: Any) -> msgspec.msgpack.Decoder[Any] | _OwnDecoder:
    if isinstance(type_, type) and issubclass(type_, SelfMarshalled):
        return _OwnDecoder(type_)
    return msgspec.msgpack.Decoder(type_)


def encode(value: object) -> bytes:
    """msgpack that Go's codec decodes to the same struct."""
    if isinstance(value, SelfMarshalled):
        return value.to_wire()
    try:
        return _encoder.encode(value)
    except TypeError:  # a map whose keys are numbers
        return _unsorted.encode(value)
    except UnicodeEncodeError:
        packed: bytes = msgpack.packb(
            _builtins(value), use_bin_type=False, unicode_errors="surrogateescape"
        )
        return packed


def decode(data: bytes | memoryview, type_: type[T]) -> T:
    """Decode one value. Byte fields of the result may keep `data` alive.

    Raises `WireError` if it is malformed, of another shape, or larger than 64 MiB.
    """
    if len(data) > _MESSAGE_BYTES_MAX:
        raise WireError(f"msgpack message of {len(data)} bytes exceeds {_MESSAGE_BYTES_MAX}")
    try:
        result: T = _decoder(cast("Any", type_)).decode(data)
    except UnicodeDecodeError:
        return _decode_escaped(data, type_)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise WireError(f"{getattr(type_, '__name__', type_)}: {str(error)[:160]}") from error
    return result


def _decode_escaped(data: bytes | memoryview, type_: type[T]) -> T:
    try:
        tree = unpack(data, items_max=len(data))
        return cast("T", _shape(tree, type_))
    except (ValueError, TypeError, RecursionError) as error:
        raise WireError(f"malformed msgpack: {str(error)[:120]}") from error


def _shape(tree: object, type_: Any) -> object:
    """`tree`, whose text is bytes, as the type that a struct's annotation asks for."""
    origin = get_origin(type_)
    if origin in {UnionType, Union}:
        if tree is None:
            return None
        type_ = next(arg for arg in get_args(type_) if arg is not NoneType)
        origin = get_origin(type_)
    if origin is Annotated:
        return msgspec.convert(tree, type_)
    if type_ is Raw:
        return Raw(msgpack.packb(tree, use_bin_type=False))
    if isinstance(tree, bytes) and type_ in {str, Any}:
        return tree.decode("utf-8", "surrogateescape")
    if origin is list and isinstance(tree, list):
        return [_shape(item, get_args(type_)[0]) for item in tree]
    if (origin is dict or type_ is Any) and isinstance(tree, dict):
        of = get_args(type_)[1] if origin is dict else Any
        return {_shape(key, str): _shape(item, of) for key, item in tree.items()}
    if type_ is Any:
        return [_shape(item, Any) for item in tree] if isinstance(tree, list) else tree
    if isinstance(type_, type) and issubclass(type_, GoStruct) and isinstance(tree, dict):
        hints = _hints(type_)
        names = {field.encode_name.encode(): field.name for field in msgspec.structs.fields(type_)}
        return type_(
            **{
                names[key]: _shape(item, hints[names[key]])
                for key, item in tree.items()
                if key in names
            }
        )
    if type_ is float and type(tree) is int:
        return float(tree)
    if type(tree) is type_:
        return tree
    raise WireError(f"expected {getattr(type_, '__name__', type_)}, got {type(tree).__name__}")


@cache
def _hints(type_: type) -> dict[str, Any]:
    return get_type_hints(type_, include_extras=True)


def _builtins(value: object, depth: int = 0) -> object:
    """`value` as maps, lists and scalars, byte fields as bytes: what `msgpack` can write."""
    if depth > _NESTING_MAX:
        raise WireError("value nested too deeply")
    if isinstance(value, Raw):
        return msgpack.unpackb(value, raw=True, strict_map_key=False)
    if isinstance(value, msgspec.Struct):
        return {
            field.encode_name: _builtins(getattr(value, field.name), depth + 1)
            for field in msgspec.structs.fields(value)
        }
    if isinstance(value, dict):
        return {key: _builtins(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_builtins(item, depth + 1) for item in value]
    return value
