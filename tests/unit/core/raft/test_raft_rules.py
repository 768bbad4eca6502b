"""Rules of followers and leaders that faults seldom put to the test."""

from __future__ import annotations

import random

from proconsul.core.raft.log import Log, MemoryLogStore
from proconsul.core.raft.machine import Raft
from proconsul.core.raft.types import Config, HardState, Output, Reply, Role, Send, SnapshotMeta
from proconsul.wire.raft import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    Configuration,
    Entry,
    LogType,
    RequestVoteResponse,
    Server,
    Suffrage,
    TimeoutNowRequest,
    encode_configuration,
)

THREE = Configuration(tuple(Server(Suffrage.VOTER, i, i) for i in "abc"))


def _entries(first: int, *terms: int) -> list[Entry]:
    return [Entry(first + i, term, LogType.COMMAND, b"") for i, term in enumerate(terms)]


def _server(*terms: int, config: Config | None = None) -> Raft:
    """Server "a" with the members of `THREE` in entry 1 and commands of these terms behind it."""
    first = Entry(1, 1, LogType.CONFIGURATION, encode_configuration(THREE))
    log = Log(MemoryLogStore([first, *_entries(2, *terms)]))
    hard = HardState(max(terms, default=1))
    raft = Raft(config or Config(), "a", "a", log, hard, None, random.Random(1))
    raft.start(0.0)
    return raft


def _outputs(raft: Raft, now: float = 0.0) -> list[Output]:
    outputs = []
    while (out := raft.take_output()) is not None:
        outputs.append(out)
        if out.writes or out.send_durable:
            raft.persisted(out.seq, now)
    return outputs


def _answer(raft: Raft) -> AppendEntriesResponse:
    replies = [r for o in _outputs(raft) for r in (*o.send, *o.send_durable)]
    (reply,) = [r for r in replies if isinstance(r, Reply)]
    assert isinstance(reply.response, AppendEntriesResponse)
    return reply.response


def _elected(raft: Raft, now: float) -> None:
    raft.request(0, TimeoutNowRequest(), now)
    sends = [s for o in _outputs(raft, now) for s in o.send_durable if isinstance(s, Send)]
    response = RequestVoteResponse(raft.state.term, granted=True)
    raft.response(sends[0].rid, response, now)
    assert raft.state.role is Role.LEADER


def test_only_what_a_request_vouches_for_is_committed() -> None:
    raft = _server(1, 1, 1, 1)
    raft.request(0, AppendEntriesRequest(2, b"b", 2, 1, tuple(_entries(3, 1)), 5), 0.0)
    assert _answer(raft).success
    assert raft.state.log.last_index == 5
    assert raft.state.commit_index == 3


def test_a_refusal_leads_past_a_false_tail_at_once() -> None:
    raft = _server(1, 1, 2, 2, 2, 3)
    raft.request(0, AppendEntriesRequest(5, b"b", 20, 1), 0.0)
    assert _answer(raft) == AppendEntriesResponse(5, 3, success=False, no_retry_backoff=True)
    raft.request(1, AppendEntriesRequest(5, b"b", 20, 4), 0.0)
    assert _answer(raft).last_log == 7
    raft.request(2, AppendEntriesRequest(5, b"b", 5, 1), 0.0)
    assert _answer(raft).last_log == 3


def test_a_snapshot_keeps_confirmed_entries_behind_it() -> None:
    raft = _server(1, 1, 1)
    raft.state.restore(SnapshotMeta(3, 1, THREE, 1))
    assert (raft.state.log.last_index, raft.state.commit_index) == (4, 3)
    assert not any(out.truncate_from for out in _outputs(raft))


def test_a_snapshot_that_fits_nowhere_replaces_the_log() -> None:
    raft = _server(1, 1, 1)
    raft.state.restore(SnapshotMeta(3, 2, THREE, 1))
    assert (raft.state.log.last_index, raft.state.commit_index) == (3, 3)
    assert [out.truncate_from for out in _outputs(raft)] == [1]


def test_a_snapshot_that_only_this_server_has_is_not_built_upon() -> None:
    raft = _server(1, 1, 1)
    raft.state.restore(SnapshotMeta(9, 1, THREE, 1))
    _outputs(raft)
    raft.request(0, AppendEntriesRequest(2, b"b", 9, 2, tuple(_entries(10, 2)), 10), 0.0)
    assert _answer(raft) == AppendEntriesResponse(2, 8, success=False, no_retry_backoff=True)
    raft.request(0, AppendEntriesRequest(2, b"b", 8, 2, tuple(_entries(9, 2, 2)), 10), 0.0)
    assert _answer(raft) == AppendEntriesResponse(2, 9, success=False)
    assert (raft.state.log.last_index, raft.state.commit_index) == (9, 9)
    assert raft.snapshot_wanted(SnapshotMeta(10, 2, THREE, 1))


def test_a_deposed_leader_knows_the_later_term() -> None:
    raft = _server(1)
    _elected(raft, 0.1)
    sends = [s for o in _outputs(raft, 0.1) for s in o.send if isinstance(s, Send)]
    raft.response(sends[0].rid, AppendEntriesResponse(77, 0, success=False), 0.2)
    assert raft.state.role is Role.FOLLOWER
    assert raft.state.term == 77
    assert [o.hard_state.term for o in _outputs(raft) if o.hard_state] == [77]


def test_a_probe_that_fails_is_repeated_where_it_was() -> None:
    raft = _server(1, 1, 1)
    _elected(raft, 0.1)
    (first,) = [s for o in _outputs(raft, 0.1) for s in o.send if _appends(s) == ("b", 4)]
    raft.failed(first.rid, 0.2)
    raft.handle_timer(0.25)
    again = [_appends(s) for o in _outputs(raft, 0.25) for s in o.send]
    assert ("b", 4) in again


def test_a_verification_is_not_confirmed_by_an_earlier_heartbeat() -> None:
    raft = _server(1)
    _elected(raft, 0.1)
    early = [s for o in _outputs(raft, 0.1) for s in o.send if isinstance(s, Send)]
    raft.verify("read", 0.15)
    late = [s for o in _outputs(raft, 0.15) for s in o.send if isinstance(s, Send)]
    response = AppendEntriesResponse(raft.state.term, 3, success=True)
    raft.response(early[0].rid, response, 0.2)
    assert not [event for out in _outputs(raft, 0.2) for event in out.events]
    raft.response(late[0].rid, response, 0.2)
    (event,) = [event for out in _outputs(raft, 0.2) for event in out.events]
    assert getattr(event, "ok", False)


def _appends(send: Send | Reply) -> tuple[str, int]:
    """(target, the index before the entries) of an AppendEntries."""
    if isinstance(send, Send) and isinstance(send.request, AppendEntriesRequest):
        return send.server_id, send.request.prev_log_index
    return "", 0
