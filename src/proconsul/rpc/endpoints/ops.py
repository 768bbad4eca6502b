"""`Internal.KeyringOperation` and `Internal.EventFire` (agent/consul/internal_endpoint.go)."""

from __future__ import annotations

import logging
from typing import Any, Protocol

from msgspec.structs import replace

from proconsul.domain import ops
from proconsul.domain.base import bytes_of
from proconsul.domain.errors import DomainError, PermissionDeniedError
from proconsul.drivers.scope import TaskScope
from proconsul.rpc.endpoints.base import EndpointServer, RequestError, meta
from proconsul.rpc.methods import METHODS
from proconsul.rpc.table import Call, Endpoint, Requires
from proconsul.util.errors import ProconsulError

log = logging.getLogger("proconsul.internal")

"""Distinguishes users' events from Consul's own in the gossip of one pool."""


class Gossip(Protocol):
    """The server's pools. Implemented by `services.server.keyring`."""

    async def operate_lan(self, request: ops.KeyringRequest) -> ops.KeyringResponse: ...

    async def operate_wan(self, request: ops.KeyringRequest) -> ops.KeyringResponse | None:
        """None without a WAN pool."""
        ...

    async def operate_remote(
        self, datacenter: str, request: ops.KeyringRequest
    ) -> ops.KeyringResponses: ...

    def remote_datacenters(self) -> list[str]: ...

    async def user_event(self, name: str, payload: bytes) -> None:
        """To all agents of this datacenter."""
        ...


class Ops:
    """What operators ask of gossip."""

    def __init__(self, server: EndpointServer, gossip: Gossip) -> None:
        self._server, self._gossip = server, gossip

    async def keyring(self, request: ops.KeyringRequest, call: Call) -> ops.KeyringResponses:
        """All pools of all datacenters, unless told otherwise; a pool's error is in its row."""
        is_list = request.operation == "list"
        if request.local_only and not is_list:
            raise RequestError("argument error: LocalOnly can only be used for List operations")
        if request.operation not in ops.KEYRING_OPERATIONS:
            raise RequestError("Invalid keyring operation")
        if is_list and not call.authorizer.keyring_read():
            raise DomainError("Reading keyring denied by ACLs")
        if not is_list and not call.authorizer.keyring_write():
            raise DomainError("Modifying keyring denied due to ACLs")
        gossip = self._gossip
        if request.local_only or request.forwarded:
            return ops.KeyringResponses(responses=[await gossip.operate_lan(request)])
        request = replace(request, forwarded=True)
        responses: list[ops.KeyringResponse] = []
        if (wan := await gossip.operate_wan(request)) is not None:
            responses.append(wan)
        responses.append(await gossip.operate_lan(request))
        if wan is not None:
            responses += await self._remote(request)
        return ops.KeyringResponses(responses=responses)

    async def _remote(self, request: ops.KeyringRequest) -> list[ops.KeyringResponse]:
        """The LAN pools of all other datacenters; the first that cannot be asked fails all."""
        async with TaskScope("keyring") as scope:
            asked = [
                scope.spawn(datacenter, self._of(datacenter, request))
                for datacenter in self._gossip.remote_datacenters()
            ]
            answers = [await one for one in asked]
        rows: list[ops.KeyringResponse] = []
        for answer in answers:
            if isinstance(answer, BaseException):
                # Final: what failed there must not make the forwarder do all of it again.
                raise RequestError(str(answer) or type(answer).__name__) from answer
            rows += answer.responses or ()
        return rows

    async def _of(
        self, datacenter: str, request: ops.KeyringRequest
    ) -> ops.KeyringResponses | ProconsulError | TimeoutError:
        try:
            return await self._gossip.operate_remote(datacenter, request)
        except (ProconsulError, TimeoutError) as error:
            return error

    async def event(self, request: ops.EventFireRequest, call: Call) -> ops.EventFireResponse:
        """Tell every agent of the datacenter."""
        if not call.authorizer.event_write(request.name):
            log.warning("user event blocked by ACLs: event=%s", request.name)
            raise PermissionDeniedError
        await self._gossip.user_event(
            ops.USER_EVENT_PREFIX + request.name, bytes_of(request.payload)
        )
        fields: dict[str, Any] = meta(self._server, 0)
        return ops.EventFireResponse(**fields)


def endpoints(server: EndpointServer, gossip: Gossip) -> list[Endpoint]:
    """What of `Internal` is about gossip."""
    it = Ops(server, gossip)
    return [
        Endpoint(METHODS["Internal.KeyringOperation"], Requires.KEYRING, it.keyring),
        Endpoint(METHODS["Internal.EventFire"], Requires.EVENT_WRITE, it.event),
    ]
