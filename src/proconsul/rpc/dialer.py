"""The seam between RPC (which needs streams to servers) and federation (which finds the way).

`rpc` and the gossip and Raft transports ask a `Dialer`; `federation.dialer` implements it: directly
inside a datacenter, through a mesh gateway to another one. Constants follow Consul's
`agent/pool` (type bytes) and `pool.ALPN_*` (native TLS).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from proconsul.util.errors import ProconsulError

if TYPE_CHECKING:
    from proconsul.drivers.stream import Stream


class Purpose(Enum):
    """What a stream to port 8300 is for: (type byte in plain/legacy form, ALPN name in native TLS)."""

    RPC_SINGLE = (0, "consul/rpc-single")
    RAFT = (1, "consul/raft")
    RPC_MULTI = (4, "consul/rpc-multi")
    RPC_SNAPSHOT = (5, "consul/rpc-snapshot")
    RPC_GOSSIP = (6, "consul/rpc-gossip")
    WAN_GOSSIP_PACKET = (None, "consul/wan-gossip/packet")
    WAN_GOSSIP_STREAM = (None, "consul/wan-gossip/stream")

    def __init__(self, type_byte: int | None, alpn: str) -> None:
        self.type_byte = type_byte
        self.alpn = alpn


TYPE_BYTE_TLS = 3
"""A TLS handshake follows, and inside it another type byte."""

TYPE_BYTE_TLS_INSECURE = 7
"""As `TYPE_BYTE_TLS`, without a client certificate (AutoEncrypt, AutoConfig)."""


class Hop(Enum):
    """Where on the way to another datacenter a call failed."""

    UNKNOWN_DATACENTER = "unknown datacenter"
    NO_GATEWAY = "no gateway known"
    DIAL = "dial"
    SNI = "SNI"
    TLS = "TLS"
    ALPN = "ALPN"
    RPC = "RPC"
    ACL = "ACL"


class HopError(ProconsulError):
    """A call to another server failed, and at which hop. `str()` names hop, peer and reason."""

    def __init__(self, hop: Hop, datacenter: str, message: str, gateway: str = "") -> None:
        via = f" via gateway {gateway}" if gateway else ""
        super().__init__(f"{hop.value} failed towards datacenter {datacenter!r}{via}: {message}")
        self.hop, self.datacenter, self.gateway, self.reason = hop, datacenter, gateway, message


@dataclass(frozen=True, slots=True)
class Destination:
    """A server to dial. `node` is its plain node name (never empty across datacenters)."""

    datacenter: str
    node: str
    address: tuple[str, int]


class Dialer(Protocol):
    """Opens streams to servers' RPC ports."""

    async def dial(self, to: Destination, purpose: Purpose, deadline: float) -> Stream:
        """A stream ready for application bytes: type byte sent or ALPN agreed, TLS verified.

        `deadline` is absolute, on the event loop's clock. Raises `HopError`.
        """
        ...
