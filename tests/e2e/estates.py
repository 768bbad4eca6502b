"""Estates of several datacenters, each run by us or by real Consul, and what their logs say.

Everything is verified and encrypted, and ACLs deny by default.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from proconsul.app.worlds.spec import AclSpec, DatacenterSpec, Host, Software, WorldSpec
from proconsul.app.worlds.world import World

OURS, THEIRS = Software.PROCONSUL, Software.CONSUL

CONFIG: Mapping[str, object] = {
    # Consul tries its first join of the WAN before its gateways are up, then waits this long
    "retry_interval_wan": "1s",
    "performance": {"raft_multiplier": 1, "leave_drain_time": "100ms"},
}

_LINE = re.compile(r"^\s*\S+ \[(WARN|ERROR|ERR)\]\s+(.*)$")
_NORMAL = (
    (re.compile(r"'"), '"'),
    (re.compile(r"rpc error making call: "), ""),
    (re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"), "ID"),
    (re.compile(r"\bdc\d-[sgc]\d\b"), "NODE"),
    (re.compile(r"\bdc\d\b"), "DC"),
    (re.compile(r"\b\d+\.\d+\.\d+\.\d+(?::\d+)?"), "ADDRESS"),
    (re.compile(r"\b(?:[0-9a-f]{2}:){7,}[0-9a-f]{2}\b"), "KEYID"),
    (re.compile(r"\b\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h)(?:\d+(?:\.\d+)?(?:ms|s|m))*"), "TIME"),
    (re.compile(r"\b\d+(?:\.\d+)?\b"), "N"),
)
_LOAD = re.compile(
    # A machine that is short of time: a member that was not heard in time says that it is here
    r"Refuting a (?:suspect|dead) message|Was able to connect to \S+ but other probes failed"
    # What was asked for before it was replicated
    r"|(?:Request error|RPC failed).*not found"
)


def estate(
    *software: Software,
    servers: int = 1,
    gateways: int = 1,
    more: Mapping[str, object] | None = None,
) -> WorldSpec:
    """Datacenters, the first is the primary. Without gateways servers are routed.

    The second one has so many `servers`, the others one. `more` is configuration.
    """
    datacenters = [
        DatacenterSpec(
            f"dc{n}",
            servers=servers if n == 2 else 1,
            gateways=gateways,
            software=s,
            routed=not gateways,
        )
        for n, s in enumerate(software, 1)
    ]
    return WorldSpec(
        tuple(datacenters),
        agent_config={**CONFIG, **(more or {})},
        log_level="INFO",
        acl=AclSpec(),
    )


def normal(line: str) -> str:
    """A log line's level, subsystem and text without what differs from one world to the next."""
    for pattern, word in _NORMAL:
        line = pattern.sub(word, line)
    return line


@dataclass(frozen=True, slots=True)
class LogMark:
    """Where the agents' logs end now."""

    sizes: Mapping[str, int]

    @staticmethod
    def now(world: World) -> LogMark:
        return LogMark({h.label: world.agent(h).log.stat().st_size for h in world.hosts})

    @staticmethod
    def beginning(world: World) -> LogMark:
        return LogMark({h.label: 0 for h in world.hosts})

    def complaints(self, world: World, hosts: Iterable[Host]) -> Counter[str]:
        """Warnings and errors of these agents since then, as `normal` has them."""
        found: Counter[str] = Counter()
        for host in hosts:
            with world.agent(host).log.open("rb") as log:
                log.seek(self.sizes[host.label])
                for line in log.read().decode(errors="replace").splitlines():
                    match = _LINE.match(line)
                    if match and not _LOAD.search(line):
                        found[f"{match[1]} {normal(match[2])}"] += 1
        return found


def run_by(world: World, software: Software) -> list[Host]:
    return [host for host in world.hosts if host.software is software]
