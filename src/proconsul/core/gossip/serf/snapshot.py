"""The content of the rejoin snapshot, serf 0.9.4 `snapshot.go`: an append-only list of lines.

    alive: <name> <ip:port>    not-alive: <name>    clock: <n>    event-clock: <n>
    query-clock: <n>           leave                coordinate: ... (old, ignored)   # comment

This module only turns lines into state and back; the file belongs to `drivers.gossip`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from proconsul.util.errors import WireError

COMPACT_BYTES_MIN: Final = 128 * 1024
_BYTES_PER_NODE: Final = 128
_COMPACT_FACTOR: Final = 2
NODES_MAX: Final = 200_000
"""More names than that in a snapshot file mean that it is no snapshot file."""

_NUMBER = re.compile(r"[0-9]{1,19}")


def format_address(address: tuple[str, int]) -> str:
    """`ip:port`, an IPv6 literal in brackets, as Go's TCPAddr prints it."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_address(text: str) -> tuple[str, int]:
    """The reverse of `format_address`. Raises `WireError`."""
    host, separator, port = text.rpartition(":")
    if not separator or not _NUMBER.fullmatch(port) or int(port) > 65535:
        raise WireError(f"{text!r} is no address with a port")
    return host.removeprefix("[").removesuffix("]"), int(port)


@dataclass(slots=True)
class Snapshot:
    """What a node needs to come back: whom it knew, and how far the clocks were."""

    alive: dict[str, str] = field(default_factory=dict)
    """Name -> `ip:port`."""
    clock: int = 0
    event_clock: int = 0
    query_clock: int = 0
    left: bool = False
    """The last life ended with a leave: nothing more is recorded."""

    @property
    def compact_at_bytes(self) -> int:
        """The size of the file beyond which it should be rewritten from `lines`."""
        return max(COMPACT_BYTES_MIN, len(self.alive) * _BYTES_PER_NODE * _COMPACT_FACTOR)

    def lines(self) -> list[str]:
        """The shortest file with this state."""
        head = [f"alive: {name} {address}" for name, address in self.alive.items()]
        return [
            *head,
            f"clock: {self.clock}",
            f"event-clock: {self.event_clock}",
            f"query-clock: {self.query_clock}",
        ]

    # Each of the following records a change and returns the line that the file needs for it.

    def joined(self, name: str, address: tuple[str, int]) -> str:
        """`name` is alive at `address`."""
        self.alive[name] = format_address(address)
        return f"alive: {name} {self.alive[name]}"

    def gone(self, name: str) -> str:
        """`name` failed or left."""
        self.alive.pop(name, None)
        return f"not-alive: {name}"

    def clock_seen(self, time: int) -> str | None:
        """The member clock's last used time; None if there is no news."""
        if time <= self.clock:
            return None
        self.clock = time
        return f"clock: {time}"

    def event_seen(self, time: int) -> str | None:
        """The time of a user event; None if there is no news."""
        if time <= self.event_clock:
            return None
        self.event_clock = time
        return f"event-clock: {time}"

    def query_seen(self, time: int) -> str | None:
        """The time of a query; None if there is no news."""
        if time <= self.query_clock:
            return None
        self.query_clock = time
        return f"query-clock: {time}"

    def leave(self, *, rejoin_after_leave: bool) -> str:
        """The node leaves on purpose: forget whom it knew, unless it shall rejoin."""
        self.left = True
        if not rejoin_after_leave:
            self.alive.clear()
        return "leave"


def replay(lines: Iterable[str], *, rejoin_after_leave: bool = False) -> Snapshot:
    """The state after `lines`; a torn or foreign line is skipped, as serf skips it."""
    state = Snapshot()
    for line in lines:
        if len(state.alive) > NODES_MAX:
            raise WireError(f"snapshot names more than {NODES_MAX} nodes")
        key, _, rest = line.partition(": ")
        match key:
            case "alive":
                name, _, address = rest.rpartition(" ")
                if name and address:
                    state.alive[name] = address
            case "not-alive":
                state.alive.pop(rest, None)
            case "clock" if _NUMBER.fullmatch(rest):
                state.clock = int(rest)
            case "event-clock" if _NUMBER.fullmatch(rest):
                state.event_clock = int(rest)
            case "query-clock" if _NUMBER.fullmatch(rest):
                state.query_clock = int(rest)
            case "leave" if not rejoin_after_leave:
                state = Snapshot()
    return state
