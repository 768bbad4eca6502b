"""Raw trees from a parser -> trees checked against the schema, with normalized keys.

Keys are matched without regard to case, as Consul's decoder does. A tree keeps the shape of the
file; durations become seconds (float).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from proconsul.config.errors import SettingError
from proconsul.config.schema import CHECK, CHECK_ALIASES, Kind, ListOf, MapOf, Spec
from proconsul.util.goduration import parse_duration

Tree = dict[str, Any]


def decode(raw: Mapping[str, Any], schema: Mapping[str, Spec], source: str) -> Tree:
    """Check and normalize one source. Raises SettingError that names the dotted key."""
    found = list(_unknown_keys(raw, schema, ""))
    if found:
        (path, name, section), *others = found
        raise _unknown(path, name, section, source, [path for path, _, _ in others])
    return _section(raw, schema, source, "")


def _unknown_keys(
    raw: Any, schema: Mapping[str, Any], path: str
) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Path, normalized name and section of each key that is not in the schema: all at once, so that
    who comes with a file of another version need not find them one by one."""
    if isinstance(raw, list) and len(raw) == 1:
        raw = raw[0]
    if not isinstance(raw, Mapping):
        return  # refused with its type later
    for key, value in raw.items():
        name = _normalized(key, schema)
        spec = schema.get(name)
        if spec is None:
            yield path + key, name, schema
        elif isinstance(spec, ListOf):
            for i, item in enumerate(value if isinstance(value, list) else [value]):
                yield from _unknown_keys(item, spec.section, f"{path}{name}[{i}].")
        elif isinstance(spec, MapOf):
            for each, item in value.items() if isinstance(value, Mapping) else ():
                yield from _unknown_keys(item, spec.section, f"{path}{name}.{each}.")
        elif not isinstance(spec, Kind):
            yield from _unknown_keys(value, spec, f"{path}{name}.")


def _normalized(key: str, schema: Mapping[str, Any]) -> str:
    name = key if key in schema else key.lower()
    return CHECK_ALIASES.get(name, name) if schema is CHECK else name


def _section(raw: Mapping[str, Any], schema: Mapping[str, Any], source: str, path: str) -> Tree:
    out: Tree = {}
    for key, value in raw.items():
        name = _normalized(key, schema)
        if value is None:
            continue
        out[name] = _value(value, schema[name], source, path + name)
    return out


def _unknown(
    path: str, name: str, schema: Mapping[str, Any], source: str, others: list[str]
) -> SettingError:
    close = difflib.get_close_matches(name, schema, n=1, cutoff=0.75)
    parent = path[: len(path) - len(path.rpartition(".")[2])]
    remedy = f"Did you mean {parent + close[0]!r}?" if close else "Remove it"
    if others:
        remedy += f". Invalid too: {', '.join(others)}"
    return SettingError(f"invalid config key {path}", key=path, source=source, remedy=remedy)


def _value(value: Any, spec: Spec, source: str, path: str) -> Any:
    # HCL cannot tell a block from a list of one block, nor does Consul's decoder
    if not isinstance(spec, ListOf) and spec not in _LISTS:
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
    if isinstance(spec, Kind):
        return _leaf(value, spec, source, path)
    if isinstance(spec, ListOf):
        items = [value] if isinstance(value, Mapping) else value
        if not isinstance(items, list):
            raise _mismatch(path, "list of blocks", value, source)
        return [_block(item, spec.section, source, f"{path}[{i}].") for i, item in enumerate(items)]
    if isinstance(spec, MapOf):
        if not isinstance(value, Mapping):
            raise _mismatch(path, "map", value, source)
        return {k: _block(v, spec.section, source, f"{path}.{k}.") for k, v in value.items()}
    return _block(value, spec, source, path + ".")


_LISTS = (Kind.STRS, Kind.MAPS)


def _block(value: Any, schema: Mapping[str, Any], source: str, path: str) -> Tree:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, Mapping):
        raise _mismatch(path.rstrip("."), "block", value, source)
    return _section(value, schema, source, path)


def _leaf(value: Any, kind: Kind, source: str, path: str) -> Any:
    if kind in _SCALARS:
        types = _SCALARS[kind]
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise _mismatch(path, kind.value, value, source)
        return _integral(value, path, source) if kind is Kind.INT else value
    if kind is Kind.DURATION:
        return _duration(value, source, path)
    if kind is Kind.STRS:
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise _mismatch(path, kind.value, value, source)
        return list(value)
    if kind is Kind.MAPS:
        items = [value] if isinstance(value, Mapping) else value
        if not isinstance(items, list) or not all(isinstance(v, Mapping) for v in items):
            raise _mismatch(path, kind.value, value, source)
        return list(items)
    if not isinstance(value, Mapping):
        raise _mismatch(path, kind.value, value, source)
    if kind is Kind.DURATION_MAP:
        return {k: _duration(v, source, f"{path}.{k}") for k, v in value.items()}
    if kind is Kind.STR_MAP:
        return {k: _leaf(v, Kind.STR, source, f"{path}.{k}") for k, v in value.items()}
    if kind is Kind.STRS_MAP:
        return {k: _leaf(v, Kind.STRS, source, f"{path}.{k}") for k, v in value.items()}
    return dict(value)


_SCALARS: dict[Kind, tuple[type, ...]] = {
    Kind.STR: (str,),
    Kind.BOOL: (bool,),
    Kind.INT: (int, float),
    Kind.FLOAT: (int, float),
}


def _integral(value: Any, path: str, source: str) -> int:
    if isinstance(value, float) and not value.is_integer():
        raise _mismatch(path, "int", value, source)
    return int(value)


def _duration(value: Any, source: str, path: str) -> float:
    if not isinstance(value, str):
        raise _mismatch(path, "duration", value, source)
    try:
        return parse_duration(value)
    except ValueError as error:
        raise SettingError(
            f'{path}: invalid duration: "{value}": {error}',
            key=path,
            source=source,
            remedy='Write it as "10s", "1m30s" or "500ms"',
        ) from None


_EXAMPLES = {
    "string": 'Write it in quotes: "..."',
    "bool": "Write true or false, without quotes",
    "int": "Write a whole number, without quotes",
    "float64": "Write a number, without quotes",
    "duration": 'Write it as "10s", "1m30s" or "500ms"',
    "list of strings": 'Write it as ["...", "..."]',
}


def _mismatch(path: str, expected: str, value: Any, source: str) -> SettingError:
    got = {
        str: "string", bool: "bool", int: "int", float: "float64", list: "list", dict: "map",
    }.get(type(value), type(value).__name__)  # fmt: skip
    return SettingError(
        f"'{path}' expected type '{expected}', got '{got}'",
        key=path,
        source=source,
        remedy=_EXAMPLES.get(expected, "Write it as { ... }"),
    )
