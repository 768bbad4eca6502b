"""Settings of one serf pool. Defaults are serf 0.9.4's as Consul flavours them (`lib/serf.go`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from proconsul.core.gossip.memberlist.config import MemberlistConfig
from proconsul.core.gossip.serf.member import Member
from proconsul.util.errors import ConfigError, ProconsulError

PROTOCOL_MIN: Final = 2
PROTOCOL_MAX: Final = 5
USER_EVENT_BYTES_MAX: Final = 9 * 1024
"""The limit that no configuration may exceed: an event has to fit into one packet."""

MergeHook = Callable[[Sequence[Member]], str | None]
"""Looks at nodes that want in (or that we want to join); a reason refuses them."""

ReconnectTimeoutOverride = Callable[[Member, float], float]
"""(failed member, configured timeout) -> seconds after which it is forgotten."""


SaveKeyring = Callable[[Sequence[bytes]], None]
"""Keeps the gossip keys, the primary first, for the next start. Raises `ProconsulError`."""


class SerfError(ProconsulError):
    """A request to serf that cannot be served: wrong state, too large, unknown node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SerfConfig:
    """One node in one pool. `_s` are seconds; limits are bytes unless said otherwise."""

    node_name: str
    memberlist: MemberlistConfig
    """Its name and delegate versions are overwritten from here."""
    tags: Mapping[str, str] = field(default_factory=dict)
    protocol_version: int = 4
    log_name: str = "serf.lan"

    broadcast_timeout_s: float = 5.0
    leave_propagate_delay_s: float = 3.0
    reap_interval_s: float = 15.0
    reconnect_interval_s: float = 30.0
    reconnect_timeout_s: float = 3 * 24 * 3600.0
    tombstone_timeout_s: float = 24 * 3600.0
    recent_intent_timeout_s: float = 300.0
    flap_timeout_s: float = 60.0
    queue_check_interval_s: float = 30.0
    queue_depth_min: int = 4096
    """A broadcast queue holds at most max(this, twice the number of members) messages."""

    event_buffer: int = 512
    """Lamport times of user events remembered against re-delivery."""
    query_buffer: int = 512
    query_timeout_mult: int = 16
    query_size_limit: int = 1024
    query_response_size_limit: int = 1024
    user_event_size_limit: int = 512

    rejoin_after_leave: bool = False
    name_conflict_resolution: bool = False
    """Serf's default is True; Consul switches it off, as the minority's gossip simply stops."""
    coordinates: bool = True
    snapshot: bool = False
    """Emit `SnapshotAppend`."""

    merge: MergeHook | None = None
    reconnect_timeout_override: ReconnectTimeoutOverride | None = None
    save_keyring: SaveKeyring | None = None
    """Called before a key query is answered; None keeps keys in memory only."""

    def __post_init__(self) -> None:
        if not PROTOCOL_MIN <= self.protocol_version <= PROTOCOL_MAX:
            raise ConfigError(
                f"serf protocol version {self.protocol_version} is not within "
                f"[{PROTOCOL_MIN}, {PROTOCOL_MAX}]"
            )
        if self.user_event_size_limit > USER_EVENT_BYTES_MAX:
            raise ConfigError(f"user event size limit exceeds {USER_EVENT_BYTES_MAX} bytes")
        if not self.node_name or any(ord(char) < 32 for char in self.node_name):
            raise ConfigError(f"node name {self.node_name!r} is empty or has control characters")
