"""`acl token create`, `read`, `update`, `delete`, `list`, `clone`; `acl bootstrap` (command/acl)."""

from __future__ import annotations

import json
from functools import partial

from proconsul.config.goflags import Flag, Parsed, bool_flag, string_flag
from proconsul.interfaces.cli import acl_support as s
from proconsul.interfaces.cli.command import Command, CommandError, connect, out
from proconsul.util.goduration import parse_duration_ns
from proconsul.util.goquote import go_quote

_FIELDS = (
    "CreateIndex", "ModifyIndex", "AccessorID", "SecretID", "Description", "Policies", "Roles",
    "ServiceIdentities", "NodeIdentities", "Local", "AuthMethod", "ExpirationTTL",
    "ExpirationTime", "CreateTime", "Hash", "Rules", "Namespace",
)  # fmt: skip
_STUB_FIELDS = (
    "CreateIndex", "ModifyIndex", "AccessorID", "Description", "Policies", "Roles",
    "ServiceIdentities", "NodeIdentities", "Local", "AuthMethod", "ExpirationTime", "CreateTime",
    "Hash!", "Legacy", "Namespace",
)  # fmt: skip
_PATH = "/v1/acl/token"
_LINKS = (
    "policy-name", "policy-id", "role-name", "role-id", "service-identity", "node-identity",
)  # fmt: skip


def _head(row: s.Row, *, secret: bool) -> str:
    text = f"AccessorID:       {row['AccessorID']}\n"
    if secret:
        text += f"SecretID:         {row['SecretID']}\n"
    if row.get("Namespace"):
        text += f"Namespace:        {row['Namespace']}\n"
    text += f"Description:      {row['Description']}\n"
    text += f"Local:            {str(row['Local']).lower()}\n"
    if row.get("AuthMethod"):
        text += f"Auth Method:      {row['AuthMethod']}\n"
    text += f"Create Time:      {s.go_time(row['CreateTime'])}\n"
    if row.get("ExpirationTime"):
        text += f"Expiration Time:  {s.go_time(row['ExpirationTime'])}\n"
    return text


def pretty(row: s.Row, *, meta: bool) -> str:
    text = _head(row, secret=True)
    if meta:
        text += s.meta_lines(row, 18)
    text += s.link_lines("Policies", row.get("Policies"))
    text += s.link_lines("Roles", row.get("Roles"))
    text += s.identity_lines(row)
    if row.get("Rules"):
        text += f"Rules:\n{row['Rules']}\n"
    return text


def _pretty_stub(row: s.Row, *, meta: bool) -> str:
    text = _head(row, secret=False) + f"Legacy:           {str(row['Legacy']).lower()}\n"
    if meta:
        text += s.meta_lines(row, 18)
    text += s.link_lines("Policies", row.get("Policies"))
    text += s.link_lines("Roles", row.get("Roles"))
    text += s.service_lines("Service Identities", row)
    if row.get("NodeIdentities"):
        # Consul shows the services once more here.
        text += s.service_lines("Service Identities", row) or "Service Identities:\n"
    return text


def _show(parsed: Parsed, row: s.Row, *, meta: bool) -> int:
    return s.show(parsed, s.in_order(row, _FIELDS), pretty(row, meta=meta))


def _create(parsed: Parsed) -> int:
    if not any(parsed[flag] for flag in _LINKS):
        raise CommandError(
            "Cannot create a token without specifying -policy-name, -policy-id, -role-name,"
            " -role-id, -service-identity, or -node-identity at least once"
        )
    client = connect(parsed)
    token: s.Row = {"Description": parsed["description"], "Local": parsed["local"]}
    for field, flag in (("AccessorID", "accessor"), ("SecretID", "secret")):
        if parsed[flag]:
            token[field] = parsed[flag]
    if parsed["expires-ttl"] > 0:
        token["ExpirationTTL"] = parsed["expires-ttl"]
    token["ServiceIdentities"] = s.service_identities(parsed)
    token["NodeIdentities"] = s.node_identities(parsed)
    token["Policies"] = s.links(client, parsed, "policy")
    token["Roles"] = s.links(client, parsed, "role")
    row = json.loads(s.attempt("Failed to create new token", lambda: client.put_json(_PATH, token)))
    return _show(parsed, row, meta=parsed["meta"])


def _found(parsed: Parsed) -> str:
    client = connect(parsed)
    part = parsed["id"]
    return str(s.attempt("Error determining token ID", lambda: s.token_id(client, part)))


def _read(parsed: Parsed) -> int:
    client = connect(parsed)
    if parsed["self"]:
        row = s.attempt("Error reading token", lambda: client.get(f"{_PATH}/self"))
    elif not parsed["id"]:
        raise CommandError("Must specify the -id parameter")
    else:
        accessor = _found(parsed)
        what = f"Error reading token {go_quote(accessor)}"
        row = s.attempt(what, lambda: client.get(f"{_PATH}/{accessor}"))
    return _show(parsed, row, meta=parsed["meta"])


