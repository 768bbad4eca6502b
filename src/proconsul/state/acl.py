"""The commands of the ACL tables (`agent/consul/state/acl.go`): what they check, set and take along.

No query of ours serves these rows yet. They are kept as decoded maps (text as bytes, exactly as
received) in `Tables.opaque`, so that a snapshot gives them back whole; but commands are refused
and followed by the same changes as Consul's, or servers of one quorum would differ. Unlike Consul
we do not rewrite rules in the syntax of before 0.8 in tokens of before 1.4.
"""

from __future__ import annotations

import hashlib
from typing import Any

from proconsul.domain.messages import MessageType
from proconsul.state.errors import StateError
from proconsul.state.rows import (
    METHODS,
    POLICIES,
    ROLES,
    RULES,
    TOKENS,
    Kind,
    Row,
    as_list,
    as_map,
    key_named,
)
from proconsul.state.rows import delete as delete_row
from proconsul.state.rows import put as put_row
from proconsul.state.tables import Transaction
from proconsul.wire.msgpack import as_text, as_uint

ANONYMOUS_ID = b"00000000-0000-0000-0000-000000000002"
MANAGEMENT_ID = b"00000000-0000-0000-0000-000000000001"
BOOTSTRAP = "acl-token-bootstrap"
"""Index of the last bootstrap."""
_ZERO_TIME = b"\x01" + bytes(12) + b"\xff\xff"
_BUILTIN = "builtin global-management policy is not permitted"


def apply(tx: Transaction, type_: MessageType, request: Row) -> Any:
    """Apply one of the ACL commands."""
    match type_:
        case MessageType.ACL:
            return _legacy(tx, request)
        case MessageType.ACL_BOOTSTRAP:
            _bootstrap(tx, as_map(request.get(b"Token")), as_uint(request.get(b"ResetIndex")))
        case MessageType.ACL_TOKEN_SET:
            for row in as_list(request.get(b"Tokens")):
                set_token(tx, as_map(row), request)
        case MessageType.ACL_TOKEN_DELETE:
            for accessor in as_list(request.get(b"TokenIDs")):
                _delete_token(tx, key_named(tx.t, TOKENS, as_text(accessor)))
        case MessageType.ACL_POLICY_SET:
            for row in as_list(request.get(b"Policies")):
                _set_policy(tx, as_map(row))
        case MessageType.ACL_POLICY_DELETE:
            for row_id in as_list(request.get(b"PolicyIDs")):
                if row_id == MANAGEMENT_ID and as_text(row_id) in rows(tx, POLICIES):
                    raise StateError(f"Deletion of the {_BUILTIN}")
                delete_row(tx, POLICIES, as_text(row_id))
        case MessageType.ACL_ROLE_SET:
            for row in as_list(request.get(b"Roles")):
                _set_role(tx, as_map(row), allow_missing=bool(request.get(b"AllowMissingLinks")))
        case MessageType.ACL_ROLE_DELETE:
            for row_id in as_list(request.get(b"RoleIDs")):
                delete_row(tx, ROLES, as_text(row_id))
        case MessageType.ACL_BINDING_RULE_SET:
            for row in as_list(request.get(b"BindingRules")):
                _set_rule(tx, as_map(row))
        case MessageType.ACL_BINDING_RULE_DELETE:
            for row_id in as_list(request.get(b"BindingRuleIDs")):
                delete_row(tx, RULES, as_text(row_id))
        case MessageType.ACL_AUTH_METHOD_SET:
            for row in as_list(request.get(b"AuthMethods")):
                _set_method(tx, as_map(row))
        case _:
            for name in as_list(request.get(b"AuthMethodNames")):
                _delete_method(tx, as_text(name))
    return None


def rows(tx: Transaction, kind: Kind) -> dict[str, Row]:
    """The rows of a table by their key."""
    return tx.t.opaque.get(kind.record, {})


# --- tokens


def _bootstrap(tx: Transaction, token: Row, reset_index: int, *, legacy: bool = False) -> None:
    found = tx.t.index.get(BOOTSTRAP)
    if found is not None and reset_index == 0:
        raise StateError("ACL bootstrap no longer allowed")
    if found is not None and reset_index != found:
        raise StateError("Invalid ACL bootstrap reset index")
    try:
        set_token(tx, token, {}, legacy=legacy)
    except StateError as error:
        raise StateError(f"failed inserting bootstrap token: {error}") from error
    tx.bump(BOOTSTRAP)


