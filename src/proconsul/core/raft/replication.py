"""What a leader sends its followers, and what it makes of their answers.

Follows `replication.go` of hashicorp/raft 1.1.2. Different from there: the local disk and the
followers are written in parallel, and a heartbeat to an idle follower carries the commit index.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from proconsul.core.raft.log import Compacted
from proconsul.core.raft.progress import Commitment, Flow, Progress
from proconsul.core.raft.types import Channel
from proconsul.wire.raft import AppendEntriesRequest, AppendEntriesResponse

if TYPE_CHECKING:
    from proconsul.core.raft.state import State
    from proconsul.wire.raft import Response

REFUSALS_MAX = 4
"""A follower that refused so many appends is sent a snapshot, if one reaches beyond its log."""
HEARTBEATS_MAX = 3
"""Under way to one follower: the timer's, and those that verifications asked for."""


@dataclass(frozen=True, slots=True)
class _Call:
    """A request under way; `request` is None for a snapshot."""

    progress: Progress
    epoch: int
    append: bool
    request: AppendEntriesRequest | None
    verification: int


class Replication:
    """All followers of one term of leadership."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.later_term = 0
        """A later term that a follower knows of."""
        self.commitment = Commitment(state.log.last_index + 1)
        self.progress: dict[str, Progress] = {}
        """Of every other server in the latest configuration, by id."""
        self.verification = 0
        """The latest round of confirming leadership: requests sent from now on confirm it."""
        self._leaving: list[Progress] = []
        self._everyone: tuple[Progress, ...] = ()
        self._calls: dict[int, _Call] = {}

    def configure(self, now: float) -> None:
        """Start and stop replication, and count voters, as the latest configuration wants."""
        state = self._state
        self.commitment.configure(state.members.latest)
        last = state.log.last_index
        wanted = {s.id: s for s in state.members.latest.servers if s.id != state.local_id}
        for server_id in [i for i in self.progress if i not in wanted]:
            leaving = self.progress.pop(server_id)
            leaving.stop_at = last
            if not leaving.failures:
                self._leaving.append(leaving)
        for server_id, server in wanted.items():
            progress = self.progress.get(server_id)
            if progress is None:
                self.progress[server_id] = Progress(server, last + 1, now, now)
            elif progress.server != server:
                moved = progress.server.address != server.address
                progress.server = server
                if moved:
                    progress.probe()
        self._everyone = (*self.progress.values(), *self._leaving)

    def replicate(self, now: float) -> None:
        """Send everyone what is new."""
        for progress in self._everyone:
            self._replicate(progress, now)

    def verify(self, now: float) -> None:
        """Ask everyone whether this server still leads."""
        for progress in self.progress.values():
            self._heartbeat(progress, now)

    def committed(self, now: float) -> None:
        """The commit index advanced: followers are to learn of it before long."""
        state = self._state
        for progress in self._everyone:
            if progress.commit_sent < state.commit_index and progress.commit_at is None:
                progress.commit_at = now + state.config.commit_timeout_s

    # -- what comes back

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
            self.later_term = max(self.later_term, response.term)
            return
        progress.last_contact = now
        if response.success:
            progress.verified = max(progress.verified, call.verification)
        if not call.append:
            progress.heartbeats -= 1
            if progress.failures and not progress.refusals:
                progress.retry_at = min(progress.retry_at, now)
        elif call.epoch == progress.epoch:
            progress.inflight -= 1
            self._appended(progress, call.request, response, now)
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
        retry_from = min(prev, response.last_log + 1)
        if response.no_retry_backoff:
            progress.restart(retry_from)
            progress.failures = 0
            return
        progress.restart(max(retry_from, progress.match + 1))
        progress.refusals += 1
        progress.failures = max(progress.failures, progress.refusals)
        progress.failed(now)
        if progress.refusals >= REFUSALS_MAX and self._state.log.snapshot_index > progress.match:
            # Its snapshot may be of another history, which only a later one can replace
            self._send_snapshot(progress)

    def _matched(self, progress: Progress, index: int) -> None:
        if index > progress.match:
            progress.match, progress.refusals = index, 0
        progress.next = max(progress.next, index + 1)
        self.commitment.match(progress.server.id, index)
        if progress.stop_at is not None and index >= progress.stop_at:
            self._forget(progress)

    def failed(self, rid: int, now: float) -> None:
        """A request failed or timed out."""
        call = self._calls.pop(rid, None)
        if call is None:
            return
        progress = call.progress
        if progress.stop_at is not None:
            self._forget(progress)
            return
        if not call.append:
            progress.heartbeats -= 1
            if progress.inflight == 0 and progress.flow is not Flow.SNAPSHOT:
                # Most likely it restarted, and then has forgotten the commit index: probe again.
                progress.probe()
                progress.heartbeat_at = max(progress.heartbeat_at, progress.failed(now))
        elif call.epoch == progress.epoch:
            progress.probe()
            progress.failed(now)

    def snapshot_sent(self, rid: int, term: int, success: bool, index: int, now: float) -> None:
        """A snapshot up to `index` arrived, or was refused."""
        call = self._calls.pop(rid, None)
        if call is None:
            return
        progress = call.progress
        if term > self._state.term:
            self.later_term = max(self.later_term, term)
            return
        progress.last_contact = now
        if call.epoch != progress.epoch:
            return
        # One that ends behind our log is from outside, and not (or not yet) our state
        success = success and index <= self._state.log.last_index
        progress.restart(index + 1 if success else progress.next)
        if success:
            progress.failures = 0
            self._matched(progress, index)
        else:
            progress.failed(now)
        self._replicate(progress, now)

    # -- time

    def deadline(self) -> float:
        """When `tick` is needed next; infinity if never."""
        at, inflight_max = inf, self._state.config.inflight_max
        for progress in self.progress.values():
            at = min(at, progress.heartbeat_at)
        for progress in self._everyone:
            # Only what `tick` can act on: with requests under way, their answers come first.
            if progress.flow is Flow.PIPELINE:
                if progress.commit_at is not None and progress.inflight < inflight_max:
                    at = min(at, progress.commit_at)
            elif progress.flow is Flow.PROBE and progress.inflight == 0:
                at = min(at, progress.retry_at)
        return at

    def tick(self, now: float) -> None:
        """Heartbeats, retries, overdue commit indexes."""
        self.replicate(now)
        for progress in self.progress.values():
            if now < progress.heartbeat_at:
                continue
            self._plan_heartbeat(progress, now)
            if progress.flow is Flow.PIPELINE and progress.inflight == 0:
                self._send_append(progress)
            elif progress.heartbeats == 0 or progress.inflight == 0:
                self._heartbeat(progress, now)

    # -- inner workings

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
        self._calls[rid] = _Call(progress, progress.epoch, True, request, self.verification)
        progress.inflight += 1
        if progress.flow is Flow.PIPELINE:
            progress.next = prev + 1 + len(entries)
        progress.commit_sent, progress.commit_at = state.commit_index, None
        return True

    def _send_snapshot(self, progress: Progress) -> None:
        # Answers to what is under way must not end this: each could begin another one
        progress.restart(progress.next)
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
        self._calls[rid] = _Call(progress, progress.epoch, False, request, self.verification)
        progress.heartbeats += 1
        self._plan_heartbeat(progress, now)

    def _plan_heartbeat(self, progress: Progress, now: float) -> None:
        interval = self._state.config.heartbeat_timeout_s / 10
        progress.heartbeat_at = now + self._state.rng.uniform(interval, 2 * interval)

    def _forget(self, progress: Progress) -> None:
        self._leaving = [other for other in self._leaving if other is not progress]
        self._everyone = (*self.progress.values(), *self._leaving)
        self._calls = {rid: c for rid, c in self._calls.items() if c.progress is not progress}
