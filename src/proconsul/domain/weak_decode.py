"""Maps -> structs by the rules of `mitchellh/mapstructure` with weakly typed input.

Consul decodes config entries (HTTP, files, the command line) so: names match without regard to case
or in snake_case, a list of one item (HCL's blocks) stands for the item, text stands for numbers and
the reverse. The errors are mapstructure's.
"""

from __future__ import annotations

import types
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import msgspec

from proconsul.domain.base import GoStruct, Int64
from proconsul.util.errors import ProconsulError
from proconsul.util.goduration import parse_duration_ns

T = TypeVar("T", bound=GoStruct)

_NESTING_MAX = 64
_UINT32_MAX = (1 << 32) - 1
_HIDDEN = frozenset({"create_index", "modify_index"})
"""Of Go's embedded `RaftIndex`, which is not among the fields that are decoded."""
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False", ""})


class WeakDecodeError(ProconsulError):
    """The input does not fit; the text is mapstructure's."""


@dataclass(slots=True)
class Decoded:
    """What went wrong and what was left over while one value was decoded."""

    errors: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)


def weak_decode(value: Any, type_: type[T]) -> tuple[T, list[str]]:
    """`value`, a map of JSON values, as a struct, and the paths of keys that mean nothing.

    Raises `WeakDecodeError` with all that does not fit.
    """
    out = Decoded()
    result = _struct("", value, type_, out, 0)
    if out.errors:
        points = "\n".join(sorted(f"* {error}" for error in out.errors))
        raise WeakDecodeError(f"{len(out.errors)} error(s) decoding:\n\n{points}")
    return cast(T, result), sorted(out.unused)


@cache
def _fields(type_: type) -> dict[str, tuple[str, Any, str]]:
    """Key in lower case -> (attribute, annotation, Go's name)."""
    hints = get_type_hints(type_, include_extras=True)
    table: dict[str, tuple[str, Any, str]] = {}
    for one in msgspec.structs.fields(cast(Any, type_)):
        if one.name in _HIDDEN:
            continue
        entry = (one.name, hints[one.name], one.encode_name)
        table[one.encode_name.lower()] = entry
        if one.name != "parsed_from_check":
            table.setdefault(one.name.removesuffix("_ns"), entry)
    return table


def _struct(path: str, value: Any, type_: type, out: Decoded, depth: int) -> Any:
    if depth > _NESTING_MAX:
        raise WeakDecodeError("input is nested too deeply")
    if not isinstance(value, dict):
        out.errors.append(f"'{path}' expected a map, got '{kind_name(value)}'")
        return type_()
    fields = _fields(type_)
    kwargs: dict[str, Any] = {}
    before = len(out.errors)
    unused = []
    # Of several spellings of one field the canonical name counts.
    for key, item in sorted(value.items(), key=lambda pair: pair[0].lower() not in fields):
        found = fields.get(key.lower())
        where = f"{path}.{key}" if path else key
        if found is None:
            unused.append(where)
            continue
        name, annotation, shown = found
        if item is None or (name in kwargs and key != shown):
            continue
        below = f"{path}.{shown}" if path else shown
        kwargs[name] = _value(
            below, item, annotation, out, depth + 1, duration=name.endswith("_ns")
        )
    if len(out.errors) == before:
        out.unused += unused
    return type_(**kwargs)


