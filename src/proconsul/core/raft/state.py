"""The state that all roles share. What changes term, vote, log or role is in this file."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from proconsul.core.raft.membership import Membership
from proconsul.core.raft.types import (
    Channel,
    Config,
    Diverged,
    HardState,
    LeaderChanged,
    Output,
    Reply,
    Role,
    RoleChanged,
    Send,
    SnapshotMeta,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proconsul.core.raft.log import Log
    from proconsul.util.clock import Rng
    from proconsul.wire.raft import Entry, Request, Response, Server


class State:
    """Term, vote, log, members, role and the output under construction."""

    def __init__(
        self,
        config: Config,
        local_id: str,
        local_address: str,
        log: Log,
        hard: HardState,
        snapshot: SnapshotMeta | None,
        rng: Rng,
    ) -> None:
        self.config, self.rng = config, rng
        self.local_id, self.local_address = local_id, local_address
        self.log, self.hard = log, hard
        self.members = Membership()
        self.role = Role.FOLLOWER
        self.leader: tuple[str, str] | None = None
        self.commit_index = log.snapshot_index
        self.last_contact: float | None = None
        self.election_at: float | None = None
        self.out = Output(1)
        self._unsynced: deque[list[int]] = deque()
        """[seq, last log index] of outputs that are not durable yet."""
        self._rid = 0
        self._diverged = False
        if log.last_index and log.discard_needed():
            self.out.truncate_from = log.first_index
            log.restore(log.snapshot_index, log.snapshot_term)
        if snapshot is not None:
            self.members.restored(snapshot.configuration, snapshot.configuration_index)
        for index in range(max(log.first_index, log.snapshot_index + 1), log.last_index + 1):
            self.members.appended(log.get(index))

    @property
    def term(self) -> int:
        """The current term."""
        return self.hard.term

    @property
    def candidate_name(self) -> bytes:
        """What this server calls itself in requests: its address, as the reference does."""
        return self.local_address.encode()

    def next_rid(self) -> int:
        """A new number for a request."""
        self._rid += 1
        return self._rid

    def set_term(self, term: int) -> None:
        """Enter a later term, without a vote in it yet."""
        self.set_hard(HardState(term, self.hard.vote_term, self.hard.candidate))

    def set_hard(self, hard: HardState) -> None:
        """Change term or vote, to be made durable with this output."""
        self.hard = self.out.hard_state = hard

    def set_role(self, role: Role) -> None:
        """Change role; as in the reference, any such transition forgets the leader."""
        self.set_leader(None)
        if role is not self.role:
            self.role = role
            self.out.events.append(RoleChanged(role, self.term))

    def set_leader(self, leader: tuple[str, str] | None) -> None:
        """Note who leads."""
        if leader != self.leader:
            self.leader = leader
            self.out.events.append(LeaderChanged(leader))

    def leader_by_address(self, address: bytes) -> tuple[str, str]:
        """(id, address) for the address in a request; the id is empty for a stranger."""
        text = address.decode("utf-8", "replace")
        for server in self.members.latest.servers:
            if server.address == text:
                return (server.id, text)
        return ("", text)

    def heard(self, now: float) -> None:
        """A leader or candidate that counts was heard: start the election timer again."""
        self.last_contact = now
        timeout = self.config.heartbeat_timeout_s
        self.election_at = now + self.rng.uniform(timeout, 2 * timeout)

    def diverged(self) -> None:
        """Our snapshot is not of the leader's history; said once, until another replaces it."""
        if not self._diverged:
            self._diverged = True
            self.out.events.append(Diverged(self.log.snapshot_index, self.log.snapshot_term))

    def append(self, entries: Sequence[Entry]) -> bool:
        """Append to the log; True if that changed the members."""
        self.log.append(entries)
        self.out.append.extend(entries)
        before = self.members.latest_index
        for entry in entries:
            self.members.appended(entry)
        return self.members.latest_index != before

    def truncate(self, first: int) -> None:
        """Delete `first` and what follows. Never below the commit index."""
        assert first > self.commit_index, "a committed entry would be deleted"
        out = self.out
        kept = [entry for entry in out.append if entry.index < first]
        if len(kept) == len(out.append) or not kept:
            out.truncate_from = min(out.truncate_from or first, first)
        out.append = kept
        self.log.truncate(first)
        self.members.truncated(first)
        for record in self._unsynced:
            record[1] = min(record[1], first - 1)

    def restore(self, meta: SnapshotMeta) -> None:
        """A durable snapshot replaces the log up to its end.

        What follows stays if it fits: entries that this server has confirmed must not be lost.
        """
        self._diverged = False
        if self.log.contains(meta.index, meta.term):
            upto = self.log.compact(meta.index, meta.term, self.config.trailing_logs)
            self.out.delete_to = max(self.out.delete_to, upto)
            self.commit_index = meta.index
            self.members.commit(meta.index)
            return
        if self.log.last_index >= self.log.first_index:
            self.out.truncate_from = self.log.first_index
        self.out.append.clear()
        self.log.restore(meta.index, meta.term)
        self.members.restored(meta.configuration, meta.configuration_index)
        self.commit_index = meta.index
        for record in self._unsynced:
            record[1] = min(record[1], meta.index)

    def commit(self, index: int) -> bool:
        """Advance the commit index; True if that commits a change of members."""
        self.commit_index = self.out.commit_index = index
        return self.members.commit(index)

    def send(
        self, server: Server, request: Request | None, channel: Channel, *, durable: bool = False
    ) -> int:
        """Queue a request; with `durable`, behind what this output makes durable."""
        rid = self.next_rid()
        send = Send(rid, server.id, server.address, request, channel)
        (self.out.send_durable if durable else self.out.send).append(send)
        return rid

    def reply(
        self, token: object, response: Response | None, error: str = "", *, durable: bool = False
    ) -> None:
        """Queue an answer; with `durable`, behind everything that is not durable yet."""
        answer = Reply(token, response, error)
        wait = durable and (self.out.writes or self._unsynced)
        (self.out.send_durable if wait else self.out.send).append(answer)

    def take_output(self) -> Output | None:
        """This step's output, None if there is nothing to do."""
        out = self.out
        if not (out.writes or out.send or out.send_durable or out.commit_index or out.events):
            return None
        self.out = Output(out.seq + 1)
        if out.writes or out.send_durable:
            self._unsynced.append([out.seq, self.log.last_index])
        return out

    def synced(self, seq: int) -> int:
        """Everything up to output `seq` is durable. Returns the durable log index."""
        while self._unsynced and self._unsynced[0][0] <= seq:
            self.log.made_durable(self._unsynced.popleft()[1])
        return self.log.durable_index
