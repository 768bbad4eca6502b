"""Checks by script, in containers and by alias."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from proconsul.domain import catalog as c
from proconsul.domain.errors import NoServersError
from proconsul.drivers.check_scripts import run_script
from proconsul.drivers.docker_exec import DockerHost, parse_host, run_in_container
from proconsul.drivers.probes import ProbeError
from proconsul.drivers.scope import TaskScope
from proconsul.services.agent import alias_checks
from proconsul.services.agent.alias_checks import AliasChecks, judged
from proconsul.services.agent.check_probes import CheckSpec, Probes
from proconsul.services.agent.local import LocalState


def script(code: str, **fields: Any) -> tuple[str, str]:
    spec = CheckSpec("s", script_args=(sys.executable, "-c", code), interval_s=1, **fields)
    return asyncio.run(Probes().probe(spec))


def test_exit_status_is_health_and_both_outputs_are_kept() -> None:
    code = "import sys; print('out', flush=True); print('err', file=sys.stderr); sys.exit({})"
    for status, health in ((0, c.PASSING), (1, c.WARNING), (2, c.CRITICAL)):
        assert script(code.format(status)) == (health, "out\nerr\n")


def test_only_the_end_of_much_output_is_kept() -> None:
    status, output = script("print('x' * 5000 + 'end', end='')", output_max=10)
    assert status == c.PASSING
    assert output == "Captured 10 of 5003 bytes\n...\nxxxxxxxend"


def test_scripts_that_hang_are_killed_with_their_children(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(pid_file)!r}, 'w').write(str(child.pid))\n"
        "print('here', flush=True); time.sleep(60)"
    )
    assert script(code, timeout_s=1.0) == (
        c.CRITICAL,
        "Timed out (1s) running check\n\nhere\n",
    )
    deadline = time.monotonic() + 5
    while _runs(int(pid_file.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_programs_that_do_not_exist_are_named() -> None:
    missing = 'exec: "no-such-program": executable file not found in \\$PATH'
    with pytest.raises(ProbeError, match=missing):
        asyncio.run(run_script(["no-such-program"], 1, 10))
    with pytest.raises(ProbeError, match="fork/exec /no/such: no such file or directory"):
        asyncio.run(run_script(["/no/such"], 1, 10))


# --- Docker


class Engine:
    """Docker's engine, as far as checks need it, on a Unix socket."""

    def __init__(self, answers: dict[str, tuple[int, Any]]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, Any]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        size = int(head.lower().partition("content-length: ")[2].partition("\r")[0])
        body = await reader.readexactly(size)
        line = head.partition(" HTTP")[0]
        self.asked.append((line, json.loads(body) if body else None))
        status, answer = self.answers[line]
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
        await writer.drain()
        writer.close()


CREATE, START, INSPECT = "POST /containers/a%2Fb/exec", "POST /exec/e1/start", "GET /exec/e1/json"
GOOD = {CREATE: (201, {"Id": "e1"}), START: (200, b"hello"), INSPECT: (200, {"ExitCode": 1})}


def in_container(answers: dict[str, tuple[int, Any]]) -> tuple[Any, Engine]:
    engine = Engine(answers)
    socket = f"/tmp/proconsul-docker-{os.getpid()}.sock"  # a path that is short enough

    async def run() -> Any:
        async with await asyncio.start_unix_server(engine.serve, socket):
            return await run_in_container(DockerHost(socket), "a/b", ["true", "x"], 3)

    try:
        return asyncio.run(run()), engine
    finally:
        Path(socket).unlink(missing_ok=True)


def test_commands_run_in_containers() -> None:
    result, engine = in_container(GOOD)
    assert result == (1, "Captured 3 of 5 bytes\n...\nllo")
    assert engine.asked[0][1]["Cmd"] == ["true", "x"]
    assert engine.asked[1:] == [(START, {"Detach": False, "Tty": True}), (INSPECT, None)]


@pytest.mark.parametrize(
    ("at", "answer", "text"),
    [
        (CREATE, (404, b""), "create exec failed for unknown container a/b"),
        (CREATE, (409, b""), "create exec failed since container a/b is paused or stopped"),
        (CREATE, (500, b"boo"), "create exec failed for container a/b with status 500: boo"),
        (CREATE, (201, b"["), "create exec response for container a/b cannot be parsed"),
        (START, (404, b""), "start exec failed for container a/b: invalid exec id e1"),
        (INSPECT, (404, b""), "inspect exec failed for container a/b: invalid exec id e1"),
        (INSPECT, (200, {"ExitCode": "x"}), "inspect exec response for container a/b cannot"),
    ],
)
def test_failures_of_the_engine(at: str, answer: tuple[int, Any], text: str) -> None:
    with pytest.raises(ProbeError, match=text):
        in_container({**GOOD, at: answer})


def test_hosts_of_the_engine() -> None:
    assert parse_host("unix:///run/d.sock") == DockerHost("/run/d.sock")
    assert parse_host("tcp://h:1/base/") == DockerHost("", "h", 1, "/base")
    with pytest.raises(ProbeError, match="unable to parse docker host `nonsense`"):
        parse_host("nonsense")
    spec = CheckSpec("d", script_args=("x",), docker_container_id="c")
    os.environ["DOCKER_HOST"] = "unix:///nowhere/d.sock"
    try:
        status, output = asyncio.run(Probes().probe(spec))
    finally:
        del os.environ["DOCKER_HOST"]
    assert (status, "create exec failed for container c" in output) == (c.CRITICAL, True)


