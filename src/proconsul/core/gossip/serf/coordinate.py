"""Network coordinates (Vivaldi with height, adjustment and gravity), after serf's `coordinate`.

[1] Dabek et al., "Vivaldi: A decentralized network coordinate system", SIGCOMM 2004.
[2] Ledlie et al., "Network Coordinates in the Wild", NSDI 2007 (latency filter, gravity).
[3] Lee et al., "On suitability of Euclidean embedding for host-based network coordinate systems",
    ToN 2010 (adjustment term).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec

from proconsul.util.clock import Rng

DIMENSIONS: Final = 8
ERROR_MAX: Final = 1.5
CE: Final = 0.25
"""Largest share of the confidence that one observation can change [1]."""
CC: Final = 0.25
"""Largest share of the way towards the observed distance that one observation moves [1]."""
ADJUSTMENT_WINDOW: Final = 20
HEIGHT_MIN_S: Final = 10.0e-6
LATENCY_FILTER_SIZE: Final = 3
GRAVITY_RHO: Final = 150.0
RTT_S_MAX: Final = 10.0
_ZERO: Final = 1.0e-6


class Coordinate(msgspec.Struct, frozen=True):
    """A position; everything but the dimensionless `error` is in seconds."""

    vec: tuple[float, ...] = (0.0,) * DIMENSIONS
    error: float = ERROR_MAX
    adjustment: float = 0.0
    height: float = HEIGHT_MIN_S

    @property
    def valid(self) -> bool:
        """All parts are finite."""
        parts = (*self.vec, self.error, self.adjustment, self.height)
        return all(math.isfinite(part) for part in parts)

    def distance_to(self, other: Coordinate) -> float:
        """Estimated round-trip time in seconds. Both must have the same dimensions."""
        raw = self.raw_distance_to(other)
        adjusted = raw + self.adjustment + other.adjustment
        return adjusted if adjusted > 0.0 else raw

    def raw_distance_to(self, other: Coordinate) -> float:
        """The distance without the adjustment terms."""
        return math.dist(self.vec, other.vec) + self.height + other.height


ORIGIN: Final = Coordinate()


class CoordinateError(ValueError):
    """An observation that cannot be used: a foreign dimension, no finite number, an absurd time."""


class CoordinateClient:
    """Keeps the local coordinate up to date with observed round-trip times."""

    def __init__(self, rng: Rng) -> None:
        self._rng = rng
        self.coordinate = ORIGIN
        self.resets = 0
        self._adjustments: deque[float] = deque([0.0] * ADJUSTMENT_WINDOW, maxlen=ADJUSTMENT_WINDOW)
        self._latencies: dict[str, deque[float]] = {}

    def forget(self, node: str) -> None:
        """Drop what is kept about a node that is gone."""
        self._latencies.pop(node, None)

    def update(self, node: str, other: Coordinate, rtt_s: float) -> Coordinate:
        """Move after a ping of `node`, which is at `other`. Raises `CoordinateError`."""
        if len(other.vec) != DIMENSIONS:
            raise CoordinateError("dimensions aren't compatible")
        if not other.valid:
            raise CoordinateError("coordinate is invalid")
        if not 0 <= rtt_s <= RTT_S_MAX:
            raise CoordinateError(f"round trip time of {rtt_s} s is not within 0 and {RTT_S_MAX} s")
        rtt_s = self._median(node, rtt_s)
        try:
            moved = self._gravity(self._adjust(self._vivaldi(other, rtt_s), other, rtt_s))
        except OverflowError:  # finite, but of absurd size
            moved = Coordinate(error=math.inf)
        if not moved.valid:
            self.resets += 1
            moved = ORIGIN
        self.coordinate = moved
        return moved

    def _median(self, node: str, rtt_s: float) -> float:
        samples = self._latencies.setdefault(node, deque(maxlen=LATENCY_FILTER_SIZE))
        samples.append(rtt_s)
        return sorted(samples)[len(samples) // 2]

    def _vivaldi(self, other: Coordinate, rtt_s: float) -> Coordinate:
        here = self.coordinate
        distance = here.distance_to(other)
        rtt_s = max(rtt_s, _ZERO)
        wrongness = abs(distance - rtt_s) / rtt_s
        weight = here.error / max(here.error + other.error, _ZERO)
        error = CE * weight * wrongness + here.error * (1.0 - CE * weight)
        here = Coordinate(here.vec, min(error, ERROR_MAX), here.adjustment, here.height)
        return self._push(here, CC * weight * (rtt_s - distance), other)

    def _adjust(self, here: Coordinate, other: Coordinate, rtt_s: float) -> Coordinate:
        self._adjustments.append(rtt_s - here.raw_distance_to(other))
        adjustment = sum(self._adjustments) / (2.0 * ADJUSTMENT_WINDOW)
        return Coordinate(here.vec, here.error, adjustment, here.height)

    def _gravity(self, here: Coordinate) -> Coordinate:
        force = -((ORIGIN.distance_to(here) / GRAVITY_RHO) ** 2)
        return self._push(here, force, ORIGIN)

    def _push(self, here: Coordinate, force: float, source: Coordinate) -> Coordinate:
        """`here` pushed away from `source` by `force` seconds."""
        unit, magnitude = self._unit_vector(here.vec, source.vec)
        vec = tuple(
            part + direction * force for part, direction in zip(here.vec, unit, strict=True)
        )
        height = here.height
        if magnitude > _ZERO:
            height = max((height + source.height) * force / magnitude + height, HEIGHT_MIN_S)
        return Coordinate(vec, here.error, here.adjustment, height)

    def _unit_vector(
        self, to: Sequence[float], source: Sequence[float]
    ) -> tuple[list[float], float]:
        """The direction and the distance; a random direction and 0 if both are one point."""
        difference = [a - b for a, b in zip(to, source, strict=True)]
        if (magnitude := math.hypot(*difference)) > _ZERO:
            return [part / magnitude for part in difference], magnitude
        difference = [self._rng.random() - 0.5 for _ in to]
        if (length := math.hypot(*difference)) > _ZERO:
            return [part / length for part in difference], 0.0
        return [1.0] + [0.0] * (len(to) - 1), 0.0
