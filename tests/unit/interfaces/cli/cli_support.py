"""A tiny HTTP server in an agent's place, for commands."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Agent:
    """Answers by path (and by "METHOD path" before that), remembers what it was asked.

    An answer is a status and a body: bytes, text, or what becomes JSON.
    """

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, object]] = {}
        self.requests: list[tuple[str, str, bytes, str]] = []
        """Method, target, body, token."""
        agent = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                token = self.headers.get("X-Consul-Token", "")
                agent.requests.append((self.command, self.path, body, token))
                path = self.path.partition("?")[0]
                anyhow = agent.answers.get(path, (200, True))
                status, value = agent.answers.get(f"{self.command} {path}", anyhow)
                data = value.encode() if isinstance(value, str) else value
                data = data if isinstance(data, bytes) else json.dumps(data).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.send_header("X-Consul-Index", "77")
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_PUT = do_DELETE = answer

            def log_message(self, *args: object) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))


@contextmanager
def answering_agent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    """One that commands find by the environment."""
    one = Agent()
    one.thread.start()
    monkeypatch.setenv("CONSUL_HTTP_ADDR", f"127.0.0.1:{one.server.server_port}")
    for name in ("CONSUL_HTTP_TOKEN", "CONSUL_HTTP_SSL", "PROCONSUL_HTTP_ADDR", "PROCONSUL"):
        monkeypatch.delenv(name, raising=False)
    yield one
    one.server.shutdown()
    one.server.server_close()
    one.thread.join()
