"""Changing the gossip keys of a whole pool: serf's `keymanager.go`.

Each operation is a query to all members, this node included, which answer by `core.gossip.serf.
internal`; what they say is counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from proconsul.core.gossip.serf import QueryParams, SerfError
from proconsul.core.gossip.serf.internal import PREFIX
from proconsul.util import gobase64
from proconsul.util.errors import WireError
from proconsul.wire import serf as wire
from proconsul.wire.serf_decode import decode_key_response

if TYPE_CHECKING:
    from proconsul.drivers.gossip.pool import GossipPool

log = logging.getLogger("proconsul.serf")

OPERATIONS = {
    "list": "list-keys",
    "install": "install-key",
    "use": "use-key",
    "remove": "remove-key",
}
"""Consul's names of what can be done, and serf's."""


@dataclass(slots=True)
class KeyOutcome:
    """What the members of one pool answered. Keys are base64."""

    messages: dict[str, str] = field(default_factory=dict)
    """By member: why it refused, or what it warns of."""
    keys: Counter[str] = field(default_factory=Counter)
    """By key, how many members have it (of a list only)."""
    primary_keys: Counter[str] = field(default_factory=Counter)
    nodes: int = 0
    error: str = ""
    """Empty if all answered, and none refused."""


class KeyManager:
    """The keys of one pool. One operation at a time."""

    def __init__(self, pool: GossipPool) -> None:
        self._pool, self._turn = pool, asyncio.Lock()

    async def operate(self, operation: str, key: str, relay_factor: int) -> KeyOutcome:
        """`operation` is one of `OPERATIONS`; `key` is base64, empty for `list`."""
        async with self._turn:
            return await self._ask(PREFIX + OPERATIONS[operation], key, relay_factor)

    async def _ask(self, query: str, key: str, relay_factor: int) -> KeyOutcome:
        outcome = KeyOutcome()
        try:
            raw = gobase64.decode(key)
        except ValueError as error:
            outcome.error = str(error)
            return outcome
        nodes = self._pool.alive_count()
        try:
            result = await self._pool.query(
                query,
                wire.encode_key_request(raw),
                QueryParams(relay_factor=relay_factor),
                enough=nodes,
            )
        except SerfError as error:
            outcome.error = str(error)
            return outcome
        outcome.nodes = nodes
        failed = sum(_count(outcome, name, data) for name, data in result.responses.items())
        if failed:
            outcome.error = f"{failed}/{nodes} nodes reported failure"
        elif len(result.responses) != nodes:
            outcome.error = f"{len(result.responses)}/{nodes} nodes reported success"
        return outcome


def _count(outcome: KeyOutcome, name: str, data: bytes) -> bool:
    """Take in one member's answer; True if it failed."""
    try:
        response = decode_key_response(data)
    except WireError as error:
        outcome.messages[name] = f"Failed to decode key query response: {error}"
        return True
    if not response.result or response.message:
        outcome.messages[name] = response.message
    if response.result and response.message:
        log.warning("%s: %s", name, response.message)
    outcome.keys.update(response.keys)
    outcome.primary_keys[response.primary_key] += 1
    return not response.result
