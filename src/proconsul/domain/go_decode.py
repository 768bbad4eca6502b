"""JSON objects -> domain structs by the rules of Go's `encoding/json` with unknown fields refused.

Names match without regard to case; types that definitions are made of also take snake_case, as
Consul's `UnmarshalJSON` methods do; durations are text ("10s") or nanoseconds. The errors are Go's.
"""

from __future__ import annotations

import json
import re
import types
from functools import cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin

import msgspec

from proconsul.domain.acl_types import ACLPolicy, ACLRole, ACLToken
from proconsul.domain.base import Int64, Uint64
from proconsul.domain.catalog import (
    ConnectProxyConfig,
    DeregisterRequest,
    ExposeConfig,
    ExposePath,
    HealthCheckDefinition,
    MeshGatewayConfig,
    NodeService,
    ServiceConnect,
    Upstream,
    Weights,
)
from proconsul.domain.definitions import CheckDefinition, CheckType, ServiceDefinition
from proconsul.util.errors import ProconsulError
from proconsul.util.goduration import parse_duration_ns

T = TypeVar("T")

_SNAKE_TYPES = (
    CheckType, CheckDefinition, ConnectProxyConfig, ExposeConfig, ExposePath, MeshGatewayConfig,
    ServiceConnect, Upstream,
)  # fmt: skip
_ALIASES: dict[type, dict[str, str]] = {
    CheckType: {"args": "script_args"},
    CheckDefinition: {"args": "script_args"},
}
_IGNORED: dict[type, frozenset[str]] = {CheckType: frozenset({"serviceid", "service_id"})}
_OWN_DECODER = frozenset(
    {ACLPolicy, ACLRole, ACLToken, CheckDefinition, CheckType, ConnectProxyConfig,
     DeregisterRequest, ExposePath, HealthCheckDefinition, ServiceConnect, Upstream}
)  # fmt: skip
"""Types that Consul decodes through an anonymous struct: Go's messages then name no struct."""
_INT_BITS = 63
_SURROGATE = re.compile("[\ud800-\udfff]")


class GoDecodeError(ProconsulError):
    """The body cannot be decoded; the text is Go's."""


def parse_json(body: bytes) -> Any:
    """The first JSON value of `body`; what follows it is ignored, as Go's decoder does."""
    if not body.strip():
        raise GoDecodeError("EOF")
    try:
        return msgspec.json.decode(body)
    except RecursionError:
        raise GoDecodeError("exceeded max depth") from None
    except msgspec.MsgspecError as error:
        reason = str(error)
    except UnicodeDecodeError:
        reason = ""  # Go replaces what is not UTF-8, as the slow path below does
    if "truncated" in reason:
        raise GoDecodeError("unexpected EOF")
    text = body.decode("utf-8", "replace").lstrip()
    try:
        return _without_surrogates(json.JSONDecoder().raw_decode(text)[0])
    except json.JSONDecodeError as error:
        found = text[error.pos : error.pos + 1]
        if not found:
            raise GoDecodeError("unexpected EOF") from None
        raise GoDecodeError(f"invalid character {found!r} looking for beginning of value") from None
    except (ValueError, RecursionError):
        raise GoDecodeError("invalid JSON") from None


def _without_surrogates(value: Any) -> Any:
    r"""As Go does, which replaces escapes like `\ud800` that are half a character."""
    if isinstance(value, str):
        return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(k): _without_surrogates(v) for k, v in value.items()}
    return value


def decode_struct(value: Any, type_: type[T], where: str = "") -> T:
    """`value` as a struct. Raises `GoDecodeError`."""
    if value is None:
        return type_()
    if not isinstance(value, dict):
        raise _mismatch(value, where, f"structs.{type_.__name__}")
    fields = _fields(cast(Any, type_))
    anonymous = cast(Any, type_) in _OWN_DECODER
    prefix = "." if anonymous else f"{type_.__name__}."
    path = "" if anonymous or not where else where.partition(".")[2] + "."
    ignored = _IGNORED.get(type_, frozenset())
    kwargs: dict[str, Any] = {}
    for key, item in value.items():
        found = fields.get(key.lower())
        if found is None:
            if key.lower() in ignored:
                continue
            raise GoDecodeError(f'json: unknown field "{key}"')
        name, annotation, shown = found
        if item is not None:
            kwargs[name] = _convert(item, annotation, prefix + path + shown, name)
    return type_(**kwargs)


@cache
def _fields(type_: type) -> dict[str, tuple[str, Any, str]]:
    """Lower-case JSON name -> (attribute, type, name for messages)."""
    table: dict[str, tuple[str, Any, str]] = {}
    known = {
        field.name: (field.name, field.type, field.encode_name)
        for field in msgspec.structs.fields(type_)
    }
    for name, entry in known.items():
        table[entry[2].lower()] = entry
        if type_ in _SNAKE_TYPES:
            table[name.removesuffix("_ns")] = entry
    for alias, name in _ALIASES.get(type_, {}).items():
        table[alias] = known[name]
    return table


