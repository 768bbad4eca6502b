"""KV writes into a quorum of three: servers of ours beside real Consul 1.8.7, on the same disk.

    .venv/bin/python -m bench.raft_writes [-seconds 5] [-rounds 3] [-clients 1 32 128] [-via followers]

Each cluster is three whole servers with logs on disk, on loopback addresses of their own. Clients
are keep-alive connections, each with one PUT under way, to the leader, the followers or all.
The clusters take turns; every figure is the median over the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.http_load import Connection

ROOT = Path(__file__).parents[1]
OURS = str(Path(sys.executable).parent / "proconsul")
THEIRS = os.environ.get("PROCONSUL_CONSUL_BIN", str(ROOT / ".peers/root/usr/bin/consul"))
HTTP_PORT = 8500
START_S = 60.0
VALUE = b"a value of some length: 1234567890"


@dataclass(frozen=True, slots=True)
class Cluster:
    """Running servers of one kind."""

    hosts: tuple[str, ...]

    def leader(self) -> str:
        """The leader's host, once one says so and takes a write."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            for host in self.hosts:
                try:
                    with socket.create_connection((host, HTTP_PORT), 2) as sock:
                        connection = Connection(sock)
                        connection.send("GET", "/v1/status/leader")
                        status, _, body = connection.receive()
                        leader = json.loads(body).rpartition(":")[0] if status == 200 else ""
                        if leader != host:
                            continue
                        connection.send("PUT", "/v1/kv/bench/start", VALUE)
                        if connection.receive()[0] == 200:
                            return host
                except OSError:
                    continue
            time.sleep(0.1)
        raise SystemExit(f"no leader among {', '.join(self.hosts)}")


@contextmanager
def cluster(program: str, network: str, data: Path, servers: int = 3) -> Iterator[Cluster]:
    """`servers` servers at `network`.1 and so on."""
    hosts = tuple(f"{network}.{number}" for number in range(1, servers + 1))
    with ExitStack() as stack:
        for host in hosts:
            config = {
                "server": True, "bootstrap_expect": servers, "node_name": f"s{host[-1]}",
                "bind_addr": host, "client_addr": host, "data_dir": str(data / host),
                "retry_join": list(hosts), "retry_interval": "1s", "log_level": "err",
                "ports": {"dns": -1}, "performance": {"raft_multiplier": 1},
                "limits": {"http_max_conns_per_client": 10000},
            }  # fmt: skip
            path = data / f"{host}.json"
            path.write_text(json.dumps(config))
            process = subprocess.Popen(
                [program, "agent", "-config-file", str(path)],
                stdout=subprocess.DEVNULL, stderr=(data / f"{host}.err").open("wb"),
            )  # fmt: skip
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield Cluster(hosts)


def write_for(hosts: Sequence[str], clients: int, seconds: float) -> tuple[float, list[float]]:
    """(writes a second, seconds of each) of that many connections, spread over the hosts."""
    selector = selectors.DefaultSelector()
    took: list[float] = []
    sent: dict[Connection, float] = {}
    number = 0

    def next_write(connection: Connection) -> None:
        nonlocal number
        number += 1
        sent[connection] = time.perf_counter()
        connection.send("PUT", f"/v1/kv/bench/{number % 5000}", b"%d " % number + VALUE)

    with ExitStack() as stack:
        for i in range(clients):
            sock = stack.enter_context(
                socket.create_connection((hosts[i % len(hosts)], HTTP_PORT), 10)
            )
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(sock)
            selector.register(sock, selectors.EVENT_READ, connection)
            next_write(connection)
        began = time.perf_counter()
        while (now := time.perf_counter()) < began + seconds:
            for key, _ in selector.select(began + seconds - now):
                connection = key.data
                answer = connection.feed(connection.sock.recv(65536))
                if answer is None:
                    continue
                if answer[0] != 200:
                    raise SystemExit(f"PUT: {answer[0]} {answer[2][:200]!r}")
                took.append(time.perf_counter() - sent[connection])
                next_write(connection)
        spent = time.perf_counter() - began
    selector.close()
    return len(took) / spent, took


def via(host: str, leader: str, which: str) -> bool:
    """Whether clients write to this host."""
    return which == "all" or (host == leader) is (which == "leader")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-seconds", type=float, default=5.0)
    parser.add_argument("-rounds", type=int, default=3)
    parser.add_argument("-clients", type=int, nargs="+", default=[1, 32, 128])
    parser.add_argument("-via", choices=["leader", "followers", "all"], default="leader")
    parser.add_argument("-dir", type=Path, default=None, help="where the data is (a real disk)")
    options = parser.parse_args()
    figures: dict[tuple[int, str], list[tuple[float, float, float]]] = {}
    with tempfile.TemporaryDirectory(dir=options.dir) as scratch, ExitStack() as stack:
        clusters = {}
        for name, program, network in (("ours", OURS, "127.58.1"), ("consul", THEIRS, "127.58.2")):
            data = Path(scratch) / name
            data.mkdir()
            clusters[name] = stack.enter_context(cluster(program, network, data))
        leaders = {name: one.leader() for name, one in clusters.items()}
        for _ in range(options.rounds):
            for clients in options.clients:
                for name, one in clusters.items():
                    hosts = [h for h in one.hosts if via(h, leaders[name], options.via)]
                    rate, took = write_for(hosts, clients, options.seconds)
                    took.sort()
                    row = (rate, took[len(took) // 2] * 1e3, took[len(took) * 99 // 100] * 1e3)
                    figures.setdefault((clients, name), []).append(row)
    print(f"{'clients':>8} {'':8}{'writes/s':>10}{'median ms':>11}{'p99 ms':>9}")
    for clients in options.clients:
        medians = {}
        for name in clusters:
            rows = figures[clients, name]
            medians[name] = tuple(statistics.median(row[i] for row in rows) for i in range(3))
            rate, median, p99 = medians[name]
            print(f"{clients:8} {name:8}{rate:10.0f}{median:11.2f}{p99:9.2f}")
        ratios = [a / b for a, b in zip(medians["ours"], medians["consul"], strict=True)]
        print(f"{clients:8} {'ratio':8}{ratios[0]:10.2f}{ratios[1]:11.2f}{ratios[2]:9.2f}")


if __name__ == "__main__":
    main()
