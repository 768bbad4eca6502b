"""Restart of a client agent: ours beside real Consul 1.8.7, each a client of the same three servers.

    .venv/bin/python -m bench.client_restart [-rounds 10] [-servers ours|consul] [-join]

The client is ended by SIGTERM (without leaving) and started again on its data directory. Timed from
exec: until HTTP answers a small read (the services) through a server, until DNS answers for a
service, and the CPU time the agent had used by then. Refusals between (500, SERVFAIL) are counted:
applications see them. The two take turns; figures are medians. `-join` leaves the agents
`retry_join` only: their gossip snapshot is deleted before each start.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import dnslib
from bench.http_load import Connection
from bench.raft_writes import HTTP_PORT, OURS, THEIRS, cluster

NETWORK = "127.62.1"
DNS_PORT = 8600
START_S = 30.0
PAUSE_S = 0.01
ASK_AGAIN_S = 0.1
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Start:
    """What one start took, in seconds from exec."""

    http_s: float = 0.0
    dns_s: float = 0.0
    cpu_s: float = 0.0
    refused: list[str] = field(default_factory=list)


class Client:
    """A client agent on a loopback address of its own."""

    def __init__(self, program: str, host: str, servers: tuple[str, ...], data: Path) -> None:
        self.host, self.data = host, data
        config = {
            "node_name": f"c{host[-1]}", "bind_addr": host, "client_addr": host,
            "data_dir": str(data / "data"), "retry_join": list(servers), "log_level": "info",
            "leave_on_terminate": False, "service": {"name": "web", "port": 80},
        }  # fmt: skip
        path = data / "config.json"
        path.write_text(json.dumps(config))
        self._command = [program, "agent", "-config-file", str(path)]
        # As installed: compiled once, not at every start.
        self._env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Start:
        """Start it and wait until HTTP and DNS answer."""
        found, began = Start(), time.perf_counter()
        with (self.data / "log").open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, env=self._env)
        asking = threading.Thread(target=self._ask, args=(found, began))
        asking.start()
        while not found.http_s:
            self._alive(began)
            try:
                with socket.create_connection((self.host, HTTP_PORT), 5) as sock:
                    sock.settimeout(START_S)
                    connection = Connection(sock)
                    while not found.http_s:
                        connection.send("GET", "/v1/catalog/services")
                        status, _, body = connection.receive()
                        if status == 200:
                            found.http_s = time.perf_counter() - began
                        else:
                            found.refused.append(f"{status} {body.decode(errors='replace')}")
                            time.sleep(PAUSE_S)
            except OSError:
                time.sleep(PAUSE_S)
        found.cpu_s = self._cpu_s()
        asking.join()
        return found

    def _ask(self, found: Start, began: float) -> None:
        packet = dnslib.DNSRecord.question("consul.service.consul").pack()
        while time.perf_counter() < began + START_S:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.settimeout(ASK_AGAIN_S)
                try:
                    sock.connect((self.host, DNS_PORT))
                    sock.send(packet)
                    answer = dnslib.DNSRecord.parse(sock.recv(65535))
                except OSError:
                    time.sleep(PAUSE_S)
                    continue
            if answer.header.rcode == 0 and answer.rr:
                found.dns_s = time.perf_counter() - began
                return
            found.refused.append(f"DNS {dnslib.RCODE.get(answer.header.rcode)}")
            time.sleep(PAUSE_S)
        found.dns_s = START_S

    def _alive(self, began: float) -> None:
        assert self._process is not None
        if time.perf_counter() > began + START_S or self._process.poll() is not None:
            raise SystemExit(f"{self._command} does not answer: {(self.data / 'log').read_text()}")

    def _cpu_s(self) -> float:
        assert self._process is not None
        stat = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii")
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / TICKS

    def stop(self) -> None:
        """End it, without leaving."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(START_S)

    def forget(self) -> None:
        """Who was in the pool."""
        (self.data / "data" / "serf" / "local.snapshot").unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-rounds", type=int, default=10)
    parser.add_argument("-servers", choices=("ours", "consul"), default="consul")
    parser.add_argument("-join", action="store_true", help="without the gossip snapshot")
    options = parser.parse_args()
    programs = {"ours": OURS, "consul": THEIRS}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        with cluster(programs[options.servers], NETWORK, root) as servers:
            servers.leader()
            clients = {}
            for number, (name, program) in enumerate(programs.items(), 8):
                data = root / name
                data.mkdir()
                clients[name] = Client(program, f"{NETWORK}.{number}", servers.hosts, data)
            starts: dict[str, list[Start]] = {name: [] for name in clients}
            try:
                for client in clients.values():
                    client.start()
                for _ in range(options.rounds):
                    for name, client in clients.items():
                        client.stop()
                        if options.join:
                            client.forget()
                        starts[name].append(client.start())
            finally:
                for client in clients.values():
                    client.stop()
    report(starts)


def report(starts: dict[str, list[Start]]) -> None:
    """Print the medians and ours/Consul."""
    print(f"{'':8}{'HTTP s':>8}{'worst':>8}{'DNS s':>8}{'worst':>8}{'CPU s':>8}{'refused':>9}")
    http = {name: statistics.median(s.http_s for s in rows) for name, rows in starts.items()}
    for name, rows in starts.items():
        dns = [start.dns_s for start in rows]
        print(
            f"{name:8}{http[name]:8.2f}{max(s.http_s for s in rows):8.2f}"
            f"{statistics.median(dns):8.2f}{max(dns):8.2f}"
            f"{statistics.median(s.cpu_s for s in rows):8.2f}"
            f"{sum(len(s.refused) for s in rows):9}"
        )
        for text in sorted({text for start in rows for text in start.refused}):
            print(f"        {text}")
    print(f"{'ratio':8}{http['ours'] / http['consul']:8.2f}")


if __name__ == "__main__":
    main()
