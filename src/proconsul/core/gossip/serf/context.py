"""What the parts of the serf machine share: settings, the time of this step, ways out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

from proconsul.core.gossip.memberlist.broadcast import BroadcastQueue
from proconsul.core.gossip.serf.config import SerfConfig
from proconsul.core.gossip.serf.events import QueryEvent, SerfOutput
from proconsul.core.gossip.serf.roster import Roster
from proconsul.util.clock import Rng


class Context(Protocol):
    """Implemented by `machine.Serf`; the parts do not see more of it than this."""

    @property
    def config(self) -> SerfConfig: ...
    @property
    def rng(self) -> Rng: ...
    @property
    def log(self) -> logging.Logger: ...
    @property
    def now(self) -> float:
        """The time of the input that is being handled."""
        ...

    @property
    def roster(self) -> Roster: ...
    @property
    def tags(self) -> Mapping[str, str]: ...
    @property
    def query_broadcasts(self) -> BroadcastQueue: ...

    def alive_count(self) -> int:
        """Nodes that memberlist believes alive, this one included."""
        ...

    def local_address(self) -> tuple[str, int]:
        """Where this node's gossip is reached."""
        ...

    def send(self, node: str, address: tuple[str, int], message: bytes) -> None:
        """One packet, best effort."""
        ...

    def emit(self, output: SerfOutput) -> None:
        """Tell the owner."""
        ...

    def query_heard(self, event: QueryEvent) -> None:
        """A query that this node should answer."""
        ...
