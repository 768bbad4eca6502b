"""`acl policy create`, `read`, `update`, `delete` and `list` (command/acl/policy)."""

from __future__ import annotations

import json

from proconsul.config.goflags import Parsed, bool_flag, string_flag, strings_flag
from proconsul.interfaces.cli import acl_support as s
from proconsul.interfaces.cli.client import Client
from proconsul.interfaces.cli.command import Command, CommandError, connect, err, out
from proconsul.util.goquote import go_quote

_FIELDS = (
    "ID", "Name", "Description", "Rules", "Datacenters!", "Hash!", "CreateIndex", "ModifyIndex",
    "Namespace",
)  # fmt: skip
_STUB_FIELDS = tuple(field for field in _FIELDS if field != "Rules")
_LIST, _PATH = "/v1/acl/policies", "/v1/acl/policy"
_EITHER = "Must specify either the -id or -name parameters"


def _pretty(row: s.Row, *, meta: bool) -> str:
    text = f"ID:           {row['ID']}\nName:         {row['Name']}\n"
    if row.get("Namespace"):
        text += f"Namespace:    {row['Namespace']}\n"
    text += f"Description:  {row['Description']}\n"
    text += f"Datacenters:  {', '.join(row.get('Datacenters') or ())}\n"
    if meta:
        text += s.meta_lines(row, 14)
    return f"{text}Rules:\n{row['Rules']}"


def _pretty_stub(row: s.Row, *, meta: bool) -> str:
    text = f"{row['Name']}:\n   ID:           {row['ID']}\n"
    if row.get("Namespace"):
        text += f"   Namespace:    {row['Namespace']}\n"
    text += f"   Description:  {row['Description']}\n"
    text += f"   Datacenters:  {', '.join(row.get('Datacenters') or ())}\n"
    return text + (s.meta_lines(row, 14, "   ") if meta else "")


def _show(parsed: Parsed, row: s.Row) -> int:
    return s.show(parsed, s.in_order(row, _FIELDS), _pretty(row, meta=parsed["meta"]))


def _create(parsed: Parsed) -> int:
    if not parsed["name"]:
        err("Missing require '-name' flag")
        raise CommandError(CREATE.help())
    client = connect(parsed)
    policy = {
        "Name": parsed["name"],
        "Description": parsed["description"],
        "Datacenters": parsed["valid-datacenter"] or None,
        "Rules": s.attempt("Error loading rules", lambda: _rules(client, parsed)),
    }
    what = "Failed to create new policy"
    return _show(parsed, json.loads(s.attempt(what, lambda: client.put_json(_PATH, policy))))


def _rules(client: Client, parsed: Parsed) -> str:
    if not parsed["from-token"]:
        return s.data_source(parsed["rules"])
    if parsed["rules"]:
        raise CommandError("Cannot specify both -rules and -from-token")
    from proconsul.interfaces.cli.acl_misc import legacy_rules, translated

    token = s.attempt("Invalid -from-token value", lambda: s.data_source(parsed["from-token"]))
    return translated(legacy_rules(client, token, is_secret=parsed["token-secret"]))


def _found(client: Client, parsed: Parsed) -> str:
    def find() -> str:
        if parsed["id"]:
            return s.policy_id(client, parsed["id"])
        return s.id_by_name(client, _LIST, parsed["name"], "policy")

    if not parsed["id"] and not parsed["name"]:
        raise CommandError(_EITHER)
    return str(s.attempt("Error determining policy ID", find))


def _read(parsed: Parsed) -> int:
    client = connect(parsed)
    policy_id = _found(client, parsed)
    what = f"Error reading policy {go_quote(policy_id)}"
    return _show(parsed, s.attempt(what, lambda: client.get(f"{_PATH}/{policy_id}")))


def _update(parsed: Parsed) -> int:
    client = connect(parsed)
    policy_id = _found(client, parsed)
    rules = s.attempt("Error loading data source", lambda: s.data_source(parsed["rules"]))
    path, shown = f"{_PATH}/{policy_id}", go_quote(policy_id)
    given = {
        "Name": parsed["name"],
        "Description": parsed["description"],
        "Rules": rules,
        "Datacenters": parsed["valid-datacenter"] or None,
    }
    if not parsed["no-merge"]:
        old = s.attempt(f"Error reading policy {shown}", lambda: client.get(path))
        flags = {"Name": "name", "Description": "description", "Rules": "rules"}
        flags["Datacenters"] = "valid-datacenter"
        given = {
            field: given[field] if flag in parsed.given else old.get(field)
            for field, flag in flags.items()
        }
    policy = {"ID": policy_id, **given}
    what = f"Error updating policy {shown}"
    return _show(parsed, json.loads(s.attempt(what, lambda: client.put_json(path, policy))))


def _delete(parsed: Parsed) -> int:
    client = connect(parsed)
    policy_id = _found(client, parsed)
    shown = go_quote(policy_id)
    s.attempt(f"Error deleting policy {shown}", lambda: client.delete(f"{_PATH}/{policy_id}"))
    out(f"Policy {shown} deleted successfully")
    return 0


def _list(parsed: Parsed) -> int:
    client = connect(parsed)
    rows = s.attempt("Failed to retrieve the policy list", lambda: client.get(_LIST)) or []
    shown = "".join(_pretty_stub(row, meta=parsed["meta"]) for row in rows)
    return s.show(parsed, [s.in_order(row, _STUB_FIELDS) for row in rows], shown)


_ID = string_flag(
    "id",
    "The ID of the policy. It may be specified as a unique ID prefix but will error if the prefix"
    " matches multiple policy IDs",
)
_NAME = string_flag("name", "The name of the policy.")
_SHOWN = (s.meta_flag("policy"), s.FORMAT_FLAG, *s.ROW_FLAGS)
_CONTENT = (
    string_flag("description", "A description of the policy"),
    strings_flag(
        "valid-datacenter",
        "Datacenter that the policy should be valid within. This flag may be specified multiple"
        " times",
    ),
    string_flag(
        "rules",
        "The policy rules. May be prefixed with '@' to indicate that the value is a file path to"
        " load the rules from. '-' may also be given to indicate that the rules are available on"
        " stdin",
    ),
)
CREATE = Command(
    "Usage: proconsul acl policy create -name NAME [options]",
    _create,
    (
        _NAME,
        *_CONTENT,
        string_flag(
            "from-token",
            "The legacy token to retrieve the rules for when creating this policy, in place of"
            " -rules",
        ),
        bool_flag("token-secret", "The token of -from-token is a SecretID and not an AccessorID"),
        *_SHOWN,
    ),
)
READ = Command("Usage: proconsul acl policy read [options] POLICY", _read, (_ID, _NAME, *_SHOWN))
UPDATE = Command(
    "Usage: proconsul acl policy update [options]",
    _update,
    (
        _ID,
        _NAME,
        *_CONTENT,
        bool_flag(
            "no-merge",
            "Do not merge the current policy information with what is provided to the command:"
            " overwrite all fields but the ID",
        ),
        *_SHOWN,
    ),
)
DELETE = Command(
    "Usage: proconsul acl policy delete [options] POLICY", _delete, (_ID, _NAME, *s.ROW_FLAGS)
)
LIST = Command("Usage: proconsul acl policy list [options]", _list, _SHOWN)
