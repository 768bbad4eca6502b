"""`kv get`, `kv put` and `kv delete`."""

from __future__ import annotations

import base64
from typing import Any

from proconsul.config.goflags import Parsed, bool_flag, string_flag, uint_flag
from proconsul.interfaces.cli.client import Client
from proconsul.interfaces.cli.command import (
    CLIENT_FLAGS,
    NAMESPACE_FLAGS,
    SERVER_FLAGS,
    Command,
    CommandError,
    connect,
    load_data,
    out,
    out_bytes,
)
from proconsul.util import gobase64

_API = (*CLIENT_FLAGS, *SERVER_FLAGS, *NAMESPACE_FLAGS)


def _one_key(parsed: Parsed) -> str:
    if len(parsed.args) > 1:
        raise CommandError(f"Too many arguments (expected 1, got {len(parsed.args)})")
    # No key starts with a slash, but people write them so
    return parsed.args[0].removeprefix("/") if parsed.args else ""


def _get(parsed: Parsed) -> int:
    key = _one_key(parsed)
    if not key and not (parsed["recurse"] or parsed["keys"]):
        raise CommandError("Error! Missing KEY argument")
    client = connect(parsed)
    try:
        return _query(client, key, parsed)
    except CommandError as error:
        if str(error).startswith("Error!"):
            raise
        raise CommandError(f"Error querying Consul agent: {error}") from None


def _query(client: Client, key: str, parsed: Parsed) -> int:
    path = f"/v1/kv/{key}"
    if parsed["keys"]:
        query = {"separator": parsed["separator"]} if parsed["separator"] else {}
        for found in client.get_or_none(path, {"keys": "", **query}) or ():
            out(found)
        return 0
    if parsed["recurse"]:
        pairs = client.get_or_none(path, {"recurse": ""}) or []
        for i, pair in enumerate(pairs):
            if parsed["detailed"]:
                out_bytes(_pretty(pair, parsed["base64"]))
                if i < len(pairs) - 1:
                    out()
            else:
                out_bytes(pair["Key"].encode() + b":" + _value(pair, parsed["base64"]))
        return 0
    pairs = client.get_or_none(path)
    if not pairs:
        raise CommandError(f"Error! No key exists at: {key}")
    encoded = parsed["base64"]
    out_bytes(_pretty(pairs[0], encoded) if parsed["detailed"] else _value(pairs[0], encoded))
    return 0


def _value(pair: dict[str, Any], encoded: bool) -> bytes:
    text = pair["Value"] or ""
    return text.encode() if encoded else base64.b64decode(text)


def _pretty(pair: dict[str, Any], encoded: bool) -> bytes:
    fields = {
        "CreateIndex": pair["CreateIndex"],
        "Flags": pair["Flags"],
        "Key": pair["Key"],
        "LockIndex": pair["LockIndex"],
        "ModifyIndex": pair["ModifyIndex"],
        "Session": pair.get("Session") or "-",
    }
    if pair.get("Namespace"):
        fields["Namespace"] = pair["Namespace"]
    # "ModifyIndex" is the longest name; six spaces follow the longest cell
    lines = [f"{name:<17}{value}".encode() for name, value in fields.items()]
    return b"\n".join([*lines, b"%-17s" % b"Value" + _value(pair, encoded)])


