"""A committed command that this server does not know stops it: skipping would split the state."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from raft_support import Member, leader_of, soon

from proconsul.drivers.raft.errors import Halted
from proconsul.services.server.fsm import RaftFsm
from proconsul.state.errors import FsmError
from proconsul.wire.raft import Server, Suffrage

UNKNOWN = b"\x63\x80"


def _member(path: Path) -> Member:
    member = Member(path, "a")
    member.fsm = RaftFsm()  # type: ignore[assignment]
    return member


def test_it_stops_with_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    async def run() -> None:
        member = _member(tmp_path)
        await member.listen()
        await member.start()
        member.node.bootstrap([Server(Suffrage.VOTER, "a", member.address)])
        await leader_of([member])
        # One that says that it may be skipped is.
        assert await member.node.apply(bytes((UNKNOWN[0] | 128,)) + b"\x80", soon()) is None
        with pytest.raises(Halted):
            await member.node.apply(UNKNOWN, soon())
        (failure,) = member.failures
        assert isinstance(failure, FsmError)
        assert "has unknown type 99: upgrade this server" in str(failure)
        assert not member.node.is_leader
        await member.stop()

        # It is in the log, thus it stops this version again and again.
        again = _member(tmp_path)
        await again.listen()
        await again.start()
        async with asyncio.timeout(10):
            while not again.failures:  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.01)
        assert "unknown type 99" in str(again.failures[0])
        await again.stop()

    asyncio.run(run())
