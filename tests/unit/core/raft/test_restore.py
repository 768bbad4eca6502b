"""A snapshot from outside: the leader's log gets a hole, and followers the snapshot."""

from __future__ import annotations

import random

import pytest

from proconsul.core.raft.log import Log, MemoryLogStore
from proconsul.core.raft.machine import Raft
from proconsul.core.raft.membership import Change
from proconsul.core.raft.types import (
    Channel,
    Config,
    ConfigurationError,
    HardState,
    NotLeader,
    Output,
    RestoreInProgress,
    Role,
    Send,
)
from proconsul.wire.raft import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    Configuration,
    LogType,
    RequestVoteResponse,
    Server,
    Suffrage,
    TimeoutNowRequest,
)

THREE = Configuration(tuple(Server(Suffrage.VOTER, i, f"{i}:1") for i in "abc"))


def outputs(raft: Raft) -> list[Output]:
    found = []
    while (out := raft.take_output()) is not None:
        found.append(out)
        if out.writes or out.send_durable:
            raft.persisted(out.seq, 0.0)
    return found


def sends(found: list[Output]) -> list[Send]:
    return [s for o in found for s in (*o.send, *o.send_durable) if isinstance(s, Send)]


def answer(raft: Raft, found: list[Output], *names: str) -> None:
    """Followers take whatever entries they were sent."""
    for send in sends(found):
        request = send.request
        if send.server_id in names and isinstance(request, AppendEntriesRequest):
            last = request.prev_log_index + len(request.entries or ())
            raft.response(send.rid, AppendEntriesResponse(raft.state.term, last, True, False), 0.0)


def leader(config: Config | None = None) -> Raft:
    """Leads a and b and c; its first entries are everywhere and committed."""
    log = Log(MemoryLogStore())
    raft = Raft(config or Config(), "a", "a:1", log, HardState(), None, random.Random(1))
    raft.start(0.0)
    raft.bootstrap(THREE, 0.0)
    outputs(raft)
    timer = raft.get_timer()
    assert timer is not None
    raft.handle_timer(timer)
    for send in sends(outputs(raft)):
        raft.response(send.rid, RequestVoteResponse(raft.state.term, granted=True), timer)
    assert raft.state.role is Role.LEADER
    for _ in range(4):
        answer(raft, outputs(raft), "b", "c")
    assert raft.state.commit_index == raft.state.log.last_index == 2
    return raft


def test_nothing_new_is_taken_until_it_is_over() -> None:
    raft = leader()
    meta = raft.begin_restore(5)
    assert (meta.index, meta.term, meta.configuration) == (6, raft.state.term, THREE)
    with pytest.raises(RestoreInProgress):
        raft.propose([(LogType.COMMAND, b"x")], 1.0)
    with pytest.raises(RestoreInProgress):
        raft.change(Change.REMOVE_SERVER, "c", "", 0, 1.0)
    with pytest.raises(RestoreInProgress):
        raft.transfer(object(), None, 1.0)
    with pytest.raises(RestoreInProgress):
        raft.begin_restore(5)
    raft.cancel_restore(meta)
    assert raft.propose([(LogType.COMMAND, b"x")], 1.0) == 3
    assert raft.begin_restore(1).index == 4  # behind the log, where that is longer


def test_followers_are_sent_the_snapshot_and_then_the_noop() -> None:
    raft = leader()
    lost = raft.propose([(LogType.COMMAND, b"overwritten")], 0.0)
    assert raft.state.commit_index < lost
    outputs(raft)
    meta = raft.begin_restore(100)
    assert raft.may_restore(meta)
    noop = raft.restored(meta, 0.0)
    assert noop == 102
    found = outputs(raft)
    assert [(e.index, e.type) for o in found for e in o.append] == [(102, LogType.NOOP)]
    assert found[0].truncate_from == 1  # the old log goes
    assert raft.state.commit_index == 101
    # Whatever a follower has, an entry of the old log is asked for: it gets the snapshot.
    for _ in range(20):
        snapshots = [s for s in sends(found) if s.channel is Channel.SNAPSHOT]
        if snapshots:
            break
        answer(raft, found, "b", "c")
        raft.handle_timer(raft.get_timer() or 0.0)
        found = outputs(raft)
    assert snapshots
    raft.snapshot_sent(snapshots[0].rid, raft.state.term, True, meta.index, 0.5)
    found = outputs(raft)
    appends = [s for s in sends(found) if isinstance(s.request, AppendEntriesRequest)]
    entries = [e for s in appends for e in s.request.entries or ()]  # type: ignore[union-attr]
    assert [(e.index, e.type) for e in entries] == [(102, LogType.NOOP)]
    assert raft.state.commit_index == 101
    answer(raft, found, snapshots[0].server_id)
    assert raft.state.commit_index == 102


