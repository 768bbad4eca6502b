"""The checker of histories is checked: known cases, and all orders by brute force."""

from __future__ import annotations

from collections.abc import Hashable
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proconsul.testing.linearizability import (
    Kind,
    Operation,
    Outcome,
    assert_linearizable,
    check,
)


def _write(value: Hashable, called: float, returned: float | None) -> Operation:
    return Operation("w", "k", Kind.WRITE, value, None, called, returned)


def _read(value: Hashable, called: float, returned: float | None) -> Operation:
    return Operation("r", "k", Kind.READ, None, value, called, returned)


def _cas(old: Hashable, new: Hashable, ok: bool, called: float, end: float | None) -> Operation:
    return Operation("c", "k", Kind.CAS, (old, new), ok, called, end)


def _delete(called: float, returned: float | None) -> Operation:
    return Operation("d", "k", Kind.DELETE, None, None, called, returned)


GOOD = {
    "empty": [],
    "absent at first": [_read(None, 0, 1)],
    "concurrent write seen": [_write(1, 0, 10), _read(1, 1, 2), _read(1, 3, 4)],
    "concurrent write not seen yet": [_write(1, 0, 10), _read(None, 1, 2), _read(1, 3, 4)],
    "two writers, either order": [_write(1, 0, 5), _write(2, 1, 4), _read(1, 6, 7)],
    "unknown write seen late": [_write(1, 0, None), _read(None, 5, 6), _read(1, 8, 9)],
    "unknown write never seen": [_write(1, 0, None), _read(None, 5, 6)],
    "unknown delete happened": [_write(1, 0, 1), _delete(2, None), _read(None, 3, 4)],
    "unknown read says nothing": [_write(1, 0, 1), _read(7, 2, None)],
    "cas chain": [_cas(None, 1, True, 0, 1), _cas(1, 2, True, 2, 3), _cas(1, 3, False, 4, 5)],
    "cas explained by an unseen unknown write": [
        _write(1, 0, 1),
        _write(9, 2, None),
        _cas(1, 2, False, 3, 4),
    ],
    "unknown cas happened": [_write(1, 0, 1), _cas(1, 2, True, 2, None), _read(2, 3, 4)],
    "touching ends count as concurrent": [_write(1, 0, 1), _read(None, 1, 2)],
}
BAD = {
    "never written": [_read(1, 0, 1)],
    "stale read": [_write(1, 0, 1), _write(2, 2, 3), _read(1, 4, 5)],
    "lost write": [_write(1, 0, 1), _read(None, 2, 3)],
    "value goes back": [_write(1, 0, 1), _write(2, 2, 9), _read(2, 3, 4), _read(1, 5, 6)],
    "unknown write comes and goes": [
        _write(1, 0, None),
        _read(1, 1, 2),
        _read(None, 3, 4),
    ],
    "seen before it was called": [_read(1, 0, 1), _write(1, 2, None)],
    "two cas from one value": [_cas(None, 1, True, 0, 5), _cas(None, 2, True, 0, 5)],
    "cas refused without cause": [_write(1, 0, 1), _cas(1, 2, False, 2, 3)],
    "unknown cas without its value": [_cas(5, 2, True, 0, None), _read(2, 3, 4)],
}


@pytest.mark.parametrize("name", GOOD)
def test_good_histories(name: str) -> None:
    assert_linearizable(GOOD[name])


@pytest.mark.parametrize("name", BAD)
def test_bad_histories(name: str) -> None:
    assert check(BAD[name]).outcome is Outcome.VIOLATED
    with pytest.raises(AssertionError, match="key 'k' is not linearizable"):
        assert_linearizable(BAD[name])


def test_the_window_holds_what_matters_alone() -> None:
    noise = [op for i in range(50) for op in (_write(i, i, i + 0.1), _read(i, i + 0.2, i + 0.3))]
    late = [_read(60, 63, 64), _write(100, 70, 71)]
    fault = [_write(59, 58, 59), _write(60, 60, 61), _read(59, 62, 62.5)]
    verdict = check([*noise, *fault, *late])
    assert verdict.key == "k"
    assert list(verdict.window) == fault
    assert "[62.000000 .. 62.500000] r: read() -> 59" in str(verdict)


def test_keys_are_registers_of_their_own() -> None:
    other = Operation("w", "other", Kind.WRITE, 1, None, 0, 1)
    assert_linearizable([other, _read(None, 2, 3)])


def test_the_search_is_bounded() -> None:
    writes = [_write(i, 0, 100) for i in range(30)]
    reads = [_read(i, 1, 99) for i in range(30)]
    verdict = check([*writes, *reads, _read(-1, 101, 102)], steps_max=1000)
    assert verdict.outcome is Outcome.UNDECIDED


def test_a_long_history_with_many_unknown_writes_is_quick() -> None:
    history: list[Operation] = []
    for i in range(5000):
        history.append(_write(i, 2 * i, 2 * i + 1.5 if i % 10 else None))
        if i % 10:
            history.append(_read(i, 2 * i + 1.6, 2 * i + 1.7))
    verdict = check(history)
    assert verdict.outcome is Outcome.LINEARIZABLE
    assert verdict.steps < 20_000


VALUES = st.sampled_from([None, 1, 2])


@st.composite
def _operation(draw: st.DrawFn) -> Operation:
    called = draw(st.integers(0, 8))
    returned = draw(st.none() | st.integers(0, 5).map(lambda length: called + length))
    match draw(st.sampled_from(list(Kind))):
        case Kind.WRITE:
            return _write(draw(st.sampled_from([1, 2])), called, returned)
        case Kind.READ:
            return _read(draw(VALUES), called, returned)
        case Kind.DELETE:
            return _delete(called, returned)
        case Kind.CAS:
            return _cas(draw(VALUES), draw(st.sampled_from([1, 2])), draw(st.booleans()),
                        called, returned)  # fmt: skip


def _runs(order: tuple[Operation, ...]) -> bool:
    value: Hashable = None
    for op in order:
        known = op.returned is not None
        match op.kind:
            case Kind.READ:
                if known and op.result != value:
                    return False
            case Kind.WRITE:
                value = op.argument
            case Kind.DELETE:
                value = None
            case Kind.CAS:
                assert isinstance(op.argument, tuple)
                ok = op.argument[0] == value
                if known and ok is not op.result:
                    return False
                value = op.argument[1] if ok else value
    return True


def _brute_force(ops: list[Operation]) -> bool:
    """All orders that respect real time; what is unknown comes anywhere, also never."""
    unknown = [op for op in ops if op.returned is None]
    for chosen in range(1 << len(unknown)):
        dropped = {id(op) for i, op in enumerate(unknown) if not chosen >> i & 1}
        kept = [op for op in ops if id(op) not in dropped]
        for order in permutations(kept):
            if _runs(order) and not any(
                later.returned is not None and later.returned < earlier.called
                for i, earlier in enumerate(order)
                for later in order[i + 1 :]
            ):
                return True
    return False


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.lists(_operation(), max_size=5))
def test_agrees_with_brute_force(ops: list[Operation]) -> None:
    verdict = check(ops)
    assert (verdict.outcome is Outcome.LINEARIZABLE) is _brute_force(ops)
    if verdict.outcome is Outcome.VIOLATED:
        assert not _brute_force(list(verdict.window))
