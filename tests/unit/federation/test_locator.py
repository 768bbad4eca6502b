"""The gateway locator: its three states, what counts, and the order of candidates."""

from __future__ import annotations

import logging
import random

import pytest
from federation_support import gateway_node, state
from hypothesis import given, settings
from hypothesis import strategies as st

from proconsul.federation.locator import (
    FAILURE_MEMORY_S,
    REPLICATION_FAILURES_BEFORE_BYPASS,
    Gateway,
    GatewayLocator,
    Source,
    addresses,
)

LOCAL = ("10.2.0.1", 8443)
WAN = ("198.51.100.1", 443)
FALLBACK = ("203.0.113.1", 8443)


def locator(datacenter: str = "dc2") -> GatewayLocator:
    return GatewayLocator(datacenter, "dc1", random.Random(7))


def primary_state() -> list:  # type: ignore[type-arg]
    return [state("dc1", gateway_node(("10.1.0.1", 8443), WAN))]


def sources(found: list[Gateway]) -> list[Source]:
    return [gateway.source for gateway in found]


def test_only_healthy_gateways_that_carry_servers_count() -> None:
    nodes = [
        gateway_node(("10.0.0.1", 1), meta={}),
        gateway_node(("10.0.0.2", 1), meta={"consul-wan-federation": "0"}),
        gateway_node(("10.0.0.3", 1), status="critical"),
        gateway_node(("10.0.0.4", 1), status="warning"),
        gateway_node(("10.0.0.5", 1)),
        gateway_node(("10.0.0.5", 1), node="twin"),
    ]
    assert addresses(nodes, wan=False) == (("10.0.0.4", 1), ("10.0.0.5", 1))


def test_wan_addresses_fall_back_to_the_nodes_own() -> None:
    nodes = [gateway_node(("10.0.0.1", 1), WAN), gateway_node(("10.0.0.2", 2))]
    assert addresses(nodes, wan=True) == (("10.0.0.2", 2), WAN)
    assert addresses(nodes, wan=False) == (("10.0.0.1", 1), ("10.0.0.2", 2))


def test_first_state_configured_addresses_alone() -> None:
    it = locator()
    assert it.candidates("dc1", 0) == []
    assert "no mesh gateway is known" in it.describe()
    it.set_fallback([FALLBACK, FALLBACK])
    assert it.candidates("dc1", 0) == [Gateway(FALLBACK, Source.CONFIGURED)]
    assert it.candidates("dc3", 0) == [], "other datacenters are reached by local gateways only"
    assert not it.in_normal_state
    assert not it.primary_gateways_ready


def test_second_state_replicated_addresses_and_configured_ones() -> None:
    it = locator()
    it.set_fallback([FALLBACK, WAN])
    it.update(primary_state())
    assert {(g.address, g.source) for g in it.known("dc1")} == {
        (WAN, Source.REPLICATED),
        (FALLBACK, Source.CONFIGURED),
    }
    assert it.primary_gateways_ready
    assert not it.in_normal_state


def test_third_state_local_gateways_first() -> None:
    it = locator()
    it.set_fallback([FALLBACK])
    it.update(primary_state(), [gateway_node(LOCAL)])
    assert it.candidates("dc1", 0)[0] == Gateway(LOCAL, Source.CATALOG)
    assert it.candidates("dc3", 0) == [Gateway(LOCAL, Source.CATALOG)]
    assert it.in_normal_state
    assert "local mesh gateways" in it.describe()


def test_a_restarted_server_starts_with_stored_states() -> None:
    it = locator()
    it.update([*primary_state(), state("dc2", gateway_node(LOCAL))])
    assert it.in_normal_state
    assert it.candidates("dc1", 0)[0].source is Source.CATALOG


def test_the_catalog_is_preferred_to_our_own_federation_state() -> None:
    it = locator()
    it.update([state("dc2", gateway_node(("10.2.0.9", 1)))], [gateway_node(LOCAL)])
    assert [g.address for g in it.candidates("dc3", 0)] == [LOCAL]


def test_a_leader_bypasses_local_gateways_after_three_failures() -> None:
    it = locator()
    it.set_fallback([FALLBACK])
    it.update(primary_state(), [gateway_node(LOCAL)])
    it.set_leader(True)
    for _ in range(REPLICATION_FAILURES_BEFORE_BYPASS - 1):
        it.replication_failed()
    assert it.in_normal_state
    it.replication_failed()
    assert not it.in_normal_state
    assert sources(it.candidates("dc1", 0))[-1] is Source.CATALOG, "not forgotten, but last"
    assert set(sources(it.candidates("dc1", 0))) == set(Source)
    assert it.candidates("dc3", 0) == [Gateway(LOCAL)]
    assert "failed 3 times" in it.describe()
    it.replication_succeeded()
    assert it.in_normal_state


