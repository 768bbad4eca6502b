"""One datacenter of servers in namespaces, ours or real Consul's, and the faults they may suffer.

    with running_world(quorum_spec(3)) as world:
        faults = Faults(world)
        faults.inject(Fault.PAUSE, world.servers()[0])
        faults.heal()

Every server keeps its data on disk and its HTTP API on its own loopback, where a cut of its network
does not reach: whoever stands beside it can ask it all the while.
"""

from __future__ import annotations

import signal
from enum import Enum

from proconsul.app.worlds.netns_network import NetnsNetwork
from proconsul.app.worlds.spec import DatacenterSpec, Host, Software, WorldError, WorldSpec
from proconsul.app.worlds.world import World

ELECTION_TIMEOUT_S = 1.0
"""Of the servers of `quorum_spec`, whose `raft_multiplier` is 1."""


class Fault(Enum):
    """What can happen to a server. `heal` undoes it."""

    KILL = "kill -9"
    PAUSE = "SIGSTOP"
    CUT = "cut off"
    CUT_IN = "cut off inwards"
    """It is heard, but hears nothing."""
    CUT_OUT = "cut off outwards"
    """It hears, but is not heard."""


_DIRECTIONS = {Fault.CUT: ("in", "out"), Fault.CUT_IN: ("in",), Fault.CUT_OUT: ("out",)}


def quorum_spec(servers: int, software: Software = Software.PROCONSUL) -> WorldSpec:
    """So many servers in one datacenter, without gateways."""
    return WorldSpec((DatacenterSpec("dc1", servers, 0, software),), log_level="INFO")


class Faults:
    """At most one fault per server of a world of namespaces. For the thread that started it."""

    def __init__(self, world: World) -> None:
        if not isinstance(world.network, NetnsNetwork):
            raise WorldError("faults need network namespaces")
        self._world, self._network = world, world.network
        self._present: dict[str, tuple[Fault, Host]] = {}

    def inject(self, fault: Fault, host: Host) -> None:
        """Returns when it has happened. Raises WorldError."""
        if host.label in self._present:
            raise WorldError(f"{host.name} has not been healed yet")
        self._present[host.label] = fault, host
        agent = self._world.agent(host)
        if fault is Fault.KILL:
            agent.kill()
        elif fault is Fault.PAUSE:
            agent.signal(signal.SIGSTOP)
        for direction in _DIRECTIONS.get(fault, ()):
            self._network.cut(host, direction, on=True)

    def heal(self) -> None:
        """Undo every fault; killed servers are started again."""
        while self._present:
            _, (fault, host) = self._present.popitem()
            self._undo(fault, host)

    def _undo(self, fault: Fault, host: Host) -> None:
        if fault is Fault.KILL:
            self._world.start_agent(host)
        elif fault is Fault.PAUSE:
            self._world.agent(host).signal(signal.SIGCONT)
        for direction in _DIRECTIONS.get(fault, ()):
            self._network.cut(host, direction, on=False)
