"""What the federation's leader duties need from the server they run on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from proconsul.domain.catalog import CheckServiceNode
from proconsul.domain.federation import (
    FederationState,
    FederationStateRequest,
    IndexedFederationStates,
)
from proconsul.federation.rate import Signal


class FederationServer(Protocol):
    """Implemented by `services.server`; all methods run on the event loop."""

    @property
    def datacenter(self) -> str: ...

    @property
    def primary_datacenter(self) -> str: ...

    @property
    def primary_appeared(self) -> Signal:
        """Fires when a server of the primary datacenter becomes known: try again now."""
        ...

    def states(self) -> Sequence[FederationState]:
        """Our datacenter's copy, by datacenter name."""
        ...

    def local_gateways(self) -> Sequence[CheckServiceNode]:
        """The mesh gateways registered in our own catalog."""
        ...

    async def wait_for_change(self, seen: Callable[[], object], timeout_s: float) -> None:
        """Return once `seen()` over federation states and gateways may differ, or after the time."""
        ...

    async def apply_locally(self, request: FederationStateRequest) -> None:
        """Commit to our own datacenter's Raft. Raises ProconsulError."""
        ...

    async def fetch_from_primary(self, min_index: int) -> IndexedFederationStates:
        """Blocking `FederationState.List` in the primary, with the replication token."""
        ...

    async def apply_in_primary(self, request: FederationStateRequest) -> None:
        """`FederationState.Apply`, forwarded to the primary with the replication token."""
        ...

    def knows_datacenter(self, datacenter: str) -> bool:
        """Whether the WAN pool has servers of `datacenter`, alive or not."""
        ...
