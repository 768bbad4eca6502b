"""From kill -9 of the leader to the next accepted write: ours beside real Consul 1.8.7.

    .venv/bin/python -m bench.raft_failover [--rounds 15] [--servers 3] [--consul PATH] [--stop]

Two clusters of whole servers at raft_multiplier 1, with TLS, logs on disk and a network namespace
each (needs root). They take turns: the leader is killed, and from then on every 10 ms another write
is sent to the next of the surviving servers, whether earlier ones were answered or not. `--stop`
measures SIGSTOP in place of kill -9, which nobody can tell from a slow network.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from proconsul.app.worlds.netns_network import NetnsNetwork
from proconsul.app.worlds.programs import Programs
from proconsul.app.worlds.quorum import Fault, Faults, quorum_spec
from proconsul.app.worlds.spec import Host, Software
from proconsul.app.worlds.traffic import Traffic
from proconsul.app.worlds.world import World

ROOT = Path(__file__).parents[1]
CONSUL = os.environ.get("PROCONSUL_CONSUL_BIN", str(ROOT / ".peers/root/usr/bin/consul"))
BEAT_S = 0.01
SETTLED_S = 30.0
GIVE_UP_S = 20.0
CALM_S = 2.0
"""After the killed server is back: both programs are in step again."""


class Cluster:
    """One program's servers."""

    def __init__(self, name: str, world: World) -> None:
        assert isinstance(world.network, NetnsNetwork)
        self.name, self._world = name, world
        self._traffic, self._faults = Traffic(world.network), Faults(world)
        self.took: list[float] = []

    async def leader(self) -> Host:
        """Whom all servers call the leader, once each of them takes a write."""
        servers = self._world.servers()
        deadline = time.monotonic() + SETTLED_S
        while time.monotonic() < deadline:
            try:
                asked = [self._traffic.request(s, "GET", "/v1/status/leader") for s in servers]
                said = {json.loads(answer.body) for answer in await asyncio.gather(*asked)}
                written = [await self._write(server, 2.0) for server in servers]
            except (OSError, ValueError):
                written, said = [], set()
            found = next((s for s in servers if said == {f"{s.lan}:8300"}), None)
            if found is not None and all(written):
                return found
            await asyncio.sleep(0.1)
        raise SystemExit(f"{self.name} has no leader")

    async def round(self, fault: Fault) -> None:
        """Take the leader away, measure, bring it back."""
        leader = await self.leader()
        await asyncio.sleep(CALM_S)
        others = [server for server in self._world.servers() if server is not leader]
        accepted = asyncio.Event()
        started = time.monotonic()
        self._faults.inject(fault, leader)

        async def try_once(host: Host) -> None:
            try:
                if await self._write(host, GIVE_UP_S) and not accepted.is_set():
                    accepted.set()
                    self.took.append(time.monotonic() - started)
            except OSError:
                return

        async with asyncio.TaskGroup() as group:
            tasks = []
            for host in itertools.cycle(others):
                if accepted.is_set() or time.monotonic() > started + GIVE_UP_S:
                    break
                tasks.append(group.create_task(try_once(host)))
                await asyncio.sleep(BEAT_S)
            for task in tasks:
                task.cancel()
        self._faults.heal()

    async def _write(self, host: Host, timeout_s: float) -> bool:
        answer = await self._traffic.request(host, "PUT", "/v1/kv/bench", b"x", timeout_s)
        return answer.status == 200 and answer.body.strip() == b"true"


def shown(seconds: Sequence[float]) -> str:
    """Median, extremes."""
    return f"median {statistics.median(seconds):.3f} s ({min(seconds):.3f} to {max(seconds):.3f})"


async def measure(clusters: Sequence[Cluster], rounds: int, fault: Fault) -> None:
    """The clusters take turns, so that both have the same load of the machine."""
    for _ in range(rounds):
        for cluster in clusters:
            await cluster.round(fault)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--servers", type=int, default=3)
    parser.add_argument("--consul", default=CONSUL)
    parser.add_argument("--stop", action="store_true", help="SIGSTOP in place of kill -9")
    options = parser.parse_args()
    fault = Fault.PAUSE if options.stop else Fault.KILL
    with ExitStack() as stack:
        clusters = []
        for name, software in (("proconsul", Software.PROCONSUL), ("Consul", Software.CONSUL)):
            spec = quorum_spec(options.servers, software)
            world = stack.enter_context(World(spec, NetnsNetwork(), Programs(options.consul)))
            world.start()
            clusters.append(Cluster(name, world))
        load = os.getloadavg()[0]
        asyncio.run(measure(clusters, options.rounds, fault))
        print(f"{fault.value} of the leader of {options.servers}, to the next accepted write")
        for cluster in clusters:
            print(f"{cluster.name:>10}: {shown(cluster.took)}, {len(cluster.took)} rounds")
        ours, theirs = (statistics.median(cluster.took) for cluster in clusters)
        print(f"ratio {ours / theirs:.2f}; load {load:.1f} before, {os.getloadavg()[0]:.1f} after")


if __name__ == "__main__":
    main()
