"""`acl role create`, `read`, `update`, `delete` and `list` (command/acl/role)."""

from __future__ import annotations

import json

from proconsul.config.goflags import Parsed, bool_flag, string_flag
from proconsul.interfaces.cli import acl_support as s
from proconsul.interfaces.cli.command import Command, CommandError, connect, err, out
from proconsul.util.goquote import go_quote

_FIELDS = (
    "ID", "Name", "Description", "Policies", "ServiceIdentities", "NodeIdentities", "Hash!",
    "CreateIndex", "ModifyIndex", "Namespace",
)  # fmt: skip
_LIST, _PATH = "/v1/acl/roles", "/v1/acl/role"


def _pretty(row: s.Row, *, meta: bool) -> str:
    text = f"ID:           {row['ID']}\nName:         {row['Name']}\n"
    if row.get("Namespace"):
        text += f"Namespace:    {row['Namespace']}\n"
    text += f"Description:  {row['Description']}\n"
    if meta:
        text += s.meta_lines(row, 14)
    return text + s.link_lines("Policies", row.get("Policies")) + s.identity_lines(row)


def _pretty_stub(row: s.Row, *, meta: bool) -> str:
    indent = "   "
    text = f"{row['Name']}:\n   ID:           {row['ID']}\n"
    if row.get("Namespace"):
        text += f"   Namespace:    {row['Namespace']}\n"
    text += f"   Description:  {row['Description']}\n"
    if meta:
        text += s.meta_lines(row, 14, indent)
    links = s.link_lines("Policies", row.get("Policies"), indent)
    return text + links + s.identity_lines(row, indent)


def _show(parsed: Parsed, row: s.Row) -> int:
    return s.show(parsed, s.in_order(row, _FIELDS), _pretty(row, meta=parsed["meta"]))


def _create(parsed: Parsed) -> int:
    if not parsed["name"]:
        err("Missing require '-name' flag")
        raise CommandError(CREATE.help())
    if not any(
        parsed[flag] for flag in ("policy-name", "policy-id", "service-identity", "node-identity")
    ):
        raise CommandError(
            "Cannot create a role without specifying -policy-name, -policy-id, -service-identity,"
            " or -node-identity at least once"
        )
    client = connect(parsed)
    role = {
        "Name": parsed["name"],
        "Description": parsed["description"],
        "Policies": s.links(client, parsed, "policy"),
        "ServiceIdentities": s.service_identities(parsed),
        "NodeIdentities": s.node_identities(parsed),
    }
    what = "Failed to create new role"
    return _show(parsed, json.loads(s.attempt(what, lambda: client.put_json(_PATH, role))))


def _read(parsed: Parsed) -> int:
    client = connect(parsed)
    if parsed["id"]:
        role_id = s.attempt("Error determining role ID", lambda: s.role_id(client, parsed["id"]))
        shown, path, how = go_quote(role_id), f"{_PATH}/{role_id}", "ID"
    elif parsed["name"]:
        shown, path, how = go_quote(parsed["name"]), f"{_PATH}/name/{parsed['name']}", "name"
    else:
        raise CommandError("Must specify either the -id or -name parameters")
    row = s.attempt(f"Error reading role {shown}", lambda: client.get_or_none(path))
    if row is None:
        raise CommandError(f"Role not found with {how} {shown}")
    return _show(parsed, row)


def _update(parsed: Parsed) -> int:
    if not parsed["id"]:
        raise CommandError("Cannot update a role without specifying the -id parameter")
    client = connect(parsed)
    role_id = s.attempt("Error determining role ID", lambda: s.role_id(client, parsed["id"]))
    services, nodes = s.service_identities(parsed), s.node_identities(parsed)
    path, shown = f"{_PATH}/{role_id}", go_quote(role_id)
    old = s.attempt("Error when retrieving current role", lambda: client.get_or_none(path))
    if old is None:
        raise CommandError(f"Role not found with ID {shown}")
    role = {
        "ID": role_id,
        "Name": parsed["name"],
        "Description": parsed["description"],
        "Policies": s.links(client, parsed, "policy"),
        "ServiceIdentities": services,
        "NodeIdentities": nodes,
    }
    if not parsed["no-merge"]:
        role |= {
            "Name": parsed["name"] or old["Name"],
            "Description": parsed["description"] or old["Description"],
            "Policies": s.merged_links(old.get("Policies"), role["Policies"]),
            "ServiceIdentities": s.merged_services(old.get("ServiceIdentities"), services),
            "NodeIdentities": s.merged_nodes(old.get("NodeIdentities"), nodes),
        }
    what = f"Error updating role {shown}"
    return _show(parsed, json.loads(s.attempt(what, lambda: client.put_json(path, role))))


def _delete(parsed: Parsed) -> int:
    if not parsed["id"] and not parsed["name"]:
        raise CommandError("Must specify the -id or -name parameters")
    client = connect(parsed)

    def find() -> str:
        if parsed["id"]:
            return s.role_id(client, parsed["id"])
        return s.id_by_name(client, _LIST, parsed["name"], "role")

    role_id = s.attempt("Error determining role ID", find)
    shown = go_quote(role_id)
    s.attempt(f"Error deleting role {shown}", lambda: client.delete(f"{_PATH}/{role_id}"))
    out(f"Role {shown} deleted successfully")
    return 0


def _list(parsed: Parsed) -> int:
    client = connect(parsed)
    rows = s.attempt("Failed to retrieve the role list", lambda: client.get(_LIST)) or []
    shown = "".join(_pretty_stub(row, meta=parsed["meta"]) for row in rows)
    return s.show(parsed, [s.in_order(row, _FIELDS) for row in rows], shown)


_ID = string_flag(
    "id",
    "The ID of the role. It may be specified as a unique ID prefix but will error if the prefix"
    " matches multiple role IDs",
)
_NAME = string_flag("name", "The name of the role.")
_DESCRIPTION = string_flag("description", "A description of the role")
_SHOWN = (s.meta_flag("role"), s.FORMAT_FLAG, *s.ROW_FLAGS)
_CONTENT = (_NAME, _DESCRIPTION, *s.link_flags("role", roles=False), *_SHOWN)

CREATE = Command("Usage: proconsul acl role create -name NAME [options]", _create, _CONTENT)
READ = Command("Usage: proconsul acl role read [options] ROLE", _read, (_ID, _NAME, *_SHOWN))
UPDATE = Command(
    "Usage: proconsul acl role update [options]",
    _update,
    (
        _ID,
        bool_flag(
            "no-merge",
            "Do not merge the current role information with what is provided to the command:"
            " overwrite all fields but the ID",
        ),
        *_CONTENT,
    ),
)
DELETE = Command(
    "Usage: proconsul acl role delete [options] -id ROLE", _delete, (_ID, _NAME, *s.ROW_FLAGS)
)
LIST = Command("Usage: proconsul acl role list [options]", _list, _SHOWN)
