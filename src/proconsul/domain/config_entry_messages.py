"""RPCs and commands that carry config entries (`agent/structs/config_entry.go`, `structs.go`).

Go's `ConfigEntry` is an interface, so wherever one travels in msgpack its kind goes before it: the
messages are bytes that hold msgpack (`MarshalBinary`). `proxy-defaults` marshals itself once more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import msgspec
from msgspec import Raw, field
from typing_extensions import override

from proconsul.domain import config_entries as c
from proconsul.domain.base import GoStruct, SelfMarshalled, bytes_of, decode, encode, raw_bytes
from proconsul.domain.catalog import ExposeConfig, MeshGatewayConfig
from proconsul.domain.config_entry_forms import ConfigEntryError, make
from proconsul.domain.mesh_requests import ServiceId
from proconsul.domain.options import QueryMeta
from proconsul.util.errors import WireError
from proconsul.wire import msgpack

_MAPS = frozenset(bytes((first,)) for first in (*range(0x80, 0x90), 0xDE, 0xDF))


def pack(entry: c.ConfigEntry) -> Raw:
    """The entry where Go's codec writes the interface."""
    body = encode(entry)
    return raw_bytes(body) if isinstance(entry, c.ProxyConfigEntry) else Raw(body)


def unpack(kind: str, raw: Raw | bytes) -> c.ConfigEntry:
    """The inverse of `pack`. Raises `WireError`."""
    type_ = _type(kind)
    if type_ is c.ProxyConfigEntry and bytes(memoryview(raw)[:1]) not in _MAPS:
        raw = bytes_of(Raw(raw))
    return decode(bytes(raw), type_)


def of_row(row: dict[bytes, Any]) -> c.ConfigEntry:
    """The entry of which the state keeps the decoded map. Raises `WireError`."""
    return decode(msgpack.pack(row), _type(msgpack.as_text(row.get(b"Kind"))))


def _type(kind: str) -> type[c.ConfigEntry]:
    try:
        return type(make(kind, ""))
    except ConfigEntryError as error:
        raise WireError(str(error)) from error


def kind_of(entry: c.ConfigEntry) -> str:
    """By its type, whatever its field says."""
    return next(kind for kind, type_ in c.ENTRY_TYPES.items() if type_ is type(entry))


