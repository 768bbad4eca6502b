"""Lifeguard's local health: a node that fails at its own duties is patient with others."""

from __future__ import annotations


class Awareness:
    """Score from 0 (healthy) to `limit - 1`; timeouts are multiplied by score + 1."""

    __slots__ = ("_limit", "score")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.score = 0

    def apply(self, delta: int) -> None:
        """Add to the score within its bounds."""
        self.score = max(0, min(self.score + delta, self._limit - 1))

    def scale(self, timeout_s: float) -> float:
        """`timeout_s` lengthened by how unwell this node feels."""
        return timeout_s * (self.score + 1)
