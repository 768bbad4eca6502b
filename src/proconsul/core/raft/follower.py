"""What any server does with requests from others: append entries, give votes, take snapshots.

Follows `appendEntries`, `requestVote` and `installSnapshot` of hashicorp/raft 1.1.2 `raft.go`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proconsul.core.raft.log import Compacted
from proconsul.core.raft.types import HardState, Role
from proconsul.wire.raft import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    RequestVoteRequest,
    RequestVoteResponse,
)

if TYPE_CHECKING:
    from proconsul.core.raft.state import State

HINT_ENTRIES_MAX = 4096
"""Entries looked at, back from the end, to find where a leader's log may agree."""


def append_entries(state: State, token: object, request: AppendEntriesRequest, now: float) -> None:
    """Answer an AppendEntries of a current leader; the caller has dealt with the terms."""
    last_log = state.log.last_index
    ok, retry = _append(state, request)
    if ok:
        state.heard(now)
    else:
        state.election_at = state.election_at or now + state.config.heartbeat_timeout_s
        if retry:
            last_log = _last_agreeable(state, request)
    # A heartbeat says nothing about the log, so it need not wait for the disk.
    durable = not request.is_heartbeat
    response = AppendEntriesResponse(state.term, last_log, ok, retry)
    state.reply(token, response, durable=durable)


def _append(state: State, request: AppendEntriesRequest) -> tuple[bool, bool]:
    """(success, whether a retry may follow at once)."""
    log = state.log
    prev = request.prev_log_index
    entries = request.entries or ()
    if any(entry.index != prev + 1 + i for i, entry in enumerate(entries)):
        return False, False
    if prev > 0 and (prev > log.last_index or not _agrees(state, prev, request.prev_log_term)):
        return False, True
    if _diverges(state, request):
        state.diverged()
        return False, False
    for i, entry in enumerate(entries):
        if entry.index <= log.snapshot_index or (
            entry.index <= log.last_index and log.term(entry.index) == entry.term
        ):
            continue
        if entry.index <= log.last_index:
            state.truncate(entry.index)
        state.append(entries[i:])
        break
    # Only what this request vouches for may be committed: behind it may be a stale suffix.
    vouched = prev + len(entries)
    if (commit := min(request.leader_commit, vouched)) > state.commit_index:
        state.commit(commit)
    return True, False


def _last_agreeable(state: State, request: AppendEntriesRequest) -> int:
    """The last index at which this log may agree with that of the leader who asked.

    The reference names its last index here, and so is led back through a false tail entry by
    entry. No entry of a later term than the leader's at `prev` can be in the leader's log before
    it; what is committed agrees for certain. Either leader goes on behind the index it is told.
    """
    log = state.log
    index = min(request.prev_log_index - 1, log.last_index)
    for _ in range(HINT_ENTRIES_MAX):
        if index <= state.commit_index or log.term(index) <= request.prev_log_term:
            break
        index -= 1
    return index


def _diverges(state: State, request: AppendEntriesRequest) -> bool:
    """Whether the leader's log is proven to be another history than our snapshot.

    Terms never fall along a log, so where a snapshot's history is also the leader's, nothing up to
    its end is of a later term than it. What is would have been acknowledged without being there.
    """
    log = state.log
    if (
        0 < request.prev_log_index < log.snapshot_index
        and request.prev_log_term > log.snapshot_term
    ):
        return True
    return any(
        entry.term > log.snapshot_term
        or (entry.index == log.snapshot_index and entry.term != log.snapshot_term)
        for entry in request.entries or ()
        if entry.index <= log.snapshot_index
    )


def _agrees(state: State, index: int, term: int) -> bool:
    if index < state.log.snapshot_index:
        return True  # committed, so the leader has the same, unless `_diverges`
    try:
        return state.log.term(index) == term
    except Compacted:
        return False


def request_vote(state: State, token: object, request: RequestVoteRequest, now: float) -> bool:
    """Give or refuse a vote, and say which; the caller has dealt with the terms."""
    granted = _grant(state, request)
    if granted:
        state.heard(now)
    state.reply(token, RequestVoteResponse(state.term, granted), durable=True)
    return granted


def _grant(state: State, request: RequestVoteRequest) -> bool:
    hard, log = state.hard, state.log
    if hard.vote_term == request.term and hard.candidate:
        return hard.candidate == request.candidate
    if (log.last_term, log.last_index) > (request.last_log_term, request.last_log_index):
        return False
    state.set_hard(HardState(request.term, request.term, request.candidate))
    return True


def has_other_leader(state: State, request: RequestVoteRequest, now: float) -> bool:
    """Whether a vote is refused unseen, so that a returning server does not depose a leader.

    The reference refuses until its own election timeout, so that the first candidate after a
    leader's death loses time, and often its term. A follower who has heard nothing for a leader's
    lease is not among those by whom the leader still leads, and may as well vote (Raft 4.2.3); but
    whom it would not elect must not depose the leader through its term.
    """
    if state.leader is None or request.leadership_transfer:
        return False
    if state.leader[1].encode() == request.candidate:
        return False
    log = state.log
    behind = (request.last_log_term, request.last_log_index) < (log.last_term, log.last_index)
    if state.role is Role.LEADER or behind:
        return True
    heard = state.last_contact
    return heard is not None and now - heard <= state.config.leader_lease_s


def snapshot_refusal(
    state: State, request: InstallSnapshotRequest
) -> InstallSnapshotResponse | None:
    """The answer to a snapshot of an old term, None if it is to be received."""
    if request.term < state.term:
        return InstallSnapshotResponse(state.term, success=False)
    return None


def become_follower(state: State, term: int, now: float) -> None:
    """Step down, or stay a follower, in a term that may be later."""
    was = state.role
    state.set_role(Role.FOLLOWER)
    if term > state.term:
        state.set_term(term)
    if was is not Role.FOLLOWER:
        state.heard(now)
