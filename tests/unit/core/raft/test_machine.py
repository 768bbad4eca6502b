"""The machine, step by step."""

from __future__ import annotations

import random

import pytest

from proconsul.core.raft.log import Compacted, Log, MemoryLogStore
from proconsul.core.raft.machine import Raft
from proconsul.core.raft.types import (
    Config,
    ConfigurationError,
    HardState,
    NotLeader,
    Output,
    Reply,
    Role,
    Send,
)
from proconsul.wire.raft import (
    UNSUPPORTED_PROTOCOL,
    AppendEntriesRequest,
    AppendEntriesResponse,
    Configuration,
    Entry,
    InstallSnapshotRequest,
    LogType,
    Request,
    RequestVoteRequest,
    RequestVoteResponse,
    Server,
    Suffrage,
    TimeoutNowRequest,
    encode_configuration,
)


def _machine() -> Raft:
    log = Log(MemoryLogStore())
    return Raft(Config(), "a", "a:1", log, HardState(), None, random.Random(1))


def _outputs(raft: Raft, *, durable: bool = True, now: float = 0.0) -> list[Output]:
    outputs = []
    while (out := raft.take_output()) is not None:
        outputs.append(out)
        if durable and (out.writes or out.send_durable):
            raft.persisted(out.seq, now)
    return outputs


def _three() -> Configuration:
    return Configuration(tuple(Server(Suffrage.VOTER, i, f"{i}:1") for i in "abc"))


def _replies(outputs: list[Output]) -> list[Reply]:
    return [r for o in outputs for r in (*o.send, *o.send_durable) if isinstance(r, Reply)]


def test_a_lone_voter_leads_as_soon_as_its_vote_is_durable() -> None:
    raft = _machine()
    raft.start(0.0)
    raft.bootstrap(Configuration((Server(Suffrage.VOTER, "a", "a:1"),)), 0.0)
    (out,) = _outputs(raft, durable=False)
    assert raft.state.role is Role.CANDIDATE
    raft.persisted(out.seq, 0.0)
    assert raft.state.role is Role.LEADER
    outputs = _outputs(raft)
    assert [e.type for o in outputs for e in o.append] == [LogType.NOOP]
    assert raft.state.commit_index == 2
    assert raft.get_timer() is None, "a lone leader has nothing to wait for"


def test_nothing_commits_before_it_is_durable() -> None:
    raft = _machine()
    raft.start(0.0)
    raft.bootstrap(Configuration((Server(Suffrage.VOTER, "a", "a:1"),)), 0.0)
    _outputs(raft)
    index = raft.propose([(LogType.COMMAND, b"x")], 1.0)
    (out,) = _outputs(raft, durable=False)
    assert raft.state.commit_index == index - 1
    raft.persisted(out.seq, 1.0)
    assert raft.state.commit_index == index


def test_bootstrap_only_once() -> None:
    raft = _machine()
    raft.start(0.0)
    raft.bootstrap(_three(), 0.0)
    with pytest.raises(ConfigurationError):
        raft.bootstrap(_three(), 0.0)


def test_a_vote_leaves_only_behind_its_persistence_and_is_given_once() -> None:
    raft = _machine()
    raft.start(0.0)
    raft.bootstrap(_three(), 0.0)
    _outputs(raft)
    raft.request("b", RequestVoteRequest(2, b"b:1", 1, 1), 0.1)
    (out,) = _outputs(raft)
    assert out.hard_state == HardState(2, 2, b"b:1")
    assert out.send_durable == [Reply("b", RequestVoteResponse(2, granted=True))]
    raft.request("c", RequestVoteRequest(2, b"c:1", 1, 1), 0.1)
    (reply,) = _replies(_outputs(raft))
    assert reply.response == RequestVoteResponse(2, granted=False)


def test_votes_are_refused_while_a_leader_is_known() -> None:
    raft = _machine()
    raft.start(0.0)
    raft.request(0, AppendEntriesRequest(1, b"b:1"), 0.1)
    _outputs(raft)
    raft.request(1, RequestVoteRequest(9, b"c:1", 9, 9), 0.2)
    (reply,) = _replies(_outputs(raft))
    assert reply.response == RequestVoteResponse(1, granted=False)
    raft.request(2, RequestVoteRequest(9, b"c:1", 9, 9, leadership_transfer=True), 0.3)
    (reply,) = _replies(_outputs(raft))
    assert reply.response == RequestVoteResponse(9, granted=True)


