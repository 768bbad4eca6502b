"""Go's `time.Time` as it appears on Consul's wires and in its JSON.

A `time.Time` in msgpack is the 15 bytes of `Time.MarshalBinary` (version 1: big-endian seconds
since year 1, nanoseconds, zone offset in minutes with -1 for UTC), written as raw. Here it is an
integer of nanoseconds since the Unix epoch; Go's zero time is `ZERO_TIME_NS`. Durations
are nanoseconds (int); `util.goduration` has their text.
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta

from proconsul.util.errors import WireError

_NS = 1_000_000_000
_UNIX_TO_YEAR_1_S = 62_135_596_800
ZERO_TIME_NS = -_UNIX_TO_YEAR_1_S * _NS
"""Go's zero `time.Time`: 0001-01-01T00:00:00Z."""

_TIME = struct.Struct(">Bqih")
_VERSION = 1
_UTC_OFFSET = -1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def encode_time(unix_ns: int) -> bytes:
    """The 15 bytes of Go's `MarshalBinary` of a UTC time."""
    seconds, ns = divmod(unix_ns, _NS)
    return _TIME.pack(_VERSION, seconds + _UNIX_TO_YEAR_1_S, ns, _UTC_OFFSET)


def decode_time(data: bytes) -> int:
    """Nanoseconds since the Unix epoch. The zone, which never changes the instant, is dropped.

    Empty input (a missing field) is the zero time. Raises `WireError` on anything else that is
    not Go's version 1 form.
    """
    if not data:
        return ZERO_TIME_NS
    if len(data) != _TIME.size or data[0] != _VERSION:
        raise WireError(f"not a Go time: {len(data)} bytes")
    _, seconds, ns, _ = _TIME.unpack(data)
    if not 0 <= ns < _NS:
        raise WireError("Go time with nanoseconds out of range")
    return (int(seconds) - _UNIX_TO_YEAR_1_S) * _NS + int(ns)


def format_time(unix_ns: int) -> str:
    """RFC 3339 with as many fractional digits as needed, as Go's JSON writes a UTC time."""
    seconds, ns = divmod(unix_ns, _NS)
    try:
        whole = (_EPOCH + timedelta(seconds=seconds)).strftime("%m-%dT%H:%M:%S")
        year = (_EPOCH + timedelta(seconds=seconds)).year
    except OverflowError as error:
        raise WireError("time outside of years 1 to 9999") from error
    fraction = f".{ns:09d}".rstrip("0") if ns else ""
    return f"{year:04d}-{whole}{fraction}Z"


def parse_time(text: str) -> int:
    """The inverse of `format_time`; accepts any zone offset. Raises `WireError`."""
    body, dot, rest = text.partition(".")
    digits = ""
    if dot:
        digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        body += rest[len(digits) :]
    if len(digits) > 9 or (dot and not digits):
        raise WireError(f"not an RFC 3339 time: {text[:40]!r}")
    try:
        moment = datetime.fromisoformat(body)
    except ValueError as error:
        raise WireError(f"not an RFC 3339 time: {text[:40]!r}") from error
    if moment.tzinfo is None:
        raise WireError(f"RFC 3339 time without zone: {text[:40]!r}")
    delta = moment - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * _NS + int(digits.ljust(9, "0") or 0)
