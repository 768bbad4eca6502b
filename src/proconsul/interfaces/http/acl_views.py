"""ACL rows as Consul's JSON shows them, and as it reads them (`UnmarshalJSON` in structs/acl.go)."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from msgspec import Raw
from msgspec.structs import replace

from proconsul.domain import acl_types as t
from proconsul.domain.acl_requests import ACLReplicationStatus
from proconsul.domain.base import NIL, bytes_of, is_nil, raw_bytes
from proconsul.domain.go_decode import GoDecodeError, decode_struct, parse_json
from proconsul.util.errors import WireError
from proconsul.util.goduration import format_duration_ns
from proconsul.util.goquote import go_quote
from proconsul.wire.gotime import (
    ZERO_TIME_NS,
    decode_time,
    encode_time,
    format_time,
    parse_time,
)

_LAYOUT = '"2006-01-02T15:04:05Z07:00"'
_HIDDEN = frozenset({"type", "syntax"})
"""Fields that JSON neither shows nor reads."""

_ALIASED = "struct { Hash string; *structs.Alias }"

View = dict[str, Any]


def token(row: t.ACLToken) -> View:
    """With its secret."""
    view: View = {"AccessorID": row.accessor_id, "SecretID": row.secret_id}
    view |= _token_middle(row)
    if row.expiration_ttl_ns:
        view["ExpirationTTL"] = row.expiration_ttl_ns
    return view | _token_end(row)


def token_stub(row: t.ACLTokenListStub) -> View:
    """Of a list."""
    view: View = {"AccessorID": row.accessor_id} | _token_middle(row) | _token_end(row)
    if row.legacy:
        view["Legacy"] = True
    return view


def _token_middle(row: t.ACLToken | t.ACLTokenListStub) -> View:
    view: View = {"Description": row.description}
    _add_links(view, "Policies", row.policies)
    _add_links(view, "Roles", row.roles)
    _add_identities(view, row)
    if isinstance(row, t.ACLToken) and row.rules:
        view["Rules"] = row.rules
    view["Local"] = row.local
    if row.auth_method:
        view["AuthMethod"] = row.auth_method
    if not is_nil(row.raw_expiration_time):
        view["ExpirationTime"] = _time(row.raw_expiration_time)
    return view


def _token_end(row: t.ACLToken | t.ACLTokenListStub) -> View:
    return {"CreateTime": _time(row.raw_create_time)} | _end(row)


def policy(row: t.ACLPolicy) -> View:
    view: View = {
        "ID": row.id, "Name": row.name, "Description": row.description, "Rules": row.rules,
    }  # fmt: skip
    if row.datacenters:
        view["Datacenters"] = row.datacenters
    return view | _end(row)


def policy_stub(row: t.ACLPolicyListStub) -> View:
    """Of a list."""
    view: View = {"ID": row.id, "Name": row.name, "Description": row.description}
    return view | {"Datacenters": row.datacenters} | _end(row)


def role(row: t.ACLRole) -> View:
    view: View = {"ID": row.id, "Name": row.name, "Description": row.description}
    _add_links(view, "Policies", row.policies)
    _add_identities(view, row)
    return view | _end(row)


def rule(row: t.ACLBindingRule) -> View:
    return {
        "ID": row.id, "Description": row.description, "AuthMethod": row.auth_method,
        "Selector": row.selector, "BindType": row.bind_type, "BindName": row.bind_name,
        **_indexes(row),
    }  # fmt: skip


def method(row: t.ACLAuthMethod) -> View:
    view: View = {}
    if row.max_token_ttl_ns:
        view["MaxTokenTTL"] = format_duration_ns(row.max_token_ttl_ns)
    view |= _method_head(row)
    if row.token_locality:
        view["TokenLocality"] = row.token_locality
    return view | {"Config": row.config, **_indexes(row)}


def method_stub(row: t.ACLAuthMethodListStub) -> View:
    """Of a list."""
    return _method_head(row) | _indexes(row)


def _method_head(row: t.ACLAuthMethod | t.ACLAuthMethodListStub) -> View:
    view: View = {"Name": row.name, "Type": row.type}
    if row.display_name:
        view["DisplayName"] = row.display_name
    if row.description:
        view["Description"] = row.description
    return view


def legacy(row: t.ACL) -> View:
    return {
        "ID": row.id, "Name": row.name, "Type": row.type, "Rules": row.rules, **_indexes(row),
    }  # fmt: skip


def replication(status: ACLReplicationStatus) -> View:
    return {
        "Enabled": status.enabled,
        "Running": status.running,
        "SourceDatacenter": status.source_datacenter,
        "ReplicationType": status.replication_type,
        "ReplicatedIndex": status.replicated_index,
        "ReplicatedRoleIndex": status.replicated_role_index,
        "ReplicatedTokenIndex": status.replicated_token_index,
        "LastSuccess": _time(status.raw_last_success),
        "LastError": _time(status.raw_last_error),
    }


def _add_links(view: View, name: str, links: list[t.ACLLink] | None) -> None:
    if links:
        view[name] = [{"ID": link.id, "Name": link.name} for link in links]


def _add_identities(view: View, row: t.ACLToken | t.ACLTokenListStub | t.ACLRole) -> None:
    if row.service_identities:
        view["ServiceIdentities"] = [
            {"ServiceName": one.service_name}
            | ({"Datacenters": one.datacenters} if one.datacenters else {})
            for one in row.service_identities
        ]
    if row.node_identities:
        view["NodeIdentities"] = [
            {"NodeName": one.node_name, "Datacenter": one.datacenter} for one in row.node_identities
        ]


def _end(row: Any) -> View:
    digest = None if is_nil(row.raw_hash) else b64encode(bytes_of(row.raw_hash)).decode()
    return {"Hash": digest} | _indexes(row)


def _indexes(row: Any) -> View:
    return {"CreateIndex": row.create_index, "ModifyIndex": row.modify_index}


def _time(raw: Raw) -> str:
    return format_time(decode_time(bytes_of(raw)))


# --- bodies


def read_token(body: bytes) -> t.ACLToken:
    """Raises `GoDecodeError`."""
    value = _object(body, "struct { ExpirationTTL interface {}; Hash string; *structs.Alias }")
    expires, created = value.pop("expirationtime", None), value.pop("createtime", None)
    row = decode_struct(_without_hash(value), t.ACLToken)
    return replace(
        row,
        raw_expiration_time=_raw_time(expires, "ExpirationTime"),
        raw_create_time=_raw_time(created, "CreateTime") if created else row.raw_create_time,
    )


def read_policy(body: bytes) -> t.ACLPolicy:
    """Raises `GoDecodeError`."""
    return decode_struct(_without_hash(_object(body, _ALIASED)), t.ACLPolicy)


def read_role(body: bytes) -> t.ACLRole:
    """Raises `GoDecodeError`."""
    return decode_struct(_without_hash(_object(body, _ALIASED)), t.ACLRole)


def read_legacy(body: bytes) -> t.ACL:
    """Raises `GoDecodeError`."""
    return decode_struct(parse_json(body), t.ACL)


def _object(body: bytes, type_: str) -> dict[str, Any]:
    value = parse_json(body)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise GoDecodeError(
            f"json: cannot unmarshal {kind_of(value)} into Go value of type {type_}"
        )
    fields = {}
    for key, item in value.items():
        known = key.lower()
        if known in _HIDDEN:
            raise GoDecodeError(f"json: unknown field {go_quote(key)}")
        fields[known if known in _SPECIAL else key] = item
    return fields


_SPECIAL = frozenset({"expirationtime", "createtime", "hash"})


def _without_hash(value: dict[str, Any]) -> dict[str, Any]:
    """The hash is computed anew whatever a client says."""
    digest = value.pop("hash", None)
    if digest is not None and not isinstance(digest, str):
        raise GoDecodeError(
            f"json: cannot unmarshal {kind_of(digest)} into Go struct field .Hash of type string"
        )
    return value


def _raw_time(value: Any, name: str) -> Raw:
    if value is None:
        return NIL
    text = f'"{value}"'
    if not isinstance(value, str):
        raise GoDecodeError(
            f"json: cannot unmarshal {kind_of(value)} into Go struct field .{name} of type time.Time"
        )
    try:
        moment = parse_time(value)
    except WireError:
        raise GoDecodeError(
            f'parsing time "{text}" as "{_LAYOUT}": cannot parse "{value}"" as "2006"'
        ) from None
    return NIL if moment == ZERO_TIME_NS else raw_bytes(encode_time(moment))


def kind_of(value: Any) -> str:
    """What Go's JSON decoder calls it."""
    kinds = {bool: "bool", int: "number", float: "number", str: "string", list: "array"}
    return kinds.get(type(value), "object")
