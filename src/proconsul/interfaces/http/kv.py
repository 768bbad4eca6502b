"""`/v1/kv/` (`agent/kvs_endpoint.go`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote_plus

import msgspec

from proconsul.domain.go_json import to_json
from proconsul.domain.kv import (
    KV_CAS,
    KV_DELETE,
    KV_DELETE_CAS,
    KV_DELETE_TREE,
    KV_LOCK,
    KV_SET,
    KV_UNLOCK,
    DirEntry,
    IndexedDirEntries,
    IndexedKeyList,
    KeyListRequest,
    KeyRequest,
    KVSRequest,
)
from proconsul.drivers.http import Response
from proconsul.interfaces.http.api import Answer, HttpApi, value_too_large
from proconsul.interfaces.http.errors import bad_request
from proconsul.interfaces.http.options import query_options
from proconsul.interfaces.http.query import Ask

# A value is whatever a client stored: no browser may take it for a page of ours.
_RAW_HEAD = (
    b"Content-Security-Policy: sandbox\r\nContent-Type: text/plain\r\n"
    b"X-Content-Type-Options: nosniff\r\n"
)


class _Entry(msgspec.Struct, rename="pascal", gc=False):
    """The JSON form of `DirEntry`: the value as base64, null if nil."""

    lock_index: int
    key: str
    flags: int
    value: bytes | None
    create_index: int
    modify_index: int


class _LockedEntry(msgspec.Struct, rename="pascal", gc=False):
    lock_index: int
    key: str
    flags: int
    value: bytes | None
    session: str
    create_index: int
    modify_index: int


def entries_view(entries: Iterable[DirEntry]) -> list[_Entry | _LockedEntry]:
    """What JSON shows of entries."""
    shown: list[_Entry | _LockedEntry] = []
    for one in entries:
        value = one.value or None  # Go's codec reads empty bytes as nil, and JSON shows that
        if one.session:
            shown.append(
                _LockedEntry(
                    one.lock_index,
                    one.key,
                    one.flags,
                    value,
                    one.session,
                    one.create_index,
                    one.modify_index,
                )
            )
        else:
            shown.append(
                _Entry(
                    one.lock_index, one.key, one.flags, value, one.create_index, one.modify_index
                )
            )
    return shown


def kv(api: HttpApi, ask: Ask) -> Answer:
    """GET, PUT and DELETE of a key, or of all keys below a prefix."""
    options = query_options(ask, api.config)
    method = ask.request.method
    if method == "GET":
        if ask.has("keys"):
            return _list_keys(api, ask, options)
        return _get(api, ask, options)
    write = {"datacenter": options["datacenter"], "token": options.get("token", "")}
    if method == "PUT":
        return _put(api, ask, write)
    return _delete(api, ask, write)


def _get(api: HttpApi, ask: Ask, options: dict[str, Any]) -> Answer:
    request = KeyRequest(key=ask.rest, **options)
    if ask.params and ask.has("recurse"):

        def render_tree(out: IndexedDirEntries) -> Response:
            head = api.meta(out)
            if not out.entries:
                return Response(404, b"", head)
            return api.shared(ask, out, out.entries, entries_view, head)

        return api.query("KVS.List", request, render_tree, level=False)
    _require_key(ask)

    def render(out: IndexedDirEntries) -> Response:
        head = api.meta(out)
        if not out.entries:
            return Response(404, b"", head)
        if ask.params and ask.has("raw"):
            return Response(200, out.entries[0].value, head + _RAW_HEAD)
        return api.encoded(ask, to_json(entries_view(out.entries)), head)

    return api.query("KVS.Get", request, render, level=False)


def _list_keys(api: HttpApi, ask: Ask, options: dict[str, Any]) -> Answer:
    # Consul once misspelt the parameter, and still takes both.
    separator = ask.first("separator") if ask.has("separator") else ask.first("seperator")
    request = KeyListRequest(prefix=ask.rest, separator=separator, **options)

    def render(out: IndexedKeyList) -> Response:
        head = api.meta(out)
        if not out.keys and ask.rest:
            return Response(404, b"", head)
        return api.shared(ask, out, out.keys or [], list, head)

    return api.query("KVS.ListKeys", request, render, level=False)


def _put(api: HttpApi, ask: Ask, write: dict[str, str]) -> Answer:
    _require_key(ask)
    _refuse_conflicting(ask, "cas", "acquire", "release")
    flags = ask.uint64("flags") if ask.has("flags") else 0
    op, expected_index = KV_SET, 0
    if ask.has("cas"):
        op, expected_index = KV_CAS, ask.uint64("cas")
    session = ""
    for name, locking in (("acquire", KV_LOCK), ("release", KV_UNLOCK)):
        if ask.has(name):
            op, session = locking, ask.first(name)
    limit, value = api.config.kv_value_bytes_max, ask.request.body
    if len(value) > limit:
        return value_too_large(len(value), limit)
    entry = DirEntry.of(ask.rest, value, flags=flags, modify_index=expected_index, session=session)
    return _apply(api, ask, KVSRequest(op=op, dir_ent=entry, **write))


def _delete(api: HttpApi, ask: Ask, write: dict[str, str]) -> Answer:
    _refuse_conflicting(ask, "recurse", "cas")
    op, expected_index = KV_DELETE, 0
    if ask.has("recurse"):
        op = KV_DELETE_TREE
    else:
        _require_key(ask)
    if ask.has("cas"):
        op, expected_index = KV_DELETE_CAS, ask.uint64("cas")
    entry = DirEntry(key=ask.rest, modify_index=expected_index)
    return _apply(api, ask, KVSRequest(op=op, dir_ent=entry, **write))


async def _apply(api: HttpApi, ask: Ask, request: KVSRequest) -> Response:
    done = await api.agent.rpc("KVS.Apply", request)
    conditional = request.op in {KV_CAS, KV_DELETE_CAS, KV_LOCK, KV_UNLOCK}
    return api.json(ask, bool(done) if conditional else True)


def _require_key(ask: Ask) -> None:
    if not ask.rest:
        raise bad_request("Missing key name")


def _refuse_conflicting(ask: Ask, *names: str) -> None:
    if sum(1 for name in names if ask.has(name)) > 1:
        shown = "&".join(
            f"{quote_plus(key)}={quote_plus(value)}"
            for key in sorted(ask.params)
            for value in ask.params[key]
        )
        raise bad_request("Conflicting flags: " + shown)
