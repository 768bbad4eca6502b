"""KV reads per second: the HTTP server and API of ours beside a real `consul agent -dev`.

    .venv/bin/python bench/http_kv.py [--consul PATH] [--seconds 5] [--connections 32]

Ours runs here on an agent in memory (one process, one core), so that the figure is that of the HTTP
driver and interface alone. Needs `wrk`.
"""

from __future__ import annotations

import argparse
import http.client
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
SERVE = """
import asyncio, sys, uvloop
sys.path[:0] = [{src!r}, {helper!r}]
from http_fake_agent import FakeAgent
from proconsul.drivers.http import HttpServer
from proconsul.interfaces.http.ports import HttpApiConfig
from proconsul.interfaces.http.routes import build_api

async def main():
    api = build_api(FakeAgent(immediate={immediate}), HttpApiConfig("dc1", "bench"))
    server = HttpServer(api, admit=api.admit)
    await server.listen_tcp("127.0.0.1", {port})
    await asyncio.Event().wait()

uvloop.run(main())
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def measure(command: list[str], port: int, seconds: int, connections: int) -> float:
    """Requests per second of GET /v1/kv/x against `command`, which serves on `port`."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
                connection.request("PUT", "/v1/kv/x", b"hello")
                if connection.getresponse().status == 200:
                    break
            except OSError:
                pass
            time.sleep(0.1)
        url = f"http://127.0.0.1:{port}/v1/kv/x"
        wrk = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", url]
        out = subprocess.run(wrk, capture_output=True, text=True, check=True).stdout
        found = re.search(r"Requests/sec:\s+([\d.]+)", out)
        return float(found[1]) if found else 0.0
    finally:
        process.kill()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    default = os.environ.get("PROCONSUL_CONSUL_BIN", str(ROOT / ".peers/root/usr/bin/consul"))
    parser.add_argument("--consul", default=default)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=32)
    options = parser.parse_args()
    figures: dict[str, float] = {}
    for name, immediate in (("ours, answered at once", True), ("ours, awaited", False)):
        port = free_port()
        program = SERVE.format(
            src=str(ROOT / "src"), helper=str(ROOT / "tests/unit/interfaces/http"),
            immediate=immediate, port=port,
        )  # fmt: skip
        figures[name] = measure(
            [sys.executable, "-c", program], port, options.seconds, options.connections
        )
    with tempfile.TemporaryDirectory() as scratch:
        config = Path(scratch) / "limits.hcl"
        config.write_text("limits { http_max_conns_per_client = 1000 }\n")
        port = free_port()
        command = [options.consul, "agent", "-dev", "-bind", "127.0.0.1", "-log-level", "err",
                   "-config-file", str(config), "-http-port", str(port), "-dns-port", "-1",
                   "-grpc-port", "-1", "-server-port", str(free_port()),
                   "-serf-lan-port", str(free_port()), "-serf-wan-port", str(free_port())]  # fmt: skip
        theirs = measure(command, port, options.seconds, options.connections)
    print(f"{'consul agent -dev':28}{theirs:10.0f} req/s")
    for name, figure in figures.items():
        print(f"{name:28}{figure:10.0f} req/s  {figure / theirs:5.2f} of consul's")


if __name__ == "__main__":
    main()