def test_a_vote_is_given_once_the_leader_has_been_silent_for_a_lease() -> None:
    raft = _machine()
    raft.start(0.0)
    raft.bootstrap(_three(), 0.0)
    raft.request(0, AppendEntriesRequest(1, b"b:1"), 0.1)
    _outputs(raft)
    for now, granted in ((0.55, False), (0.65, True)):
        raft.request(1, RequestVoteRequest(2, b"c:1", 1, 1), now)
        (reply,) = _replies(_outputs(raft))
        assert isinstance(reply.response, RequestVoteResponse)
        assert reply.response.granted is granted


def _isolated() -> tuple[Raft, float]:
    """It led term 2 and has heard of nobody until 10 s."""
    raft = _machine()
    raft.start(0.0)
    raft.bootstrap(_three(), 0.0)
    _outputs(raft)
    raft.request(0, TimeoutNowRequest(), 0.0)
    votes = [s for o in _outputs(raft) for s in o.send_durable if isinstance(s, Send)]
    raft.response(votes[0].rid, RequestVoteResponse(2, granted=True), 0.0)
    _outputs(raft)
    assert raft.state.role is Role.LEADER
    now = 0.0
    while now < 10.0:
        at = raft.get_timer()
        assert at is not None
        now = max(now, at)
        raft.handle_timer(now)
        _outputs(raft, now=now)
    return raft, now


def test_an_isolated_leader_does_not_campaign_until_it_hears_of_somebody() -> None:
    raft, now = _isolated()
    assert raft.state.role is Role.FOLLOWER
    assert raft.state.term == 2
    raft.request(1, RequestVoteRequest(2, b"b:1", 1, 1), now)
    _outputs(raft)
    at = raft.get_timer()
    assert at is not None
    raft.handle_timer(at)
    assert raft.state.role is Role.CANDIDATE


def test_an_isolated_leader_hears_of_voters_that_may_not_campaign() -> None:
    raft, now = _isolated()
    asked: list[Send] = []
    while not asked:
        now = max(now, raft.get_timer() or now)
        raft.handle_timer(now)
        asked = [s for o in _outputs(raft, now=now) for s in o.send if isinstance(s, Send)]
    assert {s.server_id for s in asked} == {"b", "c"}
    assert [getattr(s.request, "term", 0) for s in asked] == [1, 1]
    # "b" came back with nothing on its disk: it will never ask for a vote by itself
    fresh = Raft(Config(), "b", "b:1", Log(MemoryLogStore()), HardState(), None, random.Random(1))
    fresh.start(0.0)
    _outputs(fresh)
    assert asked[0].request is not None
    fresh.request(0, asked[0].request, now)
    (reply,) = _replies(_outputs(fresh))
    assert reply.response is not None
    raft.response(asked[0].rid, reply.response, now)
    assert raft.state.role is Role.FOLLOWER, "an answer of a past term elects nobody"
    at = raft.get_timer()
    assert at is not None
    raft.handle_timer(at)
    votes = [s for o in _outputs(raft, now=at) for s in o.send_durable if isinstance(s, Send)]
    fresh.request(1, votes[0].request, at)  # type: ignore[arg-type]
    (reply,) = _replies(_outputs(fresh))
    assert reply.response == RequestVoteResponse(3, granted=True)
    raft.response(votes[0].rid, reply.response, at)
    assert raft.state.role is Role.LEADER


