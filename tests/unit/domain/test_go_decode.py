"""JSON bodies as Go's decoder takes them."""

from __future__ import annotations

import pytest

from proconsul.domain.go_decode import GoDecodeError, decode_struct, parse_json
from proconsul.domain.operator import AutopilotConfig


def test_what_is_not_utf8_is_replaced_as_go_does() -> None:
    assert parse_json(b'{"Name": "a\xff"}') == {"Name": "a\ufffd"}
    assert parse_json(rb'[{"\ud800": "a\udfff\ud83d\ude00"}]') == [{"\ufffd": "a\ufffd\U0001f600"}]


@pytest.mark.parametrize(("body", "error"), [(b"", "EOF"), (b'{"a"', "unexpected EOF")])
def test_errors_are_go_s(body: bytes, error: str) -> None:
    with pytest.raises(GoDecodeError, match=error):
        parse_json(body)


@pytest.mark.parametrize("number", [-1, 1.5, 1 << 64])
def test_unsigned_fields_take_what_go_takes(number: float) -> None:
    with pytest.raises(GoDecodeError, match=rf"unmarshal number {number} into .* of type uint64"):
        decode_struct({"MaxTrailingLogs": number}, AutopilotConfig, "AutopilotConfiguration.")
    read = decode_struct({"MaxTrailingLogs": None}, AutopilotConfig, "")
    assert read.max_trailing_logs == 0
