"""`ACL.Policy*` (agent/consul/acl_endpoint.go)."""

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
    check_policy_name,
    require_read,
    require_write,
)
from proconsul.rpc.endpoints.base import EndpointServer, RequestError, meta, read
from proconsul.rpc.methods import METHODS
from proconsul.rpc.table import Call, Endpoint, Requires
from proconsul.util.goquote import go_quote


class Policies(Base):
    """Policies are the primary's; secondaries have copies."""

    async def read(self, request: r.ACLPolicyGetRequest, call: Call) -> r.ACLPolicyResponse:
        require_read(call.authorizer)
        acl = self.server.store.acl
        return await read(
            self.server,
            request,
            lambda: (
                acl.policy(request.policy_id)
                if request.policy_id
                else acl.policy_by_name(request.policy_name)
            ),
            lambda found: {"policy": found},
            r.ACLPolicyResponse,
        )

    async def list(self, request: r.ACLPolicyListRequest, call: Call) -> r.ACLPolicyListResponse:
        require_read(call.authorizer)
        return await read(
            self.server,
            request,
            self.server.store.acl.policies,
            lambda rows: {"policies": [t.policy_stub(row) for row in rows] or None},
            r.ACLPolicyListResponse,
        )

    async def batch_read(
        self, request: r.ACLPolicyBatchGetRequest, call: Call
    ) -> r.ACLPolicyBatchResponse:
        def build(rows: list[t.ACLPolicy]) -> dict[str, Any]:
            return {"policies": rows if call.authorizer.acl_read() else []}

        return await read(
            self.server,
            request,
            lambda: self.server.store.acl.policies_by_ids(request.policy_ids or ()),
            build,
            r.ACLPolicyBatchResponse,
        )

    async def resolve(
        self, request: r.ACLPolicyBatchGetRequest, _call: Call
    ) -> r.ACLPolicyBatchResponse:
        """For agents that judge a token: those of its policies that they do not know yet."""
        token, roles, valid = await self.system.rows_of(request.token)
        lists = (token.policies, *(role.policies for role in roles))
        known: dict[str, t.ACLPolicy | None] = {
            link.id: None for links in lists for link in links or ()
        }
        known.update({policy.id: policy for policy in valid})
        found = []
        for policy_id in request.policy_ids or ():
            if policy_id not in known:
                raise PermissionDeniedError
            if (policy := known[policy_id]) is not None:
                found.append(policy)
        return r.ACLPolicyBatchResponse(policies=found or None, **meta(self.server, 0))

    async def set(self, request: r.ACLPolicySetRequest, call: Call) -> t.ACLPolicy:
        require_write(call.authorizer)
        policy = request.policy
        check_policy_name(policy.name)
        policy = self._updated(policy) if policy.id else self._created(policy)
        self.system.check_rules(policy.rules, policy.syntax)
        policy = policy.hashed()
        try:
            await self.server.apply(
                MessageType.ACL_POLICY_SET, r.ACLPolicyBatchSetRequest([policy])
            )
        finally:
            self.system.forget_policy(policy.id)
        return self.server.store.acl.policy(policy.id).value or policy

    def _created(self, policy: t.ACLPolicy) -> t.ACLPolicy:
        acl = self.server.store.acl
        if acl.policy_by_name(policy.name).value is not None:
            raise RequestError(
                f"Invalid Policy: A Policy with Name {go_quote(policy.name)} already exists"
            )
        return replace(policy, id=self.new_id(lambda new: acl.policy(new).value is not None))

    def _updated(self, policy: t.ACLPolicy) -> t.ACLPolicy:
        acl = self.server.store.acl
        if not is_uuid(policy.id):
            raise RequestError("Policy ID invalid UUID")
        existing = acl.policy(policy.id).value
        if existing is None:
            raise RequestError(f"cannot find policy {policy.id}")
        if existing.name != policy.name and acl.policy_by_name(policy.name).value is not None:
            raise RequestError(
                f"Invalid Policy: A policy with name {go_quote(policy.name)} already exists"
            )
        if policy.id == t.POLICY_MANAGEMENT_ID:
            builtin = "builtin global-management policy is not permitted"
            if policy.datacenters is not None:
                raise RequestError(f"Changing the Datacenters of the {builtin}")
            if policy.rules != existing.rules:
                raise RequestError(f"Changing the Rules for the {builtin}")
        return policy

    async def delete(self, request: r.ACLPolicyDeleteRequest, call: Call) -> str:
        require_write(call.authorizer)
        policy = self.server.store.acl.policy(request.policy_id).value
        if policy is None:
            return ""
        if policy.id == t.POLICY_MANAGEMENT_ID:
            raise RequestError(
                "Delete operation not permitted on the builtin global-management policy"
            )
        try:
            await self.server.apply(
                MessageType.ACL_POLICY_DELETE, r.ACLPolicyBatchDeleteRequest([policy.id])
            )
        finally:
            self.system.forget_policy(policy.id)
        return policy.name


def endpoints(server: EndpointServer, system: AclSystem) -> list[Endpoint]:
    """All of `ACL.Policy*`."""
    it = Policies(server, system)
    read_, write = Requires.ACL_READ, Requires.ACL_WRITE
    return [
        Endpoint(METHODS["ACL.PolicyRead"], read_, it.read, prepare=it.check),
        Endpoint(METHODS["ACL.PolicyList"], read_, it.list, prepare=it.check),
        Endpoint(METHODS["ACL.PolicyBatchRead"], read_, it.batch_read, prepare=it.check),
        Endpoint(
            METHODS["ACL.PolicyResolve"],
            Requires.NOTHING,
            it.resolve,
            prepare=it.check,
            resolves=lambda _: False,
        ),
        Endpoint(METHODS["ACL.PolicySet"], write, it.set, prepare=it.to_primary),
        Endpoint(METHODS["ACL.PolicyDelete"], write, it.delete, prepare=it.to_primary),
    ]
