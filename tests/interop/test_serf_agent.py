"""Ours and Debian's `serf agent` in one cluster."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import pytest
import uvloop
from gossip_support import Ours, SerfAgent, eventually

from proconsul.core.gossip.serf import MemberStatus, QueryParams, UserEvent
from proconsul.drivers.gossip.pool import JoinError

pytestmark = pytest.mark.peer
ALIVE, FAILED, LEFT = MemberStatus.ALIVE, MemberStatus.FAILED, MemberStatus.LEFT


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("ours_joins", [True, False])
def test_both_see_each_other_alive_with_tags(tmp_path: Path, encrypted: bool, ours_joins: bool):
    key = bytes(range(32))
    extra = (f"-encrypt={b64encode(key).decode()}",) if encrypted else ()

    async def scenario() -> None:
        theirs = SerfAgent("theirs", tmp_path, "-tag", "x=y", *extra)
        ours = Ours("ours", tags={"role": "web", "a": "b"}, keys=(key,) if encrypted else ())
        async with ours, theirs.running():
            if ours_joins:
                assert await ours.pool.join([theirs.address]) == 1
            else:
                await theirs.cli("join", ours.address)
            await eventually(lambda: theirs.sees("ours", "alive"), "they see us")
            await eventually(lambda: ours.status("theirs") is ALIVE, "we see them")
            assert (await theirs.members())["ours"]["tags"] == {"role": "web", "a": "b"}
            member = ours.pool.member("theirs")
            assert member is not None
            assert member.tags == {"x": "y"}
            assert (member.delegate_min, member.delegate_max) == (2, 5)

            ours.pool.set_tags({"role": "db"})
            await theirs.cli("tags", "-set", "x=z")

            async def they_know() -> bool:
                return (await theirs.members())["ours"]["tags"] == {"role": "db"}

            await eventually(they_know, "they learn our new tags")
            await eventually(lambda: ours.pool.member("theirs").tags == {"x": "z"}, "we theirs")

    uvloop.run(scenario())


def test_events_and_queries_go_both_ways(tmp_path: Path):
    async def scenario() -> None:
        theirs = SerfAgent("theirs", tmp_path)
        async with Ours("ours", tags={"role": "web"}) as ours, theirs.running():
            await ours.pool.join([theirs.address])
            await eventually(lambda: theirs.sees("ours", "alive"), "they see us")

            await theirs.cli("event", "deploy", "now")
            wanted = UserEvent(1, "deploy", b"now", True)
            await eventually(lambda: wanted in ours.events, "their event arrives")
            await ours.pool.user_event("ours-says", b"hello")
            log = tmp_path / "theirs.log"
            await eventually(lambda: "user-event: ours-says" in log.read_text(), "ours arrives")

            answer = await theirs.cli("query", "-timeout=2s", "-relay-factor=1", "load", "x")
            assert "Ack from 'ours'" in answer
            assert "Response from 'ours': re:x" in answer
            assert "Total Responses: 1" in answer
            filtered = ("-no-ack", "-timeout=1s", "-tag", "role=d.*", "load")
            assert "Response from" not in await theirs.cli("query", *filtered)
            assert "success" in (await theirs.cli("reachability")).lower()

            params = QueryParams(request_ack=True, timeout_s=1.0)
            result = await ours.pool.query("anyone", b"", params)
            assert sorted(result.acks) == ["ours", "theirs"]
            assert result.responses == {"ours": b"re:"}
            only_them = QueryParams(request_ack=True, timeout_s=1.0, filter_nodes=("theirs",))
            assert (await ours.pool.query("anyone", b"", only_them)).acks == ["theirs"]

            await eventually(lambda: "theirs" in ours.pool.coordinates(), "coordinates")
            rtt = await theirs.cli("rtt", "ours")
            assert "rtt:" in rtt

    uvloop.run(scenario())


def test_leaves_kills_and_rejoins_of_either(tmp_path: Path):
    async def scenario() -> None:
        snapshot = tmp_path / "ours.snapshot"
        theirs = SerfAgent("theirs", tmp_path, f"-snapshot={tmp_path / 'theirs.snapshot'}")
        ours = Ours("ours", snapshot=snapshot)
        async with ours:
            port = ours.pool.local().address[1]
            async with theirs.running() as child:
                await ours.pool.join([theirs.address])
                await eventually(lambda: theirs.sees("ours", "alive"), "they see us")
                child.kill()
                await child.wait()
                await eventually(lambda: ours.status("theirs") is FAILED, "they failed")
            # Their snapshot, or our reconnect, brings them back.
            async with theirs.running():
                await eventually(lambda: ours.status("theirs") is ALIVE, "they are back")
                await eventually(lambda: theirs.sees("ours", "alive"), "and see us")
                await theirs.cli("leave")
                await eventually(lambda: ours.status("theirs") is LEFT, "they left")
            async with theirs.running(f"-join={ours.address}"):
                await eventually(lambda: ours.status("theirs") is ALIVE, "they rejoined")

                # We die without a word, and come back by our snapshot.
                await ours.pool.shutdown()
                await eventually(lambda: theirs.sees("ours", "failed"), "we failed")
                assert f"alive: theirs {theirs.address}" in snapshot.read_text()
                async with Ours("ours", snapshot=snapshot, port=port) as again:
                    await eventually(lambda: theirs.sees("ours", "alive"), "we are back")
                    assert again.status("theirs") is ALIVE
                    await again.pool.leave()
                    await eventually(lambda: theirs.sees("ours", "left"), "we left")
                assert snapshot.read_text().endswith("leave\n")

    uvloop.run(scenario())


def test_force_leave_goes_both_ways(tmp_path: Path):
    async def scenario() -> None:
        theirs, victim = SerfAgent("theirs", tmp_path), SerfAgent("victim", tmp_path)
        async with Ours("ours") as ours, theirs.running():
            async with victim.running():
                await ours.pool.join([theirs.address, victim.address])
                await eventually(lambda: theirs.sees("victim", "alive"), "all see all")
            await eventually(lambda: ours.status("victim") is FAILED, "the victim failed")
            await eventually(lambda: theirs.sees("victim", "failed"), "for them too")
            ours.pool.force_leave("victim")
            await eventually(lambda: theirs.sees("victim", "left"), "they heard of it")
            await theirs.cli("force-leave", "-prune", "victim")
            await eventually(lambda: ours.status("victim") is None, "pruned here too")

    uvloop.run(scenario())


def test_keys_are_listed_installed_used_and_removed_from_their_side(tmp_path: Path):
    old, new = bytes(range(16)), bytes(range(16, 32))
    text = {key: b64encode(key).decode() for key in (old, new)}

    async def scenario() -> None:
        theirs = SerfAgent("theirs", tmp_path, f"-encrypt={text[old]}")
        async with Ours("ours", keys=(old,)) as ours, theirs.running():
            await ours.pool.join([theirs.address])
            await eventually(lambda: theirs.sees("ours", "alive"), "they see us")
            assert "[2/2]" in await theirs.cli("keys", "-list")
            for option, key in (("install", new), ("use", new), ("remove", old)):
                assert "Successfully" in await theirs.cli("keys", f"-{option}={text[key]}")
            ring = ours.pool.keyring
            assert ring is not None
            assert ring.keys == [new]
            await eventually(lambda: theirs.sees("ours", "alive"), "they still hear us")

    uvloop.run(scenario())


def test_a_join_that_cannot_work_names_each_failure():
    async def scenario() -> None:
        async with Ours("ours") as ours:
            with pytest.raises(JoinError) as failure:
                await ours.pool.join(["127.0.0.1:1", "no such host", "a/b:99999"])
            text = str(failure.value)
            assert "3 errors occurred" in text
            assert "127.0.0.1:1" in text
            assert "no such host" in text
            assert "99999" in text

    uvloop.run(scenario())
