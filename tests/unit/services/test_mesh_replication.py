"""What a secondary's leader copies of config entries and intentions, and how."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from proconsul.domain import intention as ixn
from proconsul.domain.config_entries import ConfigEntry
from proconsul.domain.config_entry_forms import from_map
from proconsul.domain.config_entry_messages import ConfigEntryRequest
from proconsul.domain.config_entry_rules import normalize
from proconsul.domain.messages import MessageType, encode_command
from proconsul.domain.options import DCSpecificRequest
from proconsul.federation.rate import RateLimiter
from proconsul.federation.replicator import Progress, ReplicationStatus
from proconsul.services.server import mesh_bootstrap, mesh_replication
from proconsul.services.server.mesh_replication import (
    ConfigEntryReplica,
    IntentionReplica,
    batches,
    diff,
    in_order,
    intentions_datacenter,
    replicators,
)
from proconsul.state.errors import StateError
from proconsul.state.fsm import Fsm
from proconsul.util.errors import ProconsulError


def entry(kind: str, name: str, **fields: Any) -> ConfigEntry:
    return normalize(from_map({"Kind": kind, "Name": name, **fields}))


def intention(number: int, **fields: Any) -> ixn.Intention:
    one = ixn.Intention(id=f"{number:08}-0000-4000-8000-000000000000", source_name=f"s{number}",
                        destination_name="d", action="allow", **fields)  # fmt: skip
    return ixn.with_hash(ixn.completed(one))


@dataclass
class Secondary:
    """A leader with a real state and a made-up primary."""

    primary: bool = False
    connect: bool = True
    answers: dict[str, Any] = field(default_factory=dict)
    entries: tuple[ConfigEntry, ...] = ()

    def __post_init__(self) -> None:
        self.fsm, self.index = Fsm(), 10
        self.datacenter = "dc2"
        self.asked: list[tuple[str, DCSpecificRequest]] = []
        self.applied: list[tuple[MessageType, Any]] = []
        self.config = SimpleNamespace(
            identity=SimpleNamespace(primary_datacenter="dc1", is_primary=self.primary),
            connect_enabled=self.connect,
            config_entries=self.entries,
            replication_token=lambda: "secret",
        )
        self.primary_appeared = self.metrics = None

    @property
    def store(self) -> Any:
        return self.fsm.store

    async def call(self, method: str, request: DCSpecificRequest) -> Any:
        self.asked.append((method, request))
        return self.answers[method]

    async def apply(self, type_: MessageType, request: Any) -> Any:
        self.applied.append((type_, request))
        self.index += 1
        result = self.fsm.apply(self.index, encode_command(type_, request))
        if isinstance(result, StateError):
            raise result
        return result


def commit(replica: Any, rows: Any) -> ReplicationStatus:
    status = ReplicationStatus()
    asyncio.run(replica.commit(rows, 0, Progress(status, RateLimiter(1000.0, 100))))
    return status


def test_only_what_differs_is_written() -> None:
    ours = [entry("service-defaults", "a"), entry("service-defaults", "b", Protocol="tcp")]
    theirs = [
        replace(entry("service-defaults", "a"), modify_index=99),
        entry("service-defaults", "b", Protocol="http"),
        entry("service-defaults", "c"),
    ]
    gone, changed = diff(ours, theirs, lambda one: (one.kind, one.name))
    assert (gone, [one.name for one in changed]) == ([], ["b", "c"])
    gone, changed = diff(theirs, ours[:1], lambda one: (one.kind, one.name))
    assert ([one.name for one in gone], changed) == (["b", "c"], [])


def test_entries_come_in_an_order_in_which_each_is_valid() -> None:
    rows = [
        entry("ingress-gateway", "in", Listeners=[
            {"Port": 1, "Protocol": "http", "Services": [{"Name": "web"}]}]),
        entry("service-router", "web", Routes=[{"Destination": {"ServiceSubset": "v1"}}]),
        entry("service-splitter", "web", Splits=[{"Weight": 100, "ServiceSubset": "v1"}]),
        entry("service-resolver", "web", Subsets={"v1": {}}),
        entry("service-defaults", "web", Protocol="http"),
    ]  # fmt: skip
    server: Any = Secondary()
    status = commit(ConfigEntryReplica(server), rows)
    kinds = [request.entry.kind for _, request in server.applied]
    assert kinds == [one.kind for one in in_order(rows)]
    assert kinds[:3] == ["service-defaults", "service-resolver", "service-splitter"]
    assert status.lag == 0
    server.applied.clear()
    commit(ConfigEntryReplica(server), rows)
    assert server.applied == [], "a new leader rewrites nothing"
    commit(ConfigEntryReplica(server), rows[4:])
    assert [(r.op, r.entry.kind) for _, r in server.applied] == [
        ("delete", "service-router"), ("delete", "ingress-gateway"),
        ("delete", "service-splitter"), ("delete", "service-resolver"),
    ]  # fmt: skip


def test_what_does_not_fit_yet_comes_again_after_the_rest() -> None:
    """A subset goes, and the splitter that led there leads elsewhere: the splitter must be first."""
    before = [
        entry("service-defaults", "web", Protocol="http"),
        entry("service-resolver", "web", Subsets={"v1": {}}),
        entry("service-splitter", "web", Splits=[{"Weight": 100, "ServiceSubset": "v1"}]),
    ]
    after = [
        before[0],
        entry("service-resolver", "web", Subsets={"v2": {}}, DefaultSubset="v2"),
        entry("service-splitter", "web", Splits=[{"Weight": 100, "Service": "web"}]),
    ]
    server: Any = Secondary()
    commit(ConfigEntryReplica(server), before)
    assert commit(ConfigEntryReplica(server), after).lag == 0
    kinds = [request.entry.kind for _, request in server.applied[3:]]
    assert kinds == ["service-resolver", "service-splitter", "service-resolver"]


def test_what_never_fits_is_an_error() -> None:
    server: Any = Secondary()
    wrong = entry("service-splitter", "web", Splits=[{"Weight": 100}])
    with pytest.raises(StateError, match="does not permit advanced routing"):
        commit(ConfigEntryReplica(server), [wrong, entry("service-defaults", "other")])
    assert [one.name for one in server.store.mesh.config_entries().value] == ["other"]


def test_the_primary_is_asked_with_the_replication_token() -> None:
    answers = {
        "ConfigEntry.ListAll": SimpleNamespace(index=7, entries=()),
        "Intention.List": ixn.IndexedIntentions(index=8),
    }
    server: Any = Secondary(answers=answers)
    assert asyncio.run(ConfigEntryReplica(server).fetch(5)) == (7, ())
    assert asyncio.run(IntentionReplica(server).fetch(6)) == (8, ())
    for (_, request), index in zip(server.asked, (5, 6), strict=True):
        assert (request.datacenter, request.token, request.min_query_index) == (
            "dc1",
            "secret",
            index,
        )
        assert request.allow_stale


def test_intentions_are_copied_by_their_hashes() -> None:
    server: Any = Secondary()
    first, second = intention(1), intention(2)
    assert commit(IntentionReplica(server), [first, second]).lag == 0
    assert [type_ for type_, _ in server.applied] == [MessageType.TXN]
    changed = ixn.with_hash(replace(first, description="new"))
    commit(IntentionReplica(server), [changed])
    (one,) = server.store.mesh.intentions().value
    assert (one.id, one.description, one.hash) == (first.id, "new", changed.hash)
    count = len(server.applied)
    commit(IntentionReplica(server), [changed])
    assert len(server.applied) == count


def test_intentions_that_change_places_are_followed() -> None:
    """None of the changes would be taken before the other."""
    server: Any = Secondary()
    first, second, third = before = [intention(n) for n in (1, 2, 3)]
    commit(IntentionReplica(server), before)
    after = [
        ixn.with_hash(replace(first, source_name=second.source_name)),
        ixn.with_hash(replace(second, source_name=first.source_name.upper())),
        third,
    ]
    for order in (after, after[::-1]):
        assert commit(IntentionReplica(server), order).lag == 0
        found = {one.id: one.source_name for one in server.store.mesh.intentions().value}
        assert found == {one.id: one.source_name for one in after}
        commit(IntentionReplica(server), before)
    count = len(server.applied)
    commit(IntentionReplica(server), before)
    assert len(server.applied) == count


def test_a_refused_transaction_is_an_error() -> None:
    server: Any = Secondary()
    twice = [intention(1), replace(intention(1), id=intention(2).id)]
    with pytest.raises(ProconsulError, match="duplicate intention found"):
        commit(IntentionReplica(server), twice)
    assert server.store.mesh.intentions().value == []


def test_transactions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesh_replication, "INTENTIONS_BATCH_BYTES", 800)
    many = [("update", intention(n)) for n in range(7)]
    sizes = [len(batch) for batch in batches(many)]
    assert sum(sizes) == 7
    assert max(sizes) < 7


@pytest.mark.parametrize(
    ("primary", "connect", "names", "writes_to"),
    [
        (True, True, [], ""),
        (False, True, ["config-entry-replication", "intention-replication"], "dc1"),
        (False, False, ["config-entry-replication"], ""),
    ],
)
def test_who_copies_what(primary: bool, connect: bool, names: list[str], writes_to: str) -> None:
    server: Any = Secondary(primary=primary, connect=connect)
    assert sorted(replicators(server)) == names
    assert intentions_datacenter(server) == writes_to


def test_a_new_primary_begins_with_its_entries() -> None:
    """Once, and nobody's change is undone."""
    entries = (entry("service-defaults", "a", Protocol="http"), entry("service-defaults", "b"))
    server: Any = Secondary(primary=True, entries=entries)
    changed = entry("service-defaults", "a", Protocol="grpc")
    asyncio.run(
        server.apply(MessageType.CONFIG_ENTRY, ConfigEntryRequest("upsert", "dc1", changed))
    )
    asyncio.run(mesh_bootstrap.bootstrap_config_entries(server))
    rows = server.store.mesh.config_entries().value
    assert [(one.name, one.protocol) for one in rows] == [("a", "grpc"), ("b", "")]
    other: Any = Secondary(entries=entries)
    asyncio.run(mesh_bootstrap.bootstrap_config_entries(other))
    assert other.applied == [], "secondaries copy the primary's"
