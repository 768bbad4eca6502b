"""What an agent does for services of the mesh: leaf certificates, and who may connect to whom.

The latter follows `agent/connect_auth.go`: intentions decide, then ACLs. The trust domain of the
client's certificate is not compared: TLS has verified it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from proconsul.domain import intention as ixn
from proconsul.domain import mesh_requests as mr
from proconsul.domain import spiffe
from proconsul.domain.acl import Authorizer
from proconsul.domain.errors import PermissionDeniedError
from proconsul.services.agent.cache import Cache, CacheMeta
from proconsul.services.agent.cache_types import INTENTION_MATCH
from proconsul.services.agent.leaf import CachedLeaf, LeafManager, LeafRequest
from proconsul.services.server.config import Identity
from proconsul.util.errors import ProconsulError


class AuthorizeRequestError(ProconsulError):
    """The question makes no sense; the text is Consul's, the status 400."""


class AgentConnect:
    """The mesh's part of an agent. `authorizer(token)` are the rights of a token on this agent."""

    def __init__(
        self,
        identity: Identity,
        cache: Cache,
        leaves: LeafManager,
        authorizer: Callable[[str], Awaitable[Authorizer]],
    ) -> None:
        self._identity, self._cache = identity, cache
        self.leaves, self._authorizer = leaves, authorizer

    async def leaf(
        self, service: str, datacenter: str, token: str, min_index: int, wait_s: float
    ) -> CachedLeaf:
        """See `LeafManager.get`."""
        request = LeafRequest(datacenter, service=service, token=token)
        return await self.leaves.get(request, min_index, wait_s)

    async def authorize(
        self, target: str, client_uri: str, token: str
    ) -> tuple[bool, str, CacheMeta]:
        """(allowed, why, how fresh that is).

        Raises `AuthorizeRequestError`, `PermissionDeniedError`, and what the servers say.
        """
        if not target:
            raise AuthorizeRequestError("Target service must be specified")
        try:
            client = spiffe.parse(client_uri)
        except spiffe.SpiffeError:
            raise AuthorizeRequestError("ClientCertURI not a valid Connect identifier") from None
        if not isinstance(client, spiffe.ServiceId):
            raise AuthorizeRequestError("ClientCertURI not a valid Service identifier")
        if not (await self._authorizer(token)).service_write(target):
            raise PermissionDeniedError
        intentions, meta = await self._intentions(target, token)
        for one in intentions:
            if _concerns(one, client):
                return one.action == ixn.ALLOW, f"Matched intention: {_described(one)}", meta
        if not self._identity.acls_enabled:
            return True, "ACLs disabled, access is allowed by default", meta
        allowed = (await self._authorizer("")).intention_default_allow()
        return allowed, "Default behavior configured by ACLs", meta

    async def _intentions(self, target: str, token: str) -> tuple[list[ixn.Intention], CacheMeta]:
        """What concerns connections to `target`, the deciding one first."""
        entries = [mr.IntentionMatchEntry(namespace=spiffe.DEFAULT_NAMESPACE, name=target)]
        request = mr.IntentionQueryRequest(
            datacenter=self._identity.datacenter,
            match=mr.IntentionQueryMatch(type=ixn.MATCH_DESTINATION, entries=entries),
            token=token,
        )
        found: ixn.IndexedIntentionMatches
        found, meta = await self._cache.get(INTENTION_MATCH, request)
        matches = found.matches or []
        if len(matches) != 1:
            raise ProconsulError("Internal error loading matches")
        return matches[0] or [], meta


def _concerns(intention: ixn.Intention, client: spiffe.ServiceId) -> bool:
    return intention.source_namespace in {
        ixn.WILDCARD,
        client.namespace,
    } and intention.source_name in {
        ixn.WILDCARD,
        client.service,
    }


def _described(one: ixn.Intention) -> str:
    return (
        f"{one.action.upper()} {one.source_namespace}/{one.source_name} => "
        f"{one.destination_namespace}/{one.destination_name} "
        f"(ID: {one.id}, Precedence: {one.precedence})"
    )
