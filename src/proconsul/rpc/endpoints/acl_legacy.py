"""The calls of before Consul 1.4, and the status of replication (acl_endpoint_legacy.go).

Legacy tokens carry their rules themselves. Old clients ask `ACL.GetPolicy`; the HTTP interface of
old asks the rest.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from proconsul.domain import acl_requests as r
from proconsul.domain import acl_types as t
from proconsul.domain.errors import PermissionDeniedError
from proconsul.domain.messages import MessageType
from proconsul.domain.options import DCSpecificRequest
from proconsul.rpc.endpoints.acl_base import (
    AclDisabledError,
    AclSystem,
    Base,
    require_write,
)
from proconsul.rpc.endpoints.base import EndpointServer, RequestError, meta, read
from proconsul.rpc.methods import METHODS
from proconsul.rpc.table import Call, Endpoint, Requires
from proconsul.rpc.token_resolver import ANONYMOUS, ROOTS

SYNTAX_LEGACY = 1


class Legacy(Base):
    """Whoever knows a legacy token's secret may read it."""

    async def bootstrap(self, _request: DCSpecificRequest, _call: Call) -> t.ACL:
        """The first token, as a legacy one."""
        if not self.in_primary:
            raise AclDisabledError
        tokens = self.server.store.acl
        if not tokens.can_bootstrap()[0]:
            raise RequestError("ACL bootstrap no longer allowed")
        acl = t.ACL(
            id=self.new_id(lambda new: tokens.token_by_secret(new).value is not None),
            name="Bootstrap Token",
            type=t.TYPE_MANAGEMENT,
        )
        command = r.ACLRequest(
            datacenter=self.system.primary_datacenter, op="bootstrap-now", acl=acl
        )
        await self.server.apply(MessageType.ACL, command)
        stored = tokens.token_by_secret(acl.id).value
        return (stored and t.legacy_of(stored)) or acl

    async def apply(self, request: r.ACLRequest, call: Call) -> str:
        require_write(call.authorizer)
        acl = request.acl
        if request.op == "set" and not acl.id:
            tokens = self.server.store.acl
            acl = replace(
                acl, id=self.new_id(lambda new: tokens.token_by_secret(new).value is not None)
            )
        if not acl.id:
            raise RequestError("Missing ACL ID")
        if request.op == "set":
            self._check(acl)
        elif request.op != "delete":
            raise RequestError("Invalid ACL Operation")
        elif acl.id == ANONYMOUS:
            raise PermissionDeniedError("Cannot delete anonymous token")
        try:
            result = await self.server.apply(MessageType.ACL, replace(request, acl=acl))
        finally:
            self.system.forget_token(acl.id)
        return result if isinstance(result, str) else ""

    def _check(self, acl: t.ACL) -> None:
        if acl.type not in (t.TYPE_CLIENT, t.TYPE_MANAGEMENT):
            raise RequestError("Invalid ACL Type")
        existing = self.server.store.acl.token_by_secret(acl.id).value
        if existing is not None and existing.uses_new_fields():
            raise RequestError("Cannot use legacy endpoint to modify a non-legacy token")
        if acl.id in ROOTS:
            raise PermissionDeniedError("Cannot modify root ACL")
        try:
            self.system.check_rules(acl.rules, SYNTAX_LEGACY)
        except RequestError as error:
            raise RequestError(f"ACL rule compilation failed: {error}") from error

    async def get(self, request: r.ACLSpecificRequest, _call: Call) -> r.IndexedACLs:
        def build(token: t.ACLToken | None) -> dict[str, Any]:
            found = None if token is None else t.legacy_of(token)
            return {"acls": None if found is None else [found]}

        return await read(
            self.server,
            request,
            lambda: self.server.store.acl.token_by_secret(request.acl),
            build,
            r.IndexedACLs,
        )

    async def list(self, request: DCSpecificRequest, call: Call) -> r.IndexedACLs:
        require_write(call.authorizer)

        def build(tokens: list[t.ACLToken]) -> dict[str, Any]:
            now_ns = self.system.unix_ns()
            alive = (token for token in tokens if not token.is_expired(now_ns))
            return {"acls": [acl for one in alive if (acl := t.legacy_of(one))] or None}

        return await read(
            self.server,
            request,
            lambda: self.server.store.acl.tokens(local=False, global_=True),
            build,
            r.IndexedACLs,
        )

    async def get_policy(
        self, request: r.ACLPolicyResolveLegacyRequest, _call: Call
    ) -> r.ACLPolicyResolveLegacyResponse:
        """A token's merged rules, unless the caller has them already."""
        if not self.in_primary:
            raise AclDisabledError
        token, policy = await self.system.legacy_policy(request.acl)
        parent = "manage" if token.type == t.TYPE_MANAGEMENT else self.system.default_policy
        tag = f"{parent}:{policy['ID']}"
        head = meta(self.server, 0)
        if request.e_tag == tag:
            return r.ACLPolicyResolveLegacyResponse(
                e_tag=tag, ttl_ns=self.system.cache_ttl_ns, **head
            )
        return r.ACLPolicyResolveLegacyResponse(
            e_tag=tag, parent=parent, policy=policy, ttl_ns=self.system.cache_ttl_ns, **head
        )

    async def replication_status(
        self, _request: DCSpecificRequest, _call: Call
    ) -> r.ACLReplicationStatus:
        """Nothing that needs rights: health checks ask it."""
        return self.system.replication_status()


def endpoints(server: EndpointServer, system: AclSystem) -> list[Endpoint]:
    """`ACL.Bootstrap`, `Apply`, `Get`, `List`, `GetPolicy` and `ReplicationStatus`."""
    it = Legacy(server, system)
    nothing, write = Requires.NOTHING, Requires.ACL_WRITE

    def unasked(_request: Any) -> bool:
        return False

    return [
        Endpoint(METHODS["ACL.Bootstrap"], nothing, it.bootstrap, resolves=unasked),
        Endpoint(METHODS["ACL.Apply"], write, it.apply, prepare=it.check),
        Endpoint(METHODS["ACL.Get"], nothing, it.get, prepare=it.check, resolves=unasked),
        Endpoint(METHODS["ACL.List"], write, it.list, prepare=it.check),
        Endpoint(METHODS["ACL.GetPolicy"], nothing, it.get_policy, resolves=unasked),
        Endpoint(
            METHODS["ACL.ReplicationStatus"], nothing, it.replication_status, resolves=unasked
        ),
    ]
