"""Suspicion of one node, whose timeout shrinks as independent peers confirm it (Lifeguard)."""

from __future__ import annotations

import math


def suspicion_timeout_s(mult: int, nodes: int, interval_s: float) -> float:
    """The shortest suspicion in a cluster of `nodes`: `mult * max(1, log10 nodes) * interval`."""
    return mult * max(1.0, math.log10(max(1.0, float(nodes)))) * interval_s


def remaining_s(
    confirmations: int, wanted: int, elapsed_s: float, min_s: float, max_s: float
) -> float:
    """What is left of a suspicion; negative means overdue.

    The timeout falls from `max_s` to `min_s` with log(confirmations + 1) / log(wanted + 1).
    """
    fraction = math.log(confirmations + 1.0) / math.log(wanted + 1.0)
    timeout = math.floor(1000.0 * (max_s - fraction * (max_s - min_s))) / 1000.0
    return max(timeout, min_s) - elapsed_s


class Suspicion:
    """Who suspects a node, and until when it may refute."""

    __slots__ = ("_confirmed", "_max_s", "_min_s", "confirmations", "deadline", "start", "wanted")

    def __init__(self, source: str, wanted: int, min_s: float, max_s: float, now: float) -> None:
        """`wanted` confirmations bring the timeout to `min_s`; with 0 it is `min_s` at once."""
        self.wanted = wanted
        self.confirmations = 0
        self.start = now
        self._min_s = min_s
        self._max_s = max_s
        self._confirmed = {source}
        self.deadline = now + (max_s if wanted > 0 else min_s)

    def confirm(self, source: str, now: float) -> bool:
        """True, with an earlier `deadline`, if `source` is a new and still wanted witness."""
        if self.confirmations >= self.wanted or source in self._confirmed:
            return False
        self._confirmed.add(source)
        self.confirmations += 1
        elapsed = now - self.start
        self.deadline = now + max(
            0.0, remaining_s(self.confirmations, self.wanted, elapsed, self._min_s, self._max_s)
        )
        return True
