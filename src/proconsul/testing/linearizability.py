"""Was a history of reads, writes, CAS and deletes linearizable? A checker for per-key registers.

The search is Wing and Gong's with Lowe's memoisation, key by key (linearizability is compositional,
Herlihy and Wing), in the form of anishathalye/porcupine: take any operation that no unplaced one
precedes, go on while the register explains every result, and never look twice at the same set of
placed operations with the same value.

    history = [Operation("c1", "k", Kind.WRITE, b"1", None, 0.0, 0.1), ...]
    assert_linearizable(history)

Outcomes a recorder must tell apart:

- it happened: `returned` is the time of the answer;
- unknown (timeout, lost connection, "leadership lost"): `returned=None`. It may have happened at
  any time after `called`, or never. Each costs the search something, so drop unknown reads;
- certainly did not happen (refused before it was proposed): leave the operation out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from typing_extensions import override

STEPS_MAX = 5_000_000
"""Placements tried before the checker gives up: some ten seconds."""

_SHRINK_STEPS_MAX = 500_000
_SHRINK_MAX = 400
"""Operations up to which a failed history is reduced one operation at a time."""


class Kind(Enum):
    """What an operation does to its key."""

    WRITE = "write"
    READ = "read"
    CAS = "cas"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of one client. Times are in seconds of one clock that all clients share.

    What `argument` and `result` are depends on the kind (None as a value means: key absent):

    - WRITE: the value; no result.
    - READ: no argument; the value.
    - CAS: (expected value, new value); whether it succeeded. A CAS by index is recorded with the
      value that was read together with that index, 0 as None; values of a key must then be unique.
    - DELETE: neither.
    """

    client: str
    key: str
    kind: Kind
    argument: Hashable
    result: Hashable
    called: float
    returned: float | None
    """None: the outcome is unknown."""

    @override
    def __str__(self) -> str:
        end = "?" if self.returned is None else f"{self.returned:.6f}"
        what = {
            Kind.WRITE: f"write({self.argument!r})",
            Kind.READ: f"read() -> {self.result!r}",
            Kind.CAS: f"cas{self.argument!r} -> {self.result!r}",
            Kind.DELETE: "delete()",
        }[self.kind]
        return f"[{self.called:.6f} .. {end}] {self.client}: {what}"


class Outcome(Enum):
    """What the checker found."""

    LINEARIZABLE = "linearizable"
    VIOLATED = "not linearizable"
    UNDECIDED = "undecided"
    """The search was given up after `steps_max` placements."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result for a whole history; `key` and `window` name the first key that is not right."""

    outcome: Outcome
    key: str = ""
    window: tuple[Operation, ...] = ()
    """A small set of operations that already contradict each other."""
    steps: int = 0

    @override
    def __str__(self) -> str:
        if self.outcome is Outcome.LINEARIZABLE:
            return f"linearizable ({self.steps} steps)"
        if self.outcome is Outcome.UNDECIDED:
            return f"key {self.key!r}: undecided after {self.steps} steps"
        lines = [f"key {self.key!r} is not linearizable; these operations exclude each other:"]
        return "\n  ".join([*lines, *map(str, self.window)])


def check(history: Iterable[Operation], steps_max: int = STEPS_MAX) -> Verdict:
    """Check every key of a history that began with all keys absent."""
    by_key: defaultdict[str, list[Operation]] = defaultdict(list)
    for operation in history:
        by_key[operation.key].append(operation)
    spent, undecided = 0, ""
    for key, operations in by_key.items():
        ok, steps = _search(operations, steps_max)
        spent += steps
        if ok is False:
            return Verdict(Outcome.VIOLATED, key, _window(operations, steps_max), spent)
        if ok is None:
            undecided = undecided or key
    if undecided:
        return Verdict(Outcome.UNDECIDED, undecided, steps=spent)
    return Verdict(Outcome.LINEARIZABLE, steps=spent)


