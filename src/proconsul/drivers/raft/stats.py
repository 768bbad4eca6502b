"""`raft.Stats()` of hashicorp/raft: what Consul shows under `raft` in `info` and `/agent/self`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proconsul.core.raft.membership import voters
from proconsul.util.goduration import format_duration
from proconsul.wire.raft import (
    PROTOCOL_VERSION,
    PROTOCOL_VERSION_MIN,
    SNAPSHOT_VERSION,
    SNAPSHOT_VERSION_MIN,
)

if TYPE_CHECKING:
    from proconsul.core.raft.state import State
    from proconsul.drivers.raft.applier import Applier


def collect(state: State, applier: Applier, last_contact_s: float | None) -> dict[str, str]:
    """All keys with the values' Go formatting; `last_contact_s` is 0 on a leader, None if never."""
    raft_log, latest = state.log, state.members.latest
    ids = [server.id for server in voters(latest)]
    servers = " ".join(
        f"{{Suffrage:{s.suffrage.name.capitalize()} ID:{s.id} Address:{s.address}}}"
        for s in latest.servers
    )
    contact = "never" if last_contact_s is None else "0"
    if last_contact_s:
        contact = format_duration(last_contact_s)
    return {
        "state": state.role.value,
        "term": str(state.term),
        "last_log_index": str(raft_log.last_index),
        "last_log_term": str(raft_log.last_term),
        "commit_index": str(state.commit_index),
        "applied_index": str(applier.index),
        "fsm_pending": str(max(applier.pending, 0)),
        "last_snapshot_index": str(raft_log.snapshot_index),
        "last_snapshot_term": str(raft_log.snapshot_term),
        "protocol_version": str(PROTOCOL_VERSION),
        "protocol_version_min": str(PROTOCOL_VERSION_MIN),
        "protocol_version_max": str(PROTOCOL_VERSION),
        "snapshot_version_min": str(SNAPSHOT_VERSION_MIN),
        "snapshot_version_max": str(SNAPSHOT_VERSION),
        "latest_configuration_index": str(state.members.latest_index),
        "latest_configuration": f"[{servers}]",
        "num_peers": str(len(ids) - 1 if state.local_id in ids else 0),
        "last_contact": contact,
    }