class _Values:
    """Takes one value after the other off a message."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._rest = bytes_of(Raw(data))

    def value(self) -> Any:
        found, size = msgpack.unpack_first(self._rest)
        self._rest = self._rest[size:]
        return found

    def raw(self) -> bytes:
        size = msgpack.size_of_first(self._rest)
        found, self._rest = self._rest[:size], self._rest[size:]
        return found

    def text(self) -> str:
        return msgpack.as_text(self.value())


class _RequestBody(msgspec.Struct, frozen=True):
    Op: str = ""
    Datacenter: str = ""
    Entry: Raw = Raw(b"\xc0")
    Token: str = ""


class ConfigEntryRequest(SelfMarshalled, frozen=True, gc=False):
    """To write or delete `entry`; also the command in the log."""

    op: str
    datacenter: str
    entry: c.ConfigEntry
    token: str = ""

    @override
    def to_wire(self) -> bytes:
        body = _RequestBody(self.op, self.datacenter, pack(self.entry), self.token)
        return bytes(raw_bytes(encode(kind_of(self.entry)) + encode(body)))

    @classmethod
    @override
    def from_wire(cls, data: bytes | memoryview) -> Self:
        values = _Values(data)
        kind, body = values.text(), decode(values.raw(), _RequestBody)
        return cls(body.Op, body.Datacenter, unpack(kind, body.Entry), body.Token)


class _Answer(QueryMeta, SelfMarshalled, frozen=True, gc=False):
    """`QueryMeta`, for answers that marshal themselves."""

    def _meta(self) -> QueryMeta:
        return QueryMeta(**_fields_of(self))


def _fields_of(meta: QueryMeta) -> dict[str, Any]:
    return {name: getattr(meta, name) for name in QueryMeta.__struct_fields__}


class ConfigEntryResponse(_Answer, frozen=True, gc=False):
    """One entry, or none."""

    entry: c.ConfigEntry | None = None

    @override
    def to_wire(self) -> bytes:
        head = encode("")
        if self.entry is not None:
            head = encode(kind_of(self.entry)) + encode(pack(self.entry))
        return bytes(raw_bytes(head + encode(self._meta())))

    @classmethod
    @override
    def from_wire(cls, data: bytes | memoryview) -> Self:
        values = _Values(data)
        kind = values.text()
        entry = unpack(kind, values.raw()) if kind else None
        return cls(entry=entry, **_fields_of(decode(values.raw(), QueryMeta)))


class _ListBody(QueryMeta, frozen=True):
    kind: str = ""
    entries: list[Raw] | None = None


class IndexedConfigEntries(_Answer, frozen=True, gc=False):
    """All of one kind. Go cannot decode those of kind "", which is all kinds, but answers with them."""

    kind: str = ""
    entries: tuple[c.ConfigEntry, ...] = ()

    @override
    def to_wire(self) -> bytes:
        entries = [pack(entry) for entry in self.entries]
        body = _ListBody(kind=self.kind, entries=entries, **_fields_of(self._meta()))
        return bytes(raw_bytes(encode(len(entries)) + encode(self.kind) + encode(body)))

    @classmethod
    @override
    def from_wire(cls, data: bytes | memoryview) -> Self:
        values = _Values(data)
        values.value()
        kind, body = values.text(), decode(values.raw(), _ListBody)
        entries = tuple(unpack(kind or _kind_in(raw), raw) for raw in body.entries or ())
        return cls(kind=kind, entries=entries, **_fields_of(body))


def _kind_in(raw: Raw) -> str:
    """Proxy defaults are the ones that marshal themselves."""
    row = msgpack.unpack(bytes(raw))
    return msgpack.as_text(row.get(b"Kind")) if isinstance(row, dict) else c.PROXY_DEFAULTS


class IndexedGenericConfigEntries(_Answer, frozen=True, gc=False):
    """Entries of all kinds."""

    entries: tuple[c.ConfigEntry, ...] = ()

    @override
    def to_wire(self) -> bytes:
        parts = [encode(len(self.entries))]
        for entry in self.entries:
            parts += [encode(kind_of(entry)), encode(pack(entry))]
        return bytes(raw_bytes(b"".join((*parts, encode(self._meta())))))

    @classmethod
    @override
    def from_wire(cls, data: bytes | memoryview) -> Self:
        values = _Values(data)

        def entries() -> Iterator[c.ConfigEntry]:
            for _ in range(msgpack.as_uint(values.value())):
                kind = values.text()
                yield unpack(kind, values.raw())

        found = tuple(entries())
        return cls(entries=found, **_fields_of(decode(values.raw(), QueryMeta)))


class UpstreamConfig(GoStruct, frozen=True, gc=False):
    upstream: ServiceId = ServiceId()
    config: dict[str, Any] | None = None


class _ServiceConfigBody(QueryMeta, frozen=True):
    proxy_config: dict[str, Any] | None = None
    upstream_configs: dict[str, dict[str, Any]] | None = None
    upstream_id_configs: list[UpstreamConfig] | None = field(default=None, name="UpstreamIDConfigs")
    mesh_gateway: MeshGatewayConfig = MeshGatewayConfig()
    expose: ExposeConfig = ExposeConfig()


class ServiceConfigResponse(_Answer, frozen=True, gc=False):
    """What config entries make of a service's proxy and its upstreams."""

    proxy_config: dict[str, Any] | None = None
    upstream_configs: dict[str, dict[str, Any]] | None = None
    upstream_id_configs: list[UpstreamConfig] | None = None
    mesh_gateway: MeshGatewayConfig = MeshGatewayConfig()
    expose: ExposeConfig = ExposeConfig()

    @override
    def to_wire(self) -> bytes:
        body = _ServiceConfigBody(
            **{name: getattr(self, name) for name in _ServiceConfigBody.__struct_fields__}
        )
        return bytes(raw_bytes(encode(body)))

    @classmethod
    @override
    def from_wire(cls, data: bytes | memoryview) -> Self:
        body = decode(bytes_of(Raw(data)), _ServiceConfigBody)
        return cls(**{name: getattr(body, name) for name in _ServiceConfigBody.__struct_fields__})
