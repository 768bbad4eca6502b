"""net/rpc framing: what is written is read, however it is cut; noise is an error, no crash."""

from __future__ import annotations

import msgpack
from hypothesis import given, settings
from hypothesis import strategies as st

from proconsul.util.errors import WireError
from proconsul.wire.netrpc import (
    encode_request,
    encode_response,
    request_decoder,
    response_decoder,
)

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=40)
    | st.binary(max_size=300)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)
CALLS = st.lists(
    st.tuples(st.text(max_size=40), st.integers(0, 2**64 - 1), VALUES), min_size=1, max_size=5
)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(CALLS, st.integers(1, 500))
def test_round_trip(calls: list[tuple[str, int, object]], cut: int) -> None:
    expected = [(method, seq, msgpack.packb(body)) for method, seq, body in calls]
    data = b"".join(encode_request(*call) for call in expected)
    decoder = request_decoder()
    got = []
    for start in range(0, len(data), cut):
        decoder.feed(data[start : start + cut])
        while (request := decoder.next()) is not None:
            got.append(tuple(request))
    assert got == expected


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.text(max_size=300), st.text(min_size=1, max_size=300))
def test_error_round_trip(method: str, error: str) -> None:
    decoder = response_decoder()
    decoder.feed(encode_response(method, 5, b"", error))
    response = decoder.next()
    assert response is not None
    assert (response.method, response.error) == (method, error)


@settings(derandomize=True, max_examples=500, deadline=None)
@given(st.lists(st.binary(max_size=100), max_size=8))
def test_noise(chunks: list[bytes]) -> None:
    decoder = request_decoder(bytes_max=4096)
    try:
        for chunk in chunks:
            decoder.feed(chunk)
            while decoder.next() is not None:
                pass
    except WireError:
        pass
