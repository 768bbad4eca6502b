"""Intentions: precedence, what matches, what is valid, the hash."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from typing_extensions import override

from proconsul.domain.acl import AllowAll
from proconsul.domain.base import decode, encode
from proconsul.domain.intention import (
    Intention,
    InvalidIntentionError,
    can_read,
    can_write,
    completed,
    decides,
    id_problem,
    matching,
    ordered,
    validate,
    with_hash,
)
from proconsul.domain.mesh_requests import IntentionMatchEntry


def ixn(source: str, to: str, action: str = "allow", **more: str) -> Intention:
    return completed(Intention(source_name=source, destination_name=to, action=action, **more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("source", "to", "precedence"),
    [("a", "b", 9), ("*", "b", 8), ("a", "*", 6), ("*", "*", 5)],
)
def test_precedence(source: str, to: str, precedence: int) -> None:
    assert ixn(source, to).precedence == precedence


def test_precedence_with_wildcard_namespaces() -> None:
    everything = ixn("*", "*", source_namespace="*", destination_namespace="*")
    assert everything.precedence == 1
    assert ixn("a", "*", destination_namespace="*").precedence == 3
    assert ixn("*", "b", source_namespace="*").precedence == 7


def test_order_and_matches() -> None:
    many = ordered([ixn("*", "*"), ixn("b", "db"), ixn("*", "db"), ixn("a", "db"), ixn("a", "*")])
    names = [(one.source_name, one.destination_name) for one in many]
    assert names == [("a", "db"), ("b", "db"), ("*", "db"), ("a", "*"), ("*", "*")]
    found = matching(many, "destination", IntentionMatchEntry("default", "db"))
    assert found == many
    found = matching(many, "source", IntentionMatchEntry("default", "a"))
    assert [one.destination_name for one in found] == ["db", "db", "*", "*"]
    assert matching(many, "source", IntentionMatchEntry("other", "a")) == []
    found = matching(many, "source", IntentionMatchEntry("default", "*"))
    assert {one.source_name for one in found} == {"*"}


def test_decisions() -> None:
    assert decides(ixn("a", "b"), "default", "a") is True
    assert decides(ixn("*", "b", "deny"), "default", "a") is False
    assert decides(ixn("x", "b"), "default", "a") is None
    assert decides(ixn("a", "b", source_namespace="n"), "default", "a") is None


@pytest.mark.parametrize(
    ("one", "problem"),
    [
        (ixn("", "b"), "SourceName must be set"),
        (ixn("a*", "b"), "SourceName: wildcard character '*' cannot be used with partial values"),
        (ixn("a", "b", destination_namespace="*"),
         "DestinationName: exact value cannot follow wildcard namespace"),
        (ixn("a", "b", "maybe"), "Action must be set to 'allow' or 'deny'"),
        (ixn("a", "b", source_type="x"), "SourceType must be set to 'consul'"),
        (ixn("a", "b", description="x" * 513), "Description exceeds maximum length 512"),
        (replace(ixn("a", "b"), meta={"k": "v" * 513}),
         'Meta value for key "k" exceeds maximum length 512'),
    ],
)  # fmt: skip
def test_what_must_not_be_written(one: Intention, problem: str) -> None:
    with pytest.raises(InvalidIntentionError) as caught:
        validate(one)
    assert str(caught.value) == f"1 error occurred:\n\t* {problem}\n\n"
    validate(ixn("a", "*", "deny"))


def test_the_hash_is_of_the_contents() -> None:
    one = with_hash(replace(ixn("a", "b"), id="x", meta={"b": "2", "a": "1"}))
    assert len(one.hash) == 32
    assert with_hash(replace(one, meta={"a": "1", "b": "2"}, modify_index=9)).hash == one.hash
    assert with_hash(one.updated(5)).hash == one.hash
    for change in ({"action": "deny"}, {"id": "y"}, {"meta": {"a": "1"}}, {"description": "d"}):
        assert with_hash(replace(one, **change)).hash != one.hash


def test_times_and_the_wire() -> None:
    one = with_hash(ixn("a", "b").created(1_700_000_000_000_000_000).updated(1_800_000_000 * 10**9))
    again = decode(encode(one), Intention)
    assert again.created_at_ns == 1_700_000_000_000_000_000
    assert again.updated_at_ns == 1_800_000_000 * 10**9
    assert again.hash == one.hash


class Limited(AllowAll):
    def __init__(self, names: str) -> None:
        self._names = names.split()

    @override
    def intention_read(self, service: str) -> bool:
        return service in self._names

    @override
    def intention_write(self, service: str) -> bool:
        return service in self._names


def test_rights() -> None:
    assert can_read(ixn("a", "b"), Limited("a"))
    assert can_read(ixn("a", "b"), Limited("b"))
    assert not can_read(ixn("a", "b"), Limited("c"))
    assert can_write(Intention(), AllowAll()), "without ACLs validation alone refuses"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x", "UUID must be 36 characters"),
        ("z" * 8 + "-0000-0000-0000-000000000000", "Invalid UUID"),
        ("0" * 28 + "-" + "0" * 7, "Input (without hyphens) must be even length"),
        ("-" * 8 + "0" * 28, 'UUID should have maximum of 4 "-"; got 8'),
    ],
)
def test_ids_that_cannot_be_looked_up(text: str, problem: str) -> None:
    assert problem in (id_problem(text) or "")
    assert id_problem("00000000-0000-0000-0000-000000000000") is None
