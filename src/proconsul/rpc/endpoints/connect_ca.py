"""`ConnectCA.SignIntermediate` (agent/consul/connect_ca_endpoint.go): the primary's CA at work.

The servers of a secondary ask for a certificate with which they sign their own leaves. Roots are
answered in `endpoints/federation.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from proconsul.domain import connect as ca
from proconsul.domain.errors import PermissionDeniedError
from proconsul.domain.messages import MessageType
from proconsul.rpc.endpoints.base import EndpointServer, RequestError
from proconsul.rpc.methods import METHODS
from proconsul.rpc.table import Call, Endpoint, Requires
from proconsul.util.goduration import parse_duration_ns

log = logging.getLogger("proconsul.connect.ca")

INTERMEDIATE_TTL = timedelta(days=365)
NOT_PRIMARY = "not the primary datacenter"
NOT_ENABLED = "Connect must be enabled in order to use this endpoint"


class ConnectCa:
    """Signing for other datacenters. Only the primary's leader has the key."""

    def __init__(
        self, server: EndpointServer, unix_ns: Callable[[], int], *, enabled: bool, primary: bool
    ) -> None:
        self._server, self._unix_ns = server, unix_ns
        self._enabled, self._primary = enabled, primary

    async def sign_intermediate(self, request: ca.CASignRequest, call: Call) -> str:
        if not self._enabled:
            raise RequestError(NOT_ENABLED)
        if not self._primary:
            raise RequestError(NOT_PRIMARY)
        if not call.authorizer.operator_write():
            raise PermissionDeniedError
        config, provider = self._authority()
        serial = await self._server.apply(
            MessageType.CONNECT_CA,
            ca.CARequest(op=ca.CA_INCREMENT_PROVIDER_SERIAL, datacenter=self._server.datacenter),
        )
        signed = await asyncio.to_thread(
            _sign,
            request.csr,
            provider.root_cert,
            provider.private_key,
            config.cluster_id,
            int(serial),
            datetime.fromtimestamp(self._unix_ns() / 1e9, UTC),
            _ttl(config.config or {}),
        )
        log.info("signed the intermediate CA certificate of another datacenter: serial=%d", serial)
        return signed

    def _authority(self) -> tuple[ca.CAConfiguration, ca.CAConsulProviderState]:
        connect = self._server.store.connect
        config, root = connect.config().value, connect.active_root().value
        provider = connect.signing_state(root) if root is not None else None
        if config is None or provider is None or not provider.private_key:
            raise RequestError("internal error: CA provider is nil")
        return config, provider


def _sign(*arguments: Any) -> str:
    # X.509 costs memory and time at its first use: only a primary with secondaries pays, in a thread
    from proconsul.mesh.ca import sign_intermediate

    return sign_intermediate(*arguments)


def _ttl(config: dict[str, Any]) -> timedelta:
    """`IntermediateCertTTL`: text, or nanoseconds where a Go server has written it."""
    given = config.get("IntermediateCertTTL")
    try:
        ns = parse_duration_ns(given) if isinstance(given, str) else int(given or 0)
    except (TypeError, ValueError):
        ns = 0
    return timedelta(microseconds=ns // 1000) if ns > 0 else INTERMEDIATE_TTL


def endpoints(
    server: EndpointServer, unix_ns: Callable[[], int], *, enabled: bool, primary: bool
) -> list[Endpoint]:
    """What is served of `ConnectCA`, besides the roots."""
    it = ConnectCa(server, unix_ns, enabled=enabled, primary=primary)
    method = METHODS["ConnectCA.SignIntermediate"]
    return [Endpoint(method, Requires.OPERATOR_WRITE, it.sign_intermediate)]
