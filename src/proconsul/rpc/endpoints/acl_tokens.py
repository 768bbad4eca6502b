"""`ACL.Token*` and `ACL.BootstrapTokens` (agent/consul/acl_endpoint.go)."""

from __future__ import annotations

import logging
from typing import Any

from msgspec.structs import replace

from proconsul.domain import acl_requests as r
from proconsul.domain import acl_types as t
from proconsul.domain.base import NIL, raw_bytes
from proconsul.domain.errors import AclNotFoundError, PermissionDeniedError
from proconsul.domain.messages import MessageType
from proconsul.domain.options import DCSpecificRequest
from proconsul.domain.validate import is_uuid
from proconsul.rpc.endpoints.acl_base import (
    AclDisabledError,
    AclSystem,
    Base,
    is_reserved,
    node_identities,
    policy_links,
    require_read,
    require_write,
    role_links,
    service_identities,
)
from proconsul.rpc.endpoints.base import EndpointServer, RequestError, read
from proconsul.rpc.methods import METHODS
from proconsul.rpc.table import Call, Endpoint, Requires
from proconsul.rpc.token_resolver import ROOTS
from proconsul.state.errors import StateError
from proconsul.util.goduration import format_duration_ns
from proconsul.util.goquote import go_quote
from proconsul.wire.gotime import encode_time

log = logging.getLogger("proconsul.acl")