def set_token(tx: Transaction, token: Row, options: Row, *, legacy: bool = False) -> None:
    """Insert or replace a token. `options` are the request's switches."""
    replicated = bool(options.get(b"FromReplication"))
    if not token.get(b"SecretID"):
        raise StateError("Missing ACL Token SecretID")
    if not legacy and not token.get(b"AccessorID"):
        raise StateError("Missing ACL Token AccessorID")
    if replicated and token.get(b"Local"):
        raise StateError("Cannot replicate local tokens")
    original = rows(tx, TOKENS).get(as_text(token[b"SecretID"]))
    if options.get(b"CAS") and not _unchanged(original, as_uint(token.get(b"ModifyIndex"))):
        return
    if legacy and original is not None:
        if _uses_new_fields(original):
            raise StateError(
                "failed inserting acl token: cannot use legacy endpoint to modify a non-legacy token"
            )
        token = {**token, b"AccessorID": original.get(b"AccessorID", b"")}
    allow_missing = bool(options.get(b"AllowMissingLinks"))
    policies, good_policies = _links(tx, token, b"Policies", POLICIES, "Token", allow_missing)
    roles, good_roles = _links(tx, token, b"Roles", ROLES, "Token", allow_missing)
    method = as_text(token.get(b"AuthMethod"))
    if method and not replicated and method not in rows(tx, METHODS):
        raise StateError(f"No such auth method with Name: {method}")
    _check_identities(token, "Token")
    identities = token.get(b"ServiceIdentities") or token.get(b"NodeIdentities")
    if options.get(b"ProhibitUnprivileged") and not (good_roles or good_policies or identities):
        raise StateError("Token has no privileges")
    if original is not None and original.get(b"AccessorID") not in (
        None, b"", token.get(b"AccessorID"),
    ):  # fmt: skip
        raise StateError("The ACL Token AccessorID field is immutable")
    token = {**token, b"Policies": policies, b"Roles": roles}
    if token.get(b"Hash") is None:
        token[b"Hash"] = _hash(token)
    put_row(tx, TOKENS, token)


def _unchanged(original: Row | None, index: int) -> bool:
    """Whether a check-and-set with this modify index may go on."""
    return index == (original.get(b"ModifyIndex", 0) if original else 0)


def _uses_new_fields(token: Row) -> bool:
    names = (
        b"Policies", b"ServiceIdentities", b"NodeIdentities", b"Roles", b"ExpirationTime",
        b"ExpirationTTL", b"AuthMethod",
    )  # fmt: skip
    return not token.get(b"Type") or any(token.get(name) for name in names)


def _delete_token(tx: Transaction, secret: str | None) -> None:
    token = None if secret is None else rows(tx, TOKENS).get(secret)
    if token is None or secret is None:
        return
    if token.get(b"AccessorID") == ANONYMOUS_ID:
        raise StateError("Deletion of the builtin anonymous token is not permitted")
    delete_row(tx, TOKENS, secret)


def _legacy(tx: Transaction, request: Row) -> Any:
    """Commands of before Consul 1.4, whose tokens carry their rules themselves."""
    acl = as_map(request.get(b"ACL") or {})
    match request.get(b"Op"):
        case b"bootstrap-init":
            return BOOTSTRAP not in tx.t.index
        case b"bootstrap-now":
            _bootstrap(tx, converted(acl), 0, legacy=True)
            return acl
        case b"set" | b"force-set":
            set_token(tx, converted(acl), {}, legacy=True)
            return as_text(acl.get(b"ID"))
        case b"delete":
            _delete_token(tx, as_text(acl.get(b"ID")))
            return None
        case other:
            raise StateError(f"Invalid ACL operation '{as_text(other)}'")


def converted(acl: Row) -> Row:
    """A token of before Consul 1.4 as a token of today, without an accessor yet."""
    token: Row = {
        b"AccessorID": b"", b"AuthMethod": b"",
        b"CreateIndex": acl.get(b"CreateIndex", 0), b"CreateTime": _ZERO_TIME,
        b"Description": acl.get(b"Name", b""), b"ExpirationTTL": 0, b"ExpirationTime": None,
        b"Hash": None, b"Local": False, b"ModifyIndex": acl.get(b"ModifyIndex", 0),
        b"NodeIdentities": None, b"Policies": None, b"Roles": None,
        b"Rules": acl.get(b"Rules", b""), b"SecretID": acl.get(b"ID", b""),
        b"ServiceIdentities": None, b"Type": acl.get(b"Type", b""),
    }  # fmt: skip
    return {**token, b"Hash": _hash(token)}


def _hash(token: Row) -> bytes:
    """Of what a user sets in a token (`ACLToken.SetHash`): replication compares it."""
    digest = hashlib.blake2b(digest_size=32)
    for name in (b"Description", b"Type", b"Rules"):
        digest.update(token.get(name) or b"")
    digest.update(b"local" if token.get(b"Local") else b"global")
    for name in (b"Policies", b"Roles"):
        for link in as_list(token.get(name)):
            digest.update(link.get(b"ID") or b"")
    for identity in as_list(token.get(b"ServiceIdentities")):
        digest.update(identity.get(b"ServiceName") or b"")
        for datacenter in as_list(identity.get(b"Datacenters")):
            digest.update(datacenter)
    for identity in as_list(token.get(b"NodeIdentities")):
        digest.update((identity.get(b"NodeName") or b"") + (identity.get(b"Datacenter") or b""))
    return digest.digest()


