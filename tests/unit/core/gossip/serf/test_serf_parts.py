"""The parts of the serf machine that decide alone: roster, rings, clocks, snapshot, coordinates."""

from __future__ import annotations

import logging
import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proconsul.core.gossip.memberlist import MemberlistConfig
from proconsul.core.gossip.serf import (
    Coordinate,
    Member,
    MemberEvent,
    MemberEventKind,
    MemberStatus,
    SerfConfig,
    Snapshot,
)
from proconsul.core.gossip.serf.coordinate import CoordinateClient, CoordinateError
from proconsul.core.gossip.serf.lamport import LamportClock
from proconsul.core.gossip.serf.recent import RecentRing
from proconsul.core.gossip.serf.roster import INTENTS_MAX, Roster, Verdict
from proconsul.core.gossip.serf.snapshot import parse_address, replay
from proconsul.util.errors import ConfigError, WireError

ALIVE, LEAVING, LEFT, FAILED = (
    MemberStatus.ALIVE,
    MemberStatus.LEAVING,
    MemberStatus.LEFT,
    MemberStatus.FAILED,
)


def make_config(**settings_: Any) -> SerfConfig:
    memberlist = MemberlistConfig(name="me", advertise=("10.0.0.1", 1))
    return SerfConfig(node_name="me", memberlist=memberlist, **settings_)


class Book:
    """A roster and what it told."""

    def __init__(self, **settings_: Any) -> None:
        self.events: list[MemberEvent] = []
        config = make_config(**settings_)
        self.roster = Roster(config, self.events.append, logging.getLogger("test"))

    def join(self, name: str, now: float = 0.0) -> None:
        self.roster.joined(name, lambda s: Member(name, ("10.0.0.2", 1), {}, s), now)

    def status(self, name: str) -> MemberStatus | None:
        member = self.roster.get(name)
        return member.status if member else None

    @property
    def kinds(self) -> list[str]:
        return [event.kind.value for event in self.events]


def test_a_leave_that_was_announced_is_no_failure():
    book = Book()
    book.join("a")
    assert book.roster.leave_intent("a", 5, 1.0) is Verdict.NEWS
    assert book.roster.leave_intent("a", 5, 1.0) is Verdict.OLD
    assert book.status("a") is LEAVING
    book.roster.left("a", 2.0)
    assert book.status("a") is LEFT
    assert book.kinds == ["member-join", "member-leave"]
    assert book.roster.left_names() == ["a"]


def test_a_newer_join_takes_the_leave_back():
    book = Book()
    book.join("a")
    book.roster.leave_intent("a", 5, 1.0)
    assert book.roster.join_intent("a", 5, 1.0) is Verdict.OLD
    assert book.roster.join_intent("a", 6, 1.0) is Verdict.NEWS
    assert book.status("a") is ALIVE
    book.roster.left("a", 2.0)
    assert book.status("a") is FAILED


def test_a_second_leave_is_passed_on_once():
    book = Book()
    book.join("a")
    book.roster.leave_intent("a", 5, 1.0)
    book.roster.left("a", 2.0)
    assert book.roster.leave_intent("a", 9, 3.0) is Verdict.NEWS
    assert book.roster.leave_intent("a", 9, 3.0) is Verdict.OLD


def test_intents_wait_for_the_member_and_expire():
    book = Book()
    assert book.roster.leave_intent("a", 7, 0.0) is Verdict.NEWS
    assert book.roster.join_intent("a", 6, 0.0) is Verdict.OLD
    book.join("a")
    assert book.status("a") is LEAVING
    assert book.roster.status_ltimes() == {"a": 7}
    book.roster.join_intent("b", 3, 0.0)
    book.roster.reap(301.0)
    book.join("b")
    assert book.roster.status_ltimes()["b"] == 0


def test_a_flood_of_intents_for_made_up_names_is_bounded():
    book = Book()
    for number in range(INTENTS_MAX):
        assert book.roster.join_intent(f"n{number}", 1, 0.0) is Verdict.NEWS
    assert book.roster.join_intent("one more", 1, 0.0) is Verdict.OLD


def test_our_own_leave_is_refuted_unless_we_mean_it():
    book = Book()
    book.join("me")
    assert book.roster.leave_intent("me", 4, 0.0, staying=True) is Verdict.REFUTE
    assert book.status("me") is ALIVE
    assert book.roster.leave_intent("me", 4, 0.0) is Verdict.NEWS


def test_prune_of_a_leaving_member_waits_and_spares_one_that_returned():
    book = Book(broadcast_timeout_s=5.0, leave_propagate_delay_s=3.0)
    for name in ("a", "b"):
        book.join(name)
        book.roster.leave_intent(name, 5, 10.0, prune=True)
    assert book.roster.next_prune() == 18.0
    book.roster.left("a", 11.0)
    book.join("b", 12.0)
    book.roster.handle_prunes(18.0)
    assert book.status("a") is None
    assert book.status("b") is ALIVE


