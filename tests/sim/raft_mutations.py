"""Bugs planted into Raft's core, to show that the simulation finds them.

Each replaces a piece of one function's source. The piece must be there exactly once, so that a
mutation cannot silently become none when the core changes.
"""

from __future__ import annotations
import __future__

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from proconsul.core.raft import follower, log, machine, state
from proconsul.core.raft.leader import Leadership
from proconsul.core.raft.membership import Membership
from proconsul.core.raft.progress import Commitment
from proconsul.core.raft.replication import Replication


@dataclass(frozen=True)
class Mutation:
    """In `function` of `owner` (a class or a module), `old` becomes `new`."""

    name: str
    owner: Any
    function: str
    old: str
    new: str
    focus: tuple[str, ...] = ()
    """The faults that bring it to light, where any would take more runs than a test has."""


_RESTORES = ("restore", "isolate leader", "burst", "crash")

MUTATIONS = [
    Mutation(
        "an old term's entry is committed by count",
        Commitment, "_recalculate", "held >= self.start_index", "held",
        ("mute candidates", "burst", "usurp", "crash"),
    ),
    Mutation(
        "a vote is not persisted",
        state.State, "set_hard", "self.hard = self.out.hard_state = hard",
        "self.hard = hard; self.out.hard_state = HardState(hard.term)",
    ),
    Mutation(
        "the term is not persisted",
        state.State, "set_term", "self.set_hard(", "self.hard = (",
    ),
    Mutation(
        "two votes in one term",
        follower, "_grant", "return hard.candidate == request.candidate", "pass",
    ),
    Mutation(
        "a vote for a shorter log",
        follower, "_grant",
        "(log.last_term, log.last_index) > (request.last_log_term, request.last_log_index)",
        "log.last_term > request.last_log_term",
    ),
    Mutation(
        "a vote for a longer log of an older term",
        follower, "_grant",
        "(log.last_term, log.last_index) > (request.last_log_term, request.last_log_index)",
        "log.last_index > request.last_log_index",
        ("mute candidates", "burst", "isolate leader"),
    ),
    Mutation(
        "consistent reads are not confirmed (the leader trusts itself)",
        Leadership, "_check_verified", "number <= confirmed", "True", ("usurp", "isolate leader"),
    ),
    Mutation(
        "a verification is confirmed by an answer to an older heartbeat",
        Replication, "response", "max(progress.verified, call.verification)", "self.verification",
        ("slow leader",),
    ),
    Mutation(
        "the previous entry's term is not checked",
        follower, "_agrees", "state.log.term(index) == term", "True",
        ("mute candidates", "burst", "isolate leader"),
    ),
    Mutation(
        "a late append cuts off what came after it",
        follower, "_append", "and log.term(entry.index) == entry.term", "and False",
    ),
    Mutation(
        "a conflict is not cut off",
        follower, "_append", "log.term(entry.index) == entry.term", "True",
    ),
    Mutation(
        "entries are confirmed before they are durable",
        state.State, "reply", "wait = durable and", "wait = False and",
    ),
    Mutation(
        "the leader counts itself before its disk has it",
        Leadership, "synced", "self._state.local_id, index", "self._state.local_id, 1 << 60",
    ),
    Mutation(
        "a candidate asks for votes before its own is durable",
        machine.Raft, "_campaign", "durable=True", "durable=False",
    ),
    Mutation(
        "members are changed while a change is pending",
        Leadership, "change", "members.latest_index != members.committed_index", "False",
    ),
    Mutation(
        "members are changed before an entry of the term is committed",
        Leadership, "change", "state.commit_index < self._replication.commitment.start_index", "False",
    ),
    Mutation(
        "a change of members that was taken back stays",
        Membership, "truncated", "first > self.latest_index", "True",
    ),
    Mutation(
        "a received snapshot leaves a log that does not fit",
        state.State, "restore", "self.log.contains(meta.index, meta.term)", "True",
    ),
    Mutation(
        "entries of an earlier term's leader are taken",
        machine.Raft, "_on_append", "request.term < state.term", "False",
        ("usurp", "slow link", "weather", "burst"),
    ),
    Mutation(
        "nonvoters count for the quorum",
        Commitment, "configure", "voters(configuration)", "configuration.servers",
    ),
    Mutation(
        "a log in conflict with a snapshot is kept at boot",
        log.Log, "discard_needed", "self.last_index < self.snapshot_index", "False",
        ("crash", "isolate leader"),
    ),
    Mutation(
        "entries of another history than a snapshot from outside are acknowledged",
        follower, "_diverges", "entry.term > log.snapshot_term", "False", _RESTORES,
    ),
    Mutation(
        "a snapshot from outside that no quorum got stays for ever",
        machine.Raft, "snapshot_wanted", "meta.term > log.snapshot_term", "False", _RESTORES,
    ),
    Mutation(
        "a snapshot from outside before an entry of the term is committed",
        Leadership, "begin_restore",
        "state.commit_index < (start := self._replication.commitment.start_index)", "False",
        ("restore", "usurp", "isolate leader", "crash"),
    ),
    Mutation(
        "answers to appends end the sending of a snapshot",
        Replication, "_send_snapshot", "progress.restart(progress.next)", "pass", _RESTORES,
    ),
]  # fmt: skip


def plant(mutation: Mutation, patch: pytest.MonkeyPatch) -> None:
    """Put the bug in until `patch` is undone."""
    original: Callable[..., Any] = getattr(mutation.owner, mutation.function)
    source = textwrap.dedent(inspect.getsource(original))
    assert source.count(mutation.old) == 1, f"{mutation.name}: {mutation.old!r} is not there once"
    code = compile(
        source.replace(mutation.old, mutation.new),
        f"<{mutation.name}>",
        "exec",
        flags=__future__.annotations.compiler_flag,
    )
    names: dict[str, Any] = {}
    exec(code, original.__globals__, names)
    patch.setattr(mutation.owner, mutation.function, names[mutation.function])
