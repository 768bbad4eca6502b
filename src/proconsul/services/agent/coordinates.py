"""The agent's network coordinate: shown, and sent to the servers (`sendCoordinate`, agent/agent.go)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from proconsul.domain import errors
from proconsul.domain.coordinate import Coordinate, CoordinateUpdateRequest
from proconsul.drivers.gossip.pool import GossipPool
from proconsul.rpc.caller import RpcCaller
from proconsul.services.agent.config import AgentSettings
from proconsul.util.clock import Rng
from proconsul.util.errors import ProconsulError
from proconsul.util.throttle import News

log = logging.getLogger("proconsul.agent")


def coordinate_view(lan: GossipPool) -> dict[str, Any] | None:
    """The coordinate as `/v1/agent/self` shows it; None while there is none."""
    position = lan.coordinate()
    if position is None:
        return None
    return {
        "Vec": list(position.vec),
        "Error": position.error,
        "Adjustment": position.adjustment,
        "Height": position.height,
    }


class CoordinateSender:
    """`await run()` sends for ever, the rarer the larger the cluster is."""

    def __init__(
        self,
        settings: AgentSettings,
        lan: GossipPool,
        caller: RpcCaller,
        rng: Rng,
        agent_token: Callable[[], str],
    ) -> None:
        self._settings, self._lan, self._caller = settings, lan, caller
        self._rng, self._agent_token = rng, agent_token
        self._failures = News()

    async def run(self) -> None:
        """The loop for a supervisor."""
        settings, identity = self._settings, self._settings.identity
        while True:
            base = settings.coordinate_min_s
            if settings.coordinate_rate > 0:
                base = max(base, len(self._lan.members()) / settings.coordinate_rate)
            await asyncio.sleep(base + self._rng.uniform(0, base))
            position = self._lan.coordinate()
            if position is None:
                continue
            request = CoordinateUpdateRequest(
                datacenter=identity.datacenter,
                node=identity.node_name,
                coord=Coordinate(
                    list(position.vec), position.error, position.adjustment, position.height
                ),
                token=self._agent_token(),
            )
            try:
                await self._caller.call("Coordinate.Update", request)
            except (ProconsulError, TimeoutError) as error:
                self._complain(error)

    def _complain(self, error: Exception) -> None:
        text = str(error) or "deadline exceeded"
        if not self._failures.is_news(text, asyncio.get_running_loop().time()):
            return
        if errors.PERMISSION_DENIED in text or errors.ACL_NOT_FOUND in text:
            log.warning("Coordinate update blocked by ACLs: error=%s", text)
        else:
            log.error("Coordinate update error: error=%s", text)
