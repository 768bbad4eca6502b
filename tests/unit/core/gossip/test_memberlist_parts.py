"""Suspicion maths, broadcast queue, awareness, timers, scaling."""

from __future__ import annotations

import pytest

from proconsul.core.gossip.memberlist.awareness import Awareness
from proconsul.core.gossip.memberlist.broadcast import BroadcastQueue, retransmit_limit
from proconsul.core.gossip.memberlist.machine import push_pull_scale
from proconsul.core.gossip.memberlist.suspicion import (
    Suspicion,
    remaining_s,
    suspicion_timeout_s,
)
from proconsul.core.gossip.memberlist.timers import TimerHeap


@pytest.mark.parametrize(
    ("confirmations", "elapsed_s", "expected_s"),
    # memberlist's own table (suspicion_test.go): k = 3, min 2 s, max 30 s.
    [(0, 0, 30.0), (1, 2, 14.0), (2, 3, 4.81), (3, 4, -2.0), (4, 5, -3.0), (5, 10, -8.0)],
)
def test_remaining_suspicion(confirmations: int, elapsed_s: float, expected_s: float) -> None:
    assert remaining_s(confirmations, 3, elapsed_s, 2.0, 30.0) == pytest.approx(expected_s)


def test_suspicion_counts_each_witness_once() -> None:
    suspicion = Suspicion("accuser", 2, 1.0, 10.0, now=100.0)
    assert suspicion.deadline == 110.0
    assert not suspicion.confirm("accuser", 101.0)
    assert suspicion.confirm("b", 101.0)
    assert 101.0 < suspicion.deadline < 110.0
    assert not suspicion.confirm("b", 102.0)
    assert suspicion.confirm("c", 102.0)
    assert suspicion.deadline == 102.0  # the shortest timeout has passed already
    assert not suspicion.confirm("d", 103.0)


def test_suspicion_without_witnesses_is_short() -> None:
    assert Suspicion("a", 0, 1.0, 10.0, now=0.0).deadline == 1.0


def test_scaling() -> None:
    assert suspicion_timeout_s(4, 1, 1.0) == 4.0
    assert suspicion_timeout_s(3, 100, 2.0) == 12.0
    assert [retransmit_limit(3, n) for n in (0, 1, 9, 99)] == [0, 3, 3, 6]
    assert [push_pull_scale(n) for n in (1, 32, 33, 64, 65, 128)] == [1, 1, 2, 2, 3, 3]


def test_awareness_is_bounded() -> None:
    awareness = Awareness(8)
    awareness.apply(-1)
    assert awareness.scale(2.0) == 2.0
    awareness.apply(100)
    assert (awareness.score, awareness.scale(2.0)) == (7, 16.0)


def test_queue_prefers_fresh_then_long_then_new() -> None:
    queue = BroadcastQueue(lambda: 9, 2)  # each is sent twice
    for message in (b"aa", b"bbbb", b"cc"):
        queue.queue(message)
    assert queue.get(1, 8) == [b"bbbb", b"cc"]
    assert queue.get(1, 100) == [b"aa", b"bbbb", b"cc"]
    assert queue.get(1, 100) == [b"aa"]
    assert len(queue) == 0


def test_queue_skips_what_does_not_fit() -> None:
    queue = BroadcastQueue(lambda: 9, 5)
    for size in (10, 8, 3, 3, 1):
        queue.queue(b"x" * size)
    assert [len(m) for m in queue.get(2, 11)] == [8]
    assert [len(m) for m in queue.get(2, 8)] == [3, 1]
    assert queue.get(2, 2) == []
    assert len(queue) == 5


def test_queue_replaces_by_name_and_reports_the_end() -> None:
    ended: list[str] = []
    queue = BroadcastQueue(lambda: 9, 1)
    queue.queue(b"suspect", "n1", lambda: ended.append("suspect"))
    queue.queue(b"alive", "n1", lambda: ended.append("alive"))
    queue.queue(b"other", "n2")
    assert ended == ["suspect"]
    assert sorted(queue.get(2, 100)) == [b"alive", b"other"]
    assert ended == ["suspect", "alive"]
    queue.queue(b"again", "n1")
    queue.queue(b"anonymous")
    queue.prune(1)
    assert len(queue) == 1


def test_timers_run_in_order_and_can_be_cancelled() -> None:
    ran: list[str] = []
    timers = TimerHeap()
    timers.add(2.0, lambda _: ran.append("late"))
    cancelled = timers.add(1.0, lambda _: ran.append("cancelled"))
    timers.add(1.5, lambda now: timers.add(now, lambda _: ran.append("chained")) and None)
    timers.add(1.5, lambda _: ran.append("same time"))
    cancelled.cancel()
    assert timers.next_at() == 1.5
    timers.run(1.5)
    assert ran == ["same time", "chained"]
    assert timers.next_at() == 2.0
