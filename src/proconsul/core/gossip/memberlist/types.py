"""What goes in and out of the machine: nodes, outputs, the delegate."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Protocol

import msgspec
from typing_extensions import override

from proconsul.wire.memberlist import NodeState

Address = tuple[str, int]


@lru_cache(maxsize=4096)
def host_of(addr: bytes) -> str:
    """IP literal of a packed address; an IPv4 address in IPv6 clothes is IPv4. Empty for none."""
    if len(addr) == 4:
        return str(IPv4Address(addr))
    if len(addr) == 16:
        address = IPv6Address(addr)
        return str(address.ipv4_mapped or address)
    return ""


@lru_cache(maxsize=4096)
def packed(host: str) -> bytes:
    """Packed form (4 or 16 bytes) of an IP literal. Raises `ValueError`."""
    return ip_address(host).packed


class Node:
    """A node as this memberlist sees it. Delegates read it and must not change it."""

    __slots__ = (
        "addr",
        "address",
        "incarnation",
        "meta",
        "name",
        "port",
        "state",
        "state_change",
        "versions",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        addr: bytes,
        port: int,
        meta: bytes,
        versions: bytes,
        state: NodeState = NodeState.DEAD,
        incarnation: int = 0,
        state_change: float = 0.0,
    ) -> None:
        self.name = name
        self.meta = meta
        self.versions = versions or bytes(6)
        """(pmin, pmax, pcur, dmin, dmax, dcur)"""
        self.state = state
        self.incarnation = incarnation
        self.state_change = state_change
        """When `state` last changed, on the machine's clock."""
        self.set_address(addr, port)

    def set_address(self, addr: bytes, port: int) -> None:
        """`addr` is packed, and kept as it came: peers compare the bytes."""
        self.addr = addr
        self.port = port
        self.address: Address = (host_of(addr), port)

    @property
    def gone(self) -> bool:
        """Dead or left."""
        return self.state >= NodeState.DEAD

    @property
    def protocol_max(self) -> int:
        """The highest protocol version it understands."""
        return self.versions[1]

    @override
    def __repr__(self) -> str:
        host, port = self.address
        return f"<Node {self.name} {host}:{port} {self.state.name} inc={self.incarnation}>"


class SendPacket(msgspec.Struct, frozen=True, gc=False):
    """Send a datagram. `node` is the destination's name, empty only if it is not known."""

    node: str
    address: Address
    data: bytes


class OpenStream(msgspec.Struct, frozen=True, gc=False):
    """Dial; answer with `stream_connected` or `stream_failed`."""

    sid: int
    node: str
    address: Address
    deadline: float


class WriteStream(msgspec.Struct, frozen=True, gc=False):
    """Write to a connected stream."""

    sid: int
    data: bytes


class CloseStream(msgspec.Struct, frozen=True, gc=False):
    """Flush and close; the machine has forgotten the stream and expects no more of it."""

    sid: int


class JoinDone(msgspec.Struct, frozen=True, gc=False):
    """A `join` has ended; `error` is None when the states were exchanged and merged."""

    sid: int
    error: str | None


class LeaveDone(msgspec.Struct, frozen=True, gc=False):
    """The leave rumour has been spread, or nobody is there to hear it, or time is up."""


Output = SendPacket | OpenStream | WriteStream | CloseStream | JoinDone | LeaveDone


class Delegate(Protocol):
    """What the owner (Serf) adds. Called synchronously, from within the machine's inputs.

    It may queue broadcasts and send user messages; it must not feed inputs.
    """

    def node_meta(self, limit: int) -> bytes:
        """Meta of the local node, at most `limit` bytes."""
        ...

    def notify_message(self, data: bytes) -> None:
        """A user message arrived."""
        ...

    def get_broadcasts(self, overhead: int, limit: int) -> list[bytes]:
        """User messages to piggyback; `overhead` bytes count for each, `limit` for all."""
        ...

    def local_state(self, join: bool) -> bytes:
        """State for a push/pull."""
        ...

    def merge_remote_state(self, data: bytes, join: bool) -> None:
        """The peer's state of a push/pull."""
        ...

    def notify_join(self, node: Node) -> None:
        """`node` became a member, or is one again."""
        ...

    def notify_leave(self, node: Node) -> None:
        """`node` died or left; its `state` tells which."""
        ...

    def notify_update(self, node: Node) -> None:
        """The meta of `node` changed."""
        ...

    def notify_conflict(self, existing: Node, other: Node) -> None:
        """Two nodes claim one name."""
        ...

    def notify_merge(self, peers: Sequence[Node]) -> str | None:
        """A join would merge these nodes; a reason refuses."""
        ...

    def notify_alive(self, peer: Node) -> str | None:
        """An alive message about `peer`; a reason ignores it."""
        ...

    def ack_payload(self) -> bytes:
        """What to put into an ack."""
        ...

    def notify_ping_complete(self, node: Node, rtt_s: float, payload: bytes) -> None:
        """A probe was answered directly."""
        ...
