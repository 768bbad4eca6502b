"""KV reads and writes a second over HTTP: a server of ours beside a real Consul server.

    .venv/bin/python -m bench.http_kv [--consul PATH] [--seconds 5] [--rounds 2]

Whole servers with a log on disk; both sync every write. The programs take turns, and the best round
of each counts, since other load on the machine only ever slows one down. Needs `wrk`.
"""

from __future__ import annotations

import argparse
import http.client
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
OURS = str(Path(sys.executable).parent / "proconsul")
PORT = 8500
PUT = """
local count = 0
request = function()
  count = count + 1
  return wrk.format("PUT", "/v1/kv/w" .. (count % 1000), nil, "a value of some length: 1234567890")
end
"""


@contextmanager
def server(program: str, host: str) -> Iterator[None]:
    """A running server that leads, with the key x."""
    with tempfile.TemporaryDirectory() as scratch:
        config = Path(scratch) / "limits.hcl"
        config.write_text("limits { http_max_conns_per_client = 10000 }\n")
        command = [program, "agent", "-server", "-bootstrap", "-bind", host, "-client", host,
                   "-dns-port", "-1", "-log-level", "err", "-config-file", str(config),
                   "-data-dir", f"{scratch}/data"]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for_leader(host)
            yield
        finally:
            process.kill()
            process.wait()


def wait_for_leader(host: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            connection = http.client.HTTPConnection(host, PORT, timeout=2)
            connection.request("PUT", "/v1/kv/x", b"hello")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit("the server did not start")


def wrk(host: str, seconds: int, connections: int, script: str) -> float:
    """Requests per second."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}"]
    command += ["-s", script] if script else []
    url = f"http://{host}:{PORT}/v1/kv/x"
    out = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    found = re.search(r"Requests/sec:\s+([\d.]+)", out)
    if found is None or "Non-2xx" in out:
        raise SystemExit(out)
    return float(found[1])


def main() -> None:
    parser = argparse.ArgumentParser()
    default = os.environ.get("PROCONSUL_CONSUL_BIN", str(ROOT / ".peers/root/usr/bin/consul"))
    parser.add_argument("--consul", default=default)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    best: dict[tuple[str, str], float] = {}
    with (
        tempfile.NamedTemporaryFile("w", suffix=".lua") as put,
        server(OURS, "127.57.0.3"),
        server(options.consul, "127.57.0.4"),
    ):
        put.write(PUT)
        put.flush()
        runs = [(f"GET, {count} connections", count, "") for count in (1, 32)]
        runs += [(f"PUT, {count} connections", count, put.name) for count in (1, 16, 64)]
        for _ in range(options.rounds):
            for name, connections, script in runs:
                for program, host in (("ours", "127.57.0.3"), ("consul", "127.57.0.4")):
                    rate = wrk(host, options.seconds, connections, script)
                    best[name, program] = max(rate, best.get((name, program), 0.0))
    print(f"{'requests a second':24}{'proconsul':>10}{'consul':>10}{'ratio':>8}")
    for name, _, _ in runs:
        ours, theirs = best[name, "ours"], best[name, "consul"]
        print(f"{name:24}{ours:10.0f}{theirs:10.0f}{ours / theirs:8.2f}")


if __name__ == "__main__":
    main()
