"""How many calls an agent may make for its own and its HTTP clients' sake (`limits.rpc_rate`)."""

from __future__ import annotations

import asyncio

from proconsul.domain.errors import RateExceededError
from proconsul.util.metrics import Metrics


class CallLimit:
    """A token bucket (golang.org/x/time/rate): `rate` calls a second, `burst` at once."""

    def __init__(self, metrics: Metrics, rate: float, burst: int) -> None:
        """A negative `rate` is no limit."""
        self._metrics, self._rate, self._burst = metrics, rate, burst
        self._left, self._at = float(burst), 0.0

    def change(self, rate: float, burst: int) -> None:
        """Other limits from now on, with a full bucket."""
        if (rate, burst) != (self._rate, self._burst):
            self._rate, self._burst, self._left = rate, burst, float(burst)

    def admit(self) -> None:
        """Count a call. Raises `RateExceededError`."""
        if self._rate < 0:
            return
        now = asyncio.get_running_loop().time()
        filled = self._left + (now - self._at) * self._rate
        self._left, self._at = min(float(self._burst), filled), now
        if self._left < 1:
            self._metrics.incr("consul.client.rpc.exceeded", 1)
            raise RateExceededError
        self._left -= 1
