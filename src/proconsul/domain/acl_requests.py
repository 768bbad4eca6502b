"""Requests and responses of `ACL.*`, and the commands of the log (`agent/structs/acl.go`)."""

from __future__ import annotations

from typing import Any

from msgspec import Raw, field

from proconsul.domain import acl_types as t
from proconsul.domain.base import GoStruct, Int64, Uint64
from proconsul.domain.federation import ZERO_TIME
from proconsul.domain.options import QueryMeta, QueryOptions, WriteRequest


class _Read(QueryOptions, frozen=True, gc=False):
    datacenter: str = ""


class _Write(WriteRequest, frozen=True, gc=False):
    datacenter: str = ""


# --- tokens


class ACLTokenSetRequest(_Write, frozen=True, gc=False):
    """`create` demands a new token although it names an accessor."""

    acl_token: t.ACLToken = t.ACLToken()
    create: bool = False


class ACLTokenGetRequest(_Read, frozen=True, gc=False):
    """`token_id_type` is `ID_SECRET` or `ID_ACCESSOR`."""

    token_id: str = ""
    token_id_type: str = ""


class ACLTokenDeleteRequest(_Write, frozen=True, gc=False):
    token_id: str = ""


class ACLTokenListRequest(_Read, frozen=True, gc=False):
    """Tokens with a policy, with a role or of an auth method; or all."""

    include_local: bool = False
    include_global: bool = False
    policy: str = ""
    role: str = ""
    auth_method: str = ""


class ACLTokenListResponse(QueryMeta, frozen=True, gc=False):
    tokens: list[t.ACLTokenListStub] | None = None


class ACLTokenBatchGetRequest(_Read, frozen=True, gc=False):
    accessor_ids: list[str] | None = None


class ACLTokenResponse(QueryMeta, frozen=True, gc=False):
    """`redacted` says that the secret is hidden."""

    token: t.ACLToken | None = None
    redacted: bool = False
    source_datacenter: str = ""


class ACLTokenBatchResponse(QueryMeta, frozen=True, gc=False):
    """`removed` says that some may not be seen at all."""

    tokens: list[t.ACLToken] | None = None
    redacted: bool = False
    removed: bool = False


class ACLTokenBatchSetRequest(GoStruct, frozen=True, gc=False):
    """A command of the log."""

    tokens: list[t.ACLToken] | None = None
    cas: bool = False
    allow_missing_links: bool = False
    prohibit_unprivileged: bool = False
    from_replication: bool = False


class ACLTokenBatchDeleteRequest(GoStruct, frozen=True, gc=False):
    """A command of the log; the ids are accessors."""

    token_ids: list[str] | None = None


class ACLTokenBootstrapRequest(GoStruct, frozen=True, gc=False):
    """A command of the log."""

    token: t.ACLToken = t.ACLToken()
    reset_index: Uint64 = 0


# --- policies


class ACLPolicySetRequest(_Write, frozen=True, gc=False):
    policy: t.ACLPolicy = t.ACLPolicy()


class ACLPolicyDeleteRequest(_Write, frozen=True, gc=False):
    policy_id: str = ""


class ACLPolicyGetRequest(_Read, frozen=True, gc=False):
    """By id or else by name."""

    policy_id: str = ""
    policy_name: str = ""


class ACLPolicyListRequest(_Read, frozen=True, gc=False):
    pass


class ACLPolicyListResponse(QueryMeta, frozen=True, gc=False):
    policies: list[t.ACLPolicyListStub] | None = None


class ACLPolicyBatchGetRequest(_Read, frozen=True, gc=False):
    policy_ids: list[str] | None = None


class ACLPolicyResponse(QueryMeta, frozen=True, gc=False):
    policy: t.ACLPolicy | None = None


class ACLPolicyBatchResponse(QueryMeta, frozen=True, gc=False):
    policies: list[t.ACLPolicy] | None = None


class ACLPolicyBatchSetRequest(GoStruct, frozen=True, gc=False):
    """A command of the log."""

    policies: list[t.ACLPolicy] | None = None


class ACLPolicyBatchDeleteRequest(GoStruct, frozen=True, gc=False):
    """A command of the log."""

    policy_ids: list[str] | None = None


# --- roles


class ACLRoleSetRequest(_Write, frozen=True, gc=False):
    role: t.ACLRole = t.ACLRole()


class ACLRoleDeleteRequest(_Write, frozen=True, gc=False):
    role_id: str = ""


class ACLRoleGetRequest(_Read, frozen=True, gc=False):
    """By id or else by name."""

    role_id: str = ""
    role_name: str = ""