def _convert(value: Any, annotation: Any, shown: str, name: str) -> Any:
    if annotation == Uint64:
        return _unsigned(value, shown)
    if annotation == Int64:
        annotation = int
    if value is None:
        return _zero(annotation)
    if name.endswith("_ns"):
        return _duration(value)
    origin = get_origin(annotation)
    if origin in {Union, types.UnionType}:
        inner = next(arg for arg in get_args(annotation) if arg is not type(None))
        return _convert(value, inner, shown, name)
    if annotation is Any:
        return with_floats(value)
    if name == "sidecar_service" and isinstance(value, dict):
        return value  # a definition, decoded by its own types when it is looked at
    if origin is list:
        if not isinstance(value, list):
            raise _mismatch(value, shown, _go_type(annotation))
        inner = get_args(annotation)[0]
        return [_convert(item, inner, shown, "") for item in value]
    if origin is dict:
        if not isinstance(value, dict):
            raise _mismatch(value, shown, _go_type(annotation))
        inner = get_args(annotation)[1]
        return {key: _convert(item, inner, shown, "") for key, item in value.items()}
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return decode_struct(value, annotation, shown)
    return _scalar(value, annotation, shown)


def with_floats(value: Any) -> Any:
    """Free-form data: Go makes every number a float64, and keeps telling 1 and 1.0 apart."""
    if isinstance(value, dict):
        return {key: with_floats(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_floats(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise GoDecodeError(
                f"json: cannot unmarshal number {value} into Go value of type float64"
            ) from None
    return value


def _scalar(value: Any, annotation: Any, shown: str) -> Any:
    if annotation is bool:
        if isinstance(value, bool):
            return value
    elif annotation is int:
        if isinstance(value, int) and not isinstance(value, bool):
            if value.bit_length() > _INT_BITS:
                raise GoDecodeError(
                    f"json: cannot unmarshal number {value} into Go struct field {shown} "
                    "of type int"
                )
            return value
        if isinstance(value, float):
            raise GoDecodeError(
                f"json: cannot unmarshal number {value} into Go struct field {shown} of type int"
            )
    elif annotation is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    elif isinstance(value, annotation):
        return value
    raise _mismatch(value, shown, _go_type(annotation))


def _unsigned(value: Any, shown: str) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _mismatch(value, shown, "uint64")
    if isinstance(value, float) or not 0 <= value < 1 << 64:
        raise GoDecodeError(
            f"json: cannot unmarshal number {value} into Go struct field {shown} of type uint64"
        )
    return value


def _duration(value: Any) -> int:
    if isinstance(value, str):
        try:
            return parse_duration_ns(value)
        except ValueError as error:
            raise GoDecodeError(str(error)) from None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1 << 63:
        return int(value)
    return 0  # Go's switch passes over other types


def _zero(annotation: Any) -> Any:
    """Go's zero value, which a null within a list or map becomes."""
    if annotation in {str, int, bool, float}:
        return annotation()
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return annotation()
    return None


def _go_type(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is list:
        return "[]" + _go_type(get_args(annotation)[0])
    if origin is dict:
        return "map[string]" + _go_type(get_args(annotation)[1])
    if annotation is Any:
        return "interface {}"
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return f"structs.{annotation.__name__}"
    return {str: "string", int: "int", bool: "bool", float: "float64"}.get(annotation, "value")


def _mismatch(value: Any, shown: str, wanted: str) -> GoDecodeError:
    kinds = {bool: "bool", int: "number", float: "number", str: "string", list: "array"}
    kind = kinds.get(type(value), "object")
    where = f"Go struct field {shown}" if shown else "Go value"
    return GoDecodeError(f"json: cannot unmarshal {kind} into {where} of type {wanted}")


def decode_service_definition(value: Any) -> ServiceDefinition:
    """The body of a registration, not yet validated. Raises `GoDecodeError`."""
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise _mismatch(value, "", "structs.ServiceDefinition")
    kwargs: dict[str, Any] = {}
    checks: list[CheckType] = []
    token = ""
    for key, item in value.items():
        found = _SERVICE_FIELDS.get(key.lower())
        if found is None:
            raise GoDecodeError(f'json: unknown field "{key}"')
        if item is None:
            continue
        name, annotation = found
        converted = _convert(item, annotation, f".{key[:1].upper()}{key[1:]}", name)
        if name == "check":
            # An empty check, which configuration tools like to write, is none.
            checks[:0] = [converted] if converted != CheckType() else []
        elif name == "checks":
            checks += converted
        elif name == "token":
            token = converted
        else:
            kwargs[name] = converted
    service = NodeService(**kwargs)
    if not service.id:
        service = msgspec.structs.replace(service, id=service.service)
    if service.proxy.upstreams:
        upstreams = [
            msgspec.structs.replace(up, destination_type=up.destination_type or "service")
            for up in service.proxy.upstreams
        ]
        proxy = msgspec.structs.replace(service.proxy, upstreams=upstreams)
        service = msgspec.structs.replace(service, proxy=proxy)
    return ServiceDefinition(service=service, checks=tuple(checks), token=token)


def _service_fields() -> dict[str, tuple[str, Any]]:
    hints = {field.name: field.type for field in msgspec.structs.fields(NodeService)}
    table: dict[str, tuple[str, Any]] = {
        "name": ("service", str),
        "check": ("check", CheckType),
        "checks": ("checks", list[CheckType]),
        "token": ("token", str),
        "weights": ("weights", Weights),
        "enable_tag_override": ("enable_tag_override", bool),
        "tagged_addresses": ("tagged_addresses", hints["tagged_addresses"]),
        "enabletagoverride": ("enable_tag_override", bool),
        "taggedaddresses": ("tagged_addresses", hints["tagged_addresses"]),
    }
    for name in ("kind", "id", "tags", "address", "meta", "port", "proxy", "connect"):
        table[name] = (name, hints[name])
    return table


_SERVICE_FIELDS = _service_fields()
