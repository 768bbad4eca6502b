"""`intention create`, `get`, `match`, `check` and `delete`: who may connect to whom."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from proconsul.config.goflags import Parsed, bool_flag, strings_flag
from proconsul.interfaces.cli.client import ApiError, Client
from proconsul.interfaces.cli.command import (
    CLIENT_FLAGS,
    SERVER_FLAGS,
    Command,
    CommandError,
    columnize,
    connect,
    err,
    out,
    pairs,
)

_API = (*CLIENT_FLAGS, *SERVER_FLAGS)
_PATH = "/v1/connect/intentions"


def _part(one: dict[str, Any], side: str) -> str:
    """A side's name, with its namespace unless that is the default one."""
    namespace, name = one.get(f"{side}NS") or "", one.get(f"{side}Name") or ""
    return f"{namespace}/{name}" if namespace not in ("", "default") else name


def _described(one: dict[str, Any]) -> str:
    return f"{_part(one, 'Source')} => {_part(one, 'Destination')} ({one.get('Action', '')})"


def _target(text: str, side: str) -> tuple[str, str]:
    """Namespace and name of `[namespace/]name`."""
    namespace, slash, name = text.partition("/")
    if "/" in name:
        raise CommandError(f"Error: Invalid intention {side}: target can contain at most one '/'")
    return (namespace, name) if slash else ("", text)


class _Finder:
    """Finds intentions by their names; there is no request for that."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._all: list[dict[str, Any]] | None = None

    def find(self, source: str, to: str) -> dict[str, Any] | None:
        wanted = source.removeprefix("default/"), to.removeprefix("default/")
        if self._all is None:
            self._all = self._client.get(_PATH) or []
        for one in self._all:
            if (_part(one, "Source"), _part(one, "Destination")) == wanted:
                return one
        return None

    def id(self, args: list[str]) -> str:
        """Of the one argument, or of the intention from the first to the second."""
        if len(args) == 1:
            return args[0]
        if len(args) != 2:
            raise CommandError("Error: command requires exactly 1 or 2 arguments")
        try:
            found = self.find(*args)
        except CommandError as error:
            raise CommandError(f"Error: {error}") from None
        if found is None:
            source, to = map(json.dumps, args)
            raise CommandError(
                f"Error: Intention with source {source} and destination {to} not found."
            )
        return str(found["ID"])


def _create(parsed: Parsed) -> int:
    if parsed["allow"] and parsed["deny"]:
        raise CommandError("Only one of -allow or -deny may be specified.")
    wanted = _from_files(parsed.args) if parsed["file"] else [_from_args(parsed)]
    client = connect(parsed)
    finder = _Finder(client)
    for one in wanted:
        if parsed["replace"] and _replaced(client, finder, one):
            continue
        try:
            client.post(_PATH, json.dumps(one).encode())
        except CommandError as error:
            raise CommandError(
                f"Error creating intention {json.dumps(_described(one))}: {error}"
            ) from None
        out(f"Created: {_described(one)}")
    return 0


def _from_args(parsed: Parsed) -> dict[str, Any]:
    if len(parsed.args) != 2:
        raise CommandError("Error: Must specify two arguments: source and destination")
    source_namespace, source = _target(parsed.args[0], "source")
    namespace, name = _target(parsed.args[1], "destination")
    return {
        "SourceNS": source_namespace,
        "SourceName": source,
        "DestinationNS": namespace,
        "DestinationName": name,
        "SourceType": "consul",
        "Action": "deny" if parsed["deny"] else "allow",
        "Meta": pairs(parsed["meta"], "meta") or None,
    }


def _from_files(paths: list[str]) -> list[dict[str, Any]]:
    found = []
    for path in paths:
        try:
            with open(path, encoding="utf-8") as file:
                value = json.load(file)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise CommandError(f"Error: open {path}: {reason}") from None
        except ValueError as error:
            raise CommandError(f"Error: {path}: {error}") from None
        if not isinstance(value, dict):
            raise CommandError(f"Error: {path} does not hold an intention")
        found.append(value)
    return found


def _replaced(client: Client, finder: _Finder, one: dict[str, Any]) -> bool:
    """Update the intention between the same names; False if there is none."""
    source, to = (json.dumps(_part(one, side)) for side in ("Source", "Destination"))
    try:
        old = finder.find(_part(one, "Source"), _part(one, "Destination"))
    except CommandError as error:
        raise CommandError(
            f"Error looking up intention for replacement with source {source} "
            f"and destination {to}: {error}"
        ) from None
    if old is None:
        return False
    try:
        client.put_json(f"{_PATH}/{old['ID']}", one)
    except CommandError as error:
        raise CommandError(
            f"Error replacing intention with source {source} and destination {to}: {error}"
        ) from None
    return True


def _get(parsed: Parsed) -> int:
    client = connect(parsed)
    intention_id = _Finder(client).id(parsed.args)
    try:
        one = client.get(f"{_PATH}/{intention_id}")
    except ApiError as error:
        code = f"Unexpected response code: {error.status} ("
        text = str(error)
        if text.startswith(code):  # in the words of Consul's client for this very request
            text = f"Unexpected response {error.status}: {text[len(code) : -1]}"
        raise CommandError(f"Error reading the intention: {text}") from None
    except CommandError as error:
        raise CommandError(f"Error reading the intention: {error}") from None
    rows = [
        ["Source:", _part(one, "Source")],
        ["Destination:", _part(one, "Destination")],
        ["Action:", one["Action"]],
        ["ID:", one["ID"]],
    ]
    if one["Description"]:
        rows.append(["Description:", one["Description"]])
    rows += [[f"Meta[{key}]:", value] for key, value in sorted((one["Meta"] or {}).items())]
    rows.append(["Created At:", _local(one["CreatedAt"])])
    out(columnize(rows))
    return 0


def _local(text: str) -> str:
    """Go's RFC 850 form in the local time zone."""
    whole = text.partition(".")[0].removesuffix("Z")
    moment = datetime.fromisoformat(whole).replace(tzinfo=UTC).astimezone()
    return moment.strftime("%A, %d-%b-%y %H:%M:%S %Z")


