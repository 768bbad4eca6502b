"""The gossip pools of an agent, as Consul configures them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from proconsul.core.gossip.serf import Member, SerfConfig
from proconsul.drivers.gossip import keyring_file
from proconsul.drivers.gossip.pool import GossipPool, PoolEvent
from proconsul.drivers.gossip.transport import GossipTransport
from proconsul.services.server.config import GossipSettings
from proconsul.util.metrics import Metrics

SERF_RECONNECT_S = 3 * 24 * 3600.0
LEAVE_PROPAGATE_S = 3.0
"""Longer than serf's own, so that a leave is known before the process ends (lib/serf.go)."""


def make_pool(
    settings: GossipSettings,
    transport: GossipTransport,
    tags: Mapping[str, str],
    merge: Callable[[Sequence[Member]], str | None],
    on_event: Callable[[PoolEvent], None],
    *,
    log_name: str,
    snapshot: Path | None,
    rejoin_after_leave: bool,
    metrics: Metrics,
) -> GossipPool:
    """A pool that is not started yet. `snapshot` is the file from which it rejoins."""
    if snapshot is not None:
        snapshot.parent.mkdir(parents=True, exist_ok=True)
    file = settings.keyring_file
    config = SerfConfig(
        node_name=settings.memberlist.name,
        memberlist=settings.memberlist,
        tags=tags,
        log_name=log_name,
        leave_propagate_delay_s=LEAVE_PROPAGATE_S,
        reconnect_timeout_s=settings.reconnect_timeout_s or SERF_RECONNECT_S,
        rejoin_after_leave=rejoin_after_leave,
        merge=merge,
        coordinates=settings.coordinates,
        save_keyring=partial(keyring_file.save, file) if file is not None else None,
    )
    return GossipPool(config, transport, on_event=on_event, snapshot_path=snapshot, metrics=metrics)