def assert_linearizable(history: Iterable[Operation], steps_max: int = STEPS_MAX) -> None:
    """Raise `AssertionError` with the explanation unless the history is linearizable."""
    verdict = check(history, steps_max)
    assert verdict.outcome is Outcome.LINEARIZABLE, str(verdict)


def _relevant(operations: Sequence[Operation]) -> list[Operation]:
    """Without unknown operations that could not help to explain anything.

    An unknown write whose value nobody saw can only explain why a CAS failed.
    """
    seen: set[Hashable] = set()
    for op in operations:
        if op.kind is Kind.CAS:
            if op.returned is not None and op.result is False:
                return [o for o in operations if o.returned is not None or o.kind is not Kind.READ]
            seen.add(_pair(op)[0])
        elif op.kind is Kind.READ and op.returned is not None:
            seen.add(op.result)
    return [op for op in operations if op.returned is not None or _written(op) in seen]


def _interesting(operations: Sequence[Operation]) -> set[Hashable]:
    """Values that make a difference to somebody; all others are alike."""
    reads = {op.result for op in operations if op.kind is Kind.READ}
    return reads | {_pair(op)[0] for op in operations if op.kind is Kind.CAS} | {None}


def _unify(op: Operation, interesting: set[Hashable]) -> Operation:
    """Write `_ANY` in place of a value that nobody looks for."""
    if op.kind is Kind.WRITE and op.argument not in interesting:
        return replace(op, argument=_ANY)
    if op.kind is Kind.CAS and _pair(op)[1] not in interesting:
        return replace(op, argument=(_pair(op)[0], _ANY))
    return op


def _predecessors(ops: Sequence[Operation], known: int) -> list[int]:
    """For each unknown operation the number of an equal earlier one, else -1.

    The earlier may do whatever the later could: no need to try the later before it.
    """
    latest: dict[Hashable, int] = {}
    result = []
    for i, op in enumerate(ops[known:]):
        result.append(latest.get((op.kind, op.argument), -1))
        latest[op.kind, op.argument] = i
    return result


_ANY = object()
_NOTHING = object()


def _written(op: Operation) -> Hashable:
    """The value an operation leaves if it succeeds."""
    match op.kind:
        case Kind.WRITE:
            return op.argument
        case Kind.CAS:
            return _pair(op)[1]
        case Kind.DELETE:
            return None
        case Kind.READ:
            return _NOTHING


def _pair(op: Operation) -> tuple[Hashable, Hashable]:
    """A CAS's expected and new value."""
    assert isinstance(op.argument, tuple), f"a CAS needs (expected, new): {op}"
    expected, new = op.argument
    return expected, new


def _step(op: Operation, value: Hashable) -> Hashable:
    """The value after `op`, `_NOTHING` if its result is not possible here."""
    match op.kind:
        case Kind.READ:
            return value if op.result == value else _NOTHING
        case Kind.CAS:
            expected, new = _pair(op)
            succeeds = expected == value
            if op.returned is not None and op.result is not succeeds:
                return _NOTHING
            if not succeeds:
                return _NOTHING if op.returned is None else value
            return new
        case _:
            return _written(op)


class _Events:
    """Calls and returns in order, as a doubly linked list that operations are lifted out of."""

    def __init__(self, ops: Sequence[Operation]) -> None:
        # At equal times calls come first: such operations count as concurrent
        events = [(op.called, 0, i) for i, op in enumerate(ops)]
        events += [(op.returned, 1, i) for i, op in enumerate(ops) if op.returned is not None]
        events.sort()
        size = len(events)
        self.end = size + 1
        self.op = [-1, *(i for _, _, i in events), -1]
        self.is_call = [False, *(kind == 0 for _, kind, _ in events), False]
        self.next = [*range(1, size + 2), 0]
        self.prev = [0, *range(size + 1)]
        self.calls, self.returns = [0] * len(ops), [0] * len(ops)
        for at, (_, kind, i) in enumerate(events, 1):
            (self.returns if kind else self.calls)[i] = at

    def lift(self, i: int) -> None:
        for at in (self.calls[i], self.returns[i]):
            if at:
                self.next[self.prev[at]] = self.next[at]
                self.prev[self.next[at]] = self.prev[at]

    def unlift(self, i: int) -> None:
        for at in (self.returns[i], self.calls[i]):
            if at:
                self.next[self.prev[at]] = at
                self.prev[self.next[at]] = at


