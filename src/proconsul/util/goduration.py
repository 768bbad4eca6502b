"""Go's duration strings ("1h2m3.5s", "300ms"), as `time.ParseDuration` and `String` have them."""

from __future__ import annotations

import re
from decimal import Decimal

_UNIT_NS = {
    "ns": 1, "us": 1_000, "µs": 1_000, "μs": 1_000, "ms": 1_000_000, "s": 1_000_000_000,
    "m": 60_000_000_000, "h": 3_600_000_000_000,
}  # fmt: skip
_MAX_NS = (1 << 63) - 1
_PART = re.compile(r"([0-9]*)(\.[0-9]*)?([^0-9.]*)")


def parse_duration_ns(text: str) -> int:
    """Nanoseconds of a Go duration. Raises ValueError with Go's text.

    Digits beyond a nanosecond are cut off, as Go does.
    """
    rest = text
    sign = 1
    if rest[:1] in ("-", "+") and rest:
        sign = -1 if rest[0] == "-" else 1
        rest = rest[1:]
    if rest == "0":
        return 0
    if not rest or len(rest) > 128:
        raise ValueError(f'time: invalid duration "{text}"')
    total = 0
    while rest:
        match = _PART.match(rest)
        if match is None or not (match[1] or len(match[2] or "") > 1):
            raise ValueError(f'time: invalid duration "{text}"')
        whole, fraction, unit = match[1], (match[2] or ".")[1:], match[3]
        if not unit:
            raise ValueError(f'time: missing unit in duration "{text}"')
        if unit not in _UNIT_NS:
            raise ValueError(f'time: unknown unit "{unit}" in duration "{text}"')
        total += int(whole or "0") * _UNIT_NS[unit]
        if fraction:
            total += int(fraction) * _UNIT_NS[unit] // 10 ** len(fraction)
        if total > _MAX_NS:
            raise ValueError(f'time: invalid duration "{text}"')
        rest = rest[match.end() :]
    return sign * total


def parse_duration(text: str) -> float:
    """Seconds of a Go duration. Raises ValueError with Go's text."""
    return parse_duration_ns(text) / 1e9


def format_duration_ns(nanoseconds: int) -> str:
    """The text that Go's `Duration.String` gives: "1m30s", "300ms", "0s"."""
    if nanoseconds == 0:
        return "0s"
    sign = "-" if nanoseconds < 0 else ""
    rest = abs(nanoseconds)
    for unit in ("ns", "µs", "ms"):
        if rest < _UNIT_NS[unit] * 1000:
            return f"{sign}{_trim(Decimal(rest) / _UNIT_NS[unit])}{unit}"
    minutes, below = divmod(rest, _UNIT_NS["m"])
    hours, minutes = divmod(minutes, 60)
    seconds = f"{_trim(Decimal(below) / _UNIT_NS['s'])}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{seconds}"
    return f"{sign}{minutes}m{seconds}" if minutes else f"{sign}{seconds}"


def format_duration(seconds: float) -> str:
    """The same of seconds."""
    return format_duration_ns(round(seconds * 1e9))


def _trim(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
