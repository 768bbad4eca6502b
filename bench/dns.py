"""DNS questions a second over UDP: a server of ours beside a real Consul server.

    .venv/bin/python -m bench.dns [--consul PATH] [--seconds 3] [--rounds 2]

Each program alone on the machine with the load, in turns; the best round of each counts, since other
load only ever slows one down. The load is one process that keeps WINDOW questions under way.
"""

from __future__ import annotations

import argparse
import http.client
import json
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dnslib

ROOT = Path(__file__).parents[1]
OURS = str(Path(sys.executable).parent / "proconsul")
PORT = 8600
WINDOW = 32
QUESTIONS = {
    "A, one instance": ("one.service.consul", "A", 0),
    "A, 200 instances": ("many.service.consul", "A", 0),
    "A, 200 instances, EDNS 4096": ("many.service.consul", "A", 4096),
    "SRV, 200 instances": ("many.service.consul", "SRV", 0),
    "SRV, 200 instances, EDNS 4096": ("many.service.consul", "SRV", 4096),
    "A, a node": ("n1.node.consul", "A", 0),
    "A, no such service": ("nope.service.consul", "A", 0),
    "A, a prepared query": ("q.query.consul", "A", 0),
    "SRV, a prepared query": ("q.query.consul", "SRV", 0),
    "A, a prepared query of 200": ("m.query.consul", "A", 0),
}


@contextmanager
def server(program: str, host: str) -> Iterator[None]:
    """A running server that leads, with a catalog."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [program, "agent", "-server", "-bootstrap", "-bind", host, "-client", host,
                   "-log-level", "err", "-data-dir", f"{scratch}/data"]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 30
            while not put(host, "PUT", "/v1/catalog/register", row("n0", 0, "one")):
                if time.monotonic() > deadline:
                    raise SystemExit(f"{program} does not lead")
                time.sleep(0.1)
            for n in range(1, 201):
                put(host, "PUT", "/v1/catalog/register", row(f"n{n}", n, "many"))
            put(host, "POST", "/v1/query", {"Name": "q", "Service": {"Service": "one"}})
            put(host, "POST", "/v1/query", {"Name": "m", "Service": {"Service": "many"}})
            yield
        finally:
            process.kill()
            process.wait()


def row(node: str, number: int, service: str) -> dict[str, object]:
    """One instance."""
    check = {"CheckID": "c", "Name": "c", "Status": "passing", "ServiceID": service}
    instance = {"Service": service, "Port": 80 + number}
    return {"Node": node, "Address": f"10.0.0.{number}", "Service": instance, "Check": check}


def put(host: str, method: str, path: str, body: object) -> bool:
    """Whether the request succeeded."""
    connection = http.client.HTTPConnection(host, 8500, timeout=10)
    try:
        connection.request(method, path, json.dumps(body))
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def measure(host: str, question: tuple[str, str, int], seconds: float) -> float:
    """Answers a second."""
    name, kind, edns = question
    record = dnslib.DNSRecord.question(name, kind)
    if edns:
        record.add_ar(dnslib.EDNS0(udp_len=edns))
    packet = bytes(record.pack())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((host, PORT))
        sock.setblocking(False)
        for _ in range(WINDOW):
            sock.send(packet)
        answers, began = 0, time.perf_counter()
        while (now := time.perf_counter()) - began < seconds:
            if not select.select([sock], [], [], 0.2)[0]:
                for _ in range(WINDOW):  # all were lost
                    sock.send(packet)
            try:
                while True:
                    sock.recv(65535)
                    answers += 1
                    sock.send(packet)
            except BlockingIOError:
                continue
        return answers / (now - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--consul", default=str(ROOT / ".peers/root/usr/bin/consul"))
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    best: dict[tuple[str, str], float] = {}
    for _ in range(options.rounds):
        for program, host in ((OURS, "127.0.9.1"), (options.consul, "127.0.9.2")):
            with server(program, host):
                for what, question in QUESTIONS.items():
                    rate = measure(host, question, options.seconds)
                    best[program, what] = max(rate, best.get((program, what), 0.0))
    print(f"{'answers a second':32}{'ours':>10}{'Consul':>10}{'ratio':>8}")
    for what in QUESTIONS:
        ours, theirs = best[OURS, what], best[options.consul, what]
        print(f"{what:32}{ours:10.0f}{theirs:10.0f}{ours / theirs:8.2f}")


if __name__ == "__main__":
    main()
