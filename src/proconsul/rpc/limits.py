"""How many connections one client may hold (`limits.rpc_max_conns_per_client`)."""

from __future__ import annotations

from collections.abc import Collection

GATEWAY_FACTOR = 20
"""Behind a gateway's address stand all servers of all other datacenters."""


class ConnectionLimiter:
    """Counts connections by key: an address before the handshake, a certificate after it."""

    def __init__(self, limit: int, gateways: Collection[str] = ()) -> None:
        """`limit` 0 means none. `gateways`: hosts that many clients are expected to come from."""
        self.limit = limit
        self.gateways = frozenset(gateways)
        self._held: dict[str, int] = {}

    def acquire(self, key: str) -> bool:
        """Count one more, False (and not counted) if `key` has too many."""
        held = self._held.get(key, 0)
        limit = self.limit * (GATEWAY_FACTOR if key in self.gateways else 1)
        if limit and held >= limit:
            return False
        self._held[key] = held + 1
        return True

    def release(self, key: str) -> None:
        """One less."""
        held = self._held[key] - 1
        if held:
            self._held[key] = held
        else:
            del self._held[key]

    def held(self, key: str) -> int:
        """Connections that are counted for `key` now."""
        return self._held.get(key, 0)
