"""The vote on who keeps a name (serf 0.9.4 `resolveNodeConflict`)."""

from __future__ import annotations

from dataclasses import dataclass

from proconsul.core.gossip.serf.events import QueryReply
from proconsul.util.errors import WireError
from proconsul.wire.serf_decode import decode_conflict_response


@dataclass(slots=True)
class ConflictVote:
    """Counts where the others believe this node to be. Ties are lost, as in serf."""

    query_id: int
    address: tuple[str, int]
    responses: int = 0
    matching: int = 0

    def add(self, reply: QueryReply) -> None:
        """One node's opinion; what cannot be read does not count."""
        try:
            member = decode_conflict_response(reply.payload)
        except WireError:
            return
        self.responses += 1
        if member is not None and member.address == self.address:
            self.matching += 1

    @property
    def lost(self) -> bool:
        """The majority believes another node."""
        return self.matching < self.responses // 2 + 1

    def summary(self) -> str:
        """For the log."""
        outcome = "minority" if self.lost else "majority"
        return f"{outcome} in name conflict resolution [{self.matching} / {self.responses}]"
