"""POST /v1/internal/acl/authorize: what a token may do (`ACLAuthorize` in agent/acl_endpoint.go)."""

from __future__ import annotations

from typing import Any

from proconsul.domain.acl_enforce import (
    ACLAuthorizationRequest,
    ACLAuthorizationResponse,
    RemoteACLAuthorizationRequest,
    answers,
)
from proconsul.domain.errors import DomainError
from proconsul.domain.go_decode import GoDecodeError, decode_struct, parse_json
from proconsul.drivers.http import Response
from proconsul.interfaces.http.acl import refused
from proconsul.interfaces.http.api import HttpApi
from proconsul.interfaces.http.query import Ask

REQUESTS_MAX = 64


async def authorize(api: HttpApi, ask: Ask) -> Response:
    """Answered by this agent, for other datacenters by their servers."""
    requests = _requests(ask)
    if len(requests) > REQUESTS_MAX:
        raise refused(f"Refusing to process more than {REQUESTS_MAX} authorizations at once")
    datacenter = ask.first("dc") or api.config.datacenter
    found: list[ACLAuthorizationResponse] = []
    if requests and datacenter != api.config.datacenter:
        request = RemoteACLAuthorizationRequest(
            datacenter=datacenter, requests=requests, token=api.token(ask), allow_stale=True
        )
        found = await api.agent.rpc("ACL.Authorize", request)
    elif requests:
        may = await api.agent.authorizer(api.token(ask))
        try:
            found = answers(may, requests)
        except DomainError as error:
            raise refused(str(error)) from None
    return api.json(ask, [_view(one) for one in found or ()])


def _requests(ask: Ask) -> list[ACLAuthorizationRequest]:
    try:
        raw = parse_json(ask.request.body)
        if not isinstance(raw, list | None):
            kind = "object" if isinstance(raw, dict) else type(raw).__name__
            raise GoDecodeError(
                f"json: cannot unmarshal {kind} into Go value of type "
                "[]structs.ACLAuthorizationRequest"
            )
        return [decode_struct(one, ACLAuthorizationRequest) for one in raw or ()]
    except GoDecodeError as error:
        raise refused(f"Failed to decode request body: {error}") from None


def _view(one: ACLAuthorizationResponse) -> dict[str, Any]:
    segment = {"Segment": one.segment} if one.segment else {}
    return {"Resource": one.resource, **segment, "Access": one.access, "Allow": one.allow}
