"""`acl set-agent-token`, `translate-rules`, `auth-method`, `binding-rule` (command/acl)."""

from __future__ import annotations

import json
from dataclasses import replace

from proconsul.config.goflags import Parsed, bool_flag, string_flag
from proconsul.interfaces.cli import acl_support as s
from proconsul.interfaces.cli.client import Client
from proconsul.interfaces.cli.command import Command, CommandError, connect, out
from proconsul.util.goquote import go_quote

_KINDS = {
    "default": "default",
    "agent": "agent",
    "master": "agent_master",
    "replication": "replication",
}


def _set_agent_token(parsed: Parsed) -> int:
    args = parsed.args
    if not args:
        raise CommandError("Error! Missing TYPE and TOKEN arguments")
    if len(args) == 1:
        missing = "Missing TOKEN argument" if args[0] in _KINDS else "MISSING TYPE argument"
        raise CommandError(f"Error! {missing}")
    if len(args) > 2:
        raise CommandError(f"Error! Too many arguments: expected 2 got {len(args)}")
    kind, given = args
    try:
        token = s.data_source(given)
    except CommandError as error:
        raise CommandError(f"Error! {error}") from None
    if kind not in _KINDS:
        raise CommandError("Unknown token type")
    client, shown = connect(parsed), go_quote(kind)
    s.attempt(
        f"Failed to set ACL token {shown}",
        lambda: client.put_json(f"/v1/agent/token/{_KINDS[kind]}", {"Token": token}),
    )
    out(f"ACL token {shown} set successfully")
    return 0


# --- rules of before Consul 1.4


def legacy_rules(client: Client, part: str, *, is_secret: bool) -> str:
    """Of a legacy token, by its secret or its accessor. Raises CommandError."""
    if is_secret:
        client = Client(replace(client.settings, token=part))
        path = "/v1/acl/token/self"
    else:
        path = f"/v1/acl/token/{s.token_id(client, part)}"
    token = s.attempt("Error reading token", lambda: client.get(path))
    if not token.get("Rules"):
        raise CommandError("Token is not a legacy token with rules")
    return str(token["Rules"])


def translated(rules: str) -> str:
    """In today's syntax. Raises CommandError."""
    from proconsul.domain.acl_rules import RulesError
    from proconsul.domain.acl_translate import translate_legacy_rules

    try:
        return translate_legacy_rules(rules)
    except RulesError as error:
        raise CommandError(str(error)) from None


def _translate(parsed: Parsed) -> int:
    if parsed["token-secret"] and parsed["token-accessor"]:
        raise CommandError("Error - cannot specify both -token-secret and -token-accessor")
    if len(parsed.args) != 1:
        raise CommandError(
            f"Error! Too many arguments: expected 1 got {len(parsed.args)}"
            if parsed.args
            else "Error! Missing TRANSLATE argument"
        )
    try:
        data = s.data_source(parsed.args[0])
    except CommandError as error:
        raise CommandError(f"Error! {error}") from None
    if parsed["token-secret"] or parsed["token-accessor"]:
        client = connect(parsed)
        data = legacy_rules(client, data.strip(), is_secret=parsed["token-secret"])
    out(s.attempt("Error translating rules", lambda: translated(data)))
    return 0


# --- auth methods

_METHOD_FIELDS = (
    "MaxTokenTTL", "Name", "Type", "DisplayName", "Description", "TokenLocality", "Config!",
    "CreateIndex", "ModifyIndex", "Namespace",
)  # fmt: skip


def _pretty_method(row: s.Row, *, meta: bool) -> str:
    text = f"Name:          {row['Name']}\nType:          {row['Type']}\n"
    if row.get("DisplayName"):
        text += f"DisplayName:   {row['DisplayName']}\n"
    text += f"Description:   {row.get('Description', '')}\n"
    for field in ("MaxTokenTTL", "TokenLocality"):
        if row.get(field):
            text += f"{field}:".ljust(15) + f"{row[field]}\n"
    if meta:
        text += s.meta_lines(row, 15, digest=False)
    return f"{text}Config:\n{json.dumps(row.get('Config'), indent=2, sort_keys=True)}"


def _pretty_method_stub(row: s.Row, *, meta: bool) -> str:
    text = f"{row['Name']}:\n   Type:         {row['Type']}\n"
    if row.get("DisplayName"):
        text += f"   DisplayName:  {row['DisplayName']}\n"
    text += f"   Description:  {row.get('Description', '')}\n"
    return text + (s.meta_lines(row, 14, "   ", digest=False) if meta else "")


