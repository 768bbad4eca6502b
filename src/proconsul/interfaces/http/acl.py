"""`/v1/acl/` but for the calls of before Consul 1.4 (`agent/acl_endpoint.go`)."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from msgspec.structs import replace

from proconsul.domain import acl_requests as r
from proconsul.domain import acl_types as t
from proconsul.domain.acl_rules import RulesError
from proconsul.domain.errors import ACL_DISABLED, PermissionDeniedError
from proconsul.domain.go_decode import GoDecodeError
from proconsul.domain.options import DCSpecificRequest, QueryMeta
from proconsul.drivers.http import Response
from proconsul.interfaces.http import acl_views as views
from proconsul.interfaces.http.answers import meta_head, text_answer
from proconsul.interfaces.http.api import HttpApi
from proconsul.interfaces.http.errors import ACL_NOT_FOUND, HttpError, translate
from proconsul.interfaces.http.options import query_options
from proconsul.interfaces.http.query import Ask
from proconsul.util.errors import ProconsulError

Handler = Callable[[HttpApi, Ask], Coroutine[Any, Any, Response]]

BOOTSTRAP_NOT_ALLOWED = "ACL bootstrap no longer allowed"
_NO_ANSWER = meta_head(QueryMeta())
"""The headers of a query that failed."""


def with_acls(handler: Handler) -> Handler:
    """401 while ACLs are off."""

    async def guarded(api: HttpApi, ask: Ask) -> Response:
        if not api.config.acls_enabled:
            return text_answer(401, ACL_DISABLED)
        return await handler(api, ask)

    return guarded


def refused(text: str) -> HttpError:
    """400 as these endpoints word it."""
    return HttpError(400, f"Bad request: {text}")


def decoded(read: Callable[[bytes], Any], ask: Ask, noun: str) -> Any:
    """The body as a row. Raises `HttpError`."""
    try:
        return read(ask.request.body)
    except GoDecodeError as error:
        text = str(error)
        if text == 'json: unknown field "Namespace"':
            text += " - Namespaces are a Consul Enterprise feature"
        raise refused(f"{noun} decoding failed: {text}") from None


async def asked(api: HttpApi, method: str, request: Any) -> Any:
    """A query's answer; a failure, too, carries a query's headers."""
    try:
        return await api.agent.rpc(method, request)
    except (ProconsulError, TimeoutError) as error:
        found = translate(error)
        raise HttpError(found.status, found.text, found.head + _NO_ANSWER) from error


def found_or_403(
    api: HttpApi, ask: Ask, row: Any, view: Callable[[Any], Any], out: Any
) -> Response:
    """What is not there answers as what may not be seen."""
    if row is None:
        raise HttpError(403, ACL_NOT_FOUND, api.meta(out))
    return api.json(ask, view(row), api.meta(out))


def write_options(api: HttpApi, ask: Ask) -> dict[str, str]:
    """Writes go to our own datacenter, whence they find the right one."""
    return {"datacenter": api.config.datacenter, "token": api.token(ask)}


# --- bootstrap and replication


async def bootstrap(api: HttpApi, ask: Ask) -> Response:
    """PUT /v1/acl/bootstrap: the first token, for everything."""
    request = DCSpecificRequest(datacenter=api.config.datacenter)
    try:
        token: t.ACLToken = await api.agent.rpc("ACL.BootstrapTokens", request)
    except ProconsulError as error:
        if BOOTSTRAP_NOT_ALLOWED in str(error):
            raise HttpError(403, f"Permission denied: {error}") from error
        raise
    return api.json(ask, {"ID": token.secret_id} | views.token(token))


async def replication(api: HttpApi, ask: Ask) -> Response:
    """GET /v1/acl/replication"""
    request = DCSpecificRequest(**query_options(ask, api.config))
    status: r.ACLReplicationStatus = await api.agent.rpc("ACL.ReplicationStatus", request)
    return api.json(ask, views.replication(status))


# --- tokens


async def tokens(api: HttpApi, ask: Ask) -> Response:
    """GET /v1/acl/tokens"""
    request = r.ACLTokenListRequest(
        include_local=True,
        include_global=True,
        policy=ask.first("policy"),
        role=ask.first("role"),
        auth_method=ask.first("authmethod"),
        **query_options(ask, api.config),
    )
    out: r.ACLTokenListResponse = await asked(api, "ACL.TokenList", request)
    return api.json(ask, [views.token_stub(row) for row in out.tokens or ()], api.meta(out))


async def create_token(api: HttpApi, ask: Ask) -> Response:
    """PUT /v1/acl/token"""
    return await _set_token(api, ask, decoded(views.read_token, ask, "Token"), create=True)


async def token(api: HttpApi, ask: Ask) -> Response:
    """/v1/acl/token/:accessor, and `PUT .../clone`"""
    method, accessor = ask.request.method, ask.rest
    if method == "PUT" and accessor.endswith("/clone"):
        return await _clone_token(api, ask, accessor.removesuffix("/clone"))
    if method == "PUT":
        row = decoded(views.read_token, ask, "Token")
        if row.accessor_id not in ("", accessor):
            raise refused("Token Accessor ID in URL and payload do not match")
        row = replace(row, accessor_id=accessor)
        return await _set_token(api, ask, row, create=False)
    if not accessor:
        raise refused("Missing token ID")
    if method == "DELETE":
        gone = r.ACLTokenDeleteRequest(token_id=accessor, **write_options(api, ask))
        await api.agent.rpc("ACL.TokenDelete", gone)
        return api.json(ask, True)
    return await _read_token(api, ask, token_id=accessor, token_id_type=t.ID_ACCESSOR)


async def own_token(api: HttpApi, ask: Ask) -> Response:
    """GET /v1/acl/token/self"""
    return await _read_token(api, ask, token_id=api.token(ask), token_id_type=t.ID_SECRET)


async def _read_token(api: HttpApi, ask: Ask, **of: Any) -> Response:
    request = r.ACLTokenGetRequest(**of, **query_options(ask, api.config))
    out: r.ACLTokenResponse = await asked(api, "ACL.TokenRead", request)
    return found_or_403(api, ask, out.token, views.token, out)


async def _set_token(api: HttpApi, ask: Ask, row: t.ACLToken, *, create: bool) -> Response:
    request = r.ACLTokenSetRequest(acl_token=row, create=create, **write_options(api, ask))
    return api.json(ask, views.token(await api.agent.rpc("ACL.TokenSet", request)))


async def _clone_token(api: HttpApi, ask: Ask, accessor: str) -> Response:
    row = replace(decoded(views.read_token, ask, "Token"), accessor_id=accessor)
    request = r.ACLTokenSetRequest(acl_token=row, create=True, **write_options(api, ask))
    return api.json(ask, views.token(await api.agent.rpc("ACL.TokenClone", request)))


# --- policies


async def policies(api: HttpApi, ask: Ask) -> Response:
    """GET /v1/acl/policies"""
    request = r.ACLPolicyListRequest(**query_options(ask, api.config))
    out: r.ACLPolicyListResponse = await asked(api, "ACL.PolicyList", request)
    return api.json(ask, [views.policy_stub(row) for row in out.policies or ()], api.meta(out))


async def create_policy(api: HttpApi, ask: Ask) -> Response:
    """PUT /v1/acl/policy"""
    row = decoded(views.read_policy, ask, "Policy")
    if row.id:
        raise refused("Cannot specify the ID when creating a new policy")
    return await _set_policy(api, ask, row)


async def policy(api: HttpApi, ask: Ask) -> Response:
    """/v1/acl/policy/:id"""
    method, policy_id = ask.request.method, ask.rest
    if method == "PUT":
        row = decoded(views.read_policy, ask, "Policy")
        if row.id not in ("", policy_id):
            raise refused("Policy ID in URL and payload do not match")
        return await _set_policy(api, ask, replace(row, id=policy_id))
    if not policy_id:
        raise refused("Missing policy ID")
    if method == "DELETE":
        gone = r.ACLPolicyDeleteRequest(policy_id=policy_id, **write_options(api, ask))
        await api.agent.rpc("ACL.PolicyDelete", gone)
        return api.json(ask, True)
    return await _read_policy(api, ask, policy_id=policy_id)


async def policy_by_name(api: HttpApi, ask: Ask) -> Response:
    """GET /v1/acl/policy/name/:name"""
    if not ask.rest:
        raise refused("Missing policy Name")
    return await _read_policy(api, ask, policy_name=ask.rest)


async def _read_policy(api: HttpApi, ask: Ask, **of: Any) -> Response:
    request = r.ACLPolicyGetRequest(**of, **query_options(ask, api.config))
    out: r.ACLPolicyResponse = await asked(api, "ACL.PolicyRead", request)
    return found_or_403(api, ask, out.policy, views.policy, out)


async def _set_policy(api: HttpApi, ask: Ask, row: t.ACLPolicy) -> Response:
    request = r.ACLPolicySetRequest(policy=row, **write_options(api, ask))
    return api.json(ask, views.policy(await api.agent.rpc("ACL.PolicySet", request)))


# --- roles


async def roles(api: HttpApi, ask: Ask) -> Response:
    """GET /v1/acl/roles"""
    request = r.ACLRoleListRequest(policy=ask.first("policy"), **query_options(ask, api.config))
    out: r.ACLRoleListResponse = await asked(api, "ACL.RoleList", request)
    return api.json(ask, [views.role(row) for row in out.roles or ()], api.meta(out))


async def create_role(api: HttpApi, ask: Ask) -> Response:
    """PUT /v1/acl/role"""
    return await _set_role(api, ask, "")


async def role(api: HttpApi, ask: Ask) -> Response:
    """/v1/acl/role/:id"""
    method, role_id = ask.request.method, ask.rest
    if method == "PUT":
        return await _set_role(api, ask, role_id)
    if not role_id:
        raise refused("Missing role ID")
    if method == "DELETE":
        gone = r.ACLRoleDeleteRequest(role_id=role_id, **write_options(api, ask))
        await api.agent.rpc("ACL.RoleDelete", gone)
        return api.json(ask, True)
    return await _read_role(api, ask, role_id=role_id)


async def role_by_name(api: HttpApi, ask: Ask) -> Response:
    """GET /v1/acl/role/name/:name"""
    if not ask.rest:
        raise refused("Missing role Name")
    return await _read_role(api, ask, role_name=ask.rest)


async def _read_role(api: HttpApi, ask: Ask, **of: Any) -> Response:
    request = r.ACLRoleGetRequest(**of, **query_options(ask, api.config))
    out: r.ACLRoleResponse = await asked(api, "ACL.RoleRead", request)
    if out.role is None:
        return Response(404)
    return api.json(ask, views.role(out.role), api.meta(out))


async def _set_role(api: HttpApi, ask: Ask, role_id: str) -> Response:
    row = decoded(views.read_role, ask, "Role")
    if row.id not in ("", role_id):
        raise refused("Role ID in URL and payload do not match")
    request = r.ACLRoleSetRequest(role=replace(row, id=role_id), **write_options(api, ask))
    return api.json(ask, views.role(await api.agent.rpc("ACL.RoleSet", request)))


# --- auth methods and binding rules: read only


async def rules(api: HttpApi, ask: Ask) -> Response:
    """GET /v1/acl/binding-rules"""
    request = r.ACLBindingRuleListRequest(
        auth_method=ask.first("authmethod"), **query_options(ask, api.config)
    )
    out: r.ACLBindingRuleListResponse = await asked(api, "ACL.BindingRuleList", request)
    return api.json(ask, [views.rule(row) for row in out.binding_rules or ()], api.meta(out))


async def rule(api: HttpApi, ask: Ask) -> Response:
    """/v1/acl/binding-rule/:id"""
    if ask.request.method != "GET":
        return await no_logins(api, ask)
    if not ask.rest:
        raise refused("Missing binding rule ID")
    options = query_options(ask, api.config)
    request = r.ACLBindingRuleGetRequest(binding_rule_id=ask.rest, **options)
    out: r.ACLBindingRuleResponse = await asked(api, "ACL.BindingRuleRead", request)
    if out.binding_rule is None:
        return Response(404)
    return api.json(ask, views.rule(out.binding_rule), api.meta(out))


async def methods(api: HttpApi, ask: Ask) -> Response:
    """GET /v1/acl/auth-methods"""
    request = r.ACLAuthMethodListRequest(**query_options(ask, api.config))
    out: r.ACLAuthMethodListResponse = await asked(api, "ACL.AuthMethodList", request)
    rows = [views.method_stub(row) for row in out.auth_methods or ()]
    return api.json(ask, rows, api.meta(out))


async def method(api: HttpApi, ask: Ask) -> Response:
    """/v1/acl/auth-method/:name"""
    if ask.request.method != "GET":
        return await no_logins(api, ask)
    if not ask.rest:
        raise refused("Missing auth method name")
    options = query_options(ask, api.config)
    request = r.ACLAuthMethodGetRequest(auth_method_name=ask.rest, **options)
    out: r.ACLAuthMethodResponse = await asked(api, "ACL.AuthMethodRead", request)
    if out.auth_method is None:
        return Response(404)
    return api.json(ask, views.method(out.auth_method), api.meta(out))


async def translate_rules(api: HttpApi, ask: Ask) -> Response:
    """POST /v1/acl/rules/translate: rules of before Consul 1.4 in today's syntax."""
    if not (await api.agent.authorizer(api.token(ask))).acl_read():
        raise PermissionDeniedError
    from proconsul.domain.acl_translate import translate_legacy_rules

    try:
        return text_answer(200, translate_legacy_rules(ask.request.body.decode("utf-8", "replace")))
    except RulesError as error:
        raise refused(str(error)) from None


async def translate_token(api: HttpApi, ask: Ask) -> Response:
    """GET /v1/acl/rules/translate/:accessor: those of a legacy token."""
    if not ask.rest:
        raise refused("Missing token ID")
    options = query_options(ask, api.config) | {"min_query_index": 0}
    request = r.ACLTokenGetRequest(token_id=ask.rest, token_id_type=t.ID_ACCESSOR, **options)
    out: r.ACLTokenResponse = await asked(api, "ACL.TokenRead", request)
    if out.token is None:
        raise HttpError(403, ACL_NOT_FOUND, api.meta(out))
    if not out.token.rules:
        text = "The specified token does not have any rules set"
        raise HttpError(500, text, api.meta(out))
    from proconsul.domain.acl_translate import translate_legacy_rules

    try:
        return text_answer(200, translate_legacy_rules(out.token.rules), api.meta(out))
    except RulesError as error:
        raise HttpError(500, f"Failed to parse legacy rules: {error}", api.meta(out)) from None


async def no_logins(_api: HttpApi, _ask: Ask) -> Response:  # noqa: ASYNC124 - as all handlers
    """Writes of auth methods and binding rules, login and logout."""
    raise HttpError(501, "auth methods are not supported yet: give out tokens instead")