def test_a_lost_term_ends_it() -> None:
    raft = leader()
    meta = raft.begin_restore(5)
    raft.request(object(), AppendEntriesRequest(raft.state.term + 1, b"b:1"), 1.0)
    assert not raft.may_restore(meta)
    raft.cancel_restore(meta)
    with pytest.raises(NotLeader):
        raft.begin_restore(5)


def test_not_before_an_entry_of_the_term_is_committed() -> None:
    follower = leader()
    term = follower.state.term + 1
    follower.request(0, AppendEntriesRequest(term, b"b:1", 2, follower.state.term), 1.0)
    follower.request(1, TimeoutNowRequest(), 1.0)
    for send in sends(outputs(follower)):
        follower.response(send.rid, RequestVoteResponse(term + 1, granted=True), 1.0)
    assert follower.state.role is Role.LEADER
    members = follower.state.members
    assert members.latest_index == members.committed_index
    with pytest.raises(ConfigurationError, match="the leader's first entry at 3 is committed"):
        follower.begin_restore(5)
    answer(follower, outputs(follower), "b")
    assert follower.begin_restore(5).index == 6


def test_not_while_the_members_change() -> None:
    raft = leader()
    raft.change(Change.REMOVE_SERVER, "c", "", 0, 0.0)
    with pytest.raises(ConfigurationError, match="cannot restore snapshot now, wait until the"):
        raft.begin_restore(5)


def test_answers_that_were_on_their_way_begin_no_further_snapshots() -> None:
    raft = leader()
    for _ in range(5):
        raft.propose([(LogType.COMMAND, b"x")], 0.0)
    found = outputs(raft)
    under_way = [s for s in sends(found) if s.server_id == "c"]
    assert len(under_way) == 5
    answer(raft, found, "b")
    outputs(raft)
    meta = raft.begin_restore(5000)
    raft.restored(meta, 0.0)
    found = outputs(raft)
    for send in under_way[:-1]:
        answer(raft, [Output(0, send=[send])], "c")
    raft.failed(under_way[-1].rid, 0.0)
    found += outputs(raft)
    (snapshot,) = [s for s in sends(found) if s.channel is Channel.SNAPSHOT and s.server_id == "c"]
    raft.snapshot_sent(snapshot.rid, raft.state.term, True, meta.index, 0.0)
    answer(raft, outputs(raft), "c")
    assert raft.state.commit_index == meta.index + 1


def test_a_snapshot_from_outside_that_was_not_restored_counts_for_nothing() -> None:
    raft = leader(Config(trailing_logs=0))
    raft.compact(2, raft.state.term)
    raft.propose([(LogType.COMMAND, b"x")], 0.0)
    found = outputs(raft)
    (append,) = [s for s in sends(found) if s.server_id == "c"]
    raft.response(append.rid, AppendEntriesResponse(raft.state.term, 0, False, True), 0.0)
    (snapshot,) = [s for s in sends(outputs(raft)) if s.channel is Channel.SNAPSHOT]
    meta = raft.begin_restore(5000)
    raft.snapshot_sent(snapshot.rid, raft.state.term, True, meta.index, 0.0)
    raft.cancel_restore(meta)
    index = raft.propose([(LogType.COMMAND, b"y")], 0.0)
    outputs(raft)
    assert raft.state.commit_index < index
