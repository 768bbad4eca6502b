"""What may be selected of a row by a filter, as go-bexpr derives it from a struct (`field_config.go`).

Here it is derived from our structs under their Go names. Fields that the reference's structs tag
`bexpr:"-"` are listed, by type, in `_HIDDEN`; Raft's indexes are hidden everywhere.
"""

from __future__ import annotations

from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec

from proconsul.domain.filter_tree import Operator

_HIDDEN_EVERYWHERE = frozenset({"create_index", "modify_index"})
_HIDDEN = {
    "NodeService": {"locally_registered_as_sidecar"},
    "ServiceConnect": {"sidecar_service"},
    "ConnectProxyConfig": {"config"},
    "Upstream": {"config", "ingress_hosts"},
    "HealthCheck": {"definition"},
    "Intention": {"created_at", "updated_at", "hash", "raw_hash"},
}
_EMPTINESS = frozenset({Operator.IS_EMPTY, Operator.IS_NOT_EMPTY})
_MEMBERSHIP = frozenset({Operator.IN, Operator.NOT_IN})
_EQUALITY = frozenset({Operator.EQUAL, Operator.NOT_EQUAL})
_PATTERNS = frozenset({Operator.MATCHES, Operator.NOT_MATCHES})


class Scalar(NamedTuple):
    """`str`, `int`, `bool` or `float`."""

    type: type

    @property
    def operators(self) -> frozenset[Operator]:
        return _EQUALITY | _MEMBERSHIP | _PATTERNS if self.type is str else _EQUALITY


class Sequence(NamedTuple):
    """A slice; below it, any of its structs is selected from."""

    of: Fields | None

    @property
    def operators(self) -> frozenset[Operator]:
        return _EMPTINESS | _MEMBERSHIP if isinstance(self.of, Scalar) else _EMPTINESS


class Mapping(NamedTuple):
    """A map by text; membership asks for its keys."""

    of: Fields | None

    @property
    def operators(self) -> frozenset[Operator]:
        return _EMPTINESS | _MEMBERSHIP


class Record(NamedTuple):
    """A struct: by Go name, the attribute and what it is."""

    fields: dict[str, tuple[str, Fields]]

    @property
    def operators(self) -> frozenset[Operator]:
        return frozenset()


Fields = Scalar | Sequence | Mapping | Record


@cache
def fields_of(row: type[msgspec.Struct]) -> Record:
    """What may be selected of rows of this type."""
    hints = get_type_hints(row, include_extras=False)
    hidden = _HIDDEN_EVERYWHERE | _HIDDEN.get(row.__name__, set())
    found = {
        field.encode_name: (field.name, fields)
        for field in msgspec.structs.fields(row)
        if field.name not in hidden and (fields := _fields(hints[field.name])) is not None
    }
    return Record(found)


def _fields(hint: Any) -> Fields | None:
    """What a value of this annotation is; None if nothing may be asked of it."""
    origin = get_origin(hint)
    if origin is Annotated:
        return _fields(get_args(hint)[0])
    if origin in {UnionType, Union}:
        return _fields(next(arg for arg in get_args(hint) if arg is not NoneType))
    if origin is list:
        return Sequence(_fields(get_args(hint)[0]))
    if origin is dict:
        return Mapping(_fields(get_args(hint)[1]))
    if hint in {str, int, bool, float}:
        return Scalar(hint)
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return fields_of(hint)
    return None
