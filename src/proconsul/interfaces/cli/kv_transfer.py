"""`kv export` and `kv import`: trees as JSON (`command/kv/exp`, `imp`, `impexp`)."""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from proconsul.config.goflags import Parsed
from proconsul.interfaces.cli.command import (
    CLIENT_FLAGS,
    NAMESPACE_FLAGS,
    SERVER_FLAGS,
    Command,
    CommandError,
    connect,
    out,
)
from proconsul.util import gobase64

_API = (*CLIENT_FLAGS, *SERVER_FLAGS, *NAMESPACE_FLAGS)


class _Entry(msgspec.Struct, omit_defaults=True):
    """One key. Values are base64."""

    key: str
    flags: int
    value: str
    namespace: str = ""


class _Given(msgspec.Struct):
    """One key of an import; what is not there is empty."""

    key: str = ""
    flags: int = 0
    value: str = ""
    namespace: str = ""


def _export(parsed: Parsed) -> int:
    if len(parsed.args) > 1:
        raise CommandError(f"Too many arguments (expected 1, got {len(parsed.args)})")
    prefix = parsed.args[0].removeprefix("/") if parsed.args else ""
    try:
        found = connect(parsed).get_or_none(f"/v1/kv/{prefix}", {"recurse": ""}) or []
    except CommandError as error:
        raise CommandError(f"Error querying Consul agent: {error}") from None
    from proconsul.domain.go_json import to_json

    entries = [
        _Entry(one["Key"], one["Flags"], one["Value"] or "", one.get("Namespace", ""))
        for one in found
    ]
    # Tabs, which msgspec does not write; a JSON text has no line breaks but these.
    text = msgspec.json.format(to_json([msgspec.to_builtins(e) for e in entries]), indent=1)
    out("\n".join(_tabbed(line) for line in text.decode().split("\n")))
    return 0


def _tabbed(line: str) -> str:
    bare = line.lstrip(" ")
    return "\t" * (len(line) - len(bare)) + bare


def _data(parsed: Parsed) -> bytes:
    if not parsed.args:
        raise CommandError("Error! Missing DATA argument")
    if len(parsed.args) > 1:
        raise CommandError(f"Error! Too many arguments (expected 1, got {len(parsed.args)})")
    data: str = parsed.args[0]
    if not data:
        raise CommandError("Error! Empty DATA argument")
    if data == "-":
        return sys.stdin.buffer.read()
    if not data.startswith("@"):
        return data.encode("utf-8", "surrogateescape")
    try:
        with open(data[1:], "rb") as file:
            return file.read()
    except OSError as error:
        raise CommandError(
            f"Error! Failed to read file: open {data[1:]}: {(error.strerror or '').lower()}"
        ) from None


def _import(parsed: Parsed) -> int:
    data = _data(parsed)
    client = connect(parsed)
    try:
        entries: list[_Given] = msgspec.json.decode(data, type=list[_Given] | None) or []
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CommandError(f"Cannot unmarshal data: {error}") from None
    for entry in entries:
        try:
            value = gobase64.decode(entry.value)
        except ValueError as error:
            raise CommandError(
                f"Error base 64 decoding value for key {entry.key}: {error}"
            ) from None
        query: dict[str, Any] = {"flags": str(entry.flags)} if entry.flags else {}
        if entry.namespace:
            query["ns"] = entry.namespace
        try:
            client.put(f"/v1/kv/{entry.key}", value, query)
        except CommandError as error:
            raise CommandError(f"Error! Failed writing data for key {entry.key}: {error}") from None
        out(f"Imported: {entry.key}")
    return 0


EXPORT = Command(
    usage="""
Usage: proconsul kv export [KEY_OR_PREFIX]

  Prints all keys and values below a prefix as JSON, for `kv import`.

      $ proconsul kv export vault""",
    run=_export,
    flags=_API,
)

IMPORT = Command(
    usage="""
Usage: proconsul kv import [DATA]

  Writes the keys and values that `kv export` printed. DATA may be the JSON, @ and
  the name of a file, or - for standard input.

      $ proconsul kv import @vault.json""",
    run=_import,
    flags=_API,
)
