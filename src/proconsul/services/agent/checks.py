"""Running this agent's checks.

Statuses and texts follow Consul's `agent/checks`. Two things differ (docs/divergence.md): the first
probe of a check runs at once, and one that fails is probed again after 0.1 s, doubling up to 1 s,
for its first minute of failing. A gateway is thus usable when its Envoy listens, not ten
seconds later.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Protocol

from proconsul.domain.catalog import CRITICAL, PASSING, WARNING
from proconsul.drivers.scope import TaskScope
from proconsul.services.agent.check_probes import CheckSpec, Probes
from proconsul.services.agent.local import LocalStateError
from proconsul.util.clock import Rng

log = logging.getLogger("proconsul.checks")

INTERVAL_S_MIN = 1.0
FIRST_RETRY_S, FIRST_RETRY_S_MAX = 0.1, 1.0
QUICK_RETRIES_S = 60.0

Update = Callable[[str, str, str], None]
"""(check id, status, output)."""


class Alias(Protocol):
    """Follows what an alias check stands for (`services.agent.alias_checks`)."""

    async def follow(self, spec: CheckSpec) -> None: ...


class CheckRunner:
    """All running checks of an agent, by id."""

    def __init__(
        self,
        update: Update,
        scope: TaskScope,
        rng: Rng,
        probes: Probes | None = None,
        alias: Alias | None = None,
    ) -> None:
        self._update, self._scope, self._rng = update, scope, rng
        self._probes, self._alias = probes or Probes(), alias
        self._specs: dict[str, CheckSpec] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ttl: dict[str, asyncio.TimerHandle] = {}
        self._ttl_output: dict[str, str] = {}

    def spec(self, check_id: str) -> CheckSpec | None:
        """How a check runs; None for one that nothing runs."""
        return self._specs.get(check_id)

    def start(self, spec: CheckSpec) -> None:
        """Run a check, in place of any other of its id."""
        self.stop(spec.check_id)
        self._specs[spec.check_id] = spec
        if spec.ttl_s > 0:
            self._arm(spec)
        else:
            run = _Probing(spec, self._probes, self._update, self._rng).run
            if spec.is_alias and self._alias is not None:
                run = partial(self._alias.follow, spec)
            self._tasks[spec.check_id] = self._scope.supervise(f"check/{spec.check_id}", run)

    def stop(self, check_id: str) -> None:
        """Stop running a check. Unknown ids are ignored."""
        self._specs.pop(check_id, None)
        self._ttl_output.pop(check_id, None)
        task = self._tasks.pop(check_id, None)
        if task is not None:
            task.cancel()
        timer = self._ttl.pop(check_id, None)
        if timer is not None:
            timer.cancel()

    def stats(self) -> dict[str, str]:
        """For `consul info`."""
        return {"check_monitors": str(len(self._tasks)), "check_ttls": str(len(self._ttl))}

    def heartbeat(self, check_id: str, status: str, output: str) -> None:
        """A TTL check reports. Raises `LocalStateError` if it is not one."""
        spec = self._specs.get(check_id)
        if spec is None or spec.ttl_s <= 0:
            raise LocalStateError(f'CheckID "{check_id}" does not have associated TTL')
        if len(output) > spec.output_max:
            output = (
                f"{output[: spec.output_max]} ... (captured {spec.output_max} of "
                f"{len(output)} bytes)"
            )
        self._ttl_output[check_id] = output
        self._update(check_id, status, output)
        self._arm(spec)

    def _arm(self, spec: CheckSpec) -> None:
        timer = self._ttl.pop(spec.check_id, None)
        if timer is not None:
            timer.cancel()
        loop = asyncio.get_running_loop()
        self._ttl[spec.check_id] = loop.call_later(spec.ttl_s, self._expired, spec)

    def _expired(self, spec: CheckSpec) -> None:
        log.warning("Check missed TTL, is now critical: check=%s", spec.check_id)
        last = self._ttl_output.get(spec.check_id, "")
        text = "TTL expired"
        if last:
            text += f" (last output before timeout follows): {last}"
        self._update(spec.check_id, CRITICAL, text)


class _Probing:
    """The life of one check that looks at something again and again."""

    def __init__(self, spec: CheckSpec, probes: Probes, update: Update, rng: Rng) -> None:
        self._spec, self._probes, self._update, self._rng = spec, probes, update, rng
        # The first result counts, whatever it is, and so does more of the same.
        self._successes = spec.success_before_passing
        self._failures = spec.failures_before_critical
        self._reported = ""

    async def run(self) -> None:
        spec = self._spec
        interval = max(spec.interval_s, INTERVAL_S_MIN)
        clock = asyncio.get_running_loop().time
        failing_since: float | None = None
        retry = FIRST_RETRY_S
        while True:
            status, output = await self._probes.probe(spec)
            self._report(status, output)
            if status != CRITICAL:
                failing_since, retry = None, FIRST_RETRY_S
                await asyncio.sleep(interval)
                continue
            failing_since = clock() if failing_since is None else failing_since
            if clock() - failing_since < QUICK_RETRIES_S and not spec.script_args:
                await asyncio.sleep(min(retry, interval))
                retry = min(retry * 2, FIRST_RETRY_S_MAX)
            else:
                await asyncio.sleep(interval * self._rng.uniform(0.9, 1))

    def _report(self, status: str, output: str) -> None:
        """`success_before_passing` and `failures_before_critical` hold a change back."""
        spec = self._spec
        if status in (PASSING, WARNING):
            self._successes, self._failures = self._successes + 1, 0
            held = self._successes < spec.success_before_passing
        else:
            self._successes, self._failures = 0, self._failures + 1
            held = self._failures < spec.failures_before_critical
        if held:
            log.debug("Check status held back: check=%s status=%s", spec.check_id, status)
            return
        if status == CRITICAL and self._reported != CRITICAL:
            log.warning("Check is now critical: check=%s output=%s", spec.check_id, output[:200])
        self._reported = status
        self._update(spec.check_id, status, output)
