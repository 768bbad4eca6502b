"""`KVS.*` (agent/consul/kvs_endpoint.go)."""

from __future__ import annotations

import logging
from typing import Any

from proconsul.domain import kv
from proconsul.domain.acl import Authorizer
from proconsul.domain.base import is_byte_field
from proconsul.domain.errors import PermissionDeniedError
from proconsul.domain.messages import MessageType
from proconsul.domain.session import id_problem
from proconsul.rpc.endpoints.base import EndpointServer, RequestError, read
from proconsul.rpc.endpoints.vetting import require, unrestricted
from proconsul.rpc.methods import METHODS
from proconsul.rpc.table import Call, Endpoint, Requires

log = logging.getLogger("proconsul.server.kvs")


class Kvs:
    """The key-value store."""

    def __init__(self, server: EndpointServer) -> None:
        self._server = server

    async def apply(self, request: kv.KVSRequest, call: Call) -> bool:
        key = request.dir_ent.key
        if not key and request.op != kv.KV_DELETE_TREE:
            raise RequestError("Must provide key")
        may = call.authorizer
        whole_tree = request.op == kv.KV_DELETE_TREE
        allowed = may.key_write_prefix(key) if whole_tree else may.key_write(key)
        if not allowed:
            raise PermissionDeniedError
        if not is_byte_field(request.dir_ent.raw_value):
            raise RequestError(kv.VALUE_NO_BYTES)
        if request.op == kv.KV_LOCK:
            session = request.dir_ent.session
            if session and (problem := id_problem(session)):
                raise RequestError(problem)
            if self._server.lock_delayed(key):
                log.warning("Rejecting lock of key due to lock-delay: key=%s", key)
                return False
        result = await self._server.apply(MessageType.KVS, request)
        return result if isinstance(result, bool) else False

    async def get(self, request: kv.KeyRequest, call: Call) -> kv.IndexedDirEntries:
        if not call.authorizer.key_read(request.key):
            raise PermissionDeniedError
        return await read(
            self._server,
            request,
            lambda: self._server.store.kv.get(request.key),
            lambda row: {"entries": None if row is None else [row]},
            kv.IndexedDirEntries,
        )

    async def list(self, request: kv.KeyRequest, call: Call) -> kv.IndexedDirEntries:
        may = call.authorizer
        self._require_list(may, request.key)

        def build(rows: list[kv.DirEntry]) -> dict[str, Any]:
            if unrestricted(may):
                return {"entries": rows or None}
            return {"entries": [r for r in rows if may.key_read(r.key)] or None}

        return await read(
            self._server,
            request,
            lambda: self._server.store.kv.entries(request.key),
            build,
            kv.IndexedDirEntries,
        )

    async def list_keys(self, request: kv.KeyListRequest, call: Call) -> kv.IndexedKeyList:
        may = call.authorizer
        self._require_list(may, request.prefix)
        readable = None if unrestricted(may) else may.key_read
        return await read(
            self._server,
            request,
            lambda: self._server.store.kv.keys(request.prefix, request.separator, readable),
            lambda keys: {"keys": keys or None},
            kv.IndexedKeyList,
        )

    def _require_list(self, may: Authorizer, prefix: str) -> None:
        """`acl.enable_key_list_policy`: reading every key below is not enough."""
        if self._server.key_list_policy:
            require(may.key_list(prefix))


def endpoints(server: EndpointServer) -> list[Endpoint]:
    """All of `KVS`."""
    it = Kvs(server)
    return [
        Endpoint(METHODS["KVS.Apply"], Requires.KEY_WRITE, it.apply),
        Endpoint(METHODS["KVS.Get"], Requires.KEY_READ, it.get),
        Endpoint(METHODS["KVS.List"], Requires.KEY_READ, it.list),
        Endpoint(METHODS["KVS.ListKeys"], Requires.KEY_READ, it.list_keys),
    ]