class Tokens(Base):
    """Tokens are read by whoever has the secret, or acl:read; managed with acl:write."""

    # -- reads -----------------------------------------------------------------------------

    async def read(self, request: r.ACLTokenGetRequest, call: Call) -> r.ACLTokenResponse:
        acl = self.server.store.acl
        by_accessor = request.token_id_type == t.ID_ACCESSOR
        if by_accessor:
            require_read(call.authorizer)

        def build(found: t.ACLToken | None) -> dict[str, Any]:
            token = found
            if token is not None and by_accessor:
                token = _visible(token, call)
            redacted = token is not None and token.secret_id == t.REDACTED
            if token is not None and token.is_expired(self.system.unix_ns()):
                token = None
            return {
                "token": token,
                "redacted": redacted,
                "source_datacenter": request.datacenter,
            }

        query = acl.token_by_accessor if by_accessor else acl.token_by_secret
        return await read(
            self.server, request, lambda: query(request.token_id), build, r.ACLTokenResponse
        )

    def list_where(self, request: r.ACLTokenListRequest) -> r.ACLTokenListRequest:
        """`prepare`: where no local tokens are kept, the primary's global ones are all there is."""
        moved = self.where_tokens_are(request)
        if moved is not request and request.datacenter != self.system.primary_datacenter:
            return replace(moved, include_local=False, include_global=True)
        return moved

    async def list(self, request: r.ACLTokenListRequest, call: Call) -> r.ACLTokenListResponse:
        require_read(call.authorizer)

        def build(tokens: list[t.ACLToken]) -> dict[str, Any]:
            now_ns = self.system.unix_ns()
            return {"tokens": [t.token_stub(one) for one in tokens if not one.is_expired(now_ns)]}

        return await read(
            self.server,
            request,
            lambda: self.server.store.acl.tokens(
                local=request.include_local,
                global_=request.include_global,
                policy=request.policy,
                role=request.role,
                method=request.auth_method,
            ),
            build,
            r.ACLTokenListResponse,
        )

    async def batch_read(
        self, request: r.ACLTokenBatchGetRequest, call: Call
    ) -> r.ACLTokenBatchResponse:
        """For replication: expired tokens too, until the primary deletes them."""

        def build(tokens: list[t.ACLToken]) -> dict[str, Any]:
            seen = [one for token in tokens if (one := _visible(token, call)) is not None]
            return {
                "tokens": seen,
                "redacted": any(one.secret_id == t.REDACTED for one in seen),
                "removed": len(seen) < len(tokens),
            }

        return await read(
            self.server,
            request,
            lambda: self.server.store.acl.tokens_by_accessors(request.accessor_ids or ()),
            build,
            r.ACLTokenBatchResponse,
        )

    # -- writes ----------------------------------------------------------------------------

    async def bootstrap(self, _request: DCSpecificRequest, _call: Call) -> t.ACLToken:
        if not self.in_primary:
            raise AclDisabledError
        acl, system = self.server.store.acl, self.system
        allowed, reset_index = acl.can_bootstrap()
        index = 0
        if not allowed:
            index = await system.bootstrap_reset_index()
            if index == 0:
                raise RequestError(f"ACL bootstrap no longer allowed (reset index: {reset_index})")
            if index != reset_index:
                raise RequestError(
                    f"Invalid bootstrap reset index (specified {index}, reset index: {reset_index})"
                )
        # Whether it succeeds or not: a file that stayed would allow one more after a restore.
        await system.remove_bootstrap_reset()
        token = t.ACLToken(
            accessor_id=self.new_id(self._taken),
            secret_id=self.new_id(self._taken),
            description="Bootstrap Token (Global Management)",
            policies=[t.ACLLink(t.POLICY_MANAGEMENT_ID)],
            type=t.TYPE_MANAGEMENT,
            raw_create_time=raw_bytes(encode_time(system.unix_ns())),
        ).hashed()
        await self.server.apply(MessageType.ACL_BOOTSTRAP, r.ACLTokenBootstrapRequest(token, index))
        log.info("ACL bootstrap completed")
        return acl.token_by_accessor(token.accessor_id).value or token

    def set_where(self, request: r.ACLTokenSetRequest) -> r.ACLTokenSetRequest:
        """`prepare`: global tokens are the primary's."""
        self.check(request)
        if not request.acl_token.local:
            return self.moved(request)
        if not self.system.local_tokens:
            raise RequestError("Local tokens are disabled")
        return request

    async def set(self, request: r.ACLTokenSetRequest, call: Call) -> t.ACLToken:
        require_write(call.authorizer)
        return await self._set(request.acl_token, create=request.create)

    async def clone(self, request: r.ACLTokenSetRequest, call: Call) -> t.ACLToken:
        require_write(call.authorizer)
        given = request.acl_token
        token = self.server.store.acl.token_by_accessor(given.accessor_id).value
        if token is None or token.is_expired(self.system.unix_ns()):
            raise AclNotFoundError
        if not self.in_primary and not token.local:
            answer: t.ACLToken = await self.system.in_primary("ACL.TokenClone", self.moved(request))
            return answer
        if token.auth_method:
            raise RequestError("Cannot clone a token created from an auth method")
        if token.rules:
            raise RequestError("Cannot clone a legacy ACL with this endpoint")
        copy = t.ACLToken(
            policies=token.policies,
            roles=token.roles,
            service_identities=token.service_identities,
            node_identities=token.node_identities,
            local=token.local,
            description=given.description or token.description,
            raw_expiration_time=token.raw_expiration_time,
        )
        return await self._set(copy, create=False)

    async def delete(self, request: r.ACLTokenDeleteRequest, call: Call) -> str:
        require_write(call.authorizer)
        accessor = request.token_id
        if not is_uuid(accessor):
            raise RequestError("Accessor ID is missing or an invalid UUID")
        if accessor == t.TOKEN_ANONYMOUS_ID:
            raise RequestError("Delete operation not permitted on the anonymous token")
        token = self.server.store.acl.token_by_accessor(accessor).value
        if token is not None and request.token == token.secret_id:
            raise RequestError("Deletion of the request's authorization token is not permitted")
        if not self.in_primary and (token is None or not token.local):
            name: str = await self.system.in_primary("ACL.TokenDelete", self.moved(request))
            return name
        if token is None:
            return ""
        try:
            await self.server.apply(
                MessageType.ACL_TOKEN_DELETE, r.ACLTokenBatchDeleteRequest([accessor])
            )
        finally:
            self.system.forget_token(token.secret_id)
        return token.accessor_id

    async def _set(self, token: t.ACLToken, *, create: bool) -> t.ACLToken:
        if not self.system.local_tokens:
            raise RequestError("Cannot upsert tokens within this datacenter")
        if not self.in_primary and not token.local:
            raise RequestError("Cannot upsert global tokens within this datacenter")
        if token.accessor_id:
            try:
                self.server.store.acl.token_by_accessor(token.accessor_id)
            except StateError as error:
                raise RequestError(f"Failed acl token lookup by accessor: {error}") from error
        is_new = create or not token.accessor_id
        token = self._checked(self._created(token) if is_new else self._updated(token))
        command = r.ACLTokenBatchSetRequest([token])
        try:
            await self.server.apply(MessageType.ACL_TOKEN_SET, command)
        finally:
            self.system.forget_token(token.secret_id)
        stored = self.server.store.acl.token_by_accessor(token.accessor_id).value
        if stored is None:
            raise RequestError("Failed to retrieve the token after insertion")
        return stored

    def _created(self, token: t.ACLToken) -> t.ACLToken:
        """A new token with its ids and times."""
        accessor = self._own_id(token.accessor_id, "AccessorID")
        secret = self._own_id(token.secret_id, "SecretID")
        now_ns = self.system.unix_ns()
        if token.auth_method:
            raise RequestError("AuthMethod field is disallowed outside of Login")
        expires_ns, ttl_ns = token.expires_ns, token.expiration_ttl_ns
        if ttl_ns:
            if ttl_ns < 0:
                raise RequestError(
                    f"Token Expiration TTL '{format_duration_ns(ttl_ns)}' should be > 0"
                )
            if expires_ns is not None:
                raise RequestError("Token Expiration TTL and Expiration Time cannot both be set")
            expires_ns = now_ns + ttl_ns
        if expires_ns is not None:
            self._check_life(now_ns, expires_ns)
        return replace(
            token,
            accessor_id=accessor,
            secret_id=secret,
            raw_create_time=raw_bytes(encode_time(now_ns)),
            raw_expiration_time=NIL if expires_ns is None else raw_bytes(encode_time(expires_ns)),
            expiration_ttl_ns=0,
        )

    def _own_id(self, given: str, field: str) -> str:
        """A random id, or the one that the creator chose."""
        if not given:
            return self.new_id(self._taken)
        if not is_uuid(given):
            raise RequestError(f"Invalid Token: {field} is not a valid UUID")
        if self._taken(given):
            raise RequestError(f"Invalid Token: {field} is already in use")
        if is_reserved(given):
            raise RequestError(
                f"Invalid Token: UUIDs with the prefix {go_quote(t.RESERVED_PREFIX)} are reserved"
            )
        return given

    def _taken(self, row_id: str) -> bool:
        """As an accessor or a secret: one must never be the other."""
        acl = self.server.store.acl
        return (
            acl.token_by_accessor(row_id).value is not None
            or acl.token_by_secret(row_id).value is not None
        )

    def _check_life(self, now_ns: int, expires_ns: int) -> None:
        shortest, longest = self.system.token_ttl_ns
        life = expires_ns - now_ns
        if life < 0:
            raise RequestError("ExpirationTime cannot be before CreateTime")
        if life > longest:
            raise RequestError(
                f"ExpirationTime cannot be more than {format_duration_ns(longest)} in the future "
                f"(was {format_duration_ns(life)})"
            )
        if life < shortest:
            raise RequestError(
                f"ExpirationTime cannot be less than {format_duration_ns(shortest)} in the future "
                f"(was {format_duration_ns(life)})"
            )

    def _updated(self, token: t.ACLToken) -> t.ACLToken:
        """The token with what an update may not change."""
        accessor = token.accessor_id
        if not is_uuid(accessor):
            raise RequestError("AccessorID is not a valid UUID")
        if token.secret_id in ROOTS:
            raise PermissionDeniedError("Cannot modify root ACL")
        existing = self.server.store.acl.token_by_accessor(accessor).value
        if existing is None or existing.is_expired(self.system.unix_ns()):
            raise RequestError(f"Cannot find token {go_quote(accessor)}")
        if token.secret_id not in ("", existing.secret_id):
            raise RequestError("Changing a tokens SecretID is not permitted")
        if token.local != existing.local:
            raise RequestError(f"cannot toggle local mode of {accessor}")
        if token.auth_method not in ("", existing.auth_method):
            raise RequestError(f"Cannot change AuthMethod of {accessor}")
        expires_ns = token.expires_ns
        if token.expiration_ttl_ns or expires_ns not in (None, existing.expires_ns):
            raise RequestError(f"Cannot change expiration time of {accessor}")
        return replace(
            token,
            secret_id=existing.secret_id,
            auth_method=existing.auth_method,
            raw_create_time=existing.raw_create_time,
            raw_expiration_time=existing.raw_expiration_time,
        )

    def _checked(self, token: t.ACLToken) -> t.ACLToken:
        """With links by id, each once, and its hash."""
        token = replace(
            token,
            policies=policy_links(self.server, token.policies, ids_must_exist=True),
            roles=role_links(self.server, token.roles),
            service_identities=service_identities(
                token.service_identities, "token", local=token.local
            ),
            node_identities=node_identities(token.node_identities, "token"),
        )
        if token.rules:
            raise RequestError("Rules cannot be specified for this token")
        if token.type:
            raise RequestError("Type cannot be specified for this token")
        return token.hashed()


