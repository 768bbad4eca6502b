"""A world on the loopback interface, for machines without root: one 127.D.H.1 per host.

Nothing isolates the servers, so they advertise to other datacenters an address on which nothing
listens, 127.D.H.2: a direct attempt fails at once. The gateways do listen on theirs. That no
server talks to another datacenter's directly is then seen by looking at the servers' sockets.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from typing_extensions import override

from proconsul.app.worlds.network import Evidence, HostPorts
from proconsul.app.worlds.spec import (
    ENVOY_ADMIN_PORT,
    GRPC_PORT,
    DatacenterSpec,
    Host,
    Role,
    WorldError,
    WorldSpec,
    node_name,
)

_SAMPLE_S = 0.1
_LOCK_PORT = 8499
_TCP_ROW = re.compile(r"^\s*\d+: \S+ ([0-9A-F]{8}):([0-9A-F]{4}) (\S\S)(?: \S+){5}\s+(\d+)", re.M)
_LISTENING, _TIME_WAIT = "0A", "06"


class LoopbackNetwork:
    """One server per datacenter. Several worlds can stand at once, each in its own 127.D.*.*."""

    def __init__(self) -> None:
        self._hosts: list[Host] = []
        self._lock: socket.socket | None = None
        self._base = 0
        self._http: dict[str, int] = {}
        self._observer: _Observer | None = None

    @property
    def kind(self) -> str:
        return (
            f"loopback addresses 127.{self._base + 1}.*.*: one per host; nothing isolates the hosts,"
            " so the proof is at socket level"
        )

    def plan(self, spec: WorldSpec, datacenter: DatacenterSpec, role: Role, number: int) -> Host:
        if datacenter.servers != 1:
            raise WorldError(
                "with loopback addresses a datacenter has one server: three need -netns (as root)"
            )
        if self._lock is None:
            self._base, self._lock = _reserve()
        dc_number = spec.datacenters.index(datacenter) + 1
        if datacenter.routed or role is Role.CLIENT:
            raise WorldError("with loopback addresses there are servers and gateways alone")
        second = (1 if role is Role.SERVER else 10) + number
        prefix = f"127.{self._base + dc_number}.{second}"
        name = node_name(spec, datacenter, role, number)
        addresses = f"{prefix}.1", f"{prefix}.2"
        return Host(name, role, datacenter, dc_number, number, *addresses, datacenter.software)

    def build(self, hosts: Sequence[Host]) -> None:
        self._hosts = list(hosts)
        self._observer = _Observer(self._hosts)
        self._observer.start()

    def add(self, host: Host) -> None:
        self._hosts.append(host)

    def move(self, host: Host) -> None:
        raise WorldError(f"{host.name} cannot move: that needs namespaces")

    def remove(self) -> None:
        if self._observer is not None:
            self._observer.stop()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def ports(self, host: Host) -> HostPorts:
        return HostPorts(
            host.lan,
            ("127.0.0.1", self.publish(host)),
            (host.lan, GRPC_PORT),
            (host.lan, ENVOY_ADMIN_PORT),
        )

    def command(self, host: Host, argv: Sequence[str]) -> list[str]:
        del host
        return list(argv)

    def connect(self, host: Host, address: tuple[str, int], timeout_s: float) -> socket.socket:
        del host
        return socket.create_connection(address, timeout_s)

    def publish(self, host: Host) -> int:
        """Agents listen there themselves."""
        if host.label not in self._http:
            with socket.create_server(("127.0.0.1", 0)) as probe:
                self._http[host.label] = int(probe.getsockname()[1])
        return self._http[host.label]

    def watch(self, pids: dict[int, Host]) -> None:
        if self._observer is not None:
            self._observer.servers = pids

    def evidence(self) -> Evidence:
        assert self._observer is not None
        seen = self._observer.seen
        lines = [
            "at socket level, by looking at the servers' TCP sockets every"
            f" {_SAMPLE_S * 1000:.0f} ms ({seen.samples} times):"
            f" {seen.to_gateways} connections to gateways,"
            f" {len(seen.direct)} directly to servers of others",
            *seen.direct,
            "UDP and refused attempts cannot be seen so; the addresses that servers advertise to"
            " other datacenters do not answer:",
        ]
        silent = True
        for host in self._hosts:
            if host.is_server:
                answers = [port for port in (8300, 8302) if _listens(host.wan, port)]
                silent = silent and not answers
                lines.append(f"{host.name} at {host.wan}: {answers or 'nothing listens'}")
        return Evidence(silent and not seen.direct and seen.samples > 0, tuple(lines))


@dataclass(slots=True)
class _Seen:
    samples: int = 0
    to_gateways: int = 0
    direct: list[str] = field(default_factory=list)


class _Observer(threading.Thread):
    """Looks at the sockets of the servers' processes, over and over."""

    def __init__(self, hosts: list[Host]) -> None:
        super().__init__(name="socket-observer", daemon=True)
        self.servers: dict[int, Host] = {}
        self.seen = _Seen()
        self._hosts = hosts
        self._known: set[tuple[str, str]] = set()
        self._stopped = threading.Event()

    @override
    def run(self) -> None:
        while not self._stopped.wait(_SAMPLE_S):
            rows = _connections()
            owners = {a: host for host in list(self._hosts) for a in (host.lan, host.wan)}
            for pid, server in list(self.servers.items()):
                for inode in _sockets_of(pid):
                    if inode in rows:
                        self._judge(server, owners.get(rows[inode][0]), *rows[inode], inode)
            self.seen.samples += 1

    def stop(self) -> None:
        self._stopped.set()
        if self.is_alive():
            self.join()

    def _judge(self, server: Host, peer: Host | None, address: str, port: int, inode: str) -> None:
        # Connections to a server come from 127.0.0.1 whoever opened them: they are judged at the
        # end that opened them
        if peer is None or (peer.is_server and peer.dc_number == server.dc_number):
            return
        if (inode, address) in self._known:
            return
        self._known.add((inode, address))
        if peer.is_server:
            self.seen.direct.append(f"{server.name} -> {peer.name} at {address}:{port}")
        else:
            self.seen.to_gateways += 1


def _connections() -> dict[str, tuple[str, int]]:
    """Inode -> remote address of every TCP connection of this machine."""
    text = Path("/proc/net/tcp").read_text(encoding="ascii")
    return {
        inode: (socket.inet_ntoa(bytes.fromhex(address)[::-1]), int(port, 16))
        for address, port, state, inode in _TCP_ROW.findall(text)
        if state not in {_LISTENING, _TIME_WAIT}
    }


def _sockets_of(pid: int) -> list[str]:
    found = []
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(entry.path)
                if target.startswith("socket:["):
                    found.append(target[8:-1])
    return found


def _listens(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), 1.0).close()
    except OSError:
        return False
    return True


def _reserve() -> tuple[int, socket.socket]:
    """The first free block of second octets, and the socket that holds it."""
    for base in range(20, 250, 10):
        try:
            return base, socket.create_server((f"127.{base}.255.1", _LOCK_PORT))
        except OSError:
            continue
    raise WorldError("no free block of loopback addresses")
