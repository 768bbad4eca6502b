"""A server whose snapshot from outside no quorum got, and the leader that takes it back."""

from __future__ import annotations

import random

from proconsul.core.raft.log import Log, MemoryLogStore
from proconsul.core.raft.machine import Raft
from proconsul.core.raft.types import (
    Channel,
    Config,
    Diverged,
    HardState,
    Output,
    Reply,
    Role,
    Send,
    SnapshotMeta,
)
from proconsul.wire.raft import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    Configuration,
    Entry,
    InstallSnapshotRequest,
    LogType,
    RequestVoteResponse,
    Response,
    Server,
    Suffrage,
    TimeoutNowRequest,
    encode_configuration,
)

THREE = Configuration(tuple(Server(Suffrage.VOTER, i, i) for i in "abc"))
OUTSIDE = SnapshotMeta(1000, 2, THREE, 1)


def _entries(first: int, last: int, term: int) -> tuple[Entry, ...]:
    return tuple(Entry(i, term, LogType.COMMAND, b"") for i in range(first, last + 1))


def _server(
    name: str,
    store: MemoryLogStore,
    snapshot: SnapshotMeta | None = None,
    config: Config | None = None,
) -> Raft:
    index, term = (snapshot.index, snapshot.term) if snapshot is not None else (0, 0)
    log = Log(store, index, term)
    raft = Raft(config or Config(), name, name, log, HardState(2), snapshot, random.Random(1))
    raft.start(0.0)
    return raft


def _outputs(raft: Raft, now: float) -> list[Output]:
    found = []
    while (out := raft.take_output()) is not None:
        found.append(out)
        if out.writes or out.send_durable:
            raft.persisted(out.seq, now)
    return found


def _sent(found: list[Output]) -> list[Send]:
    return [s for o in found for s in (*o.send, *o.send_durable) if isinstance(s, Send)]


def _replies(found: list[Output]) -> list[Response | None]:
    return [s.response for o in found for s in (*o.send, *o.send_durable) if isinstance(s, Reply)]


def test_entries_of_another_history_are_not_acknowledged() -> None:
    raft = _server("a", MemoryLogStore(), OUTSIDE)
    refused = AppendEntriesResponse(3, 1000, success=False)
    told = []
    for prev, prev_term, entries in (
        (100, 2, _entries(101, 104, 3)),
        (104, 3, ()),
        (98, 2, (*_entries(99, 100, 2), *_entries(101, 102, 3))),
    ):
        raft.request(0, AppendEntriesRequest(3, b"b", prev, prev_term, entries, 104), 1.0)
        found = _outputs(raft, 1.0)
        assert _replies(found) == [refused], (prev, prev_term)
        told += [e for out in found for e in out.events if isinstance(e, Diverged)]
    assert told == [Diverged(1000, 2)]
    # What it has in common with the leader it may confirm
    raft.request(0, AppendEntriesRequest(3, b"b", 98, 2, _entries(99, 100, 2), 100), 1.0)
    assert _replies(_outputs(raft, 1.0)) == [AppendEntriesResponse(3, 1000, success=True)]


def test_a_later_terms_snapshot_takes_it_back() -> None:
    raft = _server("a", MemoryLogStore(_entries(1001, 1003, 2)), OUTSIDE)
    later = SnapshotMeta(500, 3, THREE, 1)
    assert not raft.snapshot_wanted(SnapshotMeta(500, 2, THREE, 1))
    assert raft.snapshot_wanted(later)
    request = InstallSnapshotRequest(3, b"b", 500, 3, encode_configuration(THREE), 1, 0)
    raft.request(0, request, 1.0)
    raft.snapshot_installed(later, 1.0)
    assert [out.truncate_from for out in _outputs(raft, 1.0)] == [1001]
    assert (raft.state.log.last_index, raft.state.commit_index) == (500, 500)
    raft.request(0, AppendEntriesRequest(3, b"b", 500, 3, _entries(501, 502, 3), 501), 1.0)
    assert _replies(_outputs(raft, 1.0)) == [AppendEntriesResponse(3, 500, success=True)]
    assert (raft.state.log.last_index, raft.state.commit_index) == (502, 501)


def test_a_crash_before_the_log_was_cut_off_is_made_good_at_boot() -> None:
    raft = _server("a", MemoryLogStore(_entries(1001, 1003, 2)), SnapshotMeta(500, 3, THREE, 1))
    assert [out.truncate_from for out in _outputs(raft, 0.0)] == [1001]
    assert (raft.state.log.last_index, raft.state.log.last_term) == (500, 3)


def _leader(config: Config | None = None) -> Raft:
    """Leads term 3 with 100 entries of term 2; "c" has nothing to say, "a" is the diverged one."""
    first = Entry(1, 1, LogType.CONFIGURATION, encode_configuration(THREE))
    raft = _server("b", MemoryLogStore([first, *_entries(2, 100, 2)]), None, config)
    raft.request(0, TimeoutNowRequest(), 0.0)
    raft.response(_sent(_outputs(raft, 0.0))[0].rid, RequestVoteResponse(3, granted=True), 0.0)
    assert raft.state.role is Role.LEADER
    return raft


def _ask(leader: Raft, follower: Raft, until: float) -> list[str]:
    """What passes between them until that time: "snapshot", "taken" or "refused" appends."""
    passed, now = [], 0.0
    while True:
        for send in _sent(_outputs(leader, now)):
            if send.server_id == "c" and isinstance(send.request, AppendEntriesRequest):
                last = send.request.prev_log_index + len(send.request.entries or ())
                answer = AppendEntriesResponse(3, last, success=True)
                leader.response(send.rid, answer, now)
            elif send.server_id == "a" and send.channel is Channel.SNAPSHOT:
                log = leader.state.log
                meta = SnapshotMeta(log.snapshot_index, log.snapshot_term, THREE, 1)
                if follower.snapshot_wanted(meta):
                    follower.snapshot_installed(meta, now)
                passed.append("snapshot")
                leader.snapshot_sent(send.rid, 3, True, meta.index, now)
            elif send.server_id == "a" and isinstance(send.request, AppendEntriesRequest):
                follower.request(0, send.request, now)
                (reply,) = _replies(_outputs(follower, now))
                assert isinstance(reply, AppendEntriesResponse)
                if not send.request.is_heartbeat:
                    passed.append("taken" if reply.success else "refused")
                leader.response(send.rid, reply, now)
        if leader.state.out.send:
            continue
        at = leader.get_timer()
        assert at is not None
        if at > until:
            return passed
        now = max(now, at)
        leader.handle_timer(now)


def test_a_leader_backs_off_from_it_and_sends_a_snapshot_once_one_reaches_beyond() -> None:
    leader, follower = _leader(), _server("a", MemoryLogStore(), OUTSIDE)
    passed = _ask(leader, follower, 60.0)
    assert passed.count("refused") < 60
    assert "snapshot" not in passed
    leader.propose([(LogType.COMMAND, b"x")], 60.0)
    leader.compact(101, 3)
    passed = _ask(leader, follower, 70.0)
    assert passed.count("snapshot") == 1
    assert passed[-1] == "taken"
    assert follower.state.log.last_index == leader.state.log.last_index


def test_snapshots_that_do_not_help_are_not_sent_over_and_over() -> None:
    leader, follower = _leader(Config(trailing_logs=50)), _server("a", MemoryLogStore(), OUTSIDE)
    leader.compact(50, 2)
    passed = _ask(leader, follower, 60.0)
    assert passed.count("snapshot") <= 2
    assert passed.count("refused") < 60
