"""Who may do what with this very agent (agent/acl.go): its endpoints, its services and checks.

What agents keep in the catalog is judged again by the servers; this keeps one service's token from
meddling with another's on the same machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from proconsul.core.gossip.serf import Member
from proconsul.domain.acl import AllowAll, Authorizer
from proconsul.domain.acl_authorizers import agent_master
from proconsul.domain.catalog import CONNECT_PROXY, HealthCheck, NodeService
from proconsul.domain.errors import DomainError, PermissionDeniedError
from proconsul.rpc.token_resolver import EVERYTHING, ROOTS, RootDeniedError, TokenResolver
from proconsul.services.agent.local import LocalState
from proconsul.util.goquote import go_quote


class Tokens(Protocol):
    """The agent's own tokens."""

    def is_agent_master(self, token: str) -> bool: ...


class Access:
    """Rights on one agent."""

    def __init__(
        self, node: str, resolver: TokenResolver, tokens: Tokens, local: LocalState
    ) -> None:
        self._node, self._resolver, self._tokens, self._local = node, resolver, tokens, local
        self._master = agent_master(node)

    async def authorizer(self, token: str) -> Authorizer:
        """The rights of a token. Raises `AclNotFoundError`, `RootDeniedError` and others."""
        if not self._resolver.settings.enabled:
            return EVERYTHING
        if token in ROOTS:
            raise RootDeniedError
        if self._tokens.is_agent_master(token):
            return self._master
        return self._resolver.known(token) or await self._resolver.resolve(token)

    # -- endpoints -------------------------------------------------------------------------

    async def require_agent_read(self, token: str) -> None:
        _require((await self.authorizer(token)).agent_read(self._node))

    async def require_agent_write(self, token: str) -> None:
        _require((await self.authorizer(token)).agent_write(self._node))

    async def require_node_write(self, token: str) -> None:
        _require((await self.authorizer(token)).node_write(self._node))

    async def require_federation_read(self, token: str) -> None:
        """`operator:read`, or the agent's master token: the report is wanted most where the primary,
        and with it the rights of all other tokens, is out of reach."""
        may = await self.authorizer(token)
        _require(may.operator_read() or self._tokens.is_agent_master(token))

    async def require_operator_write(self, token: str) -> None:
        _require((await self.authorizer(token)).operator_write())

    async def require_service_read(self, token: str, service: str) -> None:
        _require((await self.authorizer(token)).service_read(service))

    # -- what is shown ---------------------------------------------------------------------

    async def members(self, token: str, found: Iterable[Member]) -> list[Member]:
        may = await self.authorizer(token)
        return [member for member in found if may.node_read(member.name)]

    async def services(
        self, token: str, found: Mapping[str, NodeService]
    ) -> Mapping[str, NodeService]:
        may = await self.authorizer(token)
        return {id_: one for id_, one in found.items() if may.service_read(one.service)}

    async def checks(
        self, token: str, found: Mapping[str, HealthCheck]
    ) -> Mapping[str, HealthCheck]:
        may = await self.authorizer(token)
        return {
            id_: one
            for id_, one in found.items()
            if (
                may.service_read(one.service_name)
                if one.service_name
                else may.node_read(self._node)
            )
        }

    # -- what is registered ----------------------------------------------------------------

    async def vet_service(self, token: str, service: NodeService) -> None:
        """Registering it, over whatever has its id. A proxy is found as what it stands for."""
        may = await self.authorizer(token)
        names = [service.service]
        existing = self._local.service(service.id or service.service)
        if existing is not None and not may.service_write(existing.service):
            raise _missing("service", service.service)
        if service.kind == CONNECT_PROXY:
            names.append(service.proxy.destination_service_name)
        for name in names:
            if not may.service_write(name):
                raise _missing("service", name)

    async def vet_service_update(self, token: str, service_id: str) -> None:
        """Changing a service that is there. Raises `DomainError` if it is not, with ACLs on."""
        may = await self.authorizer(token)
        existing = self._local.service(service_id)
        if isinstance(may, AllowAll):
            return
        if existing is None:
            raise DomainError(f"Unknown service {{{go_quote(service_id)} {{}}}}")  # Go's %q
        if not may.service_write(existing.service):
            raise _missing("service", existing.service)

    async def vet_check(self, token: str, check: HealthCheck) -> None:
        """Registering it, over whatever has its id."""
        may = await self.authorizer(token)
        service = self._local.service(check.service_id) if check.service_id else None
        self._vet_check(may, service.service if service else check.service_name)
        existing = self._local.check(check.check_id)
        if existing is not None:
            self._vet_check(may, existing.service_name)

    async def vet_check_update(self, token: str, check_id: str) -> None:
        """As `vet_service_update`."""
        may = await self.authorizer(token)
        if isinstance(may, AllowAll):
            return
        existing = self._local.check(check_id)
        if existing is None:
            raise DomainError(f"Unknown check {go_quote(check_id)}")
        self._vet_check(may, existing.service_name)

    def _vet_check(self, may: Authorizer, service: str) -> None:
        """Of a service, or else of the node."""
        if service and not may.service_write(service):
            raise _missing("service", service)
        if not service and not may.node_write(self._node):
            raise _missing("node", self._node)


def _require(allowed: bool) -> None:
    if not allowed:
        raise PermissionDeniedError


def _missing(resource: str, name: str) -> PermissionDeniedError:
    return PermissionDeniedError(f"Missing {resource}:write on {name}")