def _methods(parsed: Parsed) -> int:
    client = connect(parsed)
    what = "Failed to retrieve the auth method list"
    rows = s.attempt(what, lambda: client.get("/v1/acl/auth-methods")) or []
    shown = "".join(_pretty_method_stub(row, meta=parsed["meta"]) for row in rows)
    return s.show(parsed, rows, shown)


def _method(parsed: Parsed) -> int:
    name = parsed["name"]
    if not name:
        raise CommandError("Must specify the -name parameter")
    client, shown = connect(parsed), go_quote(name)
    row = s.attempt(
        f"Error reading auth method {shown}",
        lambda: client.get_or_none(f"/v1/acl/auth-method/{name}"),
    )
    if row is None:
        raise CommandError(f"Auth method not found with name {shown}")
    pretty = _pretty_method(row, meta=parsed["meta"])
    return s.show(parsed, s.in_order(row, _METHOD_FIELDS), pretty)


# --- binding rules


def _rule_lines(row: s.Row, indent: str, *, meta: bool) -> str:
    text = "".join(
        f"{indent}{field}:".ljust(14 + len(indent)) + f"{row[field]}\n"
        for field in ("AuthMethod", "Description", "BindType", "BindName", "Selector")
    )
    return text + (s.meta_lines(row, 14, indent, digest=False) if meta else "")


def _rules(parsed: Parsed) -> int:
    client = connect(parsed)
    query = {"authmethod": parsed["method"]} if parsed["method"] else None
    what = "Failed to retrieve the binding rule list"
    rows = s.attempt(what, lambda: client.get("/v1/acl/binding-rules", query)) or []
    shown = "".join(
        f"{row['ID']}:\n" + _rule_lines(row, "   ", meta=parsed["meta"]) for row in rows
    )
    return s.show(parsed, rows, shown)


def _rule(parsed: Parsed) -> int:
    if not parsed["id"]:
        raise CommandError("Must specify the -id parameter.")
    client = connect(parsed)
    what = "Error determining binding rule ID"
    rule_id = s.attempt(what, lambda: s.rule_id(client, parsed["id"]))
    shown = go_quote(rule_id)
    row = s.attempt(
        f"Error reading binding rule {shown}",
        lambda: client.get_or_none(f"/v1/acl/binding-rule/{rule_id}"),
    )
    if row is None:
        raise CommandError(f"Binding rule not found with ID {shown}")
    pretty = f"ID:           {row['ID']}\n" + _rule_lines(row, "", meta=parsed["meta"])
    return s.show(parsed, row, pretty)


_SHOWN = (s.FORMAT_FLAG, *s.ROW_FLAGS)
TRANSLATE = Command(
    "Usage: proconsul acl translate-rules [options] TRANSLATE\n\n"
    "  TRANSLATE is the rules, @file, - for stdin, or the token that has them.",
    _translate,
    (
        bool_flag("token-accessor", "TRANSLATE is the AccessorID of a token that has the rules"),
        bool_flag("token-secret", "TRANSLATE is the SecretID of a token that has the rules"),
        *s.API_FLAGS,
    ),
)
SET_AGENT_TOKEN = Command(
    "Usage: proconsul acl set-agent-token [options] TYPE TOKEN\n\n"
    "  TYPE is default, agent, master or replication; TOKEN the secret, @file, or - for stdin.",
    _set_agent_token,
    s.API_FLAGS,
)
METHODS = Command(
    "Usage: proconsul acl auth-method list [options]",
    _methods,
    (s.meta_flag("auth method"), *_SHOWN),
)
METHOD = Command(
    "Usage: proconsul acl auth-method read -name NAME [options]",
    _method,
    (
        s.meta_flag("auth method"),
        string_flag("name", "The name of the auth method to read."),
        *_SHOWN,
    ),
)
RULES = Command(
    "Usage: proconsul acl binding-rule list [options]",
    _rules,
    (
        s.meta_flag("binding rule"),
        string_flag("method", "Only show rules linked to the auth method with the given name."),
        *_SHOWN,
    ),
)
RULE = Command(
    "Usage: proconsul acl binding-rule read -id ID [options]",
    _rule,
    (
        s.meta_flag("binding rule"),
        string_flag(
            "id",
            "The ID of the binding rule to read, or a unique prefix of it",
        ),
        *_SHOWN,
    ),
)
