"""Start and idle cost of one federated server: ours beside a real Consul with the same settings.

    .venv/bin/python -m bench.memory [--consul PATH] [--seconds 20] [--starts 3]

TLS with all verification, gossip encryption, federation through gateways switched on, a catalog of
its own. Prints the time from exec to a leader that answers HTTP, resident memory, and CPU at idle.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
OURS = str(Path(sys.executable).parent / "proconsul")
HOST = "127.57.0.1"
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def settings(directory: Path, key: str) -> Path:
    """The configuration file of the server in `directory`, in which its certificates are."""
    config = {
        "server": True, "bootstrap": True, "datacenter": "dc1", "primary_datacenter": "dc1",
        "node_name": "s1", "data_dir": str(directory / "data"), "encrypt": key,
        "bind_addr": HOST, "client_addr": HOST, "advertise_addr": HOST, "advertise_addr_wan": HOST,
        "ca_file": str(directory / "consul-agent-ca.pem"),
        "cert_file": str(directory / "dc1-server-consul-0.pem"),
        "key_file": str(directory / "dc1-server-consul-0-key.pem"),
        "verify_incoming": True, "verify_outgoing": True, "verify_server_hostname": True,
        "connect": {"enabled": True, "enable_mesh_gateway_wan_federation": True},
        "ports": {"dns": -1}, "log_level": "err",
    }  # fmt: skip
    path = directory / "server.json"
    path.write_text(json.dumps(config))
    return path


def has_leader() -> bool:
    """Whether the server answers, and leads."""
    connection = http.client.HTTPConnection(HOST, 8500, timeout=2)
    try:
        connection.request("GET", "/v1/kv/?keys&consistent")
        return connection.getresponse().status in {200, 404}
    except OSError:
        return False
    finally:
        connection.close()


def start(program: str, config: Path) -> tuple[subprocess.Popen[bytes], float]:
    """A running server, and the seconds until it led."""
    began = time.monotonic()
    command = [program, "agent", "-config-file", str(config)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not has_leader():
        if process.poll() is not None or time.monotonic() > began + 60:
            raise SystemExit(f"{program} did not start, try: {' '.join(command)}")
        time.sleep(0.005)
    return process, time.monotonic() - began


def cpu_s(pid: int) -> float:
    """User and system time used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def memory_mb(pid: int) -> tuple[float, float]:
    """(resident, of that private to this process)."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kb = {line.split(":")[0]: int(line.split()[1]) for line in rollup.splitlines()[1:]}
    return kb["Rss"] / 1024, (kb["Private_Clean"] + kb["Private_Dirty"]) / 1024


def measure(program: str, seconds: float, starts: int) -> dict[str, float]:
    """All figures of one program."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)

        def tool(*args: str) -> str:
            done = subprocess.run(
                [OURS, *args], cwd=directory, check=True, capture_output=True, text=True
            )
            return done.stdout.strip()

        key = tool("keygen")
        tool("tls", "ca", "create")
        tool("tls", "cert", "create", "-server", "-dc", "dc1", "-node", "s1")
        config = settings(directory, key)
        times: list[float] = []
        for last in [False] * (starts - 1) + [True]:
            process, taken = start(program, config)
            times.append(taken)
            try:
                if last:
                    time.sleep(5)
                    before = cpu_s(process.pid)
                    time.sleep(seconds)
                    idle = (cpu_s(process.pid) - before) / seconds
                    resident, private = memory_mb(process.pid)
            finally:
                process.kill()
                process.wait()
        return {
            "first start to leader, s": times[0],
            "further starts, median s": statistics.median(times[1:] or times),
            "resident MB": resident,
            "private MB": private,
            "idle CPU, % of a core": idle * 100,
        }


def main() -> None:
    parser = argparse.ArgumentParser()
    default = os.environ.get("PROCONSUL_CONSUL_BIN", str(ROOT / ".peers/root/usr/bin/consul"))
    parser.add_argument("--consul", default=default)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--starts", type=int, default=4)
    options = parser.parse_args()
    ours = measure(OURS, options.seconds, options.starts)
    theirs = measure(options.consul, options.seconds, options.starts)
    print(f"{'':28}{'proconsul':>10}{'consul':>10}{'ratio':>8}")
    for name, value in ours.items():
        ratio = value / theirs[name] if theirs[name] else float("inf")
        print(f"{name:28}{value:10.2f}{theirs[name]:10.2f}{ratio:8.2f}")


if __name__ == "__main__":
    main()
