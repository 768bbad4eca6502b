"""Running this agent's checks: TTL, HTTP and TCP.

Statuses and texts follow Consul's `agent/checks`. Two things differ (docs/divergence.md): the first
probe of a check runs at once, and one that fails is probed again after 0.1 s, doubling up to 1 s,
for its first minute of failing. A gateway is thus usable when its Envoy listens, not ten
seconds later.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from proconsul.domain.catalog import CRITICAL, PASSING, WARNING
from proconsul.drivers.probes import ProbeError, http_probe, tcp_probe
from proconsul.drivers.scope import TaskScope
from proconsul.services.agent.local import LocalStateError
from proconsul.util.clock import Rng

log = logging.getLogger("proconsul.checks")

TIMEOUT_S = 10.0
INTERVAL_S_MIN = 1.0
FIRST_RETRY_S, FIRST_RETRY_S_MAX = 0.1, 1.0
QUICK_RETRIES_S = 60.0
HTTP_TOO_MANY_REQUESTS = 429

Update = Callable[[str, str, str], None]
"""(check id, status, output)."""


@dataclass(frozen=True, slots=True)
class CheckSpec:
    """How a check runs: exactly one of `ttl_s`, `http` and `tcp` is set. Seconds."""

    check_id: str
    ttl_s: float = 0.0
    http: str = ""
    tcp: str = ""
    method: str = ""
    body: str = ""
    headers: dict[str, list[str]] | None = None
    tls_skip_verify: bool = False
    interval_s: float = 0.0
    timeout_s: float = 0.0
    output_max: int = 4096
    success_before_passing: int = 0
    failures_before_critical: int = 0
    deregister_after_s: float = 0.0
    """Deregister the service once it was critical for this long; 0: never."""


class CheckRunner:
    """All running checks of an agent, by id."""

    def __init__(self, update: Update, scope: TaskScope, rng: Rng) -> None:
        self._update, self._scope, self._rng = update, scope, rng
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
            run = _Probing(spec, self._update, self._rng).run
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
    """The life of one HTTP or TCP check."""

    def __init__(self, spec: CheckSpec, update: Update, rng: Rng) -> None:
        self._spec, self._update, self._rng = spec, update, rng
        self._successes = self._failures = 0
        self._reported = ""

    async def run(self) -> None:
        spec = self._spec
        interval = max(spec.interval_s, INTERVAL_S_MIN)
        clock = asyncio.get_running_loop().time
        failing_since: float | None = None
        retry = FIRST_RETRY_S
        while True:
            status, output = await self._probe()
            self._report(status, output)
            if status != CRITICAL:
                failing_since, retry = None, FIRST_RETRY_S
                await asyncio.sleep(interval)
                continue
            failing_since = clock() if failing_since is None else failing_since
            if clock() - failing_since < QUICK_RETRIES_S:
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
        if self._reported and held:
            log.debug("Check status held back: check=%s status=%s", spec.check_id, status)
            return
        if status == CRITICAL and self._reported != CRITICAL:
            log.warning("Check is now critical: check=%s output=%s", spec.check_id, output[:200])
        self._reported = status
        self._update(spec.check_id, status, output)

    async def _probe(self) -> tuple[str, str]:
        spec = self._spec
        timeout = spec.timeout_s or TIMEOUT_S
        try:
            if spec.tcp:
                host, _, port = spec.tcp.rpartition(":")
                await tcp_probe(host.strip("[]"), int(port), timeout)
                return PASSING, f"TCP connect {spec.tcp}: Success"
            return await self._http(timeout)
        except (ProbeError, ValueError, OverflowError) as error:  # a port above 65535
            return CRITICAL, str(error)

    async def _http(self, timeout_s: float) -> tuple[str, str]:
        spec = self._spec
        method = spec.method or "GET"
        answer = await http_probe(
            spec.http,
            method=method,
            headers=spec.headers,
            body=spec.body,
            tls_skip_verify=spec.tls_skip_verify,
            timeout_s=timeout_s,
            output_max=spec.output_max,
        )
        text = bytes(answer.body).decode("utf-8", "replace")
        output = f"HTTP {method} {spec.http}: {answer.status} {answer.reason} Output: {text}"
        if 200 <= answer.status <= 299:
            return PASSING, output
        return (WARNING if answer.status == HTTP_TOO_MANY_REQUESTS else CRITICAL), output