def _visible(token: t.ACLToken, call: Call) -> t.ACLToken | None:
    """What a caller may see of it: nothing, all but the secret, all."""
    if not call.authorizer.acl_read():
        return None
    if not call.authorizer.acl_write():
        return replace(token, secret_id=t.REDACTED)
    return token


def endpoints(server: EndpointServer, system: AclSystem) -> list[Endpoint]:
    """All of `ACL.Token*` and the bootstrap."""
    it = Tokens(server, system)
    read_, write = Requires.ACL_READ, Requires.ACL_WRITE
    return [
        Endpoint(
            METHODS["ACL.BootstrapTokens"],
            Requires.NOTHING,
            it.bootstrap,
            prepare=it.check,
            resolves=lambda _: False,
        ),
        Endpoint(
            METHODS["ACL.TokenRead"],
            read_,
            it.read,
            prepare=it.where_tokens_are,
            resolves=lambda request: request.token_id_type == t.ID_ACCESSOR,
        ),
        Endpoint(METHODS["ACL.TokenList"], read_, it.list, prepare=it.list_where),
        Endpoint(METHODS["ACL.TokenBatchRead"], read_, it.batch_read, prepare=it.where_tokens_are),
        Endpoint(METHODS["ACL.TokenSet"], write, it.set, prepare=it.set_where),
        Endpoint(METHODS["ACL.TokenClone"], write, it.clone, prepare=it.where_tokens_are),
        Endpoint(METHODS["ACL.TokenDelete"], write, it.delete, prepare=it.where_tokens_are),
    ]
