"""Names, flood join, retry join, the WAN's joiner and the refresher of primary gateways."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from federation_support import gateway_node, run

from proconsul.federation import retry_join as retry_join_module
from proconsul.federation.flood import LanServer, flood_join, missing
from proconsul.federation.locator import GatewayLocator
from proconsul.federation.names import (
    NodeNameError,
    server_name,
    split_wan_name,
    wan_join_address,
)
from proconsul.federation.rate import Signal
from proconsul.federation.retry_join import (
    PrimaryGatewayRefresher,
    RetryJoinError,
    WanJoiner,
    retry_join,
)
from proconsul.testing.waiting import until
from proconsul.util.errors import ProconsulError

Address = tuple[str, int]


# -- names ---------------------------------------------------------------------------------------


def test_wan_names_split_at_the_last_dot() -> None:
    assert split_wan_name("s1.dc2") == ("s1", "dc2")
    assert split_wan_name("a.b.dc2") == ("a.b", "dc2")
    assert split_wan_name("*.dc1") == ("*", "dc1")


@pytest.mark.parametrize("name", ["", "s1", ".dc1", "s1.", "."])
def test_wan_names_without_datacenter(name: str) -> None:
    with pytest.raises(NodeNameError, match="does not encode a datacenter"):
        split_wan_name(name)


def test_server_names() -> None:
    assert server_name("s1", "dc2", "consul.") == "s1.server.dc2.consul"
    assert server_name("*", "dc2", "consul") == "server.dc2.consul"
    assert server_name("", "dc2", "x.y") == "server.dc2.x.y"
    assert wan_join_address("dc1") == "*.dc1/192.0.2.2:8302"


# -- flood ---------------------------------------------------------------------------------------


def test_what_the_wan_pool_lacks() -> None:
    lan = [LanServer("s1", ("10.0.0.1", 8302)), LanServer("s2", ("2001:db8::2", 8302))]
    assert missing(lan, {"s1.dc1", "s2.dc2"}, "dc1") == ["s2.dc1/[2001:db8::2]:8302"]
    assert missing(lan, set(), "dc1")[0] == "s1.dc1/10.0.0.1:8302"
    assert missing(lan, {"s1.dc1", "s2.dc1"}, "dc1") == []


def test_one_failed_join_does_not_keep_the_others() -> None:
    async def main() -> None:
        async def join(addresses: Sequence[str]) -> int:
            if addresses == ["bad"]:
                raise ProconsulError("no")
            return len(addresses)

        assert await flood_join(["a", "bad", "b"], join) == 2

    run(main)


# -- retry join ----------------------------------------------------------------------------------


@dataclass
class FakeResolver:
    """What entries resolve to."""

    found: dict[str, list[Any]] = field(default_factory=dict)
    calls: int = 0

    async def join_addresses(self, entries: Sequence[str]) -> list[str]:
        self.calls += 1
        return [address for entry in entries for address in self.found.get(entry, [])]

    async def gateway_addresses(self, entries: Sequence[str]) -> list[Address]:
        return await self.join_addresses(entries)  # type: ignore[return-value]


def test_retry_join_until_it_works() -> None:
    async def main() -> None:
        resolver = FakeResolver({})
        joined: list[Sequence[str]] = []

        async def join(addresses: Sequence[str]) -> int:
            joined.append(addresses)
            if len(joined) < 3:
                raise ProconsulError("refused")
            return 1

        task = asyncio.create_task(retry_join("LAN", ["name"], join, resolver, interval_s=0.001))
        await until(lambda: resolver.calls > 2)
        resolver.found = {"name": ["10.0.0.1"]}
        await task
        assert joined == [["10.0.0.1"]] * 3

    run(main)


def test_retry_join_gives_up_after_its_attempts() -> None:
    async def main() -> None:
        resolver = FakeResolver({})

        async def join(addresses: Sequence[str]) -> int:
            raise AssertionError(addresses)

        with pytest.raises(RetryJoinError, match="max join WAN retry exhausted, exiting"):
            await retry_join("WAN", ["x"], join, resolver, interval_s=0.001, attempts_max=2)
        assert resolver.calls == 3
        await retry_join("WAN", [], join, resolver, interval_s=0.001)

    run(main)


def test_the_first_retries_come_soon_unless_they_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def join(_addresses: Sequence[str]) -> int:
        raise ProconsulError("refused")

    def waits(interval_s: float, **bounds: int) -> list[float]:
        waited: list[float] = []

        async def sleep(delay: float) -> None:
            waited.append(delay)
            if len(waited) == 6:
                raise asyncio.CancelledError

        monkeypatch.setattr("asyncio.sleep", sleep)
        resolver = FakeResolver({"name": ["10.0.0.1"]})
        with pytest.raises((asyncio.CancelledError, RetryJoinError)):
            run(
                lambda: retry_join("LAN", ["name"], join, resolver, interval_s=interval_s, **bounds)
            )
        return waited

    assert waits(5.0) == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    assert waits(5.0, attempts_max=2) == [5.0, 5.0]


# -- the WAN's joiner ----------------------------------------------------------------------------


@dataclass
class Joins:
    """A pool that refuses some datacenters."""

    refused: set[str] = field(default_factory=set)
    tried: list[str] = field(default_factory=list)

    async def join(self, addresses: Sequence[str]) -> int:
        (address,) = addresses
        datacenter = address.partition("/")[0].removeprefix("*.")
        self.tried.append(datacenter)
        if datacenter in self.refused:
            raise ProconsulError("no way")
        return 1


def join_wan(
    wanted: Callable[[], Sequence[str]], joins: Joins, test: Callable[[Signal], Any]
) -> None:
    async def main() -> None:
        changed = Signal()
        task = asyncio.create_task(WanJoiner(wanted, joins.join, changed).run())
        try:
            await test(changed)
        finally:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(main)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry_join_module, "RETRY_S_MIN", 60.0)
    monkeypatch.setattr(retry_join_module, "RETRY_S_MAX", 60.0)
    monkeypatch.setattr(retry_join_module, "WAN_CHECK_S", 60.0)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry_join_module, "RETRY_S_MIN", 0.004)
    monkeypatch.setattr(retry_join_module, "RETRY_S_MAX", 0.01)
    monkeypatch.setattr(retry_join_module, "WAN_CHECK_S", 0.01)


@pytest.mark.usefixtures("slow")
def test_changed_gateways_cut_the_wait_short() -> None:
    joins = Joins({"dc1", "dc3"})

    async def test(changed: Signal) -> None:
        await until(lambda: len(joins.tried) == 2)
        await asyncio.sleep(0.01)
        assert joins.tried == ["dc1", "dc3"]
        joins.refused = set()
        changed.fire()
        await until(lambda: len(joins.tried) == 4)

    join_wan(lambda: ["dc1", "dc3"], joins, test)


@pytest.mark.usefixtures("quick")
def test_a_lost_primary_is_joined_again() -> None:
    wanted = ["dc1"]
    joins = Joins({"dc1"})

    async def test(_changed: Signal) -> None:
        await until(lambda: len(joins.tried) >= 3)
        joins.refused = set()
        before = len(joins.tried)
        await until(lambda: len(joins.tried) > before)
        wanted.clear()
        count = len(joins.tried)
        await asyncio.sleep(0.05)
        assert len(joins.tried) <= count + 1
        wanted.append("dc1")
        count = len(joins.tried)
        await until(lambda: len(joins.tried) > count)

    join_wan(lambda: list(wanted), joins, test)


def test_a_success_after_failures_is_not_followed_by_a_storm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The member may take a while to show up as alive."""
    monkeypatch.setattr(retry_join_module, "RETRY_S_MIN", 0.002)
    monkeypatch.setattr(retry_join_module, "WAN_CHECK_S", 60.0)
    joins = Joins({"dc1"})

    async def test(_changed: Signal) -> None:
        await until(lambda: len(joins.tried) == 2)
        joins.refused = set()
        await until(lambda: len(joins.tried) == 3)
        await asyncio.sleep(0.05)
        assert len(joins.tried) == 3

    join_wan(lambda: ["dc1"], joins, test)


