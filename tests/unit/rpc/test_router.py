"""Server lists: who is asked, in which order, and what the tags mean."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from proconsul.rpc.router import AREA_LAN, AREA_WAN, Router, rebalance_interval_s
from proconsul.rpc.server_meta import ServerMeta, parse_server

TAGS = {
    "role": "consul", "dc": "dc2", "port": "8300", "vsn": "2", "build": "1.8.7:bd88e8f5",
    "id": "c0ffee", "segment": "", "raft_vsn": "3", "wan_join_port": "8302", "expect": "3",
    "use_tls": "1", "acls": "0", "ft_fs": "1", "sl_alpha": "10.0.0.1:8303",
}  # fmt: skip


def server(node: str, datacenter: str = "dc2", address: str = "10.0.0.1") -> ServerMeta:
    found = parse_server(f"{node}.{datacenter}", address, {**TAGS, "dc": datacenter})
    assert found is not None
    return found


def test_tags() -> None:
    found = parse_server("s1.dc2", "10.0.0.1", TAGS)
    assert found is not None
    assert (found.node, found.datacenter, found.address) == ("s1", "dc2", ("10.0.0.1", 8300))
    assert (found.raft_version, found.expect, found.wan_join_port) == (3, 3, 8302)
    assert found.use_tls
    assert not found.bootstrap
    assert found.build_tuple == (1, 8, 7)
    assert found.feature_flags == {"fs": 1}
    assert found.segment_addresses == {"alpha": ("10.0.0.1", 8303)}
    assert parse_server("s1", "10.0.0.1", TAGS).node == "s1"
    assert parse_server("s1.b.dc2", "10.0.0.1", TAGS).node == "s1.b"


@pytest.mark.parametrize(
    "change",
    [
        {"role": "node"},
        {"port": "x"},
        {"vsn": ""},
        {"build": "dev"},
        {"expect": "many"},
        {"sl_alpha": "nowhere"},
        {"ft_fs": "yes"},
    ],
)
def test_malformed_tags_are_no_server(change: dict[str, str]) -> None:
    assert parse_server("s1", "10.0.0.1", {**TAGS, **change}) is None


def test_rotation_on_failure() -> None:
    router = Router("dc1", Random(1))
    one, two = server("s1"), server("s2")
    router.add_area(AREA_WAN, [one, two])
    assert router.find_route("dc2") == one
    router.failed(two)  # not in use: nothing changes
    assert router.find_route("dc2") == one
    router.failed(one)
    assert router.find_route("dc2") == two
    assert router.servers("dc2") == [two, one]
    router.remove_server(AREA_WAN, two)
    assert router.find_route("dc2") == one
    router.remove_server(AREA_WAN, one)
    assert router.find_route("dc2") is None
    assert not router.has_datacenter("dc2")


def test_a_server_that_comes_back_elsewhere_replaces_itself() -> None:
    router = Router("dc1", Random(1))
    router.add_server(AREA_WAN, server("s1"))
    router.add_server(AREA_WAN, server("s1", address="10.0.0.9"))
    assert [found.address[0] for found in router.servers("dc2")] == ["10.0.0.9"]
    assert router.server_at("dc2", ("10.0.0.9", 8300)) is not None
    assert router.server_at("dc2", ("10.0.0.1", 8300)) is None


def test_areas_are_merged() -> None:
    router = Router("dc1", Random(1))
    router.add_server(AREA_LAN, server("s1", "dc1"))
    router.add_server(AREA_WAN, server("s1", "dc1"))
    router.add_server(AREA_WAN, server("s2"))
    assert router.datacenters() == ["dc1", "dc2"]
    assert len(router.servers("dc1")) == 1
    router.remove_area(AREA_WAN)
    assert router.datacenters() == ["dc1"]


def test_rebalance_puts_a_healthy_server_first_and_loses_none() -> None:
    async def main() -> None:
        router = Router("dc1", Random(3))
        names = {f"s{i}.dc2" for i in range(6)}
        for name in sorted(names):
            router.add_server(AREA_WAN, server(name.removesuffix(".dc2")))

        async def ping(candidate: ServerMeta) -> bool:
            return candidate.node == "s4"

        await router.rebalance(ping)
        assert router.find_route("dc2").node == "s4"
        assert {found.name for found in router.servers("dc2")} == names

    asyncio.run(main())


def test_with_no_healthy_server_the_way_is_still_tried() -> None:
    async def main() -> None:
        router = Router("dc1", Random(3))
        router.add_server(AREA_WAN, server("s1"))

        async def ping(_candidate: ServerMeta) -> bool:
            return False

        await router.rebalance(ping)
        assert router.find_route("dc2") is not None

    asyncio.run(main())


def test_members_that_change_while_pinging() -> None:
    async def main() -> None:
        router = Router("dc1", Random(3))
        router.add_area(AREA_WAN, [server("s1"), server("s2")])

        async def ping(candidate: ServerMeta) -> bool:
            router.remove_server(AREA_WAN, candidate)
            router.add_server(AREA_WAN, server("s3"))
            return True

        await router.rebalance(ping)
        assert "s3" in {found.node for found in router.servers("dc2")}
        assert len(router.servers("dc2")) == 2

    asyncio.run(main())


def test_distance() -> None:
    router = Router("dc1", Random(1))
    for node, datacenter in (("a", "dc1"), ("a", "dc2"), ("b", "dc2"), ("a", "dc3"), ("a", "dc4")):
        router.add_server(AREA_WAN, server(node, datacenter))
    times = {"dc2": 0.2, "dc3": 0.1}
    order = router.datacenters_by_distance(lambda found: times.get(found.datacenter))
    assert order == ["dc1", "dc3", "dc2", "dc4"]


def test_rebalance_interval_grows_with_the_cluster() -> None:
    small = rebalance_interval_s(3, 10, Random(1))
    assert 120 <= small <= 180
    assert rebalance_interval_s(5, 100_000, Random(1)) == pytest.approx(312.5)
    assert rebalance_interval_s(0, 1_000_000, Random(1)) > 1000
