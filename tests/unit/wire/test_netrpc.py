"""net/rpc framing, with bytes as a real Consul 1.8.7 wrote them."""

from __future__ import annotations

import pytest

from proconsul.util.errors import WireError
from proconsul.wire.netrpc import (
    Request,
    Response,
    encode_request,
    encode_response,
    request_decoder,
    response_decoder,
)

GOLDEN_RESPONSES = {
    "leader": (
        b"\x83\xa5Error\xa0\xa3Seq\x01\xadServiceMethod\xadStatus.Leader\xaf127.0.0.1:21930",
        Response("Status.Leader", 1, "", b"\xaf127.0.0.1:21930"),
    ),
    "error": (
        b"\x83\xa5Error\xbfrpc: can't find service Foo.Bar"
        b"\xa3Seq\xcc\xc8\xadServiceMethod\xa7Foo.Bar\x80",
        Response("Foo.Bar", 200, "rpc: can't find service Foo.Bar", b"\x80"),
    ),
}


@pytest.mark.parametrize("name", GOLDEN_RESPONSES)
def test_golden_responses(name: str) -> None:
    data, expected = GOLDEN_RESPONSES[name]
    decoder = response_decoder()
    decoder.feed(data)
    assert decoder.next() == expected
    assert decoder.next() is None
    assert decoder.idle


def test_request_bytes() -> None:
    assert encode_request("Status.Ping", 7, b"\x80") == (
        b"\x82\xadServiceMethod\xabStatus.Ping\xa3Seq\xcf" + bytes(7) + b"\x07\x80"
    )


def test_pipelined_requests_in_any_pieces() -> None:
    requests = [
        Request(f"KVS.Get{i}", i, b"\xdb" + (i * 1000).to_bytes(4, "big") + b"x" * (i * 1000))
        for i in range(5)
    ]
    data = b"".join(encode_request(*request) for request in requests)
    for size in (1, 7, 64, len(data)):
        decoder = request_decoder()
        got = []
        for start in range(0, len(data), size):
            decoder.feed(data[start : start + size])
            while (request := decoder.next()) is not None:
                got.append(request)
        assert got == requests
        assert decoder.idle


def test_errors_keep_their_text() -> None:
    decoder = response_decoder()
    text = "ACL not found ü" + "x" * 70000
    decoder.feed(encode_response("KVS.Get", 1 << 63, b"", text))
    assert decoder.next() == Response("KVS.Get", 1 << 63, text, b"\x80")


@pytest.mark.parametrize(
    "data",
    [
        b"\x01\x80",  # a header that is no map
        b"\x81\xadServiceMethod\x05\x80",
        b"\x81\xa3Seq\xa1x\x80",
        b"\x81\xa3Seq\xff\x80",
        b"\x81\xa1a" + b"\x91" * 3,  # lists in a header
        b"\x80" + b"\x91" * 5000,  # a body nested too deeply
        b"\x80\xc1",
        b"\xdf\xff\xff\xff\xff",  # a header of 4 billion fields
    ],
)
def test_malformed(data: bytes) -> None:
    decoder = request_decoder()
    decoder.feed(data)
    with pytest.raises(WireError):
        decoder.next()


def test_size_is_bounded() -> None:
    decoder = request_decoder(bytes_max=100_000)
    decoder.feed(b"\x80\xdd\xff\xff\xff\xff")
    assert decoder.next() is None
    for _ in range(3):
        decoder.feed(bytes(50_000))
        assert decoder.next() is None
    with pytest.raises(WireError, match="larger than"):
        decoder.feed(bytes(50_000))
