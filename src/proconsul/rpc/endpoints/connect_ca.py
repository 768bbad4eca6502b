"""`ConnectCA` and `AutoEncrypt` (agent/consul/connect_ca_endpoint.go, auto_encrypt_endpoint.go).

Who may have what signed is asked here; the CA itself is in `services.server.ca`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from msgspec.structs import replace

from proconsul.domain import connect as ca
from proconsul.domain import options as o
from proconsul.domain.errors import PermissionDeniedError
from proconsul.domain.spiffe import AgentId, ServiceId
from proconsul.rpc.endpoints.base import EndpointServer, RequestError, read
from proconsul.rpc.methods import METHODS
from proconsul.rpc.table import Call, Endpoint, Requires

Ask: TypeAlias = Callable[[str, Any], Awaitable[Any]]

log = logging.getLogger("proconsul.connect.ca")

NOT_PRIMARY = "not the primary datacenter"
NOT_ENABLED = "Connect must be enabled in order to use this endpoint"
AUTO_ENCRYPT_OFF = "AutoEncrypt.AllowTLS must be enabled in order to use this endpoint"


class Authority(Protocol):
    """The datacenter's CA, as far as endpoints ask it. All may raise `ProconsulError`."""

    @property
    def config(self) -> ca.CAConfiguration | None: ...

    async def update_configuration(self, given: ca.CAConfiguration) -> None: ...

    async def sign_intermediate(self, request_pem: str) -> str: ...

    async def identify(self, request_pem: str) -> ServiceId | AgentId:
        """Who a leaf is asked for; refuses what nobody may have."""
        ...

    async def sign(self, request_pem: str, identity: ServiceId | AgentId) -> ca.IssuedCert: ...


@dataclass(frozen=True, slots=True)
class ConnectSettings:
    """`agent_cas` are the agents' own CAs (`ca_file`), which AutoEncrypt hands out."""

    enabled: bool
    is_primary: bool
    auto_encrypt: bool = False
    agent_cas: Callable[[], Sequence[str]] = tuple
    verify_server_hostname: bool = False


class ConnectCa:
    """Signing for services, agents and other datacenters, and the CA's settings."""

    def __init__(
        self, server: EndpointServer, authority: Authority, settings: ConnectSettings
    ) -> None:
        self._server, self._authority, self._settings = server, authority, settings

    def _enabled(self) -> None:
        if not self._settings.enabled:
            raise RequestError(NOT_ENABLED)

    async def roots(self, request: o.DCSpecificRequest, _call: Call) -> ca.IndexedCARoots:
        """The CA's certificates, without keys, and the trust domain."""
        self._enabled()

        def build(
            found: tuple[list[ca.CARoot], ca.CAConfiguration | None],
        ) -> dict[str, Any]:
            roots, config = found
            active = next((r.id for r in roots if r.active), "")
            domain = trust_domain(config.cluster_id) if config is not None else ""
            public = [replace(r, signing_key="", signing_cert="") for r in roots]
            return {"active_root_id": active, "trust_domain": domain, "roots": public}

        return await read(
            self._server,
            request,
            self._server.store.connect.roots_and_config,
            build,
            ca.IndexedCARoots,
        )

    async def get_configuration(
        self, _request: o.DCSpecificRequest, call: Call
    ) -> ca.CAConfiguration:
        self._enabled()
        if not call.authorizer.operator_write():
            raise PermissionDeniedError
        return self._authority.config or ca.CAConfiguration()

    async def set_configuration(self, request: ca.CARequest, call: Call) -> None:
        self._enabled()
        if not call.authorizer.operator_write():
            raise PermissionDeniedError
        if request.config is None:
            raise RequestError("CA configuration is missing in the request")
        await self._authority.update_configuration(request.config)

    async def sign(self, request: ca.CASignRequest, call: Call) -> ca.IssuedCert:
        self._enabled()
        identity = await self._authority.identify(request.csr)
        rights = call.authorizer
        if isinstance(identity, ServiceId):
            allowed = rights.service_write(identity.service)
        else:
            allowed = rights.node_write(identity.agent)
        if not allowed:
            raise PermissionDeniedError
        return await self._authority.sign(request.csr, identity)

    async def sign_intermediate(self, request: ca.CASignRequest, call: Call) -> str:
        self._enabled()
        if not self._settings.is_primary:
            raise RequestError(NOT_PRIMARY)
        if not call.authorizer.operator_write():
            raise PermissionDeniedError
        signed = await self._authority.sign_intermediate(request.csr)
        log.info("signed the intermediate CA certificate of another datacenter")
        return signed


def trust_domain(cluster_id: str) -> str:
    """`<cluster id>.consul`: fixed by the SPIFFE ids already issued, whatever `domain` says."""
    return f"{cluster_id}.consul" if cluster_id else ""


class AutoEncrypt:
    """Certificates for agents that have none yet, by any server: the leader signs them."""

    def __init__(self, server: EndpointServer, ask: Ask, settings: ConnectSettings) -> None:
        self._server, self._ask, self._settings = server, ask, settings

    async def sign(self, request: ca.CASignRequest, _call: Call) -> ca.SignedResponse:
        settings = self._settings
        if not settings.enabled:
            raise RequestError(NOT_ENABLED)
        if not settings.auto_encrypt:
            raise RequestError(AUTO_ENCRYPT_OFF)
        if request.datacenter not in ("", self._server.datacenter):
            raise RequestError("insecure dialing prohibited between datacenters")
        roots = await self._ask(
            "ConnectCA.Roots", o.DCSpecificRequest(datacenter=self._server.datacenter)
        )
        return ca.SignedResponse(
            issued_cert=await self._ask("ConnectCA.Sign", request),
            connect_ca_roots=roots,
            manual_ca_roots=list(settings.agent_cas()) or None,
            verify_server_hostname=settings.verify_server_hostname,
        )


def endpoints(
    server: EndpointServer,
    authority: Authority,
    settings: ConnectSettings,
    ask: Ask,
) -> list[Endpoint]:
    """All of `ConnectCA` and `AutoEncrypt`; `ask` calls endpoints of the leader."""
    it = ConnectCa(server, authority, settings)
    return [
        Endpoint(METHODS["ConnectCA.Roots"], Requires.NOTHING, it.roots),
        Endpoint(
            METHODS["ConnectCA.ConfigurationGet"], Requires.OPERATOR_WRITE, it.get_configuration
        ),
        Endpoint(
            METHODS["ConnectCA.ConfigurationSet"], Requires.OPERATOR_WRITE, it.set_configuration
        ),
        Endpoint(METHODS["ConnectCA.Sign"], Requires.LEAF, it.sign),
        Endpoint(
            METHODS["ConnectCA.SignIntermediate"], Requires.OPERATOR_WRITE, it.sign_intermediate
        ),
        Endpoint(
            METHODS["AutoEncrypt.Sign"], Requires.LEAF, AutoEncrypt(server, ask, settings).sign
        ),
    ]