def test_an_engine_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the check would stay passing for as long."""
    socket = f"/tmp/proconsul-docker-hangs-{os.getpid()}.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{socket}")
    spec = CheckSpec("d", script_args=("x",), docker_container_id="c", timeout_s=0.05)
    given_up = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.transport.abort()
        given_up.set()

    async def probe() -> tuple[str, str]:
        async with await asyncio.start_unix_server(hang, socket):
            found = await Probes().probe(spec)
            await given_up.wait()
            await asyncio.sleep(0)
            return found

    try:
        assert asyncio.run(probe()) == (c.CRITICAL, "Timed out (50ms) running check")
    finally:
        Path(socket).unlink(missing_ok=True)


# --- aliases


def check(status: str, service_id: str = "", node: str = "n") -> c.HealthCheck:
    return c.HealthCheck(node=node, name="x", service_id=service_id, status=status, output="o")


FAILING = 'Aliased check "x" failing: o'


@pytest.mark.parametrize(
    ("checks", "expected"),
    [
        ([], (c.PASSING, "No checks found.", False)),
        ([check(c.PASSING, "web")], (c.PASSING, "All checks passing.", True)),
        ([check(c.CRITICAL, "other")], (c.PASSING, "No checks found.", False)),
        ([check(c.CRITICAL)], (c.CRITICAL, FAILING, False)),
        ([check(c.WARNING, "web"), check(c.PASSING, "web")], (c.WARNING, FAILING, True)),
        ([check(c.WARNING, "web"), check(c.CRITICAL)], (c.CRITICAL, FAILING, True)),
        ([check(c.CRITICAL, "web", "m")], (c.PASSING, "No checks found.", False)),
    ],
)
def test_aliases_are_as_healthy_as_what_they_stand_for(
    checks: list[c.HealthCheck], expected: tuple[str, str, bool]
) -> None:
    assert judged(CheckSpec("a", alias_node="n", alias_service="web"), checks) == expected


class Catalog:
    """Another node's checks and services."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.services: dict[str, c.NodeService] = {}
        self.asked: list[Any] = []

    async def call(self, method: str, request: Any) -> Any:
        self.asked.append(request)
        if method == "Catalog.NodeServices":
            found = c.NodeServices(c.Node(node="n"), self.services)
            return c.IndexedNodeServices(node_services=found)
        if not self.answers:
            await asyncio.sleep(60)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def follow(
    spec: CheckSpec,
    act: Callable[[LocalState, Callable[[str], Awaitable[None]]], Awaitable[None]],
    catalog: Catalog | None = None,
) -> None:
    results: list[tuple[str, str, str]] = []
    state = LocalState("n", 0)

    async def shown(text: str) -> None:
        async with asyncio.timeout(5):
            while not results or text not in results[-1][2]:  # noqa: ASYNC110
                await asyncio.sleep(0.002)

    async def main() -> None:
        aliases = AliasChecks(
            "dc1", state, lambda: catalog or Catalog(), lambda: "user",
            lambda *result: results.append(result),
        )  # fmt: skip
        async with TaskScope("test") as scope:
            _ = scope.spawn("alias", aliases.follow(spec))
            await act(state, shown)

    asyncio.run(main())


def test_aliases_of_this_node_follow_at_once() -> None:
    async def act(state: LocalState, shown: Callable[[str], Awaitable[None]]) -> None:
        await shown("Service web could not be found on node ")
        state.add_service(c.NodeService(id="web", service="web"))
        await shown("No checks found.")
        own = c.HealthCheck(check_id="w", name="W", service_id="web", status=c.CRITICAL)
        state.add_check(own, now=0)
        await shown('Aliased check "W" failing: ')
        state.update_check("w", c.PASSING, "", 0)
        await shown("All checks passing.")

    follow(CheckSpec("a", alias_service="web"), act)


def test_an_alias_of_its_own_node_recovers() -> None:
    """It is a check of the node itself, and was critical before there was anything else."""

    async def act(state: LocalState, shown: Callable[[str], Awaitable[None]]) -> None:
        state.add_service(c.NodeService(id="web", service="web"))
        await shown("No checks found.")
        own = c.HealthCheck(check_id="a", name="A", service_id="web", status=c.CRITICAL)
        state.add_check(own, now=0)
        disk = c.HealthCheck(check_id="d", name="D", status=c.CRITICAL)
        state.add_check(disk, now=0)
        await shown('Aliased check "D" failing: ')
        state.update_check("d", c.PASSING, "", 0)
        await shown("All checks passing.")

    follow(CheckSpec("a", alias_service="web"), act)


def test_aliases_of_other_nodes_ask_the_catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alias_checks, "FAILURES_MIN", 9)
    catalog = Catalog()
    catalog.answers = [
        c.IndexedHealthChecks(index=7, health_checks=[check(c.WARNING, "web")]),
        c.IndexedHealthChecks(index=9, health_checks=[]),
    ]

    async def act(_state: LocalState, shown: Callable[[str], Awaitable[None]]) -> None:
        await shown("Service web could not be found on node n")
        assert [a.min_query_index for a in catalog.asked] == [0, 7, 0, 9]
        assert {a.token for a in catalog.asked} == {"own"}

    follow(CheckSpec("a", alias_node="n", alias_service="web", token="own"), act, catalog)


def test_aliases_say_why_nobody_could_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio, "sleep", _no_sleep(asyncio.sleep))
    catalog = Catalog()
    catalog.answers = [NoServersError(), NoServersError()]

    async def act(_state: LocalState, shown: Callable[[str], Awaitable[None]]) -> None:
        await shown("Failure checking aliased node or service: No known Consul servers")
        assert {a.token for a in catalog.asked} == {"user"}

    follow(CheckSpec("a", alias_node="n"), act, catalog)


def _no_sleep(sleep: Callable[[float], Awaitable[None]]) -> Callable[[float], Awaitable[None]]:
    """A second is no time."""
    return lambda seconds: sleep(0.001 if seconds == 1 else seconds)