class ACLRoleListRequest(_Read, frozen=True, gc=False):
    """Those with a policy, or all."""

    policy: str = ""


class ACLRoleListResponse(QueryMeta, frozen=True, gc=False):
    roles: list[t.ACLRole] | None = None


class ACLRoleBatchGetRequest(_Read, frozen=True, gc=False):
    role_ids: list[str] | None = None


class ACLRoleResponse(QueryMeta, frozen=True, gc=False):
    role: t.ACLRole | None = None


class ACLRoleBatchResponse(QueryMeta, frozen=True, gc=False):
    roles: list[t.ACLRole] | None = None


class ACLRoleBatchSetRequest(GoStruct, frozen=True, gc=False):
    """A command of the log."""

    roles: list[t.ACLRole] | None = None
    allow_missing_links: bool = False


class ACLRoleBatchDeleteRequest(GoStruct, frozen=True, gc=False):
    """A command of the log."""

    role_ids: list[str] | None = None


# --- auth methods and binding rules


class ACLBindingRuleGetRequest(_Read, frozen=True, gc=False):
    binding_rule_id: str = ""


class ACLBindingRuleListRequest(_Read, frozen=True, gc=False):
    """Those of one auth method, or all."""

    auth_method: str = ""


class ACLBindingRuleResponse(QueryMeta, frozen=True, gc=False):
    binding_rule: t.ACLBindingRule | None = None


class ACLBindingRuleListResponse(QueryMeta, frozen=True, gc=False):
    binding_rules: list[t.ACLBindingRule] | None = None


class ACLAuthMethodGetRequest(_Read, frozen=True, gc=False):
    auth_method_name: str = ""


class ACLAuthMethodListRequest(_Read, frozen=True, gc=False):
    pass


class ACLAuthMethodResponse(QueryMeta, frozen=True, gc=False):
    auth_method: t.ACLAuthMethod | None = None


class ACLAuthMethodListResponse(QueryMeta, frozen=True, gc=False):
    auth_methods: list[t.ACLAuthMethodListStub] | None = None


class ACLBindingRuleSetRequest(_Write, frozen=True, gc=False):
    binding_rule: t.ACLBindingRule = t.ACLBindingRule()


class ACLBindingRuleDeleteRequest(_Write, frozen=True, gc=False):
    binding_rule_id: str = ""


class ACLAuthMethodSetRequest(_Write, frozen=True, gc=False):
    auth_method: t.ACLAuthMethod = t.ACLAuthMethod()


class ACLAuthMethodDeleteRequest(_Write, frozen=True, gc=False):
    auth_method_name: str = ""


class ACLLoginParams(GoStruct, frozen=True, gc=False):
    """A credential of a foreign system."""

    auth_method: str = ""
    bearer_token: str = ""
    meta: dict[str, str] | None = None


class ACLLoginRequest(_Write, frozen=True, gc=False):
    auth: ACLLoginParams | None = None


class ACLLogoutRequest(_Write, frozen=True, gc=False):
    """Of the token that the request brings."""


# --- replication, and the interface of before Consul 1.4


class ACLReplicationStatus(GoStruct, frozen=True, gc=False):
    """How a secondary keeps up with the primary. `replication_type`: legacy, policies or tokens."""

    enabled: bool = False
    running: bool = False
    source_datacenter: str = ""
    replication_type: str = ""
    replicated_index: Uint64 = 0
    replicated_role_index: Uint64 = 0
    replicated_token_index: Uint64 = 0
    raw_last_success: Raw = ZERO_TIME
    raw_last_error: Raw = ZERO_TIME


class ACLRequest(_Write, frozen=True, gc=False):
    """Of before Consul 1.4; also a command of the log."""

    op: str = ""
    acl: t.ACL = t.ACL()


class ACLSpecificRequest(_Read, frozen=True, gc=False):
    """`acl` is a secret."""

    acl: str = ""


class IndexedACLs(QueryMeta, frozen=True, gc=False):
    acls: list[t.ACL] | None = field(default=None, name="ACLs")


class ACLPolicyResolveLegacyRequest(_Read, frozen=True, gc=False):
    """`acl` is a secret, `e_tag` that of the answer that the caller has."""

    acl: str = ""
    e_tag: str = ""


class ACLPolicyResolveLegacyResponse(QueryMeta, frozen=True, gc=False):
    """`policy` is the rules of a token as a map; None if the caller has them."""

    e_tag: str = ""
    parent: str = ""
    policy: dict[str, Any] | None = None
    ttl_ns: Int64 = 0
