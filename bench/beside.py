"""Programs side by side: what benchmarks share that compare servers under the same load.

A program is this work tree, another one of ours (`--base DIRECTORY`, say a clone at an older commit)
or a real Consul. All run at once, the load goes to one at a time, in short turns: what else the
machine does meets all of them alike. Ratios are the medians over the rounds of ratios within a round.
The agent's CPU time for one request is shown too: other load hardly touches it, and it shows a
program that uses one core beside one that uses all.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[1]
PORT = 8500
START_S = 60.0
MASTER = "5f8d1c3e-6f3a-4a55-9f0e-0d2a8f1f7c01"
LIMITS = {"limits": {"http_max_conns_per_client": 10000}}
ACL = {"acl": {"enabled": True, "default_policy": "deny",
               "tokens": {"master": MASTER, "agent": MASTER}}}  # fmt: skip
"""Default deny; the agent may do everything."""
_MAIN = "import sys; from proconsul.interfaces.cli.main import main; sys.exit(main())"


@dataclass(frozen=True, slots=True)
class Program:
    """Something that runs as `consul` does."""

    name: str
    command: tuple[str, ...]
    source: str = ""
    """PYTHONPATH, for one of ours."""

    def agent(self, directory: Path, host: str, config: Mapping[str, object]) -> list[str]:
        """The command that runs an agent."""
        path = directory / "agent.json"
        fixed = {"bind_addr": host, "client_addr": host, "data_dir": str(directory / "data"),
                 "node_name": directory.name, "log_level": "err"}  # fmt: skip
        path.write_text(json.dumps({**LIMITS, **fixed, **config}))
        return [*self.command, "agent", "-config-file", str(path)]


@dataclass(frozen=True, slots=True)
class Running:
    """An agent."""

    host: str
    pid: int

    def cpu_s(self) -> float:
        """CPU time it has used."""
        tasks = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


Load = Callable[[str, Running], float]
"""Loads the agent of the program of that name; requests a second."""


def ours(name: str, tree: Path) -> Program:
    """The program in a work tree of this project."""
    return Program(name, (sys.executable, "-c", _MAIN), str(tree / "src"))


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what `programs` takes."""
    default = os.environ.get("PROCONSUL_CONSUL_BIN", str(ROOT / ".peers/root/usr/bin/consul"))
    parser.add_argument("--consul", default=default)
    parser.add_argument("--base", type=Path, help="another work tree of ours, to compare with")
    parser.add_argument("--seconds", type=int, default=2, help="of one turn")
    parser.add_argument("--rounds", type=int, default=5)


def programs(options: argparse.Namespace) -> list[Program]:
    """Those to compare, this work tree first."""
    found = [ours("ours", ROOT)]
    if options.base:
        found.append(ours("base", options.base.resolve()))
    return [*found, Program("consul", (options.consul,))]


@contextmanager
def agent(program: Program, host: str, config: Mapping[str, object]) -> Iterator[Running]:
    """A running agent."""
    with tempfile.TemporaryDirectory(prefix="n") as scratch:
        environment = {**os.environ, "PYTHONPATH": program.source}
        process = subprocess.Popen(
            program.agent(Path(scratch), host, config), env=environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            yield Running(host, process.pid)
        finally:
            process.kill()
            process.wait()


def request(
    host: str, method: str, path: str, body: object = None, *, token: str = ""
) -> tuple[int, bytes]:
    """Status and body of an answer; (0, b"") if there is none."""
    connection = http.client.HTTPConnection(host, PORT, timeout=10)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        connection.request(method, path, data, {"X-Consul-Token": token} if token else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except OSError:
        return 0, b""
    finally:
        connection.close()


def until(what: str, done: Callable[[], bool]) -> None:
    """Returns once it is. Raises SystemExit after a minute."""
    deadline = time.monotonic() + START_S
    while not done():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not within {START_S:g} s")
        time.sleep(0.1)


@contextmanager
def servers(
    chosen: Sequence[Program], network: str, config: Mapping[str, object]
) -> Iterator[dict[str, Running]]:
    """A server of each program, which leads."""
    with ExitStack() as stack:
        role = {"server": True, "bootstrap": True, "ports": {"dns": -1}}
        found = {
            program.name: stack.enter_context(
                agent(program, f"{network}.{number}", {**role, **config})
            )
            for number, program in enumerate(chosen, 1)
        }
        for name, server in found.items():
            until(f"{name} leads", partial(leads, server.host))
        yield found


def leads(host: str) -> bool:
    """Whether writes succeed there."""
    return request(host, "PUT", "/v1/kv/x", b"hello", token=MASTER)[0] == 200


def wrk(url: str, seconds: int, connections: int, *, token: str = "", script: str = "") -> float:
    """Requests per second. Raises SystemExit unless all are answered with success."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}"]
    command += ["-s", script] if script else []
    command += ["-H", f"X-Consul-Token: {token}"] if token else []
    out = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    found = re.search(r"Requests/sec:\s+([\d.]+)", out)
    if found is None or "Non-2xx" in out:
        raise SystemExit(f"{url}: {out}")
    return float(found[1])


def compare(
    loads: Mapping[str, tuple[Load, Mapping[str, Running]]], rounds: int, seconds: float
) -> None:
    """Gives every program every load, in turns, and prints what each did and how the first compares."""
    rates: dict[tuple[str, str], list[float]] = {}
    costs: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for what, (load, agents) in loads.items():
            for name, one in agents.items():
                before = one.cpu_s()
                rate = load(name, one)
                rates.setdefault((what, name), []).append(rate)
                spent = (one.cpu_s() - before) * 1e6 / (rate * seconds)
                costs.setdefault((what, name), []).append(spent)
    first, *others = next(iter(loads.values()))[1]
    width = max(map(len, loads)) + 2
    for title, figures in (("requests a second", rates), ("CPU of one, microseconds", costs)):
        columns = [f"{name:>9}" for name in (first, *others)] + [f"{f'/{n}':>9}" for n in others]
        print(f"{title:{width}}" + "".join(columns))
        for what in loads:
            row = [f"{statistics.median(figures[what, name]):9.0f}" for name in (first, *others)]
            for name in others:
                pairs = zip(figures[what, first], figures[what, name], strict=True)
                row.append(f"{statistics.median(a / b for a, b in pairs):9.2f}")
            print(f"{what:{width}}" + "".join(row))