def _put(parsed: Parsed) -> int:
    if not parsed.args:
        raise CommandError("Error! Missing KEY argument")
    if len(parsed.args) > 2:
        raise CommandError(f"Error! Too many arguments (expected 1 or 2, got {len(parsed.args)})")
    key = parsed.args[0]
    data = load_data(parsed.args[1]) if len(parsed.args) == 2 else b""
    if parsed["base64"]:
        try:
            data = gobase64.decode(data.decode("latin-1"))
        except ValueError as error:
            raise CommandError(f"Error! Cannot base 64 decode data: {error}") from None
    if (parsed["acquire"] or parsed["release"]) and not parsed["session"]:
        raise CommandError("Error! Missing -session (required with -acquire and -release)")
    if parsed["cas"] and not parsed["modify-index"]:
        raise CommandError("Must specify -modify-index with -cas!")
    if key.startswith("/"):
        raise CommandError(
            f"Error! Failed writing data: Invalid key. Key must not begin with a '/': {key}"
        )
    client = connect(parsed)
    query = {"flags": str(parsed["flags"])} if parsed["flags"] else {}
    done, refused = f"Data written to: {key}", ""
    if parsed["cas"]:
        query["cas"] = str(parsed["modify-index"])
        refused = f"Error! Did not write to {key}: CAS failed"
    elif parsed["acquire"]:
        query["acquire"] = parsed["session"]
        done, refused = f"Lock acquired on: {key}", "Error! Did not acquire lock"
    elif parsed["release"]:
        query["release"] = parsed["session"]
        done, refused = f"Lock released on: {key}", "Error! Did not release lock"
    try:
        answer = client.put(f"/v1/kv/{key}", data, query)
    except CommandError as error:
        what = f"Did not write to {key}" if parsed["cas"] else "Failed writing data"
        raise CommandError(f"Error! {what}: {error}") from None
    if refused and b"true" not in answer:
        raise CommandError(refused)
    out(f"Success! {done}")
    return 0


def _delete(parsed: Parsed) -> int:
    key = _one_key(parsed)
    cas, recurse, index = parsed["cas"], parsed["recurse"], parsed["modify-index"]
    if not key and not recurse:
        raise CommandError("Error! Missing KEY argument")
    if cas and not index:
        raise CommandError("Must specify -modify-index with -cas!")
    if index and not cas:
        raise CommandError("Cannot specify -modify-index without -cas!")
    if recurse and cas:
        raise CommandError("Cannot specify both -cas and -recurse!")
    query: dict[str, str] = {}
    failed, done = f"Error deleting key {key}", f"Deleted key: {key}"
    if recurse:
        query["recurse"] = ""
        failed = f"Error! Did not delete prefix {key}"
        done = f"Deleted keys with prefix: {key}"
    elif cas:
        query["cas"] = str(index)
        failed = f"Error! Did not delete key {key}"
    try:
        answer = connect(parsed).delete(f"/v1/kv/{key}", query)
    except CommandError as error:
        raise CommandError(f"{failed}: {error}") from None
    if cas and b"true" not in answer:
        raise CommandError(f"{failed}: CAS failed")
    out(f"Success! {done}")
    return 0


_CAS = bool_flag("cas", "Only if the key was not changed since -modify-index, which is required.")
_INDEX = uint_flag("modify-index", "The ModifyIndex that -cas compares with.")

GET = Command(
    usage="""
Usage: proconsul kv get [options] [KEY_OR_PREFIX]

  Prints the value of a key; with -recurse all keys and values below a prefix,
  with -keys the keys alone. Without an argument the prefix is the root.

      $ proconsul kv get foo
      $ proconsul kv get -recurse foo/""",
    run=_get,
    flags=(
        bool_flag("base64", "Print values in base 64."),
        bool_flag("detailed", "Print indexes, flags and the session too."),
        bool_flag("keys", "List the keys below the prefix, without values."),
        bool_flag("recurse", "List everything below the prefix."),
        string_flag("separator", "With -keys: list only up to this separator.", "/"),
        *_API,
    ),
)

PUT = Command(
    usage="""
Usage: proconsul kv put [options] KEY [DATA]

  Writes a value. DATA may be the value, @ and the name of a file, or - for
  standard input; without it the value is empty.

      $ proconsul kv put config/maxconns 5
      $ proconsul kv put config/license @license.lic""",
    run=_put,
    flags=(
        bool_flag("acquire", "Take the lock on the key for -session."),
        bool_flag("base64", "DATA is in base 64."),
        _CAS,
        uint_flag("flags", "A number of your own to keep with the value."),
        _INDEX,
        bool_flag("release", "Give back the lock that -session holds on the key."),
        string_flag("session", "Session for -acquire and -release."),
        *_API,
    ),
)

DELETE = Command(
    usage="""
Usage: proconsul kv delete [options] KEY_OR_PREFIX

  Removes a key, or with -recurse all keys with a prefix. It is no error where
  there is none.""",
    run=_delete,
    flags=(_CAS, _INDEX, bool_flag("recurse", "Delete all keys with this prefix."), *_API),
)
