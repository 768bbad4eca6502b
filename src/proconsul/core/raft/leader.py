"""One term of leadership: proposals, replication, heartbeats, lease, verification, hand-over.

Follows `replication.go` and the leader loop of hashicorp/raft 1.1.2. Different from there: nothing
ticks faster than the heartbeats (a lone voter needs no timer at all), the local disk and the
followers are written in parallel, and a heartbeat to an idle follower carries the commit index.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from proconsul.core.raft.log import Compacted
from proconsul.core.raft.membership import Change, changed, has_vote, quorum, voters
from proconsul.core.raft.progress import Commitment, Flow, Progress
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
from proconsul.wire.raft import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    Entry,
    LogType,
    TimeoutNowRequest,
    encode_configuration,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proconsul.core.raft.state import State
    from proconsul.wire.raft import Response, Server

HEARTBEATS_MAX = 3
"""Under way to one follower: the timer's, and those that verifications asked for."""


@dataclass(frozen=True, slots=True)
class _Call:
    """A request under way."""

    progress: Progress
    epoch: int
    append: bool
    request: AppendEntriesRequest | TimeoutNowRequest | None
    verification: int


@dataclass(slots=True)
class _Transfer:
    """Leadership being handed over."""

    token: object
    target: str
    deadline: float
    sent: bool = False