def test_a_dead_leader_is_succeeded_before_its_silence_is_noticed() -> None:
    raft = _machine()
    raft.bootstrap(_three(), 0.0)
    raft.request(0, AppendEntriesRequest(2, b"b:1"), 0.5)
    _outputs(raft)
    raft.leader_died("c:1", 0.6)
    at = raft.get_timer()
    assert at is not None
    assert at >= 1.5  # somebody else's death changes nothing
    raft.leader_died("b:1", 0.6)
    at = raft.get_timer()
    assert at is not None
    assert 0.6 <= at <= 0.7
    raft.handle_timer(at)
    sends = [s for o in _outputs(raft) for s in o.send_durable if isinstance(s, Send)]
    requests = [send.request for send in sends]
    assert [request.leadership_transfer for request in requests] == [True, True]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "heard",
    [
        RequestVoteRequest(2, b"c:1", 1, 1),  # gets our vote
        RequestVoteRequest(3, b"c:1", 0, 0),  # does not, but is of a later term
        InstallSnapshotRequest(2, b"c:1", 9, 2, encode_configuration(_three()), 1, 0),
    ],
)
def test_an_election_after_others_does_not_claim_that_the_leader_is_gone(heard: Request) -> None:
    raft = _machine()
    raft.bootstrap(_three(), 0.0)
    raft.request(0, AppendEntriesRequest(2, b"b:1"), 0.5)
    _outputs(raft)
    raft.leader_died("b:1", 0.6)
    raft.request(1, heard, 0.61)
    if isinstance(heard, InstallSnapshotRequest):
        raft.snapshot_aborted(0.7)
    _outputs(raft)
    at = raft.get_timer()
    assert at is not None
    raft.handle_timer(at)
    asked = [s.request for o in _outputs(raft) for s in o.send_durable if isinstance(s, Send)]
    assert asked
    assert not any(getattr(request, "leadership_transfer", True) for request in asked)


def test_a_leader_that_is_heard_after_all_is_followed() -> None:
    raft = _machine()
    raft.bootstrap(_three(), 0.0)
    raft.request(0, AppendEntriesRequest(2, b"b:1"), 0.5)
    raft.leader_died("b:1", 0.6)
    raft.request(1, AppendEntriesRequest(2, b"b:1"), 0.61)
    at = raft.get_timer()
    assert at is not None
    assert at >= 1.6
    raft.handle_timer(at)
    sends = [s for o in _outputs(raft) for s in o.send_durable if isinstance(s, Send)]
    assert not any(s.request.leadership_transfer for s in sends)  # type: ignore[union-attr]


def test_a_conflicting_suffix_is_replaced_and_last_log_is_from_before() -> None:
    raft = _machine()
    raft.start(0.0)
    old = tuple(Entry(i, 1, LogType.COMMAND, b"old") for i in (1, 2, 3))
    raft.request(0, AppendEntriesRequest(1, b"b:1", 0, 0, old, 1), 0.0)
    _outputs(raft)
    new = (Entry(2, 2, LogType.COMMAND, b"new"),)
    raft.request(1, AppendEntriesRequest(2, b"c:1", 1, 1, new, 2), 0.0)
    (out,) = _outputs(raft)
    assert (out.truncate_from, out.append, out.commit_index) == (2, list(new), 2)
    assert out.send_durable == [Reply(1, AppendEntriesResponse(2, 3, success=True))]
    raft.request(2, AppendEntriesRequest(2, b"c:1", 7, 2), 0.0)
    (reply,) = _replies(_outputs(raft))
    assert reply.response == AppendEntriesResponse(2, 2, success=False, no_retry_backoff=True)


def test_other_protocol_versions_are_refused() -> None:
    raft = _machine()
    raft.start(0.0)
    raft.request(0, TimeoutNowRequest(protocol_version=1), 0.0)
    assert _replies(_outputs(raft)) == [Reply(0, None, UNSUPPORTED_PROTOCOL)]


def test_a_leader_steps_down_when_its_lease_ends() -> None:
    raft = _machine()
    raft.start(0.0)
    raft.bootstrap(_three(), 0.0)
    _outputs(raft)
    raft.request(0, TimeoutNowRequest(), 0.1)
    votes = [s for o in _outputs(raft) for s in o.send_durable if isinstance(s, Send)]
    assert {s.server_id for s in votes} == {"b", "c"}
    raft.response(votes[0].rid, RequestVoteResponse(2, granted=True), 0.2)
    assert raft.state.role is Role.LEADER
    now = 0.2
    while raft.state.role is Role.LEADER:
        at = raft.get_timer()
        assert at is not None
        now = max(at, now)
        raft.handle_timer(now)
        _outputs(raft, now=now)
    assert 0.7 <= now < 0.71
    with pytest.raises(NotLeader):
        raft.propose([(LogType.COMMAND, b"")], now)


def test_a_log_that_does_not_reach_back_to_its_snapshot_names_the_remedy() -> None:
    store = MemoryLogStore([Entry(i, 1, LogType.COMMAND, b"") for i in range(124, 130)])
    with pytest.raises(Compacted, match=r"starts at 124.*ends at 100.*from a backup, or move it"):
        Log(store, 100, 1)
    assert Log(store, 123, 1).last_index == 129
