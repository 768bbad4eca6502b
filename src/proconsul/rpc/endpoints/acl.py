"""`ACL.*`, all subjects together."""

from __future__ import annotations

from proconsul.rpc.endpoints import (
    acl_authorize,
    acl_legacy,
    acl_policies,
    acl_roles,
    acl_tokens,
)
from proconsul.rpc.endpoints.acl_base import AclSystem
from proconsul.rpc.endpoints.base import EndpointServer
from proconsul.rpc.table import Endpoint


def endpoints(server: EndpointServer, system: AclSystem) -> list[Endpoint]:
    """All of `ACL` that there is."""
    return [
        *acl_tokens.endpoints(server, system),
        *acl_policies.endpoints(server, system),
        *acl_roles.endpoints(server, system),
        *acl_legacy.endpoints(server, system),
        *acl_authorize.endpoints(server, system),
    ]
