"""Configuration files: which are read, in which order, and how they are parsed.

Directories give their *.hcl and *.json files in the order of their names, not recursively
(`agent/config/builder.go`, sourcesFromPath).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proconsul.config.decode import Tree, decode
from proconsul.config.errors import SettingError
from proconsul.config.schema import ROOT

MAX_FILE_BYTES = 16 * 1024 * 1024
"""No configuration is larger; a larger file is a mistake, such as a device or a log."""


@dataclass(frozen=True, slots=True)
class Source:
    """One parsed and checked source of settings."""

    name: str
    tree: Tree


def parse_text(text: str, format_: str, name: str) -> Source:
    """Parse HCL or JSON text. `name` is used in errors. Raises SettingError."""
    return Source(name, decode(parse_object(text, format_, name), ROOT, name))


def parse_object(text: str, format_: str, name: str) -> dict[str, Any]:
    """What HCL or JSON text says, whatever that means. Raises SettingError."""
    if not text.strip():
        return {}
    try:
        raw = json.loads(text) if format_ == "json" else _parse_hcl(text)
    except (ValueError, RecursionError) as error:
        raise SettingError(
            f"failed to parse {name}: {error}", remedy=f"Correct the {format_.upper()} syntax"
        ) from None
    if not isinstance(raw, dict):
        raise SettingError(
            f"failed to parse {name}: the top level must be an object",
            remedy="Enclose the settings in { ... }",
        )
    return raw


def _parse_hcl(text: str) -> object:
    # Parser tables take time to load; agents with JSON or flags alone do without
    from hcl.parser import HclParser

    parser = HclParser()
    # pyhcl merges nested blocks of a repeated block into its first sibling
    parser.objectlist_flat = _collect
    try:
        return parser.parse(text)
    except Exception as error:  # noqa: BLE001
        # pyhcl lets whatever its grammar actions hit escape: ValueError, AttributeError, ...
        raise ValueError(str(error) or type(error).__name__) from None


def _collect(items: Iterable[tuple[object, object]], _replace: bool) -> dict[str, object]:
    """One object of HCL: repeated blocks become a list, a repeated scalar is overridden."""
    out: dict[str, object] = {}
    for key, value in items:
        if not isinstance(key, str):
            raise ValueError(f"invalid key {key!r}")
        if key in out and isinstance(value, dict | list):
            out[key] = [*_listed(out[key]), *_listed(value)]
        else:
            out[key] = value
    return out


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def read_paths(paths: Iterable[str], format_: str, warnings: list[str]) -> list[Source]:
    """Read files and directories in the order given. `format_` "" goes by the file's extension."""
    sources: list[Source] = []
    for given in paths:
        path = Path(given)
        try:
            files = (
                sorted((p for p in path.iterdir() if not p.is_dir()), key=lambda p: p.name)
                if path.is_dir()
                else [path]
            )
        except OSError as error:
            raise _unreadable(path, error) from None
        for file in files:
            kind = format_ or {".json": "json", ".hcl": "hcl"}.get(file.suffix, "")
            if not kind:
                if not file.exists():
                    raise _unreadable(file, FileNotFoundError(2, "no such file or directory"))
                warnings.append(
                    f"skipping file {file}, extension must be .hcl or .json, or config format must"
                    " be set"
                )
                continue
            sources.append(parse_text(_read(file), kind, str(file)))
    return sources


def _read(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _unreadable(file, error) from None
    if len(data) > MAX_FILE_BYTES:
        raise SettingError(
            f"config: {file} is larger than {MAX_FILE_BYTES} bytes",
            remedy="Name a configuration file",
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingError(
            f"failed to parse {file}: {error}", remedy="Save the file as UTF-8"
        ) from None


def _unreadable(path: Path, error: OSError) -> SettingError:
    reason = (error.strerror or str(error)).lower()
    return SettingError(
        f"config: Open failed on {path}. open {path}: {reason}",
        remedy="Name a file or directory that the agent may read",
    )
