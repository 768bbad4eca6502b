"""What the `acl` commands share: rows found by parts of their ids, identities, and how rows are shown."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from proconsul.config.goflags import Flag, Parsed, bool_flag, string_flag, strings_flag
from proconsul.interfaces.cli.client import Client
from proconsul.interfaces.cli.command import (
    CLIENT_FLAGS,
    NAMESPACE_FLAGS,
    SERVER_FLAGS,
    CommandError,
    load_data,
    out,
)

Row = dict[str, Any]

API_FLAGS = (*CLIENT_FLAGS, *SERVER_FLAGS)
ROW_FLAGS = (*API_FLAGS, *NAMESPACE_FLAGS)
FORMAT_FLAG = string_flag("format", "Output format {pretty|json}", "pretty")
POLICY_MANAGEMENT_ID = "00000000-0000-0000-0000-000000000001"
TOKEN_ANONYMOUS_ID = "00000000-0000-0000-0000-000000000002"  # an id, no secret
_ID_LENGTH = 36


def meta_flag(noun: str) -> Flag:
    return bool_flag(
        "meta",
        f"Indicates that {noun} metadata such as the content hash and raft indices should be shown"
        " for each entry",
    )


def link_flags(noun: str, *, roles: bool) -> tuple[Flag, ...]:
    """What a token or role is given."""
    many = "May be specified multiple times"
    kinds = ("policy", "role") if roles else ("policy",)
    links = [
        flag
        for kind in kinds
        for flag in (
            strings_flag(f"{kind}-id", f"ID of a {kind} to use for this {noun}. {many}"),
            strings_flag(f"{kind}-name", f"Name of a {kind} to use for this {noun}. {many}"),
        )
    ]
    return (
        *links,
        strings_flag(
            "service-identity",
            f"Name of a service identity to use for this {noun}. {many}. Format is the SERVICENAME"
            " or SERVICENAME:DATACENTER1,DATACENTER2,...",
        ),
        strings_flag(
            "node-identity",
            f"Name of a node identity to use for this {noun}. {many}. Format is"
            " NODENAME:DATACENTER",
        ),
    )


def attempt(what: str, work: Callable[[], Any]) -> Any:
    """The outcome of `work`, whose failure is told after `what`."""
    try:
        return work()
    except CommandError as error:
        raise CommandError(f"{what}: {error}") from None


def data_source(argument: str) -> str:
    """`@file`, `-` for standard input, or the text itself. Raises CommandError."""
    try:
        return load_data(argument).decode("utf-8", "surrogateescape")
    except CommandError as error:
        raise CommandError(str(error).removeprefix("Error! ")) from None


# --- finding rows


def _of_part(client: Client, path: str, part: str, field: str, noun: str) -> str:
    if len(part) == _ID_LENGTH:
        return part
    found = [row[field] for row in client.get(path) or () if row[field].startswith(part)]
    if len(found) > 1:
        raise CommandError(f"Partial {noun} ID is not unique")
    if not found:
        raise CommandError(f"No such {noun} ID with prefix: {part}")
    return str(found[0])


def token_id(client: Client, part: str) -> str:
    """The accessor that begins so. Raises CommandError."""
    if part == "anonymous":
        return TOKEN_ANONYMOUS_ID
    return _of_part(client, "/v1/acl/tokens", part, "AccessorID", "token")


def policy_id(client: Client, part: str) -> str:
    """The id that begins so. Raises CommandError."""
    if part == "global-management":
        return POLICY_MANAGEMENT_ID
    return _of_part(client, "/v1/acl/policies", part, "ID", "policy")


def role_id(client: Client, part: str) -> str:
    """The id that begins so. Raises CommandError."""
    return _of_part(client, "/v1/acl/roles", part, "ID", "role")


def rule_id(client: Client, part: str) -> str:
    """The id that begins so. Raises CommandError."""
    return _of_part(client, "/v1/acl/binding-rules", part, "ID", "rule")


def id_by_name(client: Client, path: str, name: str, noun: str) -> str:
    """The id of the one with exactly this name. Raises CommandError."""
    for row in client.get(path) or ():
        if row["Name"] == name:
            return str(row["ID"])
    raise CommandError(f"No such {noun} with name {name}")


def links(client: Client, parsed: Parsed, kind: str) -> list[Row]:
    """Links by name and by parts of ids, as the flags have them. Raises CommandError."""
    find = policy_id if kind == "policy" else role_id
    by_id = [
        {"ID": attempt(f"Error resolving {kind} ID {part}", partial(find, client, part))}
        for part in parsed[f"{kind}-id"]
    ]
    return [*({"Name": name} for name in parsed[f"{kind}-name"]), *by_id]


def merged_links(have: Sequence[Row] | None, more: Sequence[Row]) -> list[Row]:
    """What is there, and what is not there yet."""
    rows = list(have or ())
    for link in more:
        key = "ID" if "ID" in link else "Name"
        if all(row.get(key) != link[key] for row in rows):
            rows.append(link)
    return rows


def service_identities(parsed: Parsed) -> list[Row]:
    """Raises CommandError."""
    found: list[Row] = []
    for text in parsed["service-identity"]:
        name, colon, where = text.partition(":")
        if ":" in where:
            raise CommandError(f"Malformed -service-identity argument: {json.dumps(text)}")
        found.append({"ServiceName": name} | ({"Datacenters": where.split(",")} if colon else {}))
    return found


def node_identities(parsed: Parsed) -> list[Row]:
    """Raises CommandError."""
    found: list[Row] = []
    for text in parsed["node-identity"]:
        name, colon, where = text.partition(":")
        if not colon or ":" in where:
            raise CommandError(f"Malformed -node-identity argument: {json.dumps(text)}")
        found.append({"NodeName": name, "Datacenter": where})
    return found


def merged_services(have: Sequence[Row] | None, more: Sequence[Row]) -> list[Row]:
    """Those of the same name are replaced."""
    rows = {row["ServiceName"]: row for row in (*(have or ()), *more)}
    return list(rows.values())


def merged_nodes(have: Sequence[Row] | None, more: Sequence[Row]) -> list[Row]:
    rows = {(row["NodeName"], row["Datacenter"]): row for row in (*(have or ()), *more)}
    return list(rows.values())


# --- showing rows


def check_format(parsed: Parsed) -> None:
    """Raises CommandError."""
    if parsed["format"] not in ("pretty", "json"):
        raise CommandError(f"Unknown format: {parsed['format']}")


def show(parsed: Parsed, value: Any, pretty: str) -> int:
    """The value in the form that was asked for; nothing where there is nothing."""
    check_format(parsed)
    text = as_json(value) if parsed["format"] == "json" else pretty
    if text:
        out(text)
    return 0


def as_json(value: Any) -> str:
    """As Go indents and escapes it."""
    text = json.dumps(value, indent=4, ensure_ascii=False)
    for plain, escaped in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")):
        text = text.replace(plain, escaped)
    return text


def in_order(row: Row, fields: Sequence[str]) -> Row:
    """The fields that there are, in Go's order; one that is marked `!` is never left out."""
    ordered: Row = {}
    for field in fields:
        name = field.removesuffix("!")
        if field.endswith("!") or name in row:
            ordered[name] = row.get(name)
    return ordered


