"""`/v1/acl/` of before Consul 1.4 (`agent/acl_endpoint_legacy.go`), and the agent's own tokens.

A legacy token is its secret; the primary alone keeps them.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from proconsul.domain import acl_requests as r
from proconsul.domain import acl_types as t
from proconsul.domain.errors import ACL_DISABLED, PERMISSION_DENIED, PermissionDeniedError
from proconsul.domain.go_decode import GoDecodeError, parse_json
from proconsul.domain.options import DCSpecificRequest
from proconsul.drivers.http import Response
from proconsul.interfaces.http import acl_views as views
from proconsul.interfaces.http.acl import asked
from proconsul.interfaces.http.answers import text_answer
from proconsul.interfaces.http.api import HttpApi
from proconsul.interfaces.http.errors import HttpError, bad_request
from proconsul.interfaces.http.options import query_options
from proconsul.interfaces.http.query import Ask
from proconsul.util.goquote import go_quote


async def create(api: HttpApi, ask: Ask) -> Response:
    """PUT /v1/acl/create"""
    return await _set(api, ask, _body(ask))


async def update(api: HttpApi, ask: Ask) -> Response:
    """PUT /v1/acl/update"""
    acl = _body(ask)
    if not acl.id:
        raise bad_request("ACL ID must be set")
    return await _set(api, ask, acl)


def _body(ask: Ask) -> t.ACL:
    default = t.ACL(type=t.TYPE_CLIENT)
    if not ask.request.body:
        return default
    try:
        acl = views.read_legacy(ask.request.body)
    except GoDecodeError as error:
        raise bad_request(f"Request decode failed: {error}") from None
    return acl if acl.type else replace(acl, type=t.TYPE_CLIENT)


async def _set(api: HttpApi, ask: Ask, acl: t.ACL) -> Response:
    request = r.ACLRequest(op="set", acl=acl, **_primary(api), token=api.token(ask))
    return api.json(ask, {"ID": await api.agent.rpc("ACL.Apply", request)})


async def destroy(api: HttpApi, ask: Ask) -> Response:
    """PUT /v1/acl/destroy/:secret"""
    acl = t.ACL(id=_named(ask))
    request = r.ACLRequest(op="delete", acl=acl, **_primary(api), token=api.token(ask))
    await api.agent.rpc("ACL.Apply", request)
    return api.json(ask, True)


async def info(api: HttpApi, ask: Ask) -> Response:
    """GET /v1/acl/info/:secret"""
    out = await _get(api, ask)
    return api.json(ask, [views.legacy(acl) for acl in out.acls or ()], api.meta(out))


async def clone(api: HttpApi, ask: Ask) -> Response:
    """PUT /v1/acl/clone/:secret"""
    out = await _get(api, ask)
    if not out.acls:
        raise HttpError(403, PERMISSION_DENIED, api.meta(out))
    copy = replace(out.acls[0], id="")
    request = r.ACLRequest(op="set", acl=copy, **_primary(api), token=api.token(ask))
    return api.json(ask, {"ID": await asked(api, "ACL.Apply", request)}, api.meta(out))


async def every(api: HttpApi, ask: Ask) -> Response:
    """GET /v1/acl/list"""
    request = DCSpecificRequest(**_options(api, ask))
    out: r.IndexedACLs = await asked(api, "ACL.List", request)
    return api.json(ask, [views.legacy(acl) for acl in out.acls or ()], api.meta(out))


async def _get(api: HttpApi, ask: Ask) -> r.IndexedACLs:
    request = r.ACLSpecificRequest(acl=_named(ask), **_options(api, ask))
    out: r.IndexedACLs = await asked(api, "ACL.Get", request)
    return out


def _options(api: HttpApi, ask: Ask) -> dict[str, Any]:
    return query_options(ask, api.config) | _primary(api)


def _primary(api: HttpApi) -> dict[str, str]:
    return {"datacenter": api.config.primary_datacenter}


def _named(ask: Ask) -> str:
    if not ask.rest:
        raise bad_request("Missing ACL")
    return ask.rest


async def agent_token(api: HttpApi, ask: Ask) -> Response:
    """PUT /v1/agent/token/:kind"""
    if not api.config.acls_enabled:
        return text_answer(401, ACL_DISABLED)
    if not (await api.agent.authorizer(api.token(ask))).agent_write(api.config.node_name):
        raise PermissionDeniedError
    try:
        value = parse_json(ask.request.body)
    except GoDecodeError as error:
        raise bad_request(f"Request decode failed: {error}") from None
    if not isinstance(value, dict | None):
        raise bad_request(
            f"Request decode failed: json: cannot unmarshal {views.kind_of(value)} into Go value "
            "of type api.AgentToken"
        )
    fields = {key.lower(): item for key, item in (value or {}).items()}
    unknown = next((key for key in value or () if key.lower() != "token"), None)
    if unknown is not None:
        raise bad_request(f"Request decode failed: json: unknown field {go_quote(unknown)}")
    token = fields.get("token") or ""
    if not isinstance(token, str):
        raise bad_request(
            f"Request decode failed: json: cannot unmarshal {views.kind_of(token)} into Go struct "
            "field AgentToken.Token of type string"
        )
    if not await api.agent.set_token(ask.rest, token):
        raise HttpError(404, f"Token {go_quote(ask.rest)} is unknown")
    return Response()