# --- what tokens refer to


def _links(
    tx: Transaction, row: Row, field: bytes, kind: Kind, whose: str, allow_missing: bool
) -> tuple[list[Row] | None, int]:
    """The row's links with the names of what they lead to, and how many lead somewhere."""
    links = row.get(field)
    if links is None:
        return None, 0
    noun = "policy" if kind is POLICIES else "role"
    plural = "policies" if kind is POLICIES else "roles"
    found, good = [], 0
    for link in map(as_map, as_list(links)):
        if not link.get(b"ID"):
            raise StateError(
                f"Encountered a {whose} with {plural} linked by Name in the state store"
            )
        target = rows(tx, kind).get(as_text(link[b"ID"]))
        if target is None and not allow_missing:
            raise StateError(f"No such {noun} with ID: {as_text(link[b'ID'])}")
        if target is None:
            found.append(link)
        else:
            found.append({**link, b"Name": target.get(b"Name", b"")})
            good += 1
    return found, good


def _check_identities(row: Row, whose: str) -> None:
    for identity in as_list(row.get(b"ServiceIdentities")):
        if not identity.get(b"ServiceName"):
            raise StateError(
                f"Encountered a {whose} with an empty service identity name in the state store"
            )
    for identity in as_list(row.get(b"NodeIdentities")):
        for field, what in ((b"NodeName", "name"), (b"Datacenter", "datacenter")):
            if not identity.get(field):
                raise StateError(
                    f"Encountered a {whose} with an empty node identity {what} in the state store"
                )


def _need(row: Row, noun: str, *fields: tuple[bytes, str]) -> None:
    for field, name in fields:
        if not row.get(field):
            raise StateError(f"Missing ACL {noun} {name}")


def _check_name(tx: Transaction, kind: Kind, row: Row, noun: str) -> None:
    """Names are unique, whatever the case of policies' and roles'."""
    if key_named(tx.t, kind, as_text(row[b"Name"])) not in (None, as_text(row[b"ID"])):
        raise StateError(f'A {noun} with name "{as_text(row[b"Name"])}" already exists')


def _set_policy(tx: Transaction, policy: Row) -> None:
    _need(policy, "Policy", (b"ID", "ID"), (b"Name", "Name"))
    existing = rows(tx, POLICIES).get(as_text(policy[b"ID"]))
    if existing is not None and policy[b"ID"] == MANAGEMENT_ID:
        if policy.get(b"Rules") != existing.get(b"Rules"):
            raise StateError(f"Changing the Rules for the {_BUILTIN}")
        if policy.get(b"Datacenters"):
            raise StateError(f"Changing the Datacenters of the {_BUILTIN}")
    _check_name(tx, POLICIES, policy, "policy")
    put_row(tx, POLICIES, policy)


def _set_role(tx: Transaction, role: Row, *, allow_missing: bool) -> None:
    _need(role, "Role", (b"ID", "ID"), (b"Name", "Name"))
    _check_name(tx, ROLES, role, "role")
    policies, _ = _links(tx, role, b"Policies", POLICIES, "Role", allow_missing)
    _check_identities(role, "Role")
    put_row(tx, ROLES, {**role, b"Policies": policies})


def _set_rule(tx: Transaction, rule: Row) -> None:
    _need(rule, "Binding Rule", (b"ID", "ID"), (b"AuthMethod", "Auth Method"))
    if as_text(rule[b"AuthMethod"]) not in rows(tx, METHODS):
        raise StateError("failed inserting acl binding rule: auth method not found")
    put_row(tx, RULES, rule)


def _set_method(tx: Transaction, method: Row) -> None:
    _need(method, "Auth Method", (b"Name", "Name"), (b"Type", "Type"))
    put_row(tx, METHODS, method)


def _delete_method(tx: Transaction, name: str) -> None:
    """Its binding rules go with it, and its tokens of the locality that it gives them."""
    method = rows(tx, METHODS).get(name)
    if method is None:
        return
    raw_name, everywhere = method.get(b"Name"), method.get(b"TokenLocality") == b"global"
    for key, rule in list(rows(tx, RULES).items()):
        if rule.get(b"AuthMethod") == raw_name:
            delete_row(tx, RULES, key)
    for key, token in list(rows(tx, TOKENS).items()):
        if token.get(b"AuthMethod") == raw_name and everywhere is not bool(token.get(b"Local")):
            delete_row(tx, TOKENS, key)
    delete_row(tx, METHODS, name)
