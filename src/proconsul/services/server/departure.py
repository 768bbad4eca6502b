"""How a server goes: leadership and its vote first, so that the others lose neither time nor quorum.

Follows `Leave` in agent/consul/server.go; handing leadership over is ours.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from proconsul.util.errors import ProconsulError
from proconsul.wire.raft import Suffrage

if TYPE_CHECKING:
    from proconsul.drivers.raft.node import RaftNode
    from proconsul.services.server.server import Server

log = logging.getLogger("proconsul.server")

LEAVE_REMOVED_S = 15.0
HAND_OVER_S = 2.0
HAND_OVER_ATTEMPTS = 3


async def leave(server: Server) -> None:
    """Leave Raft and both pools in order, so that no quorum is lost by it."""
    log.info("server starting leave")
    await hand_over(server.raft)
    was_leader = server.raft.is_leader
    loop = asyncio.get_running_loop()
    me = server.config.identity.node_id
    if was_leader and len(_voters(server.raft)) > 1:
        try:
            await server.raft.remove_server(me, loop.time() + LEAVE_REMOVED_S)
        except ProconsulError as error:
            log.error("failed to remove ourself as raft peer: %s", error)
    for pool in (server.wan, server.lan):
        try:
            if pool is not None:
                await pool.leave()
        except ProconsulError as error:
            log.error("failed to leave a gossip pool: %s", error)
    server.is_leaving = True
    log.info("Waiting to drain RPC traffic: drain_time=%gs", server.config.leave_drain_s)
    await asyncio.sleep(server.config.leave_drain_s)
    if was_leader or me not in _voters(server.raft):
        return
    deadline = loop.time() + LEAVE_REMOVED_S
    while me in _voters(server.raft) and loop.time() < deadline:
        # Whoever left beside us may have handed leadership to us: nobody else could remove us then.
        await hand_over(server.raft)
        await asyncio.sleep(0.05)
    if me in _voters(server.raft):
        log.warning("failed to leave raft configuration gracefully, timeout")


async def hand_over(raft: RaftNode) -> None:
    """Give leadership away, if we have it, so that nobody has to wait for an election."""
    clock = asyncio.get_running_loop().time
    give_up = clock() + HAND_OVER_S
    for _ in range(HAND_OVER_ATTEMPTS):
        if not raft.is_leader or len(_voters(raft)) < 2 or clock() >= give_up:
            return
        try:
            await raft.leadership_transfer(give_up)
        except ProconsulError as error:
            log.warning("failed to transfer leadership: %s", error)
        else:
            log.info("leadership handed over")


def _voters(raft: RaftNode) -> set[str]:
    servers = raft.configuration()[0].servers
    return {s.id for s in servers if s.suffrage is Suffrage.VOTER}
