"""Worlds in which some datacenters are run by real Consul, and what is asked of them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proconsul.app.worlds.spec import DatacenterSpec, Host, Software, WorldSpec
from proconsul.app.worlds.world import World

OURS, THEIRS = Software.PROCONSUL, Software.CONSUL

_CONFIG: Mapping[str, object] = {
    # Consul tries its first join of the WAN before its gateways are up, then waits this long
    "retry_interval_wan": "1s",
    "performance": {"raft_multiplier": 1, "leave_drain_time": "100ms"},
}
_COMPLAINT = re.compile(r"\[(?:WARN|ERROR|ERR)\]")
_HARMLESS = re.compile(
    # A member that was away for a moment says that it is here
    r"Refuting a (?:suspect|dead) message"
    # What every Consul with bootstrap_expect 1 says
    r"|BootstrapExpect is set to 1|bootstrap = true"
)
_UNKNOWN = re.compile(
    r"can't find (?:service|method) \S+|unrecognized RPC byte|unknown (?:command|type)"
)


def spec_of(*software: Software) -> WorldSpec:
    """One server and one gateway a datacenter; the first is the primary."""
    datacenters = [DatacenterSpec(f"dc{n}", software=s) for n, s in enumerate(software, 1)]
    return WorldSpec(tuple(datacenters), agent_config=_CONFIG)


def server_of(world: World, software: Software) -> Host:
    return next(s for s in world.servers() if s.software is software)


def command(world: World, host: Host, software: Software, *argv: str) -> str:
    """Output of either's command, run on a host against its agent. Raises OSError if it fails."""
    binary = [world.programs.consul] if software is THEIRS else world.programs.proconsul()
    done = subprocess.run(
        world.network.command(host, [*binary, *argv]),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    if done.returncode != 0:
        raise OSError(f"{' '.join(argv)}: {done.stdout}{done.stderr}")
    return done.stdout


def rows(output: str) -> list[list[str]]:
    """The words of a table's lines, without its head, sorted."""
    return sorted(line.split() for line in output.splitlines()[1:])


def wan_members(world: World, host: Host) -> dict[str, Mapping[str, Any]]:
    """By name."""
    found: Sequence[Mapping[str, Any]] = world.api(host).get("/v1/agent/members", wan=1)
    return {member["Name"]: member for member in found}


@dataclass(frozen=True, slots=True)
class LogMark:
    """Where the logs of real Consul's agents end now."""

    sizes: Mapping[str, int]

    @staticmethod
    def now(world: World) -> LogMark:
        return LogMark({h.label: world.agent(h).log.stat().st_size for h in _real(world)})

    def complaints(self, world: World) -> list[str]:
        """Warnings and errors since then."""
        return [
            f"{host.label}: {line}"
            for host in _real(world)
            for line in _log(world, host, self.sizes[host.label]).splitlines()
            if _COMPLAINT.search(line) and not _HARMLESS.search(line)
        ]


def misunderstandings(world: World) -> list[str]:
    """Lines of all logs that speak of calls or commands that one side does not know."""
    return [
        f"{host.label}: {line}"
        for host in world.hosts
        for line in _log(world, host).splitlines()
        if _UNKNOWN.search(line)
    ]


def _real(world: World) -> list[Host]:
    return [host for host in world.hosts if host.software is THEIRS]


def _log(world: World, host: Host, offset: int = 0) -> str:
    with world.agent(host).log.open("rb") as log:
        log.seek(offset)
        return log.read().decode(errors="replace")