# -- the refresher -------------------------------------------------------------------------------


def refresh(
    resolver: FakeResolver,
    test: Callable[[PrimaryGatewayRefresher, GatewayLocator, dict[str, bool]], Any],
    interval_s: float = 0.003,
) -> None:
    async def main() -> None:
        locator = GatewayLocator("dc2", "dc1", random.Random(1))
        flags = {"needs_help": False}
        it = PrimaryGatewayRefresher(
            ["gw.example"], resolver, locator, interval_s, lambda: flags["needs_help"]
        )
        task = asyncio.create_task(it.run())
        try:
            await test(it, locator, flags)
        finally:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(main)


def addresses_of(locator: GatewayLocator) -> list[Address]:
    return [gateway.address for gateway in locator.known("dc1")]


def test_gateways_replaced_at_once_are_found_whenever_the_normal_state_is_left() -> None:
    resolver = FakeResolver({})

    async def test(it: object, locator: GatewayLocator, flags: dict[str, bool]) -> None:
        await until(lambda: resolver.calls >= 3)
        assert addresses_of(locator) == []
        resolver.found = {"gw.example": [("192.0.2.1", 8443)]}
        await until(lambda: addresses_of(locator))
        locator.update([], [gateway_node(("10.2.0.1", 1))])
        calls = resolver.calls
        await asyncio.sleep(0.02)
        assert resolver.calls <= calls + 1, "in the normal state nobody is bothered"
        resolver.found = {"gw.example": [("192.0.2.9", 8443)]}
        flags["needs_help"] = True
        await until(lambda: ("192.0.2.9", 8443) in addresses_of(locator))
        resolver.found = {}
        calls = resolver.calls
        await until(lambda: resolver.calls > calls + 1)
        assert ("192.0.2.9", 8443) in addresses_of(locator), "better old ones than none"

    refresh(resolver, test)


def test_reloaded_entries_are_used_at_once() -> None:
    resolver = FakeResolver({"gw.example": [("192.0.2.1", 1)], "other.example": [("192.0.2.2", 2)]})

    async def test(
        it: PrimaryGatewayRefresher, locator: GatewayLocator, _flags: dict[str, bool]
    ) -> None:
        await until(lambda: addresses_of(locator) == [("192.0.2.1", 1)])
        it.reload(["other.example"])
        await until(lambda: addresses_of(locator) == [("192.0.2.2", 2)])
        it.reload([])
        await until(lambda: addresses_of(locator) == [])
        it.reload(["gw.example"])
        await until(lambda: addresses_of(locator) == [("192.0.2.1", 1)])

    refresh(resolver, test, interval_s=60.0)


def test_the_need_is_noticed_long_before_the_interval_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("proconsul.federation.retry_join.NEED_CHECK_S", 0.003)
    resolver = FakeResolver({"gw.example": [("192.0.2.1", 1)]})

    async def test(
        _it: PrimaryGatewayRefresher, locator: GatewayLocator, flags: dict[str, bool]
    ) -> None:
        await until(lambda: addresses_of(locator) == [("192.0.2.1", 1)])
        resolver.found = {"gw.example": [("192.0.2.2", 2)]}
        flags["needs_help"] = True
        await until(lambda: addresses_of(locator) == [("192.0.2.2", 2)])

    refresh(resolver, test, interval_s=60.0)
