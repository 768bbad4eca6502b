"""Five hundred members, lost datagrams, a partition of a third: what dies comes back."""

from __future__ import annotations

import gc
import logging
import os
import random
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest

from proconsul.core.gossip.memberlist import Memberlist, NodeState, lan_config
from proconsul.testing.simnet import RecordingDelegate, SimHost, SimNet

_MEMBERS = int(os.environ.get("PROCONSUL_SIM_MEMBERS", "500"))
_SEED = int(os.environ.get("PROCONSUL_SIM_SEED", "20201"))
_RECONNECT_S = 30.0


@pytest.fixture(autouse=True)
def _quiet_and_uncollected() -> Iterator[None]:
    """No log records and no cycle collection over millions of live objects while it runs."""
    logging.disable(logging.CRITICAL)
    gc.disable()
    yield
    gc.enable()
    logging.disable(logging.NOTSET)


class _Cluster:
    def __init__(self, net: SimNet, size: int) -> None:
        self.net = net
        self.hosts: list[SimHost] = []
        self.machines: list[Memberlist] = []
        self.delegates: list[RecordingDelegate] = []
        self._last_unready = 0
        for index in range(size):
            address = f"10.0.{index // 250}.{index % 250 + 1}", 8301
            # Compression is tested elsewhere; here it would only burn the wall clock.
            config = replace(lan_config(f"n{index}", address), compress=False)
            delegate = RecordingDelegate(b"tags" * 15)
            machine = Memberlist(config, delegate, random.Random(net.rng.random()))
            self.hosts.append(net.add(machine, address))
            self.machines.append(machine)
            self.delegates.append(delegate)

    def join_all(self) -> None:
        """All join through one of the first five, 50 a second."""
        net = self.net
        for index, (host, machine) in enumerate(zip(self.hosts, self.machines, strict=True)):
            if index:
                machine.join("", self.hosts[net.rng.randrange(min(index, 5))].address, net.now)
                net.pump(host)
            net.run(0.02)

    def introduce_all(self) -> None:
        """Everyone knows everyone, and has no rumour left to tell: a cluster long after its joins."""
        rows = [row for machine in self.machines for row in machine._membership.rows()]
        for machine in self.machines:
            machine._membership.merge(rows, self.net.now)
            machine._membership.broadcasts.prune(0)

    def whole(self) -> bool:
        """Everyone holds everyone for alive."""
        machines = self.machines
        # Who was not yet there last time is asked first: that ends most calls at once.
        for index in (self._last_unready, *range(len(machines))):
            nodes = machines[index].nodes
            if len(nodes) < len(machines) or any(
                node.state is not NodeState.ALIVE for node in nodes.values()
            ):
                self._last_unready = index
                return False
        return True

    def deaths(self) -> int:
        """How often anyone was declared dead by anyone."""
        return sum(kind == "leave" for d in self.delegates for kind, _ in d.events)

    def start_reconnecting(self) -> None:
        """What Serf does above: now and then, try to join one of those held for dead."""
        for host, machine in zip(self.hosts, self.machines, strict=True):
            when = self.net.now + self.net.rng.random() * _RECONNECT_S
            self.net.at(when, partial(self._reconnect, host, machine))

    def _reconnect(self, host: SimHost, machine: Memberlist) -> None:
        net = self.net
        net.at(net.now + _RECONNECT_S, partial(self._reconnect, host, machine))
        alive = {node.name for node in machine.members()}
        missing = [m.config for m in self.machines if m.config.name not in alive]
        if missing and net.rng.random() < len(missing) / len(self.machines):
            lost = net.rng.choice(missing)
            machine.join(lost.name, lost.advertise, net.now)
            net.pump(host)


def test_many_joins_converge() -> None:
    net = SimNet(_SEED, loss=0.05)
    cluster = _Cluster(net, _MEMBERS // 4)
    cluster.join_all()
    joined_at = net.now
    assert net.run_until(cluster.whole, 120, 1.0), "the joins never converged"
    print(
        f"seed {net.seed}: {len(cluster.hosts)} members, 50 joins a second, "
        f"converged {net.now - joined_at:.0f} s after the last"
    )


@pytest.mark.timeout(300)
def test_partition_of_a_third_heals() -> None:
    net = SimNet(_SEED, loss=0.05)
    print(f"seed {net.seed}, {_MEMBERS} members, {net.loss:.0%} of datagrams lost")
    cluster = _Cluster(net, _MEMBERS)
    cluster.introduce_all()
    assert cluster.whole()

    net.run(30)
    rate = net.packets_sent / _MEMBERS / net.now
    print(f"30 s quiet: {rate:.1f} packets a second and member, {cluster.deaths()} false deaths")
    assert cluster.deaths() == 0

    net.partition(cluster.hosts[: _MEMBERS // 3])
    net.run(16)
    dead = cluster.deaths()
    print(f"partitioned for 16 s: {dead} deaths declared")
    assert dead > _MEMBERS

    net.heal()
    cluster.start_reconnecting()
    healed_at = net.now
    assert net.run_until(cluster.whole, 300, 1.0), "a false death did not heal"
    print(f"healed: converged {net.now - healed_at:.0f} s later; {net.packets_sent} packets in all")
