"""All kinds of checks, run by a real agent and by ours: the same statuses, outputs and refusals."""

from __future__ import annotations

import http.server
import json
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from agent_support import OURS, THEIRS, AgentProcess, Agents, needs_consul, ready, until

pytestmark = needs_consul
Two = tuple[AgentProcess, AgentProcess]


class Site(http.server.BaseHTTPRequestHandler):
    """Answers with what it was asked."""

    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size).decode()
        shown = {n: self.headers.get_all(n) for n in ("User-Agent", "Accept", "X-Mine", "Host")}
        data = json.dumps([self.command, self.path, body, shown], sort_keys=True).encode()
        if self.path.startswith("/long"):
            data = b"x" * 5000 + b"end"
        self.send_response(int(self.path.rpartition("/")[2] or 200))
        self.send_header("Content-Length", str(len(data)))
        if self.path.startswith("/moved"):
            self.send_header("Location", "/200")
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else data)

    do_GET = do_PUT = do_HEAD = _answer

    def log_request(self, *_args: Any) -> None:  # type: ignore[explicit-override]
        return


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def _health(request: bytes, context: grpc.ServicerContext) -> bytes:
    if request == b"\x0a\x03bad":
        return b"\x08\x02"
    if request:
        context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
    return b"\x08\x01"


@pytest.fixture(scope="module")
def grpc_site() -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    method: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(_health)
    handler = grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": method})
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(0)


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    agents = Agents(tmp_path_factory.mktemp("checks"))
    try:
        pair = agents.make(OURS, "ours"), agents.make(THEIRS, "theirs")
        for agent in pair:
            agent.config |= {"node_name": "vm", "enable_script_checks": True}
            del agent.config["data_dir"]
            agent.start("-dev")
        for agent in pair:
            ready(agent)
        yield pair
    finally:
        agents.close()


def _script(code: str) -> dict[str, Any]:
    return {"Args": [sys.executable, "-c", code], "Interval": "1s"}


def _kinds(site: str, grpc_site: str) -> dict[str, dict[str, Any]]:
    port = int(site.rpartition(":")[2])
    web = {"HTTP": f"http://{site}/200", "Interval": "1s"}
    return {
        "script-0": _script("print('fine')"),
        "script-1": _script("print('so so'); raise SystemExit(1)"),
        "script-2": _script("import sys; print('bad', file=sys.stderr); sys.exit(2)"),
        "script-long": {**_script("print('x' * 9000)"), "OutputMaxSize": 100},
        "script-slow": {**_script("import time; print('a', flush=True); time.sleep(9)"), "Timeout": "1s"},
        "script-missing": {"Args": ["/no/such/program"], "Interval": "1s"},
        "http": web,
        "http-put": {
            **web, "Method": "PUT", "Body": "hello", "Header": {"X-Mine": ["a", "b"], "Host": ["me"]},
        },
        "http-429": {**web, "HTTP": f"http://{site}/429"},
        "http-500": {**web, "HTTP": f"http://{site}/500", "FailuresBeforeCritical": 2},
        "http-moved": {**web, "HTTP": f"http://{site}/moved/302"},
        "http-refused": {**web, "HTTP": "http://127.0.0.1:1/x"},
        "http-long": {**web, "HTTP": f"http://{site}/long/200", "OutputMaxSize": 10},
        "tcp": {"TCP": site, "Interval": "1s"},
        "tcp-refused": {"TCP": "127.0.0.1:1", "Interval": "1s"},
        "grpc": {"GRPC": grpc_site, "Interval": "1s"},
        "grpc-bad": {"GRPC": f"{grpc_site}/bad", "Interval": "1s"},
        "grpc-unknown": {"GRPC": f"{grpc_site}/x", "Interval": "1s"},
        "ttl": {"TTL": "1h", "Status": "warning"},
        "ttl-gone": {"TTL": "10ms"},
        "alias-service": {"AliasService": "web"},
        "alias-missing": {"AliasService": "nowhere"},
        "alias-node": {"AliasNode": "vm", "AliasService": "web"},
        "docker": {"DockerContainerID": "c", "Args": ["true"], "Interval": "1s", "Shell": f"{port}"},
    }  # fmt: skip


SETTLED = {"alias-service": "warning", "alias-node": "warning", "ttl": "warning"}