def _search(operations: Sequence[Operation], steps_max: int) -> tuple[bool | None, int]:
    """(linearizable, steps) of one key's operations; None if the steps did not suffice."""
    interesting = _interesting(operations)
    ops = [_unify(op, interesting) for op in _relevant(operations)]
    ops.sort(key=lambda op: (op.returned is None, op.called))
    known = sum(op.returned is not None for op in ops)
    before = _predecessors(ops, known)
    events = _Events(ops)
    # Placed: all known ones before `base`, those in `mask` from there on, the unknown in `extra`
    base = mask = extra = steps = 0
    value: Hashable = None
    stack: list[tuple[int, int, int, int, Hashable]] = []
    visited: set[tuple[int, int, int, Hashable]] = set()
    at = events.next[0]
    while base < known:
        if events.is_call[at]:
            i = events.op[at]
            after = _step(ops[i], value)
            early = i >= known and before[i - known] >= 0 and not extra >> before[i - known] & 1
            if after is not _NOTHING and not early:
                steps += 1
                if steps > steps_max:
                    return None, steps
                new = _place(i, base, mask, extra, known)
                if (*new, after) not in visited:
                    visited.add((*new, after))
                    stack.append((i, base, mask, extra, value))
                    (base, mask, extra), value = new, after
                    events.lift(i)
                    at = events.next[0]
                    continue
            at = events.next[at]
            continue
        if not stack:
            return False, steps
        i, base, mask, extra, value = stack.pop()
        events.unlift(i)
        at = events.next[events.calls[i]]
    return True, steps


def _place(i: int, base: int, mask: int, extra: int, known: int) -> tuple[int, int, int]:
    if i >= known:
        return base, mask, extra | 1 << (i - known)
    mask |= 1 << (i - base)
    while mask & 1:
        mask, base = mask >> 1, base + 1
    return base, mask, extra


def _until(operations: Sequence[Operation], time: float) -> list[Operation]:
    """What was known of the history at `time`: what had not returned then is unknown."""
    return [
        op if op.returned is None or op.returned <= time else replace(op, returned=None)
        for op in operations
        if op.called <= time
    ]


def _window(operations: Sequence[Operation], steps_max: int) -> tuple[Operation, ...]:
    """Reduce a violation: the shortest prefix that shows it, without what does not matter."""
    budget = min(steps_max, _SHRINK_STEPS_MAX)

    def violated(ops: Sequence[Operation]) -> bool:
        nonlocal budget
        ok, steps = _search(ops, max(budget, 0))
        budget -= steps
        return ok is False

    times = sorted({op.returned for op in operations if op.returned is not None})
    low, high = 0, len(times) - 1
    while low < high:
        middle = (low + high) // 2
        if violated(_until(operations, times[middle])):
            high = middle
        else:
            low = middle + 1
    window = _until(operations, times[low])
    if not violated(window):  # the budget was too small to tell
        return tuple(operations[-_SHRINK_MAX:])
    if len(window) <= _SHRINK_MAX:
        # Those that only look go first, so that writes nobody saw can follow
        for op in sorted(window, key=lambda op: (op.kind is not Kind.READ, op.called)):
            rest = [other for other in window if other is not op]
            if not _is_source(op, rest) and violated(rest):
                window = rest
    return tuple(sorted(window, key=lambda op: op.called))


def _is_source(op: Operation, rest: Iterable[Operation]) -> bool:
    """Whether somebody saw what `op` wrote: without it, the rest would prove something else."""
    if op.kind not in {Kind.WRITE, Kind.CAS} or (op.kind is Kind.CAS and op.result is False):
        return False
    value = _written(op)
    return any(
        (other.kind is Kind.READ and other.result == value and other.returned is not None)
        or (other.kind is Kind.CAS and _pair(other)[0] == value)
        for other in rest
    )
