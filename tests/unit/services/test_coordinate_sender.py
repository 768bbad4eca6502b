"""Coordinates that cannot be sent are complained of, as in Consul, but not at every attempt."""

from __future__ import annotations

import asyncio
import logging
import random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from proconsul.domain import errors
from proconsul.services.agent.coordinates import CoordinateSender

ENOUGH = 5


@pytest.mark.parametrize(
    ("failure", "line"),
    [
        (errors.NoServersError(), "ERROR Coordinate update error: error=No known Consul servers"),
        (
            errors.AclNotFoundError(),
            "WARNING Coordinate update blocked by ACLs: error=ACL not found",
        ),
        (TimeoutError(), "ERROR Coordinate update error: error=deadline exceeded"),
    ],
)
def test_failures_are_told_once(
    failure: Exception, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    asked = 0

    async def main() -> None:
        done = asyncio.Event()

        async def call(method: str, request: Any) -> None:
            nonlocal asked
            assert method == "Coordinate.Update"
            assert request.node == "n1"
            asked += 1
            if asked == ENOUGH:
                done.set()
            raise failure

        position = SimpleNamespace(vec=(0.0,), error=1.5, adjustment=0.0, height=0.1)
        lan = SimpleNamespace(members=list, coordinate=lambda: position)
        identity = SimpleNamespace(datacenter="dc1", node_name="n1")
        settings = SimpleNamespace(identity=identity, coordinate_min_s=0.001, coordinate_rate=0)
        caller = SimpleNamespace(call=call)
        sender = CoordinateSender(
            cast(Any, settings), cast(Any, lan), cast(Any, caller), random.Random(), lambda: ""
        )
        running = asyncio.ensure_future(sender.run())
        async with asyncio.timeout(10):
            await done.wait()
        running.cancel()

    with caplog.at_level(logging.DEBUG):
        asyncio.run(main())
    assert [
        f"{r.levelname} {r.getMessage()}" for r in caplog.records if r.name.startswith("proconsul")
    ] == [line]