def test_reaping_by_reconnect_and_tombstone_timeouts():
    book = Book(reconnect_timeout_s=100.0, tombstone_timeout_s=50.0)
    for name in ("failed", "left"):
        book.join(name)
    book.roster.leave_intent("left", 2, 0.0)
    for name in ("failed", "left"):
        book.roster.left(name, 0.0)
    book.roster.reap(50.5)
    assert (book.status("failed"), book.status("left")) == (FAILED, None)
    book.roster.reap(100.5)
    assert len(book.roster) == 0
    assert book.events[-1].kind is MemberEventKind.REAP


def test_clock_is_ahead_of_what_it_heard_and_ignores_absurd_times():
    clock = LamportClock(1)
    clock.witness(0)
    assert clock.time == 1
    clock.witness(41)
    assert clock.time == 42
    clock.witness(2**64 - 1)
    assert clock.time == 42


def test_ring_knows_duplicates_old_times_and_a_minimum():
    ring: RecentRing[str] = RecentRing(4)
    assert ring.add(1, "a", 2)
    assert not ring.add(1, "a", 2)
    assert ring.add(1, "b", 2)
    assert ring.add(9, "c", 10)
    assert not ring.add(5, "d", 10)
    assert sorted(ring.entries()) == [(9, ["c"])]
    ring.min_time = 20
    assert not ring.add(19, "e", 20)
    for number in range(2000):
        ring.add(21, str(number), 22)
    assert len(dict(ring.entries())[21]) == 1024


def test_snapshot_lines_give_the_state_back():
    state = Snapshot()
    lines = [
        state.joined("a b", ("10.0.0.1", 8301)),
        state.joined("v6", ("fd00::1", 1)),
        state.joined("gone", ("10.0.0.3", 1)),
        state.gone("gone"),
        state.clock_seen(7),
        state.event_seen(8),
        state.query_seen(9),
    ]
    assert lines[0] == "alive: a b 10.0.0.1:8301"
    assert lines[1] == "alive: v6 [fd00::1]:1"
    assert state.clock_seen(7) is None
    assert replay(line for line in lines if line) == state == replay(state.lines())
    extra = ["# comment", "coordinate: {}", "nonsense", "clock: x", "alive: noaddress"]
    assert replay([*state.lines(), *extra]) == state
    assert parse_address(state.alive["v6"]) == ("fd00::1", 1)
    with pytest.raises(WireError):
        parse_address("nothing")


def test_a_leave_forgets_unless_it_rejoins():
    lines = ["alive: a 1.2.3.4:5", "clock: 3", "leave"]
    assert replay(lines) == Snapshot()
    assert replay(lines, rejoin_after_leave=True).alive == {"a": "1.2.3.4:5"}


def test_coordinates_converge_to_the_round_trip_times():
    rng = random.Random(1)
    names = ["a", "b", "c"]
    clients = {name: CoordinateClient(rng) for name in names}
    rtt = {("a", "b"): 0.010, ("a", "c"): 0.050, ("b", "c"): 0.045}
    for _ in range(400):
        one, two = rng.sample(names, 2)
        time = rtt[min(one, two), max(one, two)]
        clients[one].update(two, clients[two].coordinate, time)
    for (one, two), time in rtt.items():
        estimate = clients[one].coordinate.distance_to(clients[two].coordinate)
        assert estimate == pytest.approx(time, rel=0.15)


@pytest.mark.parametrize(
    ("other", "rtt_s"),
    [
        (Coordinate((0.0,) * 3), 0.1),
        (Coordinate(error=math.nan), 0.1),
        (Coordinate(height=math.inf), 0.1),
        (Coordinate(), -1.0),
        (Coordinate(), 11.0),
    ],
)
def test_useless_observations_change_nothing(other: Coordinate, rtt_s: float):
    client = CoordinateClient(random.Random(1))
    with pytest.raises(CoordinateError):
        client.update("x", other, rtt_s)
    assert client.coordinate == Coordinate()


@settings(derandomize=True, max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=8, max_size=8),
            st.floats(allow_nan=False, allow_infinity=False),
            st.floats(allow_nan=False, allow_infinity=False),
            st.floats(0, 10),
        ),
        max_size=5,
    )
)
def test_no_peer_can_make_our_coordinate_invalid(observations: list[Any]):
    client = CoordinateClient(random.Random(1))
    for vec, error, height, rtt_s in observations:
        client.update("x", Coordinate(tuple(vec), error, 0.0, height), rtt_s)
        assert client.coordinate.valid


def test_configuration_that_cannot_work_is_refused():
    with pytest.raises(ConfigError, match="protocol version"):
        make_config(protocol_version=6)
    with pytest.raises(ConfigError, match="9216"):
        make_config(user_event_size_limit=10_000)
