"""Servers and clients on loopback with fast timings."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from proconsul.core.gossip.memberlist.config import consul_lan_config
from proconsul.core.raft.types import Config as RaftConfig
from proconsul.services.agent.client import Client
from proconsul.services.agent.config import ClientConfig
from proconsul.services.server.config import GossipSettings, Identity, ServerConfig
from proconsul.services.server.server import Server
from proconsul.util.metrics import Metrics

LOOPBACK = "127.0.0.1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def identity(name: str, **fields: str) -> Identity:
    node_id = f"{sum(name.encode()):08x}-2222-3333-4444-{name.encode().hex():0>12}"
    return replace(Identity(name, node_id, "dc1", "dc1"), **fields)


def gossip(name: str) -> GossipSettings:
    fast = replace(
        consul_lan_config(name, (LOOPBACK, 0)),
        probe_interval_s=0.1,
        probe_timeout_s=0.05,
        gossip_interval_s=0.02,
        suspicion_mult=2,
        leave_timeout_s=0.5,
    )
    return GossipSettings(fast, (LOOPBACK, 0))


def server_config(name: str, data_dir: Path | None = None, **fields: object) -> ServerConfig:
    address = (LOOPBACK, free_port())
    config = ServerConfig(
        identity(name),
        gossip(name),
        None,
        address,
        address,
        data_dir,
        raft=RaftConfig(0.15, 0.15, 0.1),
        rpc_hold_s=3.0,
        leave_drain_s=0.05,
        reconcile_s=0.2,
        coordinate_update_s=0.1,
    )
    return replace(config, **fields)  # type: ignore[arg-type]


def client(name: str, **fields: object) -> Client:
    config = ClientConfig(identity(name), gossip(name), LOOPBACK, None, rpc_hold_s=2.0)
    from proconsul.drivers.tls_config import TlsConfig

    return Client(replace(config, **fields), TlsConfig(), Metrics())  # type: ignore[arg-type]


@asynccontextmanager
async def running(*cores: Server | Client) -> AsyncIterator[None]:
    """Start all, join all to the first; close them all at the end."""
    try:
        for core in cores:
            await core.start()
        first = cores[0].lan.local().address
        for core in cores[1:]:
            await core.lan.join([f"{first[0]}:{first[1]}"])
        yield
    finally:
        for core in cores:
            await core.aclose()


def statuses(server: Server, node: str) -> dict[str, str]:
    """Check id to status of one node, from the server's state."""
    return {k.check_id: k.status for k in server.store.catalog.node_checks(node).value}
