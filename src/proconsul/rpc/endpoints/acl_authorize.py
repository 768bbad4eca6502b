"""`ACL.Authorize` (agent/consul/acl_endpoint.go): what a token may do here, asked by other datacenters."""

from __future__ import annotations

from proconsul.domain.acl_enforce import (
    ACLAuthorizationResponse,
    RemoteACLAuthorizationRequest,
    answers,
)
from proconsul.rpc.endpoints.acl_base import AclSystem, Base
from proconsul.rpc.endpoints.base import EndpointServer
from proconsul.rpc.methods import METHODS
from proconsul.rpc.table import Call, Endpoint, Requires


async def _authorize(  # noqa: ASYNC124 - as all handlers
    request: RemoteACLAuthorizationRequest, call: Call
) -> list[ACLAuthorizationResponse]:
    return answers(call.authorizer, request.requests or [])


def endpoints(server: EndpointServer, system: AclSystem) -> list[Endpoint]:
    """The one endpoint. It shows no more than trying would."""
    base = Base(server, system)
    method = METHODS["ACL.Authorize"]
    return [Endpoint(method, Requires.A_TOKEN, _authorize, base.check)]
