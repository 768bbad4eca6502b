"""Whole agents for tests: ours and real Consul's, each a process on a loopback address of its own.

Standard ports on addresses of 127.40.0.0/14: an address is taken once its RPC port could be bound,
so that test processes beside each other do not meet.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
CONSUL = Path(os.environ.get("PROCONSUL_CONSUL_BIN", ROOT / ".peers/root/usr/bin/consul"))
OURS = (sys.executable, "-m", "proconsul.interfaces.cli.main")
THEIRS = (str(CONSUL),)

needs_consul = [
    pytest.mark.peer,
    pytest.mark.skipif(not CONSUL.exists(), reason=f"no consul at {CONSUL}"),
    pytest.mark.skipif(sys.platform != "linux", reason="uses 127.0.0.0/8"),
]
QUICK = {"raft_multiplier": 1, "leave_drain_time": "100ms"}
DYING = {"gossip_lan": {"probe_interval": "500ms", "probe_timeout": "400ms", "suspicion_mult": 3}}
"""How soon members that die are found dead: after 2 s, not 5; for tests that wait for that."""
_numbers = count(os.getpid() * 131)


def free_address() -> str:
    """A loopback address where nobody listens on port 8300."""
    while True:
        number = next(_numbers)
        address = f"127.{40 + number // 62_500 % 4}.{number // 250 % 250}.{number % 250 + 2}"
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, 8300))
            except OSError:
                continue
            return address


def until(check: Callable[[], T], seconds: float = 20.0, step: float = 0.05) -> T:
    """What `check` returns once that is true; assertion and connection errors count as not yet."""
    deadline = time.monotonic() + seconds
    while True:
        failure: Exception | None = None
        found: T | None = None
        try:
            found = check()
        except (AssertionError, OSError, http.client.HTTPException, ValueError, KeyError) as error:
            failure = error
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {failure or found!r}") from failure
        time.sleep(step)


class AgentProcess:
    """One agent: its configuration, its process (again and again), its HTTP API."""

    def __init__(self, command: tuple[str, ...], path: Path, **config: Any) -> None:
        self.command, self.path = command, path
        self.address = free_address()
        path.mkdir(parents=True)
        self.config: dict[str, Any] = {
            "node_name": path.name,
            "data_dir": str(path / "data"),
            "bind_addr": self.address,
            "client_addr": self.address,
            "log_level": "debug",
            "ports": {"dns": -1},
            "performance": QUICK,
            **config,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def ours(self) -> bool:
        """Whether this is our program."""
        return self.command is OURS

    @property
    def name(self) -> str:
        """The node's name."""
        return str(self.config["node_name"])

    def start(self, *flags: str) -> AgentProcess:
        """Start the process; it is not necessarily ready yet."""
        config = self.path / "agent.json"
        config.write_text(json.dumps(self.config))
        with (self.path / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self.command, "agent", "-config-file", str(config), *flags],
                stdout=log, stderr=log, cwd=self.path,
            )  # fmt: skip
        return self

    def stop(self, number: int = signal.SIGKILL) -> int:
        """End the process and wait for it; its status."""
        if self._process is None:
            return 0
        self._process.send_signal(number)
        try:
            return self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        finally:
            self._process = None

    def wait_exit(self, seconds: float = 30.0) -> int:
        """Wait until it ends by itself; its status."""
        assert self._process is not None
        status = self._process.wait(seconds)
        self._process = None
        return status

    def log(self) -> str:
        """All it has logged."""
        return (self.path / "log").read_text(errors="replace")

    def complaints(self) -> list[str]:
        """Log lines of errors and warnings."""
        return [x for x in self.log().splitlines() if "[ERROR]" in x or "[WARN]" in x]

    def ask(
        self, method: str, target: str, body: Any = None, timeout: float = 15.0
    ) -> tuple[int, dict[str, str], bytes]:
        """One HTTP request: status, headers, body. Structures are sent as JSON."""
        if body is not None and not isinstance(body, bytes):
            body = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        connection = http.client.HTTPConnection(self.address, 8500, timeout=timeout)
        try:
            connection.request(method, target, body)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def get(self, target: str, timeout: float = 15.0) -> Any:
        """The JSON answer of a GET, which must succeed."""
        status, _, body = self.ask("GET", target, timeout=timeout)
        assert status == 200, (status, body, target)
        return json.loads(body)

    def put(self, target: str, body: Any = None) -> Any:
        """The JSON answer of a PUT, which must succeed; None for an empty one."""
        status, _, answer = self.ask("PUT", target, body)
        assert status == 200, (status, answer, target)
        return json.loads(answer) if answer else None

    def index(self, target: str) -> int:
        """The index of an answer."""
        return int(self.ask("GET", target)[1]["X-Consul-Index"])

    def leader(self) -> str:
        """The leader's address as this agent says, "" for none."""
        return str(self.get("/v1/status/leader", timeout=3))

    def members(self) -> dict[str, int]:
        """LAN members by name: 1 alive, 2 leaving, 3 left, 4 failed."""
        return {m["Name"]: m["Status"] for m in self.get("/v1/agent/members")}

    def cli(self, command: tuple[str, ...], *args: str) -> tuple[int, str, str]:
        """Run a command line against this agent: status, stdout, stderr."""
        env = {k: v for k, v in os.environ.items() if not k.startswith(("CONSUL_", "PROCONSUL"))}
        env["CONSUL_HTTP_ADDR"] = f"{self.address}:8500"
        done = subprocess.run(
            [*command, *args], env=env, capture_output=True, timeout=30, check=False, text=True
        )
        return done.returncode, done.stdout, done.stderr


class Agents:
    """All agents of a test, ended with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.all: list[AgentProcess] = []

    def make(self, command: tuple[str, ...], name: str, **config: Any) -> AgentProcess:
        """An agent, not started."""
        agent = AgentProcess(command, self.path / name, **config)
        self.all.append(agent)
        return agent

    def server(self, command: tuple[str, ...], name: str, **config: Any) -> AgentProcess:
        """A started server, alone in its datacenter unless configured otherwise."""
        if "bootstrap_expect" not in config:
            config.setdefault("bootstrap", True)
        return self.make(command, name, server=True, **config).start()

    def client(
        self, command: tuple[str, ...], name: str, *to: AgentProcess, **config: Any
    ) -> AgentProcess:
        """A started client that joins."""
        joins = [server.address for server in to]
        return self.make(
            command, name, retry_join=joins, retry_interval="1s", **config
        ).start()  # fmt: skip

    def close(self) -> None:
        """End all processes."""
        for agent in self.all:
            agent.stop()


def ready(agent: AgentProcess, seconds: float = 20.0) -> AgentProcess:
    """Wait until the agent answers reads through a leader, and its own node is in the catalog."""
    until(lambda: agent.get(f"/v1/catalog/node/{urllib.parse.quote(agent.name)}"), seconds)
    return agent


@contextmanager
def both_alone(path: Path) -> Iterator[tuple[AgentProcess, AgentProcess]]:
    """Ours and a real one of the same node name, each a `-dev` server alone, ready."""
    agents = Agents(path)
    try:
        pair = agents.make(OURS, "ours"), agents.make(THEIRS, "theirs")
        for agent in pair:
            agent.config["node_name"] = "vm"
            del agent.config["data_dir"]
            agent.start("-dev")
        for agent in pair:
            ready(agent)
            # The agent itself brings its node into the catalog, its leader that check
            until(lambda agent=agent: "serfHealth" in str(agent.get("/v1/health/node/vm")))
        yield pair
    finally:
        agents.close()
