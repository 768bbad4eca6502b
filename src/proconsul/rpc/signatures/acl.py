"""`ACL.*`. Which writes go to the primary depends on the request: endpoints say it (`prepare`)."""

from __future__ import annotations

from typing import Any

from proconsul.domain import acl_requests as r
from proconsul.domain import acl_types as t
from proconsul.domain.acl_enforce import ACLAuthorizationResponse, RemoteACLAuthorizationRequest
from proconsul.domain.options import DCSpecificRequest
from proconsul.rpc.table import Method, Route

_LEADER = Route.LEADER


def _read(name: str, request: type, response: Any) -> Method:
    return Method(f"ACL.{name}", request, response, _LEADER)


def _write(name: str, request: type, response: type) -> Method:
    return Method(f"ACL.{name}", request, response, _LEADER, is_read=False)


SIGNATURES = (
    _write("BootstrapTokens", DCSpecificRequest, t.ACLToken),
    _read("TokenRead", r.ACLTokenGetRequest, r.ACLTokenResponse),
    _write("TokenSet", r.ACLTokenSetRequest, t.ACLToken),
    _write("TokenClone", r.ACLTokenSetRequest, t.ACLToken),
    _write("TokenDelete", r.ACLTokenDeleteRequest, str),
    _read("TokenList", r.ACLTokenListRequest, r.ACLTokenListResponse),
    _read("TokenBatchRead", r.ACLTokenBatchGetRequest, r.ACLTokenBatchResponse),
    _read("PolicyRead", r.ACLPolicyGetRequest, r.ACLPolicyResponse),
    _write("PolicySet", r.ACLPolicySetRequest, t.ACLPolicy),
    _write("PolicyDelete", r.ACLPolicyDeleteRequest, str),
    _read("PolicyList", r.ACLPolicyListRequest, r.ACLPolicyListResponse),
    _read("PolicyBatchRead", r.ACLPolicyBatchGetRequest, r.ACLPolicyBatchResponse),
    _read("PolicyResolve", r.ACLPolicyBatchGetRequest, r.ACLPolicyBatchResponse),
    _read("RoleRead", r.ACLRoleGetRequest, r.ACLRoleResponse),
    _write("RoleSet", r.ACLRoleSetRequest, t.ACLRole),
    _write("RoleDelete", r.ACLRoleDeleteRequest, str),
    _read("RoleList", r.ACLRoleListRequest, r.ACLRoleListResponse),
    _read("RoleBatchRead", r.ACLRoleBatchGetRequest, r.ACLRoleBatchResponse),
    _read("RoleResolve", r.ACLRoleBatchGetRequest, r.ACLRoleBatchResponse),
    _read("BindingRuleRead", r.ACLBindingRuleGetRequest, r.ACLBindingRuleResponse),
    _read("BindingRuleList", r.ACLBindingRuleListRequest, r.ACLBindingRuleListResponse),
    _read("AuthMethodRead", r.ACLAuthMethodGetRequest, r.ACLAuthMethodResponse),
    _read("AuthMethodList", r.ACLAuthMethodListRequest, r.ACLAuthMethodListResponse),
    # Refused, whatever they ask: nobody logs in here.
    _write("AuthMethodSet", r.ACLAuthMethodSetRequest, t.ACLAuthMethod),
    _write("AuthMethodDelete", r.ACLAuthMethodDeleteRequest, bool),
    _write("BindingRuleSet", r.ACLBindingRuleSetRequest, t.ACLBindingRule),
    _write("BindingRuleDelete", r.ACLBindingRuleDeleteRequest, bool),
    _write("Login", r.ACLLoginRequest, t.ACLToken),
    _write("Logout", r.ACLLogoutRequest, bool),
    # Not a read: only the leader replicates, whatever staleness the request allows.
    _write("ReplicationStatus", DCSpecificRequest, r.ACLReplicationStatus),
    _write("Bootstrap", DCSpecificRequest, t.ACL),
    _write("Apply", r.ACLRequest, str),
    _read("Get", r.ACLSpecificRequest, r.IndexedACLs),
    _read("List", DCSpecificRequest, r.IndexedACLs),
    _read("Authorize", RemoteACLAuthorizationRequest, list[ACLAuthorizationResponse] | None),
    _read("GetPolicy", r.ACLPolicyResolveLegacyRequest, r.ACLPolicyResolveLegacyResponse),
)
