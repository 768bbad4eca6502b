"""What the passing of time does to sessions and locks: times to live, delays of locks.

Follows agent/consul/session_ttl.go and state/delay.go. Neither is replicated: a new leader gives
every session its whole time to live again, and only the leader judges lock delays.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from proconsul.domain.messages import MessageType
from proconsul.domain.session import SESSION_DESTROY, Session, SessionRequest
from proconsul.drivers.scope import TaskScope
from proconsul.state.store import Store
from proconsul.util.errors import ProconsulError
from proconsul.util.goduration import parse_duration
from proconsul.util.metrics import Metrics

log = logging.getLogger("proconsul.server.session")

TTL_MULTIPLIER = 2
"""Clients, the network and we are late at times: a session gets twice the time it asked for."""
ATTEMPTS_MAX = 6
RETRY_S = 10.0
"""After the first failure, doubled each time."""
LOCK_DELAY_S_MAX = 60.0
DELAYS_SWEEP = 1024
"""With so many delays, those that have passed are cleared away."""

Apply = Callable[[MessageType, SessionRequest], Awaitable[object]]


class SessionTimers:
    """The ends of sessions. `run` while this server leads; without it nothing is timed."""

    def __init__(self, datacenter: str, store: Store, apply: Apply, metrics: Metrics) -> None:
        self._datacenter, self._store, self._apply = datacenter, store, apply
        self._metrics = metrics
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._scope: TaskScope | None = None

    def __len__(self) -> int:
        return len(self._timers)

    async def run(self) -> None:
        """Time all sessions until cancelled."""
        async with TaskScope("sessions") as scope:
            self._scope = scope
            try:
                for session in self._store.sessions.all().value:
                    self.reset(session)
                await asyncio.Event().wait()
            finally:
                self._scope = None
                for timer in self._timers.values():
                    timer.cancel()
                self._timers.clear()

    def reset(self, session: Session) -> None:
        """See `rpc.endpoints.session.Timers.reset`."""
        if self._scope is None or not session.ttl:
            return
        try:
            ttl_s = parse_duration(session.ttl)
        except ValueError as error:
            log.error("invalid TTL of session %s: %s", session.id, error)
            return
        if ttl_s > 0:
            self.clear(session.id)
            loop = asyncio.get_running_loop()
            timer = loop.call_later(ttl_s * TTL_MULTIPLIER, self._expired, session.id)
            self._timers[session.id] = timer
            self._metrics.gauge("consul.session_ttl.active", len(self._timers))

    def clear(self, session_id: str) -> None:
        """See `rpc.endpoints.session.Timers.clear`."""
        if (timer := self._timers.pop(session_id, None)) is not None:
            timer.cancel()

    def _expired(self, session_id: str) -> None:
        self._timers.pop(session_id, None)
        if self._scope is not None:
            _ = self._scope.spawn(session_id, self._invalidate(session_id))

    async def _invalidate(self, session_id: str) -> None:
        request = SessionRequest(
            datacenter=self._datacenter, op=SESSION_DESTROY, session=Session(id=session_id)
        )
        for attempt in range(ATTEMPTS_MAX):
            try:
                await self._apply(MessageType.SESSION, request)
            except (ProconsulError, TimeoutError) as error:
                log.error("Invalidation failed: session=%s error=%s", session_id, error)
                await asyncio.sleep(RETRY_S * 2**attempt)
            else:
                log.debug("Session TTL expired: session=%s", session_id)
                return
        log.error("maximum revoke attempts reached for session: session=%s", session_id)


class LockDelays:
    """Keys whose locks were taken away lately: nobody may lock them for a while."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` is monotonic, in seconds."""
        self._clock = clock
        self._until: dict[str, float] = {}

    def begin(self, key: str, delay_ns: int) -> None:
        """A session that held the lock on `key` is gone."""
        now = self._clock()
        if len(self._until) >= DELAYS_SWEEP:
            self._until = {k: until for k, until in self._until.items() if until > now}
        self._until[key] = now + min(delay_ns / 1e9, LOCK_DELAY_S_MAX)

    def holds(self, key: str) -> bool:
        """Whether `key` must not be locked now."""
        until = self._until.get(key)
        if until is None:
            return False
        if until > self._clock():
            return True
        del self._until[key]
        return False
