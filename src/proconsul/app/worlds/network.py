"""What a world needs of the network it stands on: both kinds, namespaces and loopback, have it."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from proconsul.app.worlds.spec import DatacenterSpec, Host, Role, WorldSpec


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for the isolation of the servers, or against it."""

    isolated: bool
    lines: tuple[str, ...]
    """What was counted or seen, for people."""


@dataclass(frozen=True, slots=True)
class HostPorts:
    """Where the programs of one host listen and are reached."""

    bind: str
    """What agents bind RPC and gossip to."""
    http: tuple[str, int]
    """The agent's HTTP as it is bound, seen from the host itself."""
    grpc: tuple[str, int]
    envoy_admin: tuple[str, int]


class Network(Protocol):
    """Hosts with addresses, and the means to run and reach programs on them."""

    @property
    def kind(self) -> str:
        """One line that names it, for people."""
        ...

    def build(self, hosts: Sequence[Host]) -> None:
        """Make everything. Raises WorldError; then `remove` still has to be called."""
        ...

    def remove(self) -> None:
        """Take everything away again. Never raises."""
        ...

    def plan(self, spec: WorldSpec, datacenter: DatacenterSpec, role: Role, number: int) -> Host:
        """A host with its addresses."""
        ...

    def add(self, host: Host) -> None:
        """A host that comes later."""
        ...

    def move(self, host: Host) -> None:
        """Give the host another LAN address; its programs must not run."""
        ...

    def ports(self, host: Host) -> HostPorts: ...

    def command(self, host: Host, argv: Sequence[str]) -> list[str]:
        """The command that runs `argv` on the host."""
        ...

    def connect(self, host: Host, address: tuple[str, int], timeout_s: float) -> socket.socket:
        """A TCP connection that starts on the host. Raises OSError."""
        ...

    def publish(self, host: Host) -> int:
        """The 127.0.0.1 port of this machine under which the agent's HTTP is reached."""
        ...

    def watch(self, pids: dict[int, Host]) -> None:
        """Called with the servers' processes whenever they change."""
        ...

    def evidence(self) -> Evidence: ...
