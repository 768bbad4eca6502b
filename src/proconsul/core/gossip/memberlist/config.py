"""Settings of one memberlist and memberlist's own presets.

The presets are those of hashicorp/memberlist 0.2.2 (`config.go`); Consul changes only
`dead_node_reclaim_time_s` (30 s) and, by its own keys, the fields its `gossip_lan`/`gossip_wan`
blocks name. Dev mode's overrides belong to the agent's configuration.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from proconsul.util.errors import ConfigError
from proconsul.wire.memberlist import VERSION_MAX, VERSION_MIN
from proconsul.wire.memberlist_crypto import Keyring


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberlistConfig:
    """Defaults are memberlist's for a LAN."""

    name: str
    """Node name; unique in the cluster."""
    advertise: tuple[str, int]
    """The address that others are told, an IP literal and a port."""

    protocol_version: int = 2
    delegate_version_min: int = 2
    delegate_version_max: int = 5
    delegate_version: int = 4

    tcp_timeout_s: float = 10.0
    """For a whole push/pull or user message over a stream, the dial included."""
    indirect_checks: int = 3
    retransmit_mult: int = 4
    """A rumour is sent `retransmit_mult * ceil(log10(n + 1))` times."""
    suspicion_mult: int = 4
    """The shortest suspicion lasts `suspicion_mult * max(1, log10(n)) * probe_interval_s`."""
    suspicion_max_timeout_mult: int = 6
    """The longest, without any confirmation, lasts this many times the shortest."""
    push_pull_interval_s: float = 30.0
    """Up to 32 nodes; grows by itself for each doubling beyond. 0 turns push/pull off."""
    probe_interval_s: float = 1.0
    probe_timeout_s: float = 0.5
    disable_tcp_pings: Callable[[str], bool] | None = None
    """Told a node's name, says whether it must not be pinged over a stream as a fallback."""
    awareness_max_multiplier: int = 8

    gossip_nodes: int = 3
    gossip_interval_s: float = 0.2
    gossip_to_the_dead_s: float = 30.0
    dead_node_reclaim_s: float = 0.0
    """After this time another address may take a dead node's name. 0: never (left ones: always)."""

    suspects_may_move: bool = False
    """Whether a suspected node's name may be taken, by a higher incarnation, by another address: a
    node that restarted elsewhere need not wait until it is declared dead and `dead_node_reclaim_s`
    is over."""
    addressed_by_name: Callable[[str], bool] | None = None
    """Told a node's name, says whether that alone leads to it. Then it answers our pings wherever
    it is, is never suspected, and another address with a higher incarnation is news of it."""

    keyring: Keyring | None = None
    verify_incoming: bool = True
    verify_outgoing: bool = True
    compress: bool = True
    compress_min_bytes: int = 128
    """Smaller packets are not tried: LZW's 9-bit codes and the wrapper cost more than they save."""
    compress_max_bytes: int = 128 << 10
    """Larger push/pulls go uncompressed: LZW takes about 0.1 microseconds a byte, on the loop."""
    udp_buffer_bytes: int = 1400
    require_node_names: bool = False
    """Refuse to send anything to an address whose node name is unknown (WAN through gateways)."""
    address_allowed: Callable[[str], bool] | None = None
    """Told a node's IP literal, says whether it may be a member (allowed CIDRs)."""
    leave_timeout_s: float = 5.0
    """How long `leave` waits for its rumour to be spread."""
    log_name: str = "memberlist"
    """The logger is `proconsul.<log_name>`."""
    random_bytes: Callable[[int], bytes] | None = None
    """Source of nonces (`os.urandom`); without it the machine's `rng` is used."""

    def __post_init__(self) -> None:
        """Refuse what the protocol cannot carry. Raises `ConfigError`."""
        if not VERSION_MIN <= self.protocol_version <= VERSION_MAX:
            raise ConfigError(
                f"protocol_version {self.protocol_version} is not in [{VERSION_MIN}, {VERSION_MAX}]"
            )
        if not self.name:
            raise ConfigError("a memberlist needs a node name")

    @property
    def versions(self) -> bytes:
        """The version vector that the alive message carries."""
        return bytes(
            (
                VERSION_MIN,
                VERSION_MAX,
                self.protocol_version,
                self.delegate_version_min,
                self.delegate_version_max,
                self.delegate_version,
            )
        )

    @property
    def encryption_version(self) -> int:
        """Version of the packet encryption that goes with the protocol version."""
        return 0 if self.protocol_version == 1 else 1


def lan_config(name: str, advertise: tuple[str, int]) -> MemberlistConfig:
    """memberlist's LAN preset."""
    return MemberlistConfig(name=name, advertise=advertise)


def wan_config(name: str, advertise: tuple[str, int]) -> MemberlistConfig:
    """memberlist's WAN preset: slower, and to one more node at a time."""
    return MemberlistConfig(
        name=name,
        advertise=advertise,
        tcp_timeout_s=30.0,
        suspicion_mult=6,
        push_pull_interval_s=60.0,
        probe_timeout_s=3.0,
        probe_interval_s=5.0,
        gossip_nodes=4,
        gossip_interval_s=0.5,
        gossip_to_the_dead_s=60.0,
    )


def consul_lan_config(name: str, advertise: tuple[str, int]) -> MemberlistConfig:
    """The LAN preset as Consul 1.8 runs it (before its `gossip_lan` block)."""
    return replace(lan_config(name, advertise), dead_node_reclaim_s=30.0)


def consul_wan_config(name: str, advertise: tuple[str, int]) -> MemberlistConfig:
    """The WAN preset as Consul 1.8 runs it.

    Its `gossip_wan.gossip_nodes` default is taken from the LAN preset (3) and its
    `gossip_wan.retransmit_mult` equals it.
    """
    return replace(wan_config(name, advertise), dead_node_reclaim_s=30.0, gossip_nodes=3)
