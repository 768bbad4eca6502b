"""One term of leadership: proposals, members, lease, verification, hand-over.

Follows the leader loop of hashicorp/raft 1.1.2. Different from there: nothing ticks faster than
the heartbeats, and a lone voter needs no timer at all. `replication` talks to the followers.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from proconsul.core.raft.membership import Change, changed, has_vote, quorum, voters
from proconsul.core.raft.replication import Replication
from proconsul.core.raft.types import (
    ChangePending,
    Channel,
    ConfigurationError,
    NotLeader,
    RestoreInProgress,
    SnapshotMeta,
    TransferInProgress,
    Transferred,
    Verified,
)
from proconsul.wire.raft import Entry, LogType, TimeoutNowRequest, encode_configuration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proconsul.core.raft.state import State
    from proconsul.wire.raft import Response, Server


@dataclass(slots=True)
class _Transfer:
    """Leadership being handed over."""

    token: object
    target: str
    deadline: float
    rid: int = 0
    """Of the TimeoutNow, once the target has everything."""


class Leadership:
    """Exists from winning an election until stepping down."""

    def __init__(self, state: State, now: float) -> None:
        self._state = state
        self._replication = Replication(state)
        self._deposed = False
        self._verifying: list[tuple[int, object]] = []
        """(round, token) of confirmations that are under way."""
        self._transfer: _Transfer | None = None
        self._restoring = False
        self._lease_at = inf
        """The lease ends then or later."""
        self._configure(now)
        self._append([(LogType.NOOP, b"")], now)

    @property
    def deposed(self) -> bool:
        """Whether the machine has to make this server a follower."""
        return self._deposed or self._replication.later_term > 0

    @property
    def known_term(self) -> int:
        """The latest term seen, which a successor has to exceed.

        The reference keeps its old term here. A lone voter asks nobody for votes, and so might
        never catch up with a removed server's elections, which its nonvoters tell it of.
        """
        return max(self._state.term, self._replication.later_term)

    # -- calls of this server's own users

    def propose(self, items: Sequence[tuple[LogType, bytes]], now: float) -> int:
        """Append entries to the log; returns the first one's index."""
        self._check_open()
        return self._append(items, now)

    def change(
        self, change: Change, server_id: str, address: str, prev_index: int, now: float
    ) -> int:
        """Append a changed configuration; returns its index. One change at a time."""
        state = self._state
        members = state.members
        self._check_open()
        if (
            members.latest_index != members.committed_index
            or state.commit_index < self._replication.commitment.start_index
        ):
            raise ChangePending
        if prev_index and prev_index != members.latest_index:
            raise ConfigurationError(
                f"Configuration changed since {prev_index} (latest is {members.latest_index})"
            )
        configuration = changed(members.latest, change, server_id, address)
        return self._append([(LogType.CONFIGURATION, encode_configuration(configuration))], now)

    def verify(self, token: object, now: float) -> None:
        """Ask a quorum whether this server still leads; ends in `Verified`."""
        replication = self._replication
        replication.verification += 1
        self._verifying.append((replication.verification, token))
        self._check_verified()
        if self._verifying:
            replication.verify(now)

    def transfer(self, token: object, server_id: str | None, now: float) -> None:
        """Hand leadership to `server_id` (None: whoever is most up to date); see `Transferred`."""
        state = self._state
        self._check_open()
        others = self._replication.progress.values()
        able = [p for p in others if has_vote(state.members.latest, p.server.id)]
        able = [p for p in able if server_id is None or p.server.id == server_id]
        if not able:
            raise ConfigurationError("cannot find peer")
        target = max(able, key=lambda progress: progress.match)
        deadline = now + state.config.election_timeout_s
        self._transfer = _Transfer(token, target.server.id, deadline)
        self._advance_transfer()

    def _check_open(self) -> None:
        if self._transfer is not None:
            raise TransferInProgress
        if self._restoring:
            raise RestoreInProgress

    # -- a snapshot from outside

    def begin_restore(self, index: int) -> SnapshotMeta:
        """Take nothing new any more, and say under which index the snapshot is to be stored.

        That leaves a hole behind the log, so that followers have to be sent the snapshot.
        """
        state = self._state
        members = state.members
        self._check_open()
        if members.latest_index != members.committed_index:
            raise ConfigurationError(
                "cannot restore snapshot now, wait until the configuration entry at "
                f"{members.latest_index} has been applied (have applied {members.committed_index})"
            )
        if state.commit_index < (start := self._replication.commitment.start_index):
            # `restored` makes its index the commit index, by which `change` tells that a quorum
            # has an entry of this term
            raise ConfigurationError(
                f"cannot restore snapshot now, wait until the leader's first entry at {start} is "
                f"committed (have committed {state.commit_index})"
            )
        self._restoring = True
        index = max(state.log.last_index, index) + 1
        return SnapshotMeta(index, state.term, members.latest, members.latest_index)

    def end_restore(self) -> None:
        """Go on, whether it was restored or not."""
        self._restoring = False

    def restored(self, meta: SnapshotMeta, now: float) -> int:
        """The snapshot is durable, and the state machine's: returns the index of a noop after it.

        Once that is committed, a quorum has the snapshot.
        """
        self._restoring = False
        self._state.restore(meta)
        return self._append([(LogType.NOOP, b"")], now)

    # -- what comes back

    def synced(self, index: int) -> None:
        """The local log is durable up to `index`."""
        self._replication.commitment.match(self._state.local_id, index)

    def response(self, rid: int, response: Response | None, now: float) -> None:
        """A follower answered; None is an answer without content, which is a failure."""
        if response is None:
            self.failed(rid, now)
            return
        self._replication.response(rid, response, now)
        self._check_verified()
        self._advance_transfer()

    def failed(self, rid: int, now: float) -> None:
        """A request failed or timed out."""
        transfer = self._transfer
        if transfer is not None and rid == transfer.rid:
            self._end_transfer(f"failed to make TimeoutNow RPC to {transfer.target}")
        else:
            self._replication.failed(rid, now)

    def snapshot_sent(self, rid: int, term: int, success: bool, index: int, now: float) -> None:
        """A snapshot up to `index` arrived, or was refused."""
        self._replication.snapshot_sent(rid, term, success, index, now)
        self._advance_transfer()

    # -- time

    def deadline(self) -> float | None:
        """When `tick` is needed next."""
        at = min(self._replication.deadline(), self._lease_at)
        if self._transfer is not None:
            at = min(at, self._transfer.deadline)
        return None if at == inf else at

    def tick(self, now: float) -> None:
        """The ends of lease and hand-over, and whatever replication has to do."""
        if now >= self._lease_at:
            self._lease_at = self._lease_ends()
            if now >= self._lease_at:
                self._deposed = True
                return
        if self._transfer is not None and now >= self._transfer.deadline:
            self._end_transfer("leadership transfer timeout")
        self._replication.tick(now)

    def stepped_down(self) -> None:
        """This server is a follower again: end what is under way."""
        self._state.out.events.extend(Verified(token, ok=False) for _, token in self._verifying)
        self._verifying.clear()
        self._end_transfer("")

    def commit(self, now: float) -> None:
        """Take over what the quorum has: advance the commit index."""
        state, index = self._state, self._replication.commitment.index
        if index <= state.commit_index:
            return
        if state.commit(index) and not has_vote(state.members.committed, state.local_id):
            self._deposed = True
            return
        self._replication.committed(now)

    # -- inner workings

    def _append(self, items: Sequence[tuple[LogType, bytes]], now: float) -> int:
        state = self._state
        first = state.log.last_index + 1
        entries = [Entry(first + i, state.term, kind, data) for i, (kind, data) in enumerate(items)]
        if state.append(entries):
            self._configure(now)
        self._replication.replicate(now)
        return first

    def _configure(self, now: float) -> None:
        self._replication.configure(now)
        self._lease_at = self._lease_ends()

    def silences_s(self, now: float) -> list[float]:
        """For how many seconds each other voter has not answered."""
        state, progress = self._state, self._replication.progress
        others = [s.id for s in voters(state.members.latest) if s.id != state.local_id]
        return [now - progress[i].last_contact for i in others if i in progress]

    def _lease_ends(self) -> float:
        """When a quorum will not have been heard of for a lease; never if we are the quorum."""
        state, progress = self._state, self._replication.progress
        needed = quorum(state.members.latest)
        others: list[Server] = []
        for server in voters(state.members.latest):
            if server.id == state.local_id:
                needed -= 1
            else:
                others.append(server)
        if needed <= 0:
            return inf
        contacts = sorted((progress[server.id].last_contact for server in others), reverse=True)
        return contacts[needed - 1] + state.config.leader_lease_s

    def _check_verified(self) -> None:
        if not self._verifying:
            return
        state, replication = self._state, self._replication
        latest = state.members.latest
        acks = sorted(
            (
                replication.verification
                if server.id == state.local_id
                else replication.progress[server.id].verified
                for server in voters(latest)
            ),
            reverse=True,
        )
        confirmed = acks[quorum(latest) - 1]
        done = [token for number, token in self._verifying if number <= confirmed]
        self._verifying = [item for item in self._verifying if item[0] > confirmed]
        state.out.events.extend(Verified(token, ok=True) for token in done)

    def _advance_transfer(self) -> None:
        transfer, state = self._transfer, self._state
        if transfer is None or transfer.rid:
            return
        progress = self._replication.progress.get(transfer.target)
        if progress is None:
            self._end_transfer("cannot find peer")
        elif progress.match >= state.log.last_index:
            transfer.rid = state.send(progress.server, TimeoutNowRequest(), Channel.DIRECT)

    def _end_transfer(self, error: str) -> None:
        if self._transfer is not None:
            self._state.out.events.append(Transferred(self._transfer.token, error))
            self._transfer = None


def not_leader(state: State) -> NotLeader:
    """The refusal of a call that only a leader can serve."""
    return NotLeader(state.leader)
