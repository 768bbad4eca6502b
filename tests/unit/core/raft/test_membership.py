"""Membership changes follow hashicorp/raft's `nextConfiguration`."""

from __future__ import annotations

import pytest

from proconsul.core.raft.membership import Change, changed, quorum
from proconsul.core.raft.types import ConfigurationError
from proconsul.wire.raft import Configuration, Server, Suffrage

VOTER, NONVOTER = Suffrage.VOTER, Suffrage.NONVOTER
TWO = Configuration((Server(VOTER, "a", "1"), Server(NONVOTER, "b", "2")))


@pytest.mark.parametrize(
    ("change", "server_id", "address", "expected"),
    [
        (Change.ADD_VOTER, "c", "3", [(VOTER, "a", "1"), (NONVOTER, "b", "2"), (VOTER, "c", "3")]),
        (Change.ADD_VOTER, "b", "9", [(VOTER, "a", "1"), (VOTER, "b", "9")]),
        (Change.ADD_NONVOTER, "a", "9", [(VOTER, "a", "9"), (NONVOTER, "b", "2")]),
        (Change.DEMOTE_VOTER, "x", "", [(VOTER, "a", "1"), (NONVOTER, "b", "2")]),
        (Change.REMOVE_SERVER, "b", "", [(VOTER, "a", "1")]),
    ],
)
def test_changes(
    change: Change, server_id: str, address: str, expected: list[tuple[Suffrage, str, str]]
) -> None:
    result = changed(TWO, change, server_id, address)
    assert [(s.suffrage, s.id, s.address) for s in result.servers] == expected


@pytest.mark.parametrize(
    ("change", "server_id", "address"),
    [
        (Change.REMOVE_SERVER, "a", ""),
        (Change.DEMOTE_VOTER, "a", ""),
        (Change.ADD_VOTER, "c", "1"),
        (Change.ADD_VOTER, "", "4"),
        (Change.ADD_VOTER, "c", ""),
    ],
)
def test_unsound_changes_are_refused(change: Change, server_id: str, address: str) -> None:
    with pytest.raises(ConfigurationError):
        changed(TWO, change, server_id, address)


def test_nonvoters_do_not_count_towards_the_quorum() -> None:
    assert quorum(TWO) == 1
