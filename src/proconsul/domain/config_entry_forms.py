"""Config entries as JSON takes and shows them, with Go's rules about what is left out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from proconsul.domain import config_entries as c
from proconsul.domain.catalog import ExposePath
from proconsul.domain.definitions import multierror
from proconsul.domain.go_json import free_form, number
from proconsul.domain.weak_decode import kind_name, weak_decode
from proconsul.util.errors import ProconsulError
from proconsul.util.goduration import format_duration_ns

_ALWAYS: dict[type, frozenset[str]] = {
    c.ServiceConfigEntry: frozenset({"protocol"}),
    c.ProxyConfigEntry: frozenset({"config"}),
    c.ServiceRouterConfigEntry: frozenset({"routes"}),
    c.ServiceSplitterConfigEntry: frozenset({"splits"}),
    c.ServiceSplit: frozenset({"weight"}),
    c.ServiceRouteHTTPMatchHeader: frozenset({"name"}),
    c.ServiceRouteHTTPMatchQueryParam: frozenset({"name"}),
    c.IngressGatewayConfigEntry: frozenset({"listeners"}),
    c.IngressListener: frozenset({"port", "protocol", "services"}),
    c.IngressService: frozenset({"name", "hosts"}),
    c.GatewayTLSConfig: frozenset({"enabled"}),
    c.TerminatingGatewayConfigEntry: frozenset({"services"}),
    ExposePath: frozenset({"parsed_from_check"}),
}
"""Fields that JSON shows although they are empty."""
_ENTRY_ALWAYS = frozenset({"kind", "name", "create_index", "modify_index"})


class ConfigEntryError(ProconsulError):
    """Not a config entry; the text is Consul's."""


def make(kind: str, name: str) -> c.ConfigEntry:
    """An empty entry. Raises `ConfigEntryError` for an unknown kind."""
    type_ = c.ENTRY_TYPES.get(kind)
    if type_ is None:
        raise ConfigEntryError(f"invalid config entry kind: {kind}")
    return type_(name=name)


def from_map(raw: Any) -> c.ConfigEntry:
    """An entry as users write it (`DecodeConfigEntry`), neither normalised nor validated.

    Raises `ConfigEntryError` or `WeakDecodeError`.
    """
    if raw is not None and not isinstance(raw, dict):
        raise ConfigEntryError(f"'' expected a map, got '{kind_name(raw)}'")
    raw = raw or {}
    if "Kind" not in raw and "kind" not in raw:
        raise ConfigEntryError("Payload does not contain a kind/Kind key at the top level")
    kind = raw["Kind"] if "Kind" in raw else raw["kind"]
    if not isinstance(kind, str):
        raise ConfigEntryError("Kind value in payload is not a string")
    entry, unused = weak_decode(raw, type(make(kind, "")))
    problems = [
        f'invalid config key "{key}"'
        + (
            ", namespaces are a consul enterprise feature"
            if key.lower().endswith("namespace")
            else ""
        )
        for key in unused
        if key not in {"CreateIndex", "ModifyIndex"}
    ]
    if problems:
        raise ConfigEntryError(multierror(problems))
    return entry


def view(entry: Any) -> dict[str, Any]:
    """The JSON of an entry or a part of one, with Go's omissions."""
    always = _ALWAYS.get(type(entry), frozenset())
    if isinstance(entry, c.ConfigEntry):
        always |= _ENTRY_ALWAYS
    durations: dict[str, Any] = {}
    found: dict[str, Any] = {}
    for one in msgspec.structs.fields(entry):
        value = getattr(entry, one.name)
        if one.name.endswith("_ns"):
            if value:  # Go's MarshalJSON writes it before the struct that it embeds
                durations[one.encode_name] = format_duration_ns(value)
        elif value or one.name in always or isinstance(value, msgspec.Struct):
            found[one.encode_name] = _viewed(value)
    return durations | found


def _viewed(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return view(value)
    if isinstance(value, list):
        return [_viewed(item) for item in value]
    if isinstance(value, dict):
        if any(isinstance(item, msgspec.Struct) for item in value.values()):
            return {key: view(value[key]) for key in sorted(value)}
        return free_form(value)
    if isinstance(value, float):
        return number(round(value, 2))
    return value


def views(entries: Iterable[c.ConfigEntry]) -> list[dict[str, Any]]:
    """The JSON of several."""
    return [view(entry) for entry in entries]
