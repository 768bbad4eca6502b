"""Many watchers of one service: how long until the last of them knows of a change.

    .venv/bin/python -m bench.http_fanout [--consul PATH] [--watchers 1000] [--instances 100]

One server at a time, ours and a real Consul. All watchers ask the same blocking query, as the
clients of one service do; then one instance changes. Also: plain reads of that service per second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop

ROOT = Path(__file__).parents[1]
OURS = str(Path(sys.executable).parent / "proconsul")
HOST, PORT = "127.57.0.2", 8500
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
ROUNDS = 5


class Client:
    """One keep-alive connection."""

    async def connect(self) -> None:
        self.reader, self.writer = await asyncio.open_connection(HOST, PORT)

    async def send(self, method: str, path: str, body: bytes = b"") -> None:
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        self.writer.write(head.encode() + body)
        await self.writer.drain()

    async def answer(self) -> tuple[int, int, bytes]:
        """(status, X-Consul-Index, body)."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status, *lines = head.split("\r\n")
        fields = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        if "content-length" in fields:
            body = await self.reader.readexactly(int(fields["content-length"]))
        else:
            body = b""
            while size := int(await self.reader.readline(), 16):
                body += await self.reader.readexactly(size)
                await self.reader.readexactly(2)
            await self.reader.readline()
        return int(status.split()[1]), int(fields.get("x-consul-index", 0)), body

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, int, bytes]:
        await self.send(method, path, body)
        return await self.answer()


def instance(number: int, port: int) -> bytes:
    """A registration in the catalog, with a health check."""
    service = {"Service": "web", "ID": "web", "Port": port, "Tags": ["a", "b"],
               "Meta": {"version": "1.2.3"}}  # fmt: skip
    check = {"CheckID": "web", "ServiceID": "web", "Name": "web", "Status": "passing"}
    address = f"10.1.{number >> 8}.{number & 255}"
    entry = {"Node": f"n{number}", "Address": address, "Service": service, "Check": check}
    return json.dumps(entry).encode()


async def ready(control: Client) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            await control.connect()
            status, _, _ = await control.ask("GET", "/v1/kv/?keys&consistent")
            if status in {200, 404}:
                return
        except (OSError, asyncio.IncompleteReadError):
            pass
        await asyncio.sleep(0.05)
    raise SystemExit("the agent did not start")


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


async def fan_out(pid: int, watchers: int, instances: int) -> dict[str, float]:
    control = Client()
    await ready(control)
    for number in range(instances):
        status, _, body = await control.ask("PUT", "/v1/catalog/register", instance(number, 1))
        if status != 200:
            raise SystemExit(body.decode())
    clients = [Client() for _ in range(watchers)]
    for client in clients:
        await client.connect()
    path = "/v1/health/service/web"
    taken, cpu = list[float](), list[float]()
    for turn in range(ROUNDS):
        _, index, _ = await control.ask("GET", path)
        for client in clients:
            await client.send("GET", f"{path}?index={index}&wait=60s")
        await asyncio.sleep(1.5)
        before, began = cpu_s(pid), time.monotonic()
        await control.send("PUT", "/v1/catalog/register", instance(0, 2 + turn))
        answers = await asyncio.gather(*(client.answer() for client in clients))
        taken.append((time.monotonic() - began) * 1000)
        cpu.append((cpu_s(pid) - before) * 1000)
        await control.answer()
        if any(status != 200 or new <= index for status, new, _ in answers):
            raise SystemExit("a watcher got a wrong answer")
    for client in clients:
        client.writer.close()
    url = f"http://{HOST}:{PORT}{path}"
    wrk = await asyncio.create_subprocess_exec(
        "wrk", "-t1", "-c16", "-d3", url, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await wrk.communicate()
    rate = next(line for line in out.decode().splitlines() if "Requests/sec" in line).split()[1]
    return {
        "write to last answer, ms": statistics.median(taken),
        "agent's CPU for it, ms": statistics.median(cpu),
        "plain reads a second": float(rate),
    }


def measure(program: str, watchers: int, instances: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as scratch:
        config = Path(scratch) / "limits.hcl"
        config.write_text("limits { http_max_conns_per_client = 10000 }\n")
        # Not -dev, which indents every answer.
        command = [program, "agent", "-server", "-bootstrap", "-bind", HOST, "-client", HOST,
                   "-dns-port", "-1", "-log-level", "err", "-config-file", str(config),
                   "-data-dir", f"{scratch}/data"]  # fmt: skip
        agent = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            return uvloop.run(fan_out(agent.pid, watchers, instances))
        finally:
            agent.kill()
            agent.wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    default = os.environ.get("PROCONSUL_CONSUL_BIN", str(ROOT / ".peers/root/usr/bin/consul"))
    parser.add_argument("--consul", default=default)
    parser.add_argument("--watchers", type=int, default=1000)
    parser.add_argument("--instances", type=int, default=100)
    options = parser.parse_args()
    ours = measure(OURS, options.watchers, options.instances)
    theirs = measure(options.consul, options.watchers, options.instances)
    print(f"{'':28}{'proconsul':>10}{'consul':>10}{'ratio':>8}")
    for name, value in ours.items():
        print(f"{name:28}{value:10.1f}{theirs[name]:10.1f}{value / theirs[name]:8.2f}")


if __name__ == "__main__":
    main()
