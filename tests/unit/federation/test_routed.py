"""A datacenter is spoken to directly only if it has no gateways and spoke so itself."""

from __future__ import annotations

import random

from proconsul.domain.catalog import CheckServiceNode, Node, NodeService
from proconsul.domain.federation import FederationState
from proconsul.federation.locator import GatewayLocator
from proconsul.federation.routed import HOSTS_MAX, RoutedDatacenters

MEMBERS = (("dc1", "192.0.2.1"), ("dc2", "192.0.2.2"), ("dc3", "192.0.2.3"))


def routed(*with_gateways: str) -> RoutedDatacenters:
    locator = GatewayLocator("dc1", "dc1", random.Random(1))
    gateway = CheckServiceNode(Node("g", address="192.0.2.9"), NodeService(service="mesh-gateway"))
    states = [
        FederationState(name, mesh_gateways=[gateway] if name in with_gateways else [])
        for name, _ in MEMBERS
    ]
    locator.update(states)
    return RoutedDatacenters(locator, lambda: MEMBERS)


def test_only_who_spoke_directly_is_answered_so() -> None:
    decide = routed()
    assert not decide("dc3")
    decide.heard("192.0.2.3")
    assert decide("dc3")
    assert not decide("dc2")


def test_who_has_gateways_is_reached_through_them_whatever_else_it_does() -> None:
    decide = routed("dc2")
    decide.heard("192.0.2.2")
    assert not decide("dc2")


def test_who_is_heard_before_it_is_a_member_counts_once_it_is() -> None:
    decide = routed()
    decide.heard("192.0.2.3")
    assert not decide("dc4")
    assert decide("dc3")


def test_strangers_do_not_fill_the_memory() -> None:
    decide = routed()
    for number in range(2 * HOSTS_MAX):
        decide.heard(f"host {number}")
    decide.heard("192.0.2.3")
    assert decide("dc3")
