"""`ACL.Role*`, and the reads of binding rules and auth methods (agent/consul/acl_endpoint.go)."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from proconsul.domain import acl_requests as r
from proconsul.domain import acl_types as t
from proconsul.domain.errors import PermissionDeniedError
from proconsul.domain.messages import MessageType
from proconsul.domain.validate import is_uuid
from proconsul.rpc.endpoints.acl_base import (
    AclSystem,
    Base,
    check_role_name,
    node_identities,
    policy_links,
    require_read,
    require_write,
    service_identities,
)
from proconsul.rpc.endpoints.base import EndpointServer, RequestError, meta, read
from proconsul.rpc.methods import METHODS
from proconsul.rpc.table import Call, Endpoint, Requires
from proconsul.util.goquote import go_quote

NO_LOGINS = "auth methods are not supported by this server yet: give out tokens instead"
LOGIN_METHODS = (
    "AuthMethodSet", "AuthMethodDelete", "BindingRuleSet", "BindingRuleDelete", "Login", "Logout",
)  # fmt: skip


class Roles(Base):
    """Roles are the primary's; secondaries have copies."""

    async def read(self, request: r.ACLRoleGetRequest, call: Call) -> r.ACLRoleResponse:
        require_read(call.authorizer)
        acl = self.server.store.acl
        return await read(
            self.server,
            request,
            lambda: (
                acl.role(request.role_id)
                if request.role_id
                else acl.role_by_name(request.role_name)
            ),
            lambda found: {"role": found},
            r.ACLRoleResponse,
        )

    async def list(self, request: r.ACLRoleListRequest, call: Call) -> r.ACLRoleListResponse:
        require_read(call.authorizer)
        return await read(
            self.server,
            request,
            lambda: self.server.store.acl.roles(request.policy),
            lambda rows: {"roles": rows},
            r.ACLRoleListResponse,
        )

    async def batch_read(
        self, request: r.ACLRoleBatchGetRequest, call: Call
    ) -> r.ACLRoleBatchResponse:
        def build(rows: list[t.ACLRole]) -> dict[str, Any]:
            return {"roles": rows if call.authorizer.acl_read() else []}

        return await read(
            self.server,
            request,
            lambda: self.server.store.acl.roles_by_ids(request.role_ids or ()),
            build,
            r.ACLRoleBatchResponse,
        )

    async def resolve(
        self, request: r.ACLRoleBatchGetRequest, _call: Call
    ) -> r.ACLRoleBatchResponse:
        """For agents that judge a token: those of its roles that they do not know yet."""
        token, valid, _ = await self.system.rows_of(request.token)
        known: dict[str, t.ACLRole | None] = {link.id: None for link in token.roles or ()}
        known.update({role.id: role for role in valid})
        found = []
        for role_id in request.role_ids or ():
            if role_id not in known:
                raise PermissionDeniedError
            if (role := known[role_id]) is not None:
                found.append(role)
        return r.ACLRoleBatchResponse(roles=found or None, **meta(self.server, 0))

    async def set(self, request: r.ACLRoleSetRequest, call: Call) -> t.ACLRole:
        require_write(call.authorizer)
        role = request.role
        check_role_name(role.name)
        role = self._updated(role) if role.id else self._created(role)
        role = replace(
            role,
            policies=policy_links(self.server, role.policies, ids_must_exist=False),
            service_identities=service_identities(role.service_identities, "role"),
            node_identities=node_identities(role.node_identities, "role"),
        ).hashed()
        try:
            await self.server.apply(MessageType.ACL_ROLE_SET, r.ACLRoleBatchSetRequest([role]))
        finally:
            self.system.forget_role(role.id)
        return self.server.store.acl.role(role.id).value or role

    def _created(self, role: t.ACLRole) -> t.ACLRole:
        acl = self.server.store.acl
        if acl.role_by_name(role.name).value is not None:
            raise RequestError(
                f"Invalid Role: A Role with Name {go_quote(role.name)} already exists"
            )
        return replace(role, id=self.new_id(lambda new: acl.role(new).value is not None))

    def _updated(self, role: t.ACLRole) -> t.ACLRole:
        acl = self.server.store.acl
        if not is_uuid(role.id):
            raise RequestError("Role ID invalid UUID")
        existing = acl.role(role.id).value
        if existing is None:
            raise RequestError(f"cannot find role {role.id}")
        if existing.name != role.name and acl.role_by_name(role.name).value is not None:
            raise RequestError(
                f"Invalid Role: A role with name {go_quote(role.name)} already exists"
            )
        return role

    async def delete(self, request: r.ACLRoleDeleteRequest, call: Call) -> str:
        require_write(call.authorizer)
        role = self.server.store.acl.role(request.role_id).value
        if role is None:
            return ""
        try:
            await self.server.apply(
                MessageType.ACL_ROLE_DELETE, r.ACLRoleBatchDeleteRequest([role.id])
            )
        finally:
            self.system.forget_role(role.id)
        return role.name

    # -- what logins are made of; only real servers write it -------------------------------

    async def rule(
        self, request: r.ACLBindingRuleGetRequest, call: Call
    ) -> r.ACLBindingRuleResponse:
        require_read(call.authorizer)
        return await read(
            self.server,
            request,
            lambda: self.server.store.acl.rule(request.binding_rule_id),
            lambda found: {"binding_rule": found},
            r.ACLBindingRuleResponse,
        )

    async def rules(
        self, request: r.ACLBindingRuleListRequest, call: Call
    ) -> r.ACLBindingRuleListResponse:
        require_read(call.authorizer)
        return await read(
            self.server,
            request,
            lambda: self.server.store.acl.rules(request.auth_method),
            lambda rows: {"binding_rules": rows},
            r.ACLBindingRuleListResponse,
        )

    async def method(
        self, request: r.ACLAuthMethodGetRequest, call: Call
    ) -> r.ACLAuthMethodResponse:
        require_read(call.authorizer)
        return await read(
            self.server,
            request,
            lambda: self.server.store.acl.method(request.auth_method_name),
            lambda found: {"auth_method": found},
            r.ACLAuthMethodResponse,
        )

    async def methods(
        self, request: r.ACLAuthMethodListRequest, call: Call
    ) -> r.ACLAuthMethodListResponse:
        require_read(call.authorizer)
        return await read(
            self.server,
            request,
            self.server.store.acl.methods,
            lambda rows: {"auth_methods": [t.method_stub(row) for row in rows] or None},
            r.ACLAuthMethodListResponse,
        )

    async def no_logins(self, _request: Any, _call: Call) -> None:
        """Of `LOGIN_METHODS`."""
        raise RequestError(NO_LOGINS)


