"""Autopilot's rules against Consul's."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from proconsul.domain import autopilot as ap
from proconsul.domain.base import decode, encode
from proconsul.domain.operator import DEFAULT_AUTOPILOT

SECOND = 1_000_000_000
GOOD = ap.ServerHealth(id="a", serf_status=1, last_contact_ns=0, last_term=3, last_index=1000)


@pytest.mark.parametrize(
    ("change", "healthy"),
    [
        ({}, True),
        ({"serf_status": 4}, False),
        ({"last_contact_ns": 200_000_000}, True),
        ({"last_contact_ns": 200_000_001}, False),
        ({"last_contact_ns": -1}, False),
        ({"last_term": 2}, False),
        ({"last_index": 750}, True),
        ({"last_index": 749}, False),
    ],
)
def test_who_is_healthy(change: dict[str, int], healthy: bool) -> None:
    assert ap.is_healthy(replace(GOOD, **change), 3, 1000, DEFAULT_AUTOPILOT) is healthy


def test_stability_is_counted_from_the_last_change() -> None:
    first = replace(GOOD, healthy=True, raw_stable_since=ap.stable_since(True, None, 5 * SECOND))
    assert first.stable_since_ns == 5 * SECOND
    kept = ap.stable_since(True, first, 9 * SECOND)
    assert kept == first.raw_stable_since
    fell = replace(first, healthy=False, raw_stable_since=ap.stable_since(False, first, 9 * SECOND))
    assert fell.stable_since_ns == 9 * SECOND
    assert not ap.is_stable(first, 15 * SECOND - 1, DEFAULT_AUTOPILOT)
    assert ap.is_stable(first, 15 * SECOND, DEFAULT_AUTOPILOT)
    assert not ap.is_stable(fell, 99 * SECOND, DEFAULT_AUTOPILOT)
    assert not ap.is_stable(None, 99 * SECOND, DEFAULT_AUTOPILOT)


@pytest.mark.parametrize(
    ("voters", "nonvoters", "tolerance", "healthy"),
    [
        ("+++", "", 1, True),
        ("++-", "", 0, False),
        ("+--", "", 0, False),
        ("+++++", "", 2, True),
        ("++++-", "+", 1, False),
        ("+", "", 0, True),
        ("+++", "-", 1, False),
    ],
)
def test_how_many_can_be_spared(voters: str, nonvoters: str, tolerance: int, healthy: bool) -> None:
    rows = [replace(GOOD, healthy=c == "+", voter=True) for c in voters]
    rows += [replace(GOOD, healthy=c == "+") for c in nonvoters]
    found = ap.summary(rows)
    assert (found.failure_tolerance, found.healthy) == (tolerance, healthy)
    assert decode(encode(found), ap.OperatorHealthReply) == found


@pytest.mark.parametrize(
    ("voters", "dead", "minimum", "allowed"),
    [
        (3, 1, 0, True),
        (3, 2, 0, False),
        (5, 2, 0, True),
        (5, 3, 0, False),
        (5, 2, 4, False),
        (5, 1, 4, True),
        (4, 1, 3, True),
        (2, 1, 0, False),
        (1, 1, 0, False),
    ],
)
def test_never_so_many_dead_servers_that_the_quorum_goes(
    voters: int, dead: int, minimum: int, allowed: bool
) -> None:
    may, why = ap.may_remove(voters, dead, minimum)
    assert may is allowed
    assert why.startswith("allowed" if allowed else "denied")
