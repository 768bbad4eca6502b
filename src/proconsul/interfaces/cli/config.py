"""`config write`, `config read`, `config list` and `config delete`: config entries."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from proconsul.config.goflags import Parsed, bool_flag, string_flag, uint_flag
from proconsul.interfaces.cli.command import (
    CLIENT_FLAGS,
    NAMESPACE_FLAGS,
    SERVER_FLAGS,
    Command,
    CommandError,
    connect,
    out,
)

if TYPE_CHECKING:
    from proconsul.domain.config_entries import ConfigEntry

_API = (*CLIENT_FLAGS, *SERVER_FLAGS, *NAMESPACE_FLAGS)
_OMITTED = frozenset({"Protocol", "Config", "Routes", "Splits", "Services"})
"""What Consul's client leaves out of an entry if it is empty, though its servers show it."""


def _write(parsed: Parsed) -> int:
    if len(parsed.args) != 1:
        raise CommandError(
            "Must provide exactly one positional argument to specify the config entry to write"
        )
    entry = _decoded(_loaded(parsed.args[0]))
    from proconsul.domain.config_entry_forms import view
    from proconsul.domain.go_json import to_json

    named = f"{entry.kind}/{entry.name}"
    query = {"cas": str(parsed["modify-index"])} if parsed["cas"] else {}
    try:
        answer = connect(parsed).put("/v1/config", to_json(view(entry)), query)
    except CommandError as error:
        raise CommandError(f"Error writing config entry {named}: {error}") from None
    if b"true" not in answer:
        raise CommandError(f"Config entry not updated: {named}")
    out(f"Config entry written: {named}")
    return 0


def _loaded(path: str) -> str:
    if path == "-":
        return sys.stdin.read()
    if not path:
        raise CommandError(
            "Failed to load data: Failed to load data: must specify a file path or '-' for stdin"
        )
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CommandError(
            f"Failed to load data: Failed to read file: open {path}: {reason}"
        ) from None


def _decoded(text: str) -> ConfigEntry:
    """HCL, of which JSON is a dialect to Consul."""
    from proconsul.config.errors import SettingError
    from proconsul.config.sources import parse_object
    from proconsul.domain.config_entry_forms import ConfigEntryError, from_map
    from proconsul.domain.weak_decode import WeakDecodeError

    failed = "Failed to decode config entry input"
    format_ = "json" if text.lstrip().startswith("{") else "hcl"
    try:
        raw = parse_object(text, format_, "input")
    except SettingError as error:
        raise CommandError(f"{failed}: {failed}: {error}") from None
    try:
        return from_map(raw)
    except (ConfigEntryError, WeakDecodeError) as error:
        raise CommandError(f"{failed}: {error}") from None


def _named(parsed: Parsed) -> tuple[str, str]:
    for flag in ("kind", "name"):
        if not parsed[flag]:
            raise CommandError(f"Must specify the -{flag} parameter")
    return parsed["kind"], parsed["name"]


def _read(parsed: Parsed) -> int:
    kind, name = _named(parsed)
    try:
        _empty(kind)
        answer = connect(parsed).get(f"/v1/config/{kind}/{name}")
        text = _shown(answer)
    except CommandError as error:
        raise CommandError(f"Error reading config entry {kind}/{name}: {error}") from None
    out(text)
    return 0


def _empty(kind: str) -> ConfigEntry:
    from proconsul.domain.config_entry_forms import ConfigEntryError, make

    try:
        return make(kind, "")
    except ConfigEntryError as error:
        raise CommandError(str(error)) from None


def _shown(answer: dict[str, Any]) -> str:
    """As Consul's client writes it: without what it does not know and some that is empty."""
    import msgspec

    from proconsul.domain.config_entry_forms import view
    from proconsul.domain.go_json import to_json
    from proconsul.domain.weak_decode import WeakDecodeError, weak_decode

    try:
        entry, _ = weak_decode(answer, type(_empty(answer.get("Kind", ""))))
    except WeakDecodeError as error:
        raise CommandError(str(error)) from None
    shown = view(entry)
    for key in _OMITTED & shown.keys():
        if not shown[key]:
            del shown[key]
    shown |= {key: answer[key] for key in ("CreateIndex", "ModifyIndex") if key in answer}
    return msgspec.json.format(to_json(shown), indent=4).decode()


def _list(parsed: Parsed) -> int:
    kind = parsed["kind"]
    if not kind:
        raise CommandError("Must specify the -kind parameter")
    try:
        entries = connect(parsed).get(f"/v1/config/{kind}")
    except CommandError as error:
        raise CommandError(
            f"Error listing config entries for kind {json.dumps(kind)}: {error}"
        ) from None
    for entry in entries or ():
        out(entry["Name"])
    return 0


def _delete(parsed: Parsed) -> int:
    kind, name = _named(parsed)
    try:
        connect(parsed).delete(f"/v1/config/{kind}/{name}")
    except CommandError as error:
        raise CommandError(f"Error deleting config entry {kind}/{name}: {error}") from None
    out(f"Config entry deleted: {kind}/{name}")
    return 0


_KIND = string_flag("kind", "The kind of config entry: service-defaults, proxy-defaults, ...")
_NAME = string_flag("name", "The name of the config entry.")

WRITE = Command(
    usage="""
Usage: proconsul config write [options] FILE

  Creates or updates a config entry from a file in HCL or JSON, or from standard
  input if the file is -.

      $ proconsul config write web.service.hcl""",
    run=_write,
    flags=(
        bool_flag("cas", "Only if the entry was not changed since -modify-index."),
        uint_flag("modify-index", "The ModifyIndex that -cas compares with; 0: only if new."),
        *_API,
    ),
)

READ = Command(
    usage="""
Usage: proconsul config read [options] -kind KIND -name NAME

  Prints a config entry as JSON.

      $ proconsul config read -kind proxy-defaults -name global""",
    run=_read,
    flags=(_KIND, _NAME, *_API),
)

LIST = Command(
    usage="""
Usage: proconsul config list [options] -kind KIND

  Prints the names of all config entries of a kind.

      $ proconsul config list -kind service-defaults""",
    run=_list,
    flags=(_KIND, *_API),
)

DELETE = Command(
    usage="""
Usage: proconsul config delete [options] -kind KIND -name NAME

  Deletes a config entry.

      $ proconsul config delete -kind service-defaults -name web""",
    run=_delete,
    flags=(_KIND, _NAME, *_API),
)