def _passes(agent: AgentProcess, check: str) -> bool:
    return bool(agent.get("/v1/agent/checks")[check]["Status"] == "passing")


def _shown(agent: AgentProcess) -> dict[str, Any]:
    return {i: c for i, c in agent.get("/v1/agent/checks").items() if i in SETTLED or c["Output"]}


def test_same_results(agents: Two, site: str, grpc_site: str) -> None:
    kinds = _kinds(site, grpc_site)
    for agent in agents:
        service = {"Name": "web", "Check": {"Name": "own", "TTL": "1h", "Notes": "n"}}
        agent.put("/v1/agent/service/register", service)
        # Checks of the node itself would count for all aliases.
        agent.put("/v1/agent/service/register", {"Name": "kinds"})
        for name, kind in kinds.items():
            check = {"Name": name, "ID": name, "ServiceID": "kinds", **kind}
            agent.put("/v1/agent/check/register", check)
        agent.put("/v1/agent/check/warn/service:web?note=so-so")

    def settled(agent: AgentProcess) -> dict[str, Any]:
        shown = _shown(agent)
        assert set(kinds) <= set(shown), set(kinds) - set(shown)
        assert {i: shown[i]["Status"] for i in SETTLED} == SETTLED
        return shown

    ours, theirs = (until(partial(settled, agent), 10) for agent in agents)
    for name in theirs:
        assert ours[name]["Status"] == theirs[name]["Status"], (ours[name], theirs[name])
        assert ours[name]["Type"] == theirs[name]["Type"]
        if name != "docker":  # Go and Python say differently that there is no socket
            assert ours[name] == theirs[name]
    for agent in agents:
        until(
            partial(_in_catalog, agent, {name: shown["Status"] for name, shown in theirs.items()})
        )


def _in_catalog(agent: AgentProcess, statuses: dict[str, str]) -> bool:
    checks = {c["CheckID"]: c["Status"] for c in agent.get("/v1/health/node/vm")}
    return statuses.items() <= checks.items()


def test_recovery_shows_in_aliases(agents: Two) -> None:
    for agent in agents:
        agent.put("/v1/agent/check/pass/service:web")
        for name in ("alias-service", "alias-node"):
            until(partial(_passes, agent, name), 8)
    assert _shown(agents[0])["alias-node"] == _shown(agents[1])["alias-node"]


REFUSED: tuple[dict[str, Any], ...] = (
    {"Name": "x"},
    {"Name": "x", "TTL": "1s", "Interval": "1s"},
    {"Name": "x", "TCP": "x:1"},
    {"Name": "x", "AliasService": "y", "TTL": "1s"},
    {"Name": "x", "AliasService": "y", "HTTP": "http://x", "Interval": "1s"},
    {"Name": "x", "TTL": "1s", "OutputMaxSize": -1},
    {"Name": "x", "TTL": "1s", "Status": "good"},
    {"Name": "x", "TTL": "1s", "ServiceID": "nope"},
    {"TTL": "1s"},
    {"Name": "x", "TTL": "abc"},
    {"Name": "x", "Interval": "1s", "DockerContainerID": "c"},
)


@pytest.mark.parametrize("definition", REFUSED, ids=str)
def test_same_refusals(agents: Two, definition: dict[str, Any]) -> None:
    ours, theirs = (agent.ask("PUT", "/v1/agent/check/register", definition) for agent in agents)
    assert (ours[0], ours[2]) == (theirs[0], theirs[2])


def test_scripts_need_permission(tmp_path: Path) -> None:
    agents = Agents(tmp_path)
    answers = []
    try:
        for name, command in (("ours", OURS), ("theirs", THEIRS)):
            agent = agents.make(command, name, node_name="vm")
            del agent.config["data_dir"]
            agent.start("-dev")
        for agent in agents.all:
            until(partial(agent.get, "/v1/agent/self"))
            check = {"Name": "s", **_script("pass")}
            service = {"Name": "w", "Check": _script("pass")}
            answers.append(
                [
                    agent.ask("PUT", f"/v1/agent/{what}/register", body)[::2]
                    for what, body in (("check", check), ("service", service))
                ]
            )
        assert answers[0] == answers[1]
        assert answers[0][0][0] == 500
    finally:
        agents.close()