def _value(
    path: str, value: Any, annotation: Any, out: Decoded, depth: int, *, duration: bool = False
) -> Any:
    origin = get_origin(annotation)
    if origin in {Union, types.UnionType}:
        annotation = next(arg for arg in get_args(annotation) if arg is not type(None))
        origin = get_origin(annotation)
    if origin is list:
        return _list(path, value, get_args(annotation)[0], out, depth)
    unsigned = origin is Annotated and annotation != Int64
    if origin is Annotated:
        annotation, origin = int, None
    if isinstance(value, list) and len(value) == 1:
        value = _unsliced(value[0], depth) if annotation is Any else value[0]
    if value is None:
        return _zero(annotation)
    if annotation is Any:
        return value
    if origin is dict:
        return _map(path, value, get_args(annotation)[1], out, depth)
    if isinstance(annotation, type) and issubclass(annotation, GoStruct):
        return _struct(path, value, annotation, out, depth)
    if duration and isinstance(value, str):
        try:
            return parse_duration_ns(value)
        except ValueError as error:
            out.errors.append(f"error decoding '{path}': {error}")
            return 0
    if unsigned:
        return _scalar(path, value, int, out, "uint32") & _UINT32_MAX
    return _scalar(path, value, annotation, out, "time.Duration" if duration else "")


def _list(path: str, value: Any, item_type: Any, out: Decoded, depth: int) -> list[Any]:
    if value == {}:
        return []
    items = value if isinstance(value, list) else [value]
    return [_value(f"{path}[{at}]", item, item_type, out, depth) for at, item in enumerate(items)]


def _map(path: str, value: Any, item_type: Any, out: Decoded, depth: int) -> dict[str, Any]:
    if isinstance(value, list):
        merged: dict[str, Any] = {}
        for at, item in enumerate(value):
            merged |= _map(f"{path}[{at}]", item, item_type, out, depth)
        return merged
    if not isinstance(value, dict):
        out.errors.append(f"'{path}' expected a map, got '{kind_name(value)}'")
        return {}
    return {
        key: _value(f"{path}[{key}]", item, item_type, out, depth) for key, item in value.items()
    }


def _unsliced(value: Any, depth: int) -> Any:
    """Free-form data: within maps, lists of one item become the item."""
    if depth > _NESTING_MAX:
        raise WeakDecodeError("input is nested too deeply")
    if isinstance(value, dict):
        return {
            key: _unsliced(
                item[0] if isinstance(item, list) and len(item) == 1 else item, depth + 1
            )
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_unsliced(item, depth + 1) for item in value]
    return value


def _scalar(path: str, value: Any, annotation: Any, out: Decoded, go_type: str) -> Any:
    go_type = go_type or {str: "string", bool: "bool", int: "int", float: "float32"}[annotation]
    if isinstance(value, (dict, list)):
        out.errors.append(
            f"'{path}' expected type '{go_type}', got unconvertible type '{_go_type(value)}'"
        )
        return annotation()
    if annotation is str:
        return _text(value)
    if not isinstance(value, str):
        return annotation(value)
    try:
        return _parsed(value, annotation)
    except ValueError:
        function = {bool: "ParseBool", int: "ParseInt", float: "ParseFloat"}[annotation]
        kind = {bool: "bool", int: "int", float: "float"}[annotation]
        if go_type == "uint32":
            function, kind = "ParseUint", "uint"
        out.errors.append(
            f"cannot parse '{path}' as {kind}: strconv.{function}: "
            f'parsing "{value}": invalid syntax'
        )
        return annotation()


def _parsed(text: str, annotation: Any) -> Any:
    if annotation is bool:
        if text not in _TRUE and text not in _FALSE:
            raise ValueError
        return text in _TRUE
    if annotation is int:
        return int(text or "0", 0)
    return float(text or "0")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else f"{Decimal(repr(value)):f}"
    return str(value)


def _zero(annotation: Any) -> Any:
    if annotation is Any or get_origin(annotation) is not None:
        return None
    return annotation()


def kind_name(value: Any) -> str:
    """What Go's reflection calls the kind of a JSON value."""
    if isinstance(value, dict):
        return "map"
    return "slice" if isinstance(value, list) else _go_type(value)


def _go_type(value: Any) -> str:
    """As Go's JSON decoder makes them."""
    if isinstance(value, dict):
        return "map[string]interface {}"
    if isinstance(value, list):
        return "[]interface {}"
    if isinstance(value, bool):
        return "bool"
    return "string" if isinstance(value, str) else "float64"
