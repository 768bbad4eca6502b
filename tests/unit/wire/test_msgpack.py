"""msgpack from peers: lists that are announced and never come cost nothing."""

from __future__ import annotations

import tracemalloc

import pytest

from proconsul.util.errors import WireError
from proconsul.wire import msgpack

_NESTED_ANNOUNCEMENTS = b"\xdd\x00\x00\xff\xff" * 1000


@pytest.mark.parametrize(
    "decode", [msgpack.unpack, msgpack.unpack_first], ids=["unpack", "unpack_first"]
)
def test_announced_lists_are_not_allocated(decode: object) -> None:
    assert callable(decode)
    tracemalloc.start()
    try:
        with pytest.raises(WireError):
            decode(_NESTED_ANNOUNCEMENTS)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_the_first_value_and_where_it_ends() -> None:
    assert msgpack.unpack_first(b"\x92\x01\xa1arest") == ([1, b"a"], 4)
    with pytest.raises(WireError, match="truncated"):
        msgpack.unpack_first(b"\x92\x01")


def test_trailing_bytes_and_too_many_items_are_refused() -> None:
    assert msgpack.unpack(msgpack.pack([1] * 300)) == [1] * 300
    with pytest.raises(WireError):
        msgpack.unpack(b"\x01\x02")
    with pytest.raises(WireError):
        msgpack.unpack(msgpack.pack([1] * 300), items_max=299)