def endpoints(server: EndpointServer, system: AclSystem) -> list[Endpoint]:
    """All of `ACL.Role*`, `ACL.BindingRule*`, `ACL.AuthMethod*` that there is."""
    it = Roles(server, system)
    read_, write = Requires.ACL_READ, Requires.ACL_WRITE
    logins = it.where_logins_are
    return [
        Endpoint(METHODS["ACL.RoleRead"], read_, it.read, prepare=it.check),
        Endpoint(METHODS["ACL.RoleList"], read_, it.list, prepare=it.check),
        Endpoint(METHODS["ACL.RoleBatchRead"], read_, it.batch_read, prepare=it.check),
        Endpoint(
            METHODS["ACL.RoleResolve"],
            Requires.NOTHING,
            it.resolve,
            prepare=it.check,
            resolves=lambda _: False,
        ),
        Endpoint(METHODS["ACL.RoleSet"], write, it.set, prepare=it.to_primary),
        Endpoint(METHODS["ACL.RoleDelete"], write, it.delete, prepare=it.to_primary),
        *(
            Endpoint(
                METHODS[f"ACL.{name}"],
                Requires.NOTHING,
                it.no_logins,
                prepare=logins,
                resolves=lambda _: False,
            )
            for name in LOGIN_METHODS
        ),
        Endpoint(METHODS["ACL.BindingRuleRead"], read_, it.rule, prepare=logins),
        Endpoint(METHODS["ACL.BindingRuleList"], read_, it.rules, prepare=logins),
        Endpoint(METHODS["ACL.AuthMethodRead"], read_, it.method, prepare=logins),
        Endpoint(METHODS["ACL.AuthMethodList"], read_, it.methods, prepare=logins),
    ]
