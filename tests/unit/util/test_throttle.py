"""The bound on provoked log lines."""

from __future__ import annotations

from proconsul.util.throttle import LINES, PERIOD_S, Throttle


def test_lines_beyond_the_bound_are_counted_and_told_later() -> None:
    throttle = Throttle()
    assert [throttle.take(5.0) for _ in range(LINES + 3)] == [0] * LINES + [None] * 3
    assert throttle.take(5.0 + PERIOD_S / 2) is None
    assert throttle.take(5.0 + PERIOD_S) == 4
    assert throttle.take(5.0 + PERIOD_S) == 0
