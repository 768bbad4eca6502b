"""Go durations: what is written is read back; nothing but ValueError escapes."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proconsul.util.goduration import (
    format_duration,
    format_duration_ns,
    parse_duration,
    parse_duration_ns,
)

_SETTINGS = settings(derandomize=True, max_examples=200, deadline=None)


@_SETTINGS
@given(st.integers(-(1 << 63) + 1, (1 << 63) - 1))
def test_round_trip(nanoseconds: int) -> None:
    assert parse_duration_ns(format_duration_ns(nanoseconds)) == nanoseconds


@_SETTINGS
@given(st.text(alphabet="0123456789.+-hmsnuµ x", max_size=20))
def test_only_value_errors(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(parse_duration(text), float)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("5s", 5), ("1h2m3.5s", 3723.5), ("-1.5h", -5400), (".5s", 0.5), ("300ms", 0.3)],
)
def test_known(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "s", ".s", "1x", "-", "9999999999h", "1s 2s"])
def test_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^time: "):
        parse_duration(text)


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1500, "1.5µs"),
        (100_000_000, "100ms"),
        (1_500_000_000, "1.5s"),
        (-90_000_000_000, "-1m30s"),
        (3_600_000_000_000, "1h0m0s"),
    ],
)
def test_format(nanoseconds: int, text: str) -> None:
    assert format_duration_ns(nanoseconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(48.533e-6, "48.533µs"), (0.0125, "12.5ms"), (1.5, "1.5s"), (60.25, "1m0.25s"), (0, "0s")],
)
def test_format_of_seconds(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
