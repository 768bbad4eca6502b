"""Replication, anti-entropy and pruning against a made-up server."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from federation_support import gateway_node, run, state
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from proconsul.domain.catalog import CheckServiceNode
from proconsul.domain.federation import (
    FederationState,
    FederationStateRequest,
    IndexedFederationStates,
)
from proconsul.federation import rate
from proconsul.federation.anti_entropy import (
    FederationStateAntiEntropy,
    comparable,
    ordered,
    prune,
)
from proconsul.federation.locator import GatewayLocator
from proconsul.federation.rate import Backoff, RateLimiter, Signal
from proconsul.federation.replication import diff, federation_state_replicator
from proconsul.federation.replicator import Pace, Replicator
from proconsul.testing.waiting import until
from proconsul.util.errors import ProconsulError
from proconsul.util.metrics import Metrics

LOCAL = ("10.2.0.1", 8443)
QUICK = Pace(rounds_per_s=1000.0, applies_per_s=1000.0)


@dataclass
class FakeServer:
    """A leader whose Raft is a dictionary and whose primary is a list."""

    datacenter: str = "dc2"
    primary_datacenter: str = "dc1"
    own: dict[str, FederationState] = field(default_factory=dict)
    gateways: list[CheckServiceNode] = field(default_factory=list)
    remote: IndexedFederationStates = field(default_factory=IndexedFederationStates)
    error: Exception | None = None
    apply_error: Exception | None = None
    asked: list[int] = field(default_factory=list)
    applied: list[tuple[str, str]] = field(default_factory=list)
    sent: list[FederationStateRequest] = field(default_factory=list)
    known: set[str] = field(default_factory=set)
    primary_appeared: Signal = field(default_factory=Signal)
    changed: Signal = field(default_factory=Signal)
    next_index: int = 100

    def states(self) -> list[FederationState]:
        return [self.own[name] for name in sorted(self.own)]

    def local_gateways(self) -> list[CheckServiceNode]:
        return self.gateways

    async def wait_for_change(self, seen: Callable[[], object], timeout_s: float) -> None:
        await self.changed.wait(timeout_s)

    async def apply_locally(self, request: FederationStateRequest) -> None:
        if self.apply_error is not None:
            raise self.apply_error
        assert request.state is not None
        name = request.state.datacenter
        self.applied.append((request.op, name))
        self.next_index += 1
        if request.op == "delete":
            self.own.pop(name, None)
        else:
            self.own[name] = replace(request.state, modify_index=self.next_index)
        self.sent.append(request)

    async def fetch_from_primary(self, min_index: int) -> IndexedFederationStates:
        self.asked.append(min_index)
        if self.error is not None:
            raise self.error
        if min_index == self.remote.index:
            await self.changed.wait(60)
        return self.remote

    async def apply_in_primary(self, request: FederationStateRequest) -> None:
        if self.error is not None:
            raise self.error
        self.sent.append(request)

    def knows_datacenter(self, datacenter: str) -> bool:
        return datacenter in self.known

    def primary_has(self, index: int, *states: FederationState) -> None:
        self.remote = IndexedFederationStates(states=list(states), index=index)
        self.changed.fire()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate, "RETRY_S_MIN", 0.002)
    monkeypatch.setattr(rate, "RETRY_S_MAX", 0.01)


# -- the difference ------------------------------------------------------------------------------


def test_a_new_leader_does_not_rewrite_what_is_equal() -> None:
    theirs = [state("dc1", gateway_node(LOCAL), index=7), state("dc3", index=9)]
    ours = [replace(s, primary_modify_index=s.modify_index, modify_index=50) for s in theirs]
    todo = diff(ours, theirs, 0)
    assert (todo.updates, todo.deletions) == ([], [])


def test_a_restored_primary_with_the_same_index_is_noticed() -> None:
    ours = [replace(state("dc1", gateway_node(LOCAL)), primary_modify_index=7)]
    theirs = [state("dc1", gateway_node(("10.2.0.2", 1)), index=7)]
    assert diff(ours, theirs, 0).updates == theirs


_NAMES = st.sampled_from(["dc1", "dc2", "dc3", "dc4"])
_STATES = st.dictionaries(_NAMES, st.tuples(st.integers(1, 20), st.integers(0, 2)), max_size=4)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(_STATES, _STATES, st.integers(0, 25))
def test_applying_the_difference_makes_equal(
    before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]], last: int
) -> None:
    """From any copy, and what is equal already is not touched."""

    def make(name: str, index: int, gateways: int) -> FederationState:
        nodes = [gateway_node((f"10.0.0.{i}", 1), node=f"g{i}") for i in range(gateways)]
        return state(name, *nodes, index=index)

    # An index stands for one content, unless the primary was restored: then all is compared
    contents = {(name, index): gateways for name, (index, gateways) in before.items()}
    if last:
        after = {n: (i, contents.get((n, i), g)) for n, (i, g) in after.items()}
    theirs = [make(name, *values) for name, values in after.items()]
    ours = {
        name: replace(make(name, *values), primary_modify_index=values[0], modify_index=99)
        for name, values in before.items()
    }
    todo = diff(list(ours.values()), theirs, last)
    for gone in todo.deletions:
        del ours[gone.datacenter]
    for new in todo.updates:
        ours[new.datacenter] = replace(new, primary_modify_index=new.modify_index)
    again = diff(list(ours.values()), theirs, 0)
    assert (again.updates, again.deletions) == ([], [])
    assert {n: len(s.mesh_gateways or ()) for n, s in ours.items()} == {
        s.datacenter: len(s.mesh_gateways or ()) for s in theirs
    }


# -- the loop ------------------------------------------------------------------------------------


def replicate(server: FakeServer, test: Callable[[Replicator], Any]) -> Any:
    """Run the loop beside `test`."""

    async def main() -> None:
        locator = GatewayLocator("dc2", "dc1", random.Random(1))
        locator.set_leader(True)
        it = federation_state_replicator(server, locator, Metrics(), lambda: 1234.0, QUICK)
        it.locator = locator  # type: ignore[attr-defined]
        task = asyncio.create_task(it.run())
        try:
            await test(it)
        finally:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert not it.status.running

    run(main)


def test_upserts_deletions_and_the_index() -> None:
    server = FakeServer(own={"dc9": state("dc9")})

    async def test(it: Replicator) -> None:
        server.primary_has(5, state("dc1", gateway_node(LOCAL), index=5), state("dc2", index=3))
        await until(lambda: it.status.remote_index == 5)
        assert server.applied == [("delete", "dc9"), ("upsert", "dc1"), ("upsert", "dc2")]
        assert server.own["dc1"].primary_modify_index == 5
        assert it.status.running
        assert (it.status.last_success, it.status.lag) == (1234.0, 0)
        server.applied.clear()
        server.primary_has(8, state("dc1", gateway_node(LOCAL), index=8))
        await until(lambda: it.status.remote_index == 8)
        assert server.applied == [("delete", "dc2"), ("upsert", "dc1")]
        assert server.asked[:2] == [0, 5]

    replicate(server, test)


def test_an_index_that_moves_backwards_forces_a_full_sync() -> None:
    server = FakeServer()

    async def test(it: Replicator) -> None:
        server.primary_has(50, state("dc1", gateway_node(LOCAL), index=50))
        await until(lambda: it.status.remote_index == 50)
        server.primary_has(4, state("dc1", index=3), state("dc3", index=4))
        await until(lambda: it.status.remote_index == 4)
        assert sorted(server.own) == ["dc1", "dc3"]
        assert server.own["dc1"].mesh_gateways == []

    replicate(server, test)


def test_failures_count_and_reach_the_locator() -> None:
    server = FakeServer(error=ProconsulError("no way"))

    async def test(it: Replicator) -> None:
        locator: GatewayLocator = it.locator  # type: ignore[attr-defined]
        locator.update([], [gateway_node(LOCAL)])
        await until(lambda: it.status.failures_in_a_row >= 3)
        assert it.status.last_error == "no way"
        assert it.status.last_failure == 1234.0
        assert not locator.in_normal_state, "three failures: past the local gateways"
        server.error = None
        server.primary_has(2, state("dc1", index=2))
        await until(lambda: it.status.last_success)
        assert locator.in_normal_state
        assert (it.status.failures_in_a_row, it.status.last_error) == (0, "")
        assert it.status.failures >= 3

    replicate(server, test)


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("ACL not found", "ACL not found (the primary does not know acl.tokens.replication)"),
        (
            "Permission denied",
            "Permission denied (acl.tokens.replication is not set, or lacks a right in the primary)",
        ),
        ("No path to datacenter", "No path to datacenter"),
    ],
)
def test_a_failure_is_logged_once_and_names_the_token(
    reason: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = FakeServer(error=ProconsulError(reason))

    async def test(it: Replicator) -> None:
        await until(lambda: it.status.failures_in_a_row >= 3)

    replicate(server, test)
    told = [text for text in caplog.messages if text.startswith("replication error")]
    assert told == [f"replication error (will retry if still leader): {said}"]


def test_a_failed_commit_is_no_fault_of_the_gateways() -> None:
    server = FakeServer(apply_error=ProconsulError("not leader"))

    async def test(it: Replicator) -> None:
        locator: GatewayLocator = it.locator  # type: ignore[attr-defined]
        locator.update([], [gateway_node(LOCAL)])
        server.primary_has(2, state("dc1", index=2))
        await until(lambda: it.status.failures_in_a_row >= 5)
        assert locator.in_normal_state
        assert it.status.lag == 1
        server.apply_error = None
        await until(lambda: "dc1" in server.own)

    replicate(server, test)


# -- anti-entropy --------------------------------------------------------------------------------


def test_order_and_outputs_of_checks_are_no_change() -> None:
    one = gateway_node(("10.0.0.1", 1), node="a", output="ok 12:00")
    two = gateway_node(("10.0.0.2", 1), node="b")
    other = gateway_node(("10.0.0.1", 1), node="a", output="ok 12:01")
    assert ordered([two, one, two]) == [one, two]
    assert comparable([two, one]) == comparable([other, two])
    assert comparable([one]) != comparable([gateway_node(("10.0.0.1", 1), node="a", status="x")])
    assert comparable(None) == []


def publish(server: FakeServer, test: Callable[[], Any]) -> None:
    async def main() -> None:
        it = FederationStateAntiEntropy(server, lambda: 1_700_000_000_000_000_000)
        task = asyncio.create_task(it.run())
        try:
            await test()
        finally:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(main)


def test_a_secondary_publishes_in_the_primary_until_it_comes_back() -> None:
    server = FakeServer(gateways=[gateway_node(LOCAL)])

    async def test() -> None:
        await until(lambda: server.sent)
        (request,) = server.sent
        assert (request.datacenter, request.op) == ("dc1", "upsert")
        assert request.state is not None
        assert request.state.datacenter == "dc2"
        assert request.state.updated_at_ns == 1_700_000_000_000_000_000
        server.own["dc2"] = request.state
        server.changed.fire()
        await asyncio.sleep(0)
        server.gateways = [gateway_node(LOCAL), gateway_node(("10.2.0.2", 1), node="g2")]
        server.changed.fire()
        await until(lambda: len(server.sent) == 2)
        assert len(server.sent[1].state.mesh_gateways or ()) == 2  # type: ignore[union-attr]

    publish(server, test)


def test_a_failed_publication_is_repeated_at_once_when_the_primary_appears(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rate, "RETRY_S_MIN", 60.0)
    monkeypatch.setattr(rate, "RETRY_S_MAX", 60.0)
    server = FakeServer(gateways=[gateway_node(LOCAL)], error=ProconsulError("no way"))

    async def test() -> None:
        await asyncio.sleep(0.01)
        assert server.sent == []
        server.error = None
        server.primary_appeared.fire()
        await until(lambda: server.sent)

    publish(server, test)


def test_the_primary_commits_its_own_itself_and_an_empty_one_too() -> None:
    server = FakeServer(datacenter="dc1")

    async def test() -> None:
        await until(lambda: server.applied)
        assert server.applied == [("upsert", "dc1")]
        server.changed.fire()
        await asyncio.sleep(0.01)
        assert len(server.applied) == 1

    publish(server, test)


# -- pruning and pacing --------------------------------------------------------------------------


def test_pruning_drops_datacenters_that_left() -> None:
    async def main() -> None:
        server = FakeServer(
            datacenter="dc1", own={n: state(n) for n in ("dc1", "dc2", "dc3")}, known={"dc1", "dc2"}
        )
        assert await prune(server) == ["dc3"]
        assert sorted(server.own) == ["dc1", "dc2"]
        server.known = {"dc1"}
        server.apply_error = ProconsulError("not leader")
        assert await prune(server) == ["dc2"]
        assert sorted(server.own) == ["dc1", "dc2"], "kept, tried again next time"

    run(main)


def test_pace_of_rounds() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        limiter = RateLimiter(50.0, 3)
        started = loop.time()
        for _ in range(5):
            await limiter.wait()
        assert 0.035 < loop.time() - started < 0.5

    run(main)


def test_backoff_is_bounded_and_can_be_hurried() -> None:
    async def main() -> None:
        signal = Signal()
        backoff = Backoff(signal)
        loop = asyncio.get_running_loop()
        started = loop.time()
        for _ in range(5):
            await backoff.wait()
        assert loop.time() - started < 0.5
        assert await signal.wait(0.001) is False
        waiting = asyncio.create_task(signal.wait(60))
        await asyncio.sleep(0)
        signal.fire()
        assert await waiting is True

    run(main)