def meta_lines(row: Row, width: int, indent: str = "", *, digest: bool = True) -> str:
    """Hash and indexes, in a column of `width`."""
    lines = ""
    if digest:
        raw = base64.b64decode(row.get("Hash") or "")
        lines += indent + "Hash:".ljust(width) + raw.hex() + "\n"
    lines += indent + "Create Index:".ljust(width) + f"{row['CreateIndex']}\n"
    return lines + indent + "Modify Index:".ljust(width) + f"{row['ModifyIndex']}\n"


def link_lines(title: str, rows: Sequence[Row] | None, indent: str = "") -> str:
    if not rows:
        return ""
    return f"{indent}{title}:\n" + "".join(
        f"{indent}   {row['ID']} - {row['Name']}\n" for row in rows
    )


def identity_lines(row: Row, indent: str = "") -> str:
    """Service and node identities."""
    text = service_lines("Service Identities", row, indent)
    nodes = row.get("NodeIdentities")
    if nodes:
        text += f"{indent}Node Identities:\n" + "".join(
            f"{indent}   {one['NodeName']} (Datacenter: {one['Datacenter']})\n" for one in nodes
        )
    return text


def service_lines(title: str, row: Row, indent: str = "") -> str:
    rows = row.get("ServiceIdentities")
    if not rows:
        return ""
    return f"{indent}{title}:\n" + "".join(
        f"{indent}   {one['ServiceName']} "
        f"(Datacenters: {', '.join(one.get('Datacenters') or ()) or 'all'})\n"
        for one in rows
    )


def go_time(text: str) -> str:
    """RFC 3339 as Go prints a time: `2006-01-02 15:04:05.999 +0000 UTC`."""
    whole, dot, rest = text.partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))] if dot else ""
    zone = rest[len(digits) :] if dot else ""
    moment = datetime.fromisoformat(whole + zone)
    fraction = f".{digits.rstrip('0')}" if digits.rstrip("0") else ""
    name = "UTC" if moment.utcoffset() == UTC.utcoffset(None) else moment.strftime("%z")
    return f"{moment.strftime('%Y-%m-%d %H:%M:%S')}{fraction} {moment.strftime('%z')} {name}"