def test_followers_stay_with_local_gateways() -> None:
    it = locator()
    it.update(primary_state(), [gateway_node(LOCAL)])
    for _ in range(10):
        it.replication_failed()
    assert it.in_normal_state
    it.set_leader(True)
    assert it.in_normal_state, "failures before the election do not count"


def test_in_the_primary_everything_goes_by_local_gateways() -> None:
    it = locator("dc1")
    it.set_fallback([FALLBACK])
    it.update([*primary_state(), state("dc2", gateway_node(LOCAL))], [gateway_node(LOCAL)])
    assert it.candidates("dc2", 0) == [Gateway(LOCAL)]
    assert it.candidates("dc1", 0) == [Gateway(LOCAL)]
    assert it.in_normal_state


def test_failed_gateways_are_tried_last_until_they_work_or_time_passes() -> None:
    it = locator()
    nodes = [gateway_node((f"10.2.0.{i}", 1), node=f"g{i}") for i in range(4)]
    it.update([], nodes)
    one, two, *_ = (Gateway((f"10.2.0.{i}", 1)) for i in range(4))
    it.failed(one, "dc3", 100.0)
    it.failed(two, "dc3", 101.0)
    assert it.candidates("dc3", 102.0)[-2:] == [one, two], "longest ago first"
    assert it.is_failed(one, "dc3", 102.0)
    assert not it.is_failed(one, "dc4", 102.0), "towards that datacenter only"
    it.worked(one, "dc3")
    assert it.candidates("dc3", 102.0)[-1] == two
    assert not it.is_failed(two, "dc3", 101.0 + FAILURE_MEMORY_S)


def test_equals_are_drawn_at_random() -> None:
    it = locator()
    it.update([], [gateway_node((f"10.2.0.{i}", 1), node=f"g{i}") for i in range(3)])
    assert len({it.candidates("dc3", 0)[0] for _ in range(100)}) == 3


def test_every_change_is_told_and_nothing_else() -> None:
    it = locator()
    told: list[int] = []
    it.on_change(lambda: told.append(1))
    it.set_fallback([FALLBACK])
    it.set_fallback([FALLBACK])
    assert len(told) == 1, "a secondary without local gateways waits for exactly this"
    it.update(primary_state(), [gateway_node(LOCAL)])
    it.update(primary_state(), [gateway_node(LOCAL)])
    assert len(told) == 2


def test_decisions_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    it = locator()
    with caplog.at_level(logging.INFO, "proconsul.gateway_locator"):
        for _ in range(3):
            it.update(primary_state(), [gateway_node(LOCAL)])
            it.replication_succeeded()
    reasons = [r for r in caplog.messages if "through our local mesh gateways" in r]
    assert len(reasons) == 1


def test_gateways_render_as_addresses() -> None:
    assert str(Gateway(("2001:db8::1", 443))) == "[2001:db8::1]:443"
    assert str(Gateway(("gw.example", 443))) == "gw.example:443"


_ADDRESS = st.tuples(st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3"]), st.just(8443))
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("fallback"), st.lists(_ADDRESS, max_size=2)),
        st.tuples(st.just("local"), st.lists(_ADDRESS, max_size=2)),
        st.tuples(st.just("primary"), st.lists(_ADDRESS, max_size=2)),
        st.tuples(st.just("leader"), st.booleans()),
        st.tuples(st.just("replicated"), st.booleans()),
        st.tuples(st.just("dial"), st.booleans()),
    ),
    max_size=30,
)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(_STEPS, st.sampled_from(["dc1", "dc3"]))
def test_candidates_are_always_exactly_the_known_gateways(steps: list, target: str) -> None:  # type: ignore[type-arg]
    """Whatever happened, no gateway is lost or doubled, and failed ones are behind the others."""
    it = locator()
    local: list = []  # type: ignore[type-arg]
    primary: list = []  # type: ignore[type-arg]
    for now, (kind, value) in enumerate(steps, 1):
        match kind:
            case "fallback":
                it.set_fallback(value)
            case "local":
                local = [gateway_node(a) for a in value]
            case "primary":
                primary = [state("dc1", *(gateway_node(("10.9.9.9", 1), a) for a in value))]
            case "leader":
                it.set_leader(value)
            case "replicated":
                (it.replication_succeeded if value else it.replication_failed)()
            case _:
                for gateway in it.candidates(target, now)[:1]:
                    (it.worked if value else it.failed)(
                        gateway, target, *(() if value else (float(now),))
                    )
        it.update(primary, local)
        found = it.candidates(target, now)
        assert sorted(found, key=str) == sorted(it.known(target), key=str)
        assert len({(g.address, g.source) for g in found}) == len(found)
        failed = [it.is_failed(g, target, now) for g in found]
        assert failed == sorted(failed)
        if target != "dc1":
            assert all(g.source is Source.CATALOG for g in found)
