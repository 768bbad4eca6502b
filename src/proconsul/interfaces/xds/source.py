"""Where the control plane gets a proxy's snapshots from: the seam to services/agent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from proconsul.mesh.errors import ProxyDeniedError, UnknownProxyError
from proconsul.mesh.snapshot import MeshGatewaySnapshot

__all__ = ["ProxyDeniedError", "SnapshotSource", "UnknownProxyError"]


class SnapshotSource(Protocol):
    """Follows the configuration of proxies that are registered with this agent."""

    def watch(self, proxy_id: str, token: str) -> AsyncIterator[MeshGatewaySnapshot]:
        """The proxy's snapshots, each when it changed, the first as soon as it is *complete*.

        Complete means that every watch behind it has answered once: an Envoy that reconnects
        after a restart of the agent would take anything less for the removal of the rest.
        Intermediate states may be skipped. Raises `UnknownProxyError` or `ProxyDeniedError`, at
        once or whenever it becomes true; the iterator is closed when the proxy goes away.
        """
        ...
