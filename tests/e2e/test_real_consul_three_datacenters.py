"""A real primary, with a secondary of ours and a real one, which federate through it."""

from __future__ import annotations

import pytest
import real_consul as real
from real_consul import OURS, THEIRS

from proconsul.app.worlds import proof
from proconsul.testing.worlds import Worlds

pytestmark = [pytest.mark.netns, pytest.mark.peer]

WHOLE_S = 30.0


def test_three_datacenters(worlds: Worlds) -> None:
    with worlds(real.spec_of(THEIRS, OURS, THEIRS)) as world:
        proof.whole(world, WHOLE_S)
        mark = real.LogMark.now(world)
        proof.service(world, WHOLE_S)
        for host in world.servers():
            for there in ("dc1", "dc2", "dc3"):
                nodes = real.command(
                    world, host, THEIRS, "catalog", "nodes", f"-datacenter={there}"
                )
                assert {row[0] for row in real.rows(nodes)} == {f"{there}-s1", f"{there}-g1"}
        assert mark.complaints(world) == []
        assert real.misunderstandings(world) == []
        proof.isolated(world)
