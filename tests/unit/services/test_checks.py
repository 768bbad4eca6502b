from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from proconsul.domain.catalog import CRITICAL, PASSING, WARNING
from proconsul.drivers import probes
from proconsul.drivers.scope import TaskScope
from proconsul.services.agent import check_probes, checks
from proconsul.services.agent.check_probes import CheckSpec, Probes
from proconsul.services.agent.checks import CheckRunner
from proconsul.services.agent.local import LocalStateError

Result = tuple[str, str, str]


class _Runner:
    def __init__(self) -> None:
        self.results: list[Result] = []
        self.scope = TaskScope("test")
        self.runner = CheckRunner(
            lambda *result: self.results.append(result), self.scope, random.Random(0)
        )

    async def result(self, condition: Callable[[Result], bool] = lambda _: True) -> Result:
        async with asyncio.timeout(5.0):
            while not self.results or not condition(self.results[-1]):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        return self.results[-1]


def _scripted(monkeypatch: pytest.MonkeyPatch, outcomes: list[bool | Exception]) -> list[float]:
    """TCP probes with these results (the last one repeats); returns when they were made."""
    times: list[float] = []

    async def probe(_host: str, _port: int, _timeout_s: float) -> None:
        outcome = outcomes[min(len(times), len(outcomes) - 1)]
        times.append(asyncio.get_running_loop().time())
        if isinstance(outcome, Exception):
            raise outcome
        if not outcome:
            raise probes.ProbeError("refused")

    monkeypatch.setattr(check_probes, "tcp_probe", probe)
    monkeypatch.setattr(checks, "INTERVAL_S_MIN", 0.01)
    return times


def _tcp(**fields: object) -> CheckSpec:
    return CheckSpec("c", tcp="127.0.0.1:80", interval_s=0.01, **fields)  # type: ignore[arg-type]


def test_ttl_expires_with_the_last_output_and_revives() -> None:
    async def run() -> None:
        test = _Runner()
        runner = test.runner
        runner.start(CheckSpec("c", ttl_s=0.05, output_max=10))
        assert await test.result() == ("c", CRITICAL, "TTL expired")
        runner.heartbeat("c", PASSING, "0123456789abc")
        text = "0123456789 ... (captured 10 of 13 bytes)"
        assert test.results[-1] == ("c", PASSING, text)
        expired = f"TTL expired (last output before timeout follows): {text}"
        assert await test.result(lambda r: r[1] == CRITICAL) == ("c", CRITICAL, expired)
        runner.heartbeat("c", WARNING, "")
        assert runner.stats() == {"check_monitors": "0", "check_ttls": "1"}
        runner.stop("c")
        assert runner.stats() == {"check_monitors": "0", "check_ttls": "0"}
        assert runner.spec("c") is None
        with pytest.raises(LocalStateError, match='CheckID "c" does not have associated TTL'):
            runner.heartbeat("c", PASSING, "")
        count = len(test.results)
        await asyncio.sleep(0.1)
        assert len(test.results) == count  # a stopped timer stays silent
        await test.scope.aclose()

    asyncio.run(run())


def test_thresholds_count_as_in_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    # The first result counts at once; then 2 failures make critical, 3 successes passing.
    outcomes = [True, False, True, False, False, True, True, True]
    _scripted(monkeypatch, [*outcomes])

    async def run() -> None:
        test = _Runner()
        spec = _tcp(success_before_passing=3, failures_before_critical=2)
        looking = Probes()
        probing = checks._Probing(
            spec,
            looking,
            lambda *result: test.results.append(result),
            random.Random(0),
        )
        shown = []
        for _ in outcomes:
            status, output = await looking.probe(spec)
            probing._report(status, output)
            shown.append(test.results[-1][1] if test.results else "")
        assert shown == [PASSING] * 4 + [CRITICAL] * 3 + [PASSING]

    asyncio.run(run())


def test_a_probe_that_breaks_does_not_end_its_check(monkeypatch: pytest.MonkeyPatch) -> None:
    _scripted(monkeypatch, [RuntimeError("bug"), OverflowError("port"), True])

    async def run() -> None:
        test = _Runner()
        test.runner.start(_tcp())
        await test.result(lambda r: r[1] == PASSING)
        assert ("c", CRITICAL, "port") in test.results
        assert test.scope.restarts == {"check/c": 1}
        await test.scope.aclose()

    asyncio.run(run())


def test_a_failing_probe_is_repeated_soon_in_its_first_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []
    now = [0.0]

    async def sleep(seconds: float) -> None:
        waits.append(round(seconds, 1))
        now[0] += seconds
        if now[0] > 75:
            raise asyncio.CancelledError

    class Loop:
        def time(self) -> float:
            return now[0]

    async def refuse(_host: str, _port: int, _timeout_s: float) -> None:
        raise probes.ProbeError("refused")

    async def run() -> None:
        spec = CheckSpec("c", tcp="127.0.0.1:80", interval_s=10.0)
        probing = checks._Probing(spec, Probes(), lambda *_: None, random.Random(0))
        monkeypatch.setattr(check_probes, "tcp_probe", refuse)
        monkeypatch.setattr("asyncio.get_running_loop", Loop)
        monkeypatch.setattr("asyncio.sleep", sleep)
        with pytest.raises(asyncio.CancelledError):
            await probing.run()
        monkeypatch.undo()

    asyncio.run(run())
    assert waits[:6] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0], "the first probe came at once"
    assert set(waits[5:-2]) == {1.0}
    assert 9.0 <= waits[-1] <= 10.0, "after a minute by its interval"


def test_malformed_targets_are_critical_with_a_reason() -> None:
    async def run() -> None:
        test = _Runner()
        for number, target in enumerate(("127.0.0.1:99999", "127.0.0.1", "127.0.0.1:http")):
            test.runner.start(CheckSpec(f"c{number}", tcp=target, interval_s=10))
        test.runner.start(CheckSpec("h", http="ftp://x/", interval_s=10))
        async with asyncio.timeout(5):
            while len({r[0] for r in test.results}) < 4:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        assert {r[1] for r in test.results} == {CRITICAL}
        await test.scope.aclose()

    asyncio.run(run())


@pytest.mark.parametrize(("status", "health"), [(200, PASSING), (429, WARNING), (500, CRITICAL)])
def test_http_status_makes_the_health(
    status: int, health: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(url: str, **_: object) -> probes.HttpAnswer:
        return probes.HttpAnswer(status, "Text", bytearray(b"body\xff"))

    monkeypatch.setattr(check_probes, "http_probe", answer)

    async def run() -> None:
        test = _Runner()
        test.runner.start(CheckSpec("c", http="http://x/", interval_s=10))
        output = f"HTTP GET http://x/: {status} Text Output: body\ufffd"
        assert await test.result() == ("c", health, output)
        await test.scope.aclose()

    asyncio.run(run())


def test_a_check_replaces_the_one_of_its_id() -> None:
    async def run() -> None:
        test = _Runner()
        server = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        test.runner.start(CheckSpec("c", ttl_s=0.01))
        test.runner.start(CheckSpec("c", tcp=f"127.0.0.1:{port}", interval_s=10))
        assert await test.result() == ("c", PASSING, f"TCP connect 127.0.0.1:{port}: Success")
        assert test.runner.stats() == {"check_monitors": "1", "check_ttls": "0"}
        test.runner.stop("c")
        server.close()
        await test.scope.aclose()

    asyncio.run(run())
