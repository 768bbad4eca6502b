"""A view of a table is what the table was, whatever happens to it while it is read."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from proconsul.state import sorted_keys
from proconsul.state.frozen import Views
from proconsul.state.sorted_keys import SortedKeys

_KEYS = st.integers(0, 60).map(lambda number: f"k{number:02}")
_Reading = tuple[Iterator[tuple[str, str]], list[tuple[str, str]], list[tuple[str, str]]]
_STEPS = st.lists(st.tuples(st.sampled_from(["put", "remove", "read", "open"]), _KEYS), max_size=80)


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.sets(_KEYS), _STEPS, st.sampled_from([1, 3, 512]))
def test_views_show_one_moment(start: set[str], steps: list[tuple[str, str]], chunk: int) -> None:
    chunk, sorted_keys._CHUNK = sorted_keys._CHUNK, chunk
    try:
        rows = {key: f"{key} at the start" for key in start}
        keys = SortedKeys(start)
        views = Views(rows, keys)
        reading: list[_Reading] = []
        for number, (what, key) in enumerate([("open", ""), *steps]):
            match what:
                case "open":
                    reading.append((iter(views.open()), sorted(rows.items()), []))
                case "read":
                    for view, _, found in reading:
                        found.extend([row for row in [next(view, None)] if row is not None])
                case "put":
                    views.keep(key)
                    rows[key] = f"{key} at {number}"
                    keys.add(key)
                case _:
                    if key not in rows:
                        continue
                    views.keep(key)
                    del rows[key]
                    keys.discard(key)
        for view, expected, found in reading:
            assert [*found, *view] == expected
        reading.clear()
        del view
        assert not views
    finally:
        sorted_keys._CHUNK = chunk


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.lists(st.lists(_KEYS, max_size=9), max_size=6), _KEYS, st.sampled_from([1, 3, 512]))
def test_sorted_keys_take_many_at_once(batches: list[list[str]], key: str, chunk: int) -> None:
    chunk, sorted_keys._CHUNK = sorted_keys._CHUNK, chunk
    try:
        keys = SortedKeys()
        for batch in batches:
            keys.extend(list(batch))
        everything = sorted({one for batch in batches for one in batch})
        assert list(keys) == everything
        assert len(keys) == len(everything)
        at, walked = None, []
        while some := keys.after(at):
            walked += some
            at = some[-1]
        assert walked == everything
        assert keys.take_to(key) == [one for one in everything if one <= key]
        assert list(keys) == [one for one in everything if one > key]
        assert len(keys) == len(list(keys))
    finally:
        sorted_keys._CHUNK = chunk
