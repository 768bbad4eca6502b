from __future__ import annotations

import pytest

from proconsul.util.errors import WireError
from proconsul.wire.gotime import (
    ZERO_TIME_NS,
    decode_time,
    encode_time,
    format_time,
    parse_time,
)

# CreatedAt of an intention of a real Consul 1.8.7.
_REAL = b"\x01\x00\x00\x00\x0e\xe2\x95H%\x13\xd71\xf9\xff\xff"


def test_real_time_round_trip() -> None:
    ns = decode_time(_REAL)
    assert encode_time(ns) == _REAL
    assert format_time(ns) == "2026-11-22T20:31:33.332870137Z"
    assert parse_time(format_time(ns)) == ns


def test_zero_time() -> None:
    assert decode_time(b"") == ZERO_TIME_NS
    assert decode_time(encode_time(ZERO_TIME_NS)) == ZERO_TIME_NS
    assert format_time(ZERO_TIME_NS) == "0001-01-01T00:00:00Z"
    assert parse_time("0001-01-01T00:00:00Z") == ZERO_TIME_NS


@pytest.mark.parametrize("data", [b"\x01", b"\x02" + bytes(14), b"\x01" + bytes(8) + b"\x7f" * 6])
def test_malformed_time(data: bytes) -> None:
    with pytest.raises(WireError):
        decode_time(data)


@pytest.mark.parametrize("text", ["", "now", "2020-01-01", "2020-01-01T00:00:00", "x.Z"])
def test_malformed_time_text(text: str) -> None:
    with pytest.raises(WireError):
        parse_time(text)
