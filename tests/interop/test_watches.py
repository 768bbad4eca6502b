"""The watches of an agent's configuration: ours tells handlers what a real agent tells them."""

from __future__ import annotations

import http.server
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_support import OURS, THEIRS, AgentProcess, Agents, needs_consul, ready, until

pytestmark = needs_consul


class _Told(http.server.BaseHTTPRequestHandler):
    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.told.append((self.path, self.headers["X-Mine"], body))  # type: ignore[attr-defined]
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing: tests read what was told."""


@pytest.fixture(scope="module")
def told() -> Iterator[http.server.HTTPServer]:
    """A server that remembers what it is told."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Told)
    server.told = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def watches(name: str, path: Path, server: http.server.HTTPServer) -> list[dict[str, Any]]:
    """One handler of each kind."""
    url = f"http://127.0.0.1:{server.server_address[1]}/{name}"
    script = f"cat >> {path}; echo index $CONSUL_INDEX >> {path}"
    return [
        {"type": "key", "key": "w/a", "args": ["sh", "-c", script]},
        {"type": "event", "name": "deploy", "handler": f"cat >> {path}.events"},
        {
            "type": "service", "service": "web", "handler_type": "http",
            "http_handler_config": {
                "path": url, "method": "PUT", "timeout": "5s", "header": {"X-Mine": ["a"]},
            },
        },
    ]  # fmt: skip


def plain(text: str) -> str:
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}", "ID", text)
    text = re.sub(r"127\.4[0-9]\.[0-9]+\.[0-9]+", "ADDRESS", text)
    return re.sub(r"((?:Index|index|LTime)\"?:? ?)[0-9]+", r"\1N", text)


def test_handlers_are_told_the_same(tmp_path: Path, told: http.server.HTTPServer) -> None:
    agents = Agents(tmp_path)
    results = []
    try:
        for name, command in (("ours", OURS), ("theirs", THEIRS)):
            file = tmp_path / f"{name}.out"
            agent = agents.server(command, name, node_name="vm", watches=watches(name, file, told))
            ready(agent)
            results.append(_changes(agent, file, told, name))
        assert results[0] == results[1]
        ours = agents.all[0]
        ours.config["watches"] = [{"type": "key", "key": "w/b", "args": ["touch", "reloaded"]}]
        (ours.path / "agent.json").write_text(json.dumps(ours.config))
        assert ours.cli(OURS, "reload")[0] == 0
        until((ours.path / "reloaded").exists)
        ours.config["watches"] = [{"type": "bogus", "args": ["x"]}]
        (ours.path / "agent.json").write_text(json.dumps(ours.config))
        assert "Unsupported watch type: bogus" in ours.cli(OURS, "reload")[2]
    finally:
        agents.close()


def _changes(
    agent: AgentProcess, file: Path, told: http.server.HTTPServer, name: str
) -> tuple[str, str, list[str]]:
    """Everything that the handlers were told after some changes."""
    events = Path(f"{file}.events")

    def heard() -> list[str]:
        found = told.told  # type: ignore[attr-defined]
        bodies = [body for path, mine, body in found if (path, mine) == (f"/{name}", "a")]
        return [plain(body.decode()) for body in bodies]

    # Each tells of what there is at first; one that asks before there is a leader asks later again
    until(lambda: file.exists() and events.exists() and heard(), 30)
    agent.put("/v1/kv/w/a", "one")
    until(lambda: file.read_text().count("index") == 2)
    agent.put("/v1/event/fire/other")
    agent.put("/v1/event/fire/deploy", "1.2")
    until(lambda: "deploy" in events.read_text())
    agent.put("/v1/agent/service/register", {"Name": "web", "Port": 80})
    until(lambda: len(heard()) == 2)
    return plain(file.read_text()), plain(events.read_text()), heard()
