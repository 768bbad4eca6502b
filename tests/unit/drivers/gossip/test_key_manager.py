"""Key operations on pools in memory: what is counted, what is refused, what is kept."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Sequence

import uvloop

from proconsul.core.gossip.memberlist import Keyring, MemberlistConfig
from proconsul.core.gossip.serf import SerfConfig
from proconsul.drivers.gossip.key_manager import KeyManager, KeyOutcome
from proconsul.drivers.gossip.keyring_file import KeyringFileError
from proconsul.drivers.gossip.memory import MemoryNetwork, MemoryTransport
from proconsul.drivers.gossip.pool import GossipPool

OLD, NEW = b"o" * 16, b"n" * 32


def told(key: bytes) -> str:
    return b64encode(key).decode()


class Pair:
    """Two nodes with the same key; what each keeps of its keys."""

    def __init__(self, *, encrypted: bool = True, query_timeout_mult: int = 16) -> None:
        self.network = MemoryNetwork()
        self.kept: dict[str, list[bytes]] = {}
        self.full: set[str] = set()
        self.pools = [self._pool(n, encrypted, query_timeout_mult) for n in ("a", "b")]

    def _pool(self, name: str, encrypted: bool, mult: int) -> GossipPool:
        def save(keys: Sequence[bytes]) -> None:
            if name in self.full:
                raise KeyringFileError("Failed to write keyring file: disk full")
            self.kept[name] = list(keys)

        memberlist = MemberlistConfig(
            name=name,
            advertise=("10.0.0.1", 0),
            gossip_interval_s=0.01,
            keyring=Keyring(OLD) if encrypted else None,
        )
        config = SerfConfig(
            node_name=name,
            memberlist=memberlist,
            save_keyring=save,
            query_timeout_mult=mult,
        )
        return GossipPool(config, MemoryTransport(self.network))

    async def run(self, *operations: tuple[str, str], cut: str = "") -> list[KeyOutcome]:
        """The outcomes of operations that the first node begins; `cut` names one off the net."""
        a, b = self.pools
        try:
            await a.start()
            await b.start()
            host, port = a.local().address
            await b.join([f"{host}:{port}"])
            async with asyncio.timeout(5):
                while a.alive_count() < 2:  # noqa: ASYNC110 - there is no event for it
                    await asyncio.sleep(0.01)
            self.network.cut.update(p.local().address for p in (a, b) if p.local().name == cut)
            manager = KeyManager(a)
            return [await manager.operate(name, key, 0) for name, key in operations]
        finally:
            await a.shutdown()
            await b.shutdown()


def test_a_rotation_reaches_all_and_is_kept() -> None:
    pair = Pair()
    outcomes = uvloop.run(
        pair.run(
            ("install", told(NEW)), ("list", ""), ("use", told(NEW)), ("remove", told(OLD)), ("list", "")
        )
    )  # fmt: skip
    assert [outcome.error for outcome in outcomes] == [""] * 5
    assert outcomes[1].keys == {told(OLD): 2, told(NEW): 2}
    assert outcomes[1].primary_keys == {told(OLD): 2}
    assert (outcomes[4].keys, outcomes[4].nodes) == ({told(NEW): 2}, 2)
    assert pair.kept == {"a": [NEW], "b": [NEW]}


def test_refusals_are_told_by_member() -> None:
    outcomes = uvloop.run(Pair().run(("use", told(NEW)), ("remove", told(OLD)), ("install", "!!")))
    unknown, primary, nonsense = outcomes
    assert unknown.error == primary.error == "2/2 nodes reported failure"
    assert unknown.messages == dict.fromkeys("ab", "Requested key is not in the keyring")
    assert primary.messages == dict.fromkeys("ab", "Removing the primary key is not allowed")
    assert nonsense.error == "illegal base64 data at input byte 0"


def test_a_key_that_cannot_be_kept_is_a_failure() -> None:
    pair = Pair()
    pair.full = {"b"}
    (outcome,) = uvloop.run(pair.run(("install", told(NEW))))
    assert outcome.error == "1/2 nodes reported failure"
    assert outcome.messages == {"b": "Failed to write keyring file: disk full"}


def test_a_silent_member_is_missed() -> None:
    pair = Pair(query_timeout_mult=8)
    (outcome,) = uvloop.run(pair.run(("list", ""), cut="b"))
    assert outcome.error == "1/2 nodes reported success"


def test_without_encryption_there_is_nothing_to_change() -> None:
    listed, installed = uvloop.run(Pair(encrypted=False).run(("list", ""), ("install", told(NEW))))
    assert set(listed.messages.values()) == {"Keyring is empty (encryption not enabled)"}
    assert set(installed.messages.values()) == {"No keyring to modify (encryption not enabled)"}