def _match(parsed: Parsed) -> int:
    if len(parsed.args) != 1:
        raise CommandError("Error: command requires exactly one argument: src or dst")
    if parsed["source"] and parsed["destination"]:
        raise CommandError("Error: only one of -source or -destination may be specified")
    name = parsed.args[0]
    by = "source" if parsed["source"] else "destination"
    try:
        matches = connect(parsed).get(f"{_PATH}/match", {"by": by, "name": name})
    except CommandError as error:
        raise CommandError(f"Error matching the connection: {error}") from None
    for one in matches.get(name) or ():
        out(_described(one))
    return 0


def _check(parsed: Parsed) -> int:
    """Status 0 if allowed, 1 if denied, 2 if that could not be found out."""
    if len(parsed.args) != 2:
        err("Error: command requires exactly two arguments: src and dst")
        return 2
    query = {"source": parsed.args[0], "destination": parsed.args[1], "source-type": "consul"}
    try:
        allowed = connect(parsed).get(f"{_PATH}/check", query)["Allowed"]
    except CommandError as error:
        err(f"Error checking the connection: {error}")
        return 2
    out("Allowed" if allowed else "Denied")
    return 0 if allowed else 1


def _delete(parsed: Parsed) -> int:
    client = connect(parsed)
    intention_id = _Finder(client).id(parsed.args)
    try:
        client.delete(f"{_PATH}/{intention_id}")
    except CommandError as error:
        raise CommandError(f"Error reading the intention: {error}") from None
    out("Intention deleted.")
    return 0


CREATE = Command(
    usage="""
Usage: proconsul intention create [options] SRC DST
Usage: proconsul intention create [options] -file FILE...

  Says whether the service SRC may connect to DST; either may be * for all.

      $ proconsul intention create web db
      $ proconsul intention create -deny '*' db
      $ proconsul intention create -file one.json two.json""",
    run=_create,
    flags=(
        bool_flag("allow", "The connection is allowed; the default."),
        bool_flag("deny", "The connection is denied."),
        bool_flag("file", "The arguments are files that hold intentions as JSON."),
        bool_flag("replace", "Replace an intention between the same services."),
        strings_flag("meta", "Metadata as key=value; may be given several times."),
        *_API,
    ),
)

GET = Command(
    usage="""
Usage: proconsul intention get [options] SRC DST
Usage: proconsul intention get [options] ID

  Shows one intention.""",
    run=_get,
    flags=_API,
)

MATCH = Command(
    usage="""
Usage: proconsul intention match [options] SRC|DST

  Lists the intentions that concern a service, what decides first comes first.""",
    run=_match,
    flags=(
        bool_flag("source", "The service is the source."),
        bool_flag("destination", "The service is the destination; the default."),
        *_API,
    ),
)

CHECK = Command(
    usage="""
Usage: proconsul intention check [options] SRC DST

  Says whether SRC may connect to DST; status 0 if so, 1 if not, 2 on failure.""",
    run=_check,
    flags=_API,
)

DELETE = Command(
    usage="""
Usage: proconsul intention delete [options] SRC DST
Usage: proconsul intention delete [options] ID

  Deletes an intention.""",
    run=_delete,
    flags=_API,
)
