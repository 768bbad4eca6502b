"""Stand-ins of clouds' HTTP APIs: requests recorded, answers computed; real sockets."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from federation_support import run
from typing_extensions import override

from proconsul.federation.discovery import Discover
from proconsul.federation.discovery.resolver import default_providers

Query = dict[str, list[str]]
Answer = tuple[int, str, str]
"""Status, content type, body."""


class Api:
    """What was asked (method, path and arguments, headers, bodies), and what is answered."""

    def __init__(self, answer: Callable[[str, Query, Any], Answer]) -> None:
        self.answer = answer
        self.requests: list[tuple[str, Query]] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.url = ""

    @contextmanager
    def serving(self) -> Iterator[str]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                query = parse_qs(parts.query, keep_blank_values=True)
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                api.requests.append((parts.path, query))
                api.bodies.append(body)
                api.headers.append({k.lower(): v for k, v in self.headers.items()})
                status, kind, text = api.answer(parts.path, query, body)
                data = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                if status == 201:
                    self.send_header("X-Subject-Token", "t0k3n")
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_PUT = do_GET

            @override
            def log_message(self, *_: object) -> None:
                return

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield self.url
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def as_json(value: Any, status: int = 200) -> Answer:
    return status, "application/json", json.dumps(value)


def discover(entry: str) -> list[str]:
    found: list[str] = []

    async def main() -> None:
        found.extend(await Discover(default_providers()).addrs(entry))

    run(main)
    return found