class Leadership:
    """Exists from winning an election until stepping down."""

    def __init__(self, state: State, now: float) -> None:
        self._state = state
        self.deposed = False
        """Set when the machine has to make this server a follower."""
        self._calls: dict[int, _Call] = {}
        self._progress: dict[str, Progress] = {}
        self._leaving: list[Progress] = []
        self._verifications = 0
        self._verifying: list[tuple[int, object]] = []
        self._transfer: _Transfer | None = None
        self._restoring = False
        self._commitment = Commitment(state.log.last_index + 1)
        self._commitment.configure(state.members.latest)
        self._follow(now)
        self._append([(LogType.NOOP, b"")], now)

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
            or state.commit_index < self._commitment.start_index
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
        self._verifications += 1
        self._verifying.append((self._verifications, token))
        self._check_verified()
        if self._verifying:
            for progress in self._progress.values():
                self._heartbeat(progress, now)

    def transfer(self, token: object, server_id: str | None, now: float) -> None:
        """Hand leadership to `server_id` (None: whoever is most up to date); see `Transferred`."""
        state = self._state
        self._check_open()
        able = [p for p in self._progress.values() if has_vote(state.members.latest, p.server.id)]
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
        self._commitment.match(self._state.local_id, index)

    def response(self, rid: int, response: Response | None, now: float) -> None:
        """A follower answered; None is an answer without content, which is a failure."""
        call = self._calls.get(rid)
        if response is None or call is None:
            self.failed(rid, now)
            return
        del self._calls[rid]
        progress = call.progress
        if not isinstance(response, AppendEntriesResponse):
            return
        assert isinstance(call.request, AppendEntriesRequest)
        if response.term > call.request.term:
            self.deposed = True
            return
        progress.last_contact = now
        if response.success:
            progress.verified = max(progress.verified, call.verification)
        if not call.append:
            progress.heartbeats -= 1
            if progress.failures:
                progress.retry_at = min(progress.retry_at, now)
        elif call.epoch == progress.epoch:
            progress.inflight -= 1
            self._appended(progress, call.request, response, now)
        self._check_verified()
        self._replicate(progress, now)

    def _appended(
        self,
        progress: Progress,
        request: AppendEntriesRequest,
        response: AppendEntriesResponse,
        now: float,
    ) -> None:
        prev = request.prev_log_index
        if response.success:
            progress.failures = 0
            self._matched(progress, prev + len(request.entries or ()))
            progress.flow = Flow.PIPELINE
            return
        progress.restart(min(prev, response.last_log + 1))
        if response.no_retry_backoff:
            progress.failures = 0
        else:
            progress.failed(now)

    def _matched(self, progress: Progress, index: int) -> None:
        progress.match = max(progress.match, index)
        progress.next = max(progress.next, index + 1)
        self._commitment.match(progress.server.id, index)
        if progress.stop_at is not None and index >= progress.stop_at:
            self._forget(progress)
        self._advance_transfer()

    def failed(self, rid: int, now: float) -> None:
        """A request failed or timed out."""
        call = self._calls.pop(rid, None)
        if call is None:
            return
        progress = call.progress
        if isinstance(call.request, TimeoutNowRequest):
            self._end_transfer(f"failed to make TimeoutNow RPC to {progress.server.id}")
            return
        if progress.stop_at is not None:
            self._forget(progress)
            return
        if not call.append:
            progress.heartbeats -= 1
            if progress.inflight == 0 and progress.flow is not Flow.SNAPSHOT:
                # Most likely it restarted, and then has forgotten the commit index: probe again.
                progress.restart(progress.match + 1)
                progress.heartbeat_at = max(progress.heartbeat_at, progress.failed(now))
        elif call.epoch == progress.epoch:
            progress.restart(progress.match + 1)
            progress.failed(now)

    def snapshot_sent(self, rid: int, term: int, success: bool, index: int, now: float) -> None:
        """A snapshot up to `index` arrived, or was refused."""
        call = self._calls.pop(rid, None)
        if call is None:
            return
        progress = call.progress
        if term > self._state.term:
            self.deposed = True
            return
        progress.last_contact = now
        if call.epoch != progress.epoch:
            return
        progress.restart(index + 1 if success else progress.next)
        if success:
            progress.failures = 0
            self._matched(progress, index)
        else:
            progress.failed(now)
        self._replicate(progress, now)

    # -- time

    def deadline(self) -> float | None:
        """When `tick` is needed next."""
        times = [p.heartbeat_at for p in self._progress.values()]
        for progress in (*self._progress.values(), *self._leaving):
            # Only what `tick` can act on: with requests under way, their answers come first.
            if progress.flow is Flow.PIPELINE:
                if progress.commit_at and progress.inflight < self._state.config.inflight_max:
                    times.append(progress.commit_at)
            elif progress.flow is Flow.PROBE and progress.inflight == 0:
                times.append(progress.retry_at)
        if (lease := self._lease_ends()) is not None:
            times.append(lease)
        if self._transfer is not None:
            times.append(self._transfer.deadline)
        return min(times, default=None)

    def tick(self, now: float) -> None:
        """Heartbeats, retries, overdue commit indexes, the end of the lease."""
        lease = self._lease_ends()
        if lease is not None and now >= lease:
            self.deposed = True
            return
        if self._transfer is not None and now >= self._transfer.deadline:
            self._end_transfer("leadership transfer timeout")
        for progress in (*self._progress.values(), *self._leaving):
            self._replicate(progress, now)
        for progress in self._progress.values():
            if now < progress.heartbeat_at:
                continue
            self._plan_heartbeat(progress, now)
            if progress.flow is Flow.PIPELINE and progress.inflight == 0:
                self._send_append(progress)
            elif progress.heartbeats == 0 or progress.inflight == 0:
                self._heartbeat(progress, now)

    def stepped_down(self) -> None:
        """This server is a follower again: end what is under way."""
        self._state.out.events.extend(Verified(token, ok=False) for _, token in self._verifying)
        self._verifying.clear()
        self._end_transfer("")

    def commit(self, now: float) -> None:
        """Take over what the quorum has: advance the commit index."""
        state = self._state
        if self._commitment.index <= state.commit_index:
            return
        if state.commit(self._commitment.index) and not has_vote(
            state.members.committed, state.local_id
        ):
            self.deposed = True
            return
        for progress in (*self._progress.values(), *self._leaving):
            if progress.commit_sent < state.commit_index and progress.commit_at is None:
                progress.commit_at = now + state.config.commit_timeout_s

    # -- inner workings

    def _append(self, items: Sequence[tuple[LogType, bytes]], now: float) -> int:
        state = self._state
        first = state.log.last_index + 1
        entries = [Entry(first + i, state.term, kind, data) for i, (kind, data) in enumerate(items)]
        if state.append(entries):
            self._commitment.configure(state.members.latest)
            self._follow(now)
        for progress in (*self._progress.values(), *self._leaving):
            self._replicate(progress, now)
        return first

    def _follow(self, now: float) -> None:
        """Start and stop replication so that it fits the latest configuration."""
        state = self._state
        last = state.log.last_index
        wanted = {s.id: s for s in state.members.latest.servers if s.id != state.local_id}
        for server_id in [i for i in self._progress if i not in wanted]:
            leaving = self._progress.pop(server_id)
            leaving.stop_at = last
            if not leaving.failures:
                self._leaving.append(leaving)
        for server_id, server in wanted.items():
            progress = self._progress.get(server_id)
            if progress is None:
                self._progress[server_id] = Progress(server, last + 1, now, now)
            elif progress.server != server:
                moved = progress.server.address != server.address
                progress.server = server
                if moved:
                    progress.restart(progress.match + 1)

    def _replicate(self, progress: Progress, now: float) -> None:
        """Send what the follower lacks, as far as its flow allows."""
        state = self._state
        if progress.stop_at is not None and progress.match >= progress.stop_at:
            return
        while now >= progress.retry_at or not progress.failures:
            if progress.flow is Flow.SNAPSHOT or progress.inflight >= state.config.inflight_max:
                return
            if progress.flow is Flow.PROBE:
                if progress.inflight:
                    return
            elif progress.next > state.log.last_index and (
                progress.commit_at is None or now < progress.commit_at
            ):
                return
            if not self._send_append(progress):
                return

    def _send_append(self, progress: Progress) -> bool:
        """One AppendEntries from `next` on, or the start of a snapshot (then False)."""
        state = self._state
        log, config = state.log, state.config
        prev = min(progress.next, log.last_index + 1) - 1
        try:
            prev_term = log.term(prev)
            entries = log.slice(
                prev + 1, log.last_index, config.append_entries_max, config.append_bytes_max
            )
        except Compacted:
            self._send_snapshot(progress)
            return False
        request = AppendEntriesRequest(
            state.term, state.candidate_name, prev, prev_term, entries, state.commit_index
        )
        rid = state.send(progress.server, request, Channel.PIPELINE)
        self._calls[rid] = _Call(progress, progress.epoch, True, request, self._verifications)
        progress.inflight += 1
        if progress.flow is Flow.PIPELINE:
            progress.next = prev + 1 + len(entries)
        progress.commit_sent, progress.commit_at = state.commit_index, None
        return True

    def _send_snapshot(self, progress: Progress) -> None:
        progress.flow = Flow.SNAPSHOT
        progress.commit_at = None
        rid = self._state.send(progress.server, None, Channel.SNAPSHOT)
        self._calls[rid] = _Call(progress, progress.epoch, True, None, 0)

    def _heartbeat(self, progress: Progress, now: float) -> None:
        if progress.heartbeats >= HEARTBEATS_MAX:
            return
        state = self._state
        request = AppendEntriesRequest(state.term, state.candidate_name)
        rid = state.send(progress.server, request, Channel.DIRECT)
        self._calls[rid] = _Call(progress, progress.epoch, False, request, self._verifications)
        progress.heartbeats += 1
        self._plan_heartbeat(progress, now)

    def _plan_heartbeat(self, progress: Progress, now: float) -> None:
        interval = self._state.config.heartbeat_timeout_s / 10
        progress.heartbeat_at = now + self._state.rng.uniform(interval, 2 * interval)

    def silences_s(self, now: float) -> list[float]:
        """For how many seconds each other voter has not answered."""
        state = self._state
        others = [s.id for s in voters(state.members.latest) if s.id != state.local_id]
        return [now - self._progress[i].last_contact for i in others if i in self._progress]

    def _lease_ends(self) -> float | None:
        """When a quorum will not have been heard of for a lease; None if we are the quorum."""
        state = self._state
        needed = quorum(state.members.latest)
        others: list[Server] = []
        for server in voters(state.members.latest):
            if server.id == state.local_id:
                needed -= 1
            else:
                others.append(server)
        if needed <= 0:
            return None
        contacts = sorted((self._progress[s.id].last_contact for s in others), reverse=True)
        return contacts[needed - 1] + state.config.leader_lease_s

    def _check_verified(self) -> None:
        if not self._verifying:
            return
        state = self._state
        latest = state.members.latest
        acks = sorted(
            (
                self._verifications if s.id == state.local_id else self._progress[s.id].verified
                for s in voters(latest)
            ),
            reverse=True,
        )
        confirmed = acks[quorum(latest) - 1]
        done = [token for number, token in self._verifying if number <= confirmed]
        self._verifying = [item for item in self._verifying if item[0] > confirmed]
        state.out.events.extend(Verified(token, ok=True) for token in done)

    def _forget(self, progress: Progress) -> None:
        self._leaving = [other for other in self._leaving if other is not progress]
        self._calls = {rid: c for rid, c in self._calls.items() if c.progress is not progress}

    def _advance_transfer(self) -> None:
        transfer, state = self._transfer, self._state
        if transfer is None or transfer.sent:
            return
        progress = self._progress.get(transfer.target)
        if progress is None:
            self._end_transfer("cannot find peer")
        elif progress.match >= state.log.last_index:
            transfer.sent = True
            request = TimeoutNowRequest()
            rid = state.send(progress.server, request, Channel.DIRECT)
            self._calls[rid] = _Call(progress, progress.epoch, False, request, 0)

    def _end_transfer(self, error: str) -> None:
        if self._transfer is not None:
            self._state.out.events.append(Transferred(self._transfer.token, error))
            self._transfer = None


def not_leader(state: State) -> NotLeader:
    """The refusal of a call that only a leader can serve."""
    return NotLeader(state.leader)