def _update(parsed: Parsed) -> int:
    if not parsed["id"]:
        raise CommandError("Cannot update a token without specifying the -id parameter")
    client, accessor = connect(parsed), _found(parsed)
    path = f"{_PATH}/{accessor}"
    token = s.attempt("Error when retrieving current token", lambda: client.get(path))
    if parsed["upgrade-legacy"]:
        if not token.get("Rules"):
            raise CommandError("Can't use -upgrade-legacy on a non-legacy token")
        del token["Rules"]
    if parsed["description"]:
        token["Description"] = parsed["description"]
    services, nodes = s.service_identities(parsed), s.node_identities(parsed)
    policies, roles = s.links(client, parsed, "policy"), s.links(client, parsed, "role")
    token["Policies"] = s.merged_links(
        token.get("Policies") if parsed["merge-policies"] else (), policies
    )
    token["Roles"] = s.merged_links(token.get("Roles") if parsed["merge-roles"] else (), roles)
    if parsed["merge-service-identities"]:
        services = s.merged_services(token.get("ServiceIdentities"), services)
    if parsed["merge-node-identities"]:
        nodes = s.merged_nodes(token.get("NodeIdentities"), nodes)
    token |= {"ServiceIdentities": services, "NodeIdentities": nodes}
    what = f"Failed to update token {accessor}"
    row = json.loads(s.attempt(what, lambda: client.put_json(path, token)))
    return _show(parsed, row, meta=parsed["meta"])


def _delete(parsed: Parsed) -> int:
    if not parsed["id"]:
        raise CommandError("Must specify the -id parameter")
    client, accessor = connect(parsed), _found(parsed)
    shown = go_quote(accessor)
    s.attempt(f"Error deleting token {shown}", lambda: client.delete(f"{_PATH}/{accessor}"))
    out(f"Token {shown} deleted successfully")
    return 0


def _list(parsed: Parsed) -> int:
    client = connect(parsed)
    rows = s.attempt("Failed to retrieve the token list", lambda: client.get("/v1/acl/tokens"))
    rows = [{"Legacy": False, **row} for row in rows or ()]
    shown = "\n".join(_pretty_stub(row, meta=parsed["meta"]) for row in rows)
    return s.show(parsed, [s.in_order(row, _STUB_FIELDS) for row in rows], shown)


def _clone(parsed: Parsed) -> int:
    if not parsed["id"]:
        raise CommandError("Cannot update a token without specifying the -id parameter")
    client, accessor = connect(parsed), _found(parsed)
    body = {"Description": parsed["description"]}
    send = partial(client.put_json, f"{_PATH}/{accessor}/clone", body)
    return _show(parsed, json.loads(s.attempt("Error cloning token", send)), meta=False)


def _bootstrap(parsed: Parsed) -> int:
    client = connect(parsed)
    row = json.loads(s.attempt("Failed ACL bootstrapping", lambda: client.put("/v1/acl/bootstrap")))
    row.pop("ID", None)
    return _show(parsed, row, meta=False)


_ID = string_flag(
    "id",
    "The Accessor ID of the token. It may be specified as a unique ID prefix but will error if the"
    " prefix matches multiple token Accessor IDs",
)
_DESCRIPTION = string_flag("description", "A description of the token")
_SHOWN = (s.FORMAT_FLAG, *s.ROW_FLAGS)
_META = s.meta_flag("token")


def _merge(noun: str) -> Flag:
    name = noun.replace(" ", "-")
    return bool_flag(f"merge-{name}", f"Merge the new {noun} with the existing {noun}")


CREATE = Command(
    "Usage: proconsul acl token create [options]",
    _create,
    (
        string_flag("accessor", "Create the token with this Accessor ID, which must be a UUID"),
        string_flag("secret", "Create the token with this Secret ID, which must be a UUID"),
        bool_flag("local", "Create this as a datacenter local token"),
        Flag(
            "expires-ttl",
            "Duration of time this token should be valid for",
            parse=parse_duration_ns,
            default=0,
            value_name="duration",
        ),
        _DESCRIPTION,
        _META,
        *s.link_flags("token", roles=True),
        *_SHOWN,
    ),
)
READ = Command(
    "Usage: proconsul acl token read [options] -id TOKENID",
    _read,
    (
        _ID,
        bool_flag("self", "Read the token of this request instead of one with an -id"),
        _META,
        *_SHOWN,
    ),
)
UPDATE = Command(
    "Usage: proconsul acl token update [options]",
    _update,
    (
        _ID,
        _DESCRIPTION,
        _merge("policies"),
        _merge("roles"),
        _merge("service identities"),
        _merge("node identities"),
        bool_flag(
            "upgrade-legacy",
            "Add new polices to a legacy token replacing all existing rules. It keeps its Secret."
            " WARNING: you must ensure that they grant equivalent or appropriate access for the"
            " existing clients using this token.",
        ),
        _META,
        *s.link_flags("token", roles=True),
        *_SHOWN,
    ),
)
DELETE = Command(
    "Usage: proconsul acl token delete [options] -id TOKEN", _delete, (_ID, *s.ROW_FLAGS)
)
LIST = Command("Usage: proconsul acl token list [options]", _list, (_META, *_SHOWN))
CLONE = Command("Usage: proconsul acl token clone [options]", _clone, (_ID, _DESCRIPTION, *_SHOWN))
BOOTSTRAP = Command(
    "Usage: proconsul acl bootstrap [options]\n\n"
    "  Makes the first token, for everything. It can be made once.",
    _bootstrap,
    (s.FORMAT_FLAG, *s.API_FLAGS),
)
