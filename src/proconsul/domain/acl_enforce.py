"""Rights asked for by name: `ACL.Authorize` (`Enforce` in acl/authorizer.go, agent/structs/acl.go)."""

from __future__ import annotations

from collections.abc import Callable

from proconsul.domain.acl import Authorizer
from proconsul.domain.base import GoStruct
from proconsul.domain.errors import DomainError
from proconsul.domain.options import QueryOptions
from proconsul.util.goquote import go_quote


class ACLAuthorizationRequest(GoStruct, frozen=True, gc=False):
    """May one do `access` to `resource`, in its `segment` if it has names?"""

    resource: str = ""
    segment: str = ""
    access: str = ""


class ACLAuthorizationResponse(GoStruct, frozen=True, gc=False):
    """The question and its answer."""

    resource: str = ""
    segment: str = ""
    access: str = ""
    allow: bool = False


class RemoteACLAuthorizationRequest(QueryOptions, frozen=True, gc=False):
    """Several questions for another datacenter, about the rights of `token` there."""

    datacenter: str = ""
    requests: list[ACLAuthorizationRequest] | None = None


def _named(may: Authorizer) -> dict[str, dict[str, Callable[[str], bool]]]:
    return {
        "agent": {"read": may.agent_read, "write": may.agent_write},
        "event": {"read": may.event_read, "write": may.event_write},
        "intention": {"read": may.intention_read, "write": may.intention_write},
        "key": {
            "read": may.key_read,
            "list": may.key_list,
            "write": may.key_write,
            "write-prefix": may.key_write_prefix,
        },
        "node": {"read": may.node_read, "write": may.node_write},
        "query": {"read": may.prepared_query_read, "write": may.prepared_query_write},
        "service": {"read": may.service_read, "write": may.service_write},
        "session": {"read": may.session_read, "write": may.session_write},
    }


def _nameless(may: Authorizer) -> dict[str, dict[str, Callable[[], bool]]]:
    return {
        "acl": {"read": may.acl_read, "write": may.acl_write},
        "keyring": {"read": may.keyring_read, "write": may.keyring_write},
        "operator": {"read": may.operator_read, "write": may.operator_write},
    }


def answers(
    may: Authorizer, requests: list[ACLAuthorizationRequest]
) -> list[ACLAuthorizationResponse]:
    """One for each. Raises `DomainError` if one makes no sense."""
    named, nameless = _named(may), _nameless(may)
    found = []
    for ask in requests:
        access = ask.access.lower()
        if ask.resource in nameless and access in nameless[ask.resource]:
            allow = nameless[ask.resource][access]()
        elif ask.resource in named and access in named[ask.resource]:
            allow = named[ask.resource][access](ask.segment)
        elif ask.resource in nameless or ask.resource in named:
            raise DomainError(f"Invalid access level for {ask.resource} resource: {ask.access}")
        else:
            raise DomainError(f"Invalid ACL resource requested: {go_quote(ask.resource)}")
        found.append(ACLAuthorizationResponse(ask.resource, ask.segment, ask.access, allow))
    return found
