"""JSON bodies as Go's decoder takes them."""

from __future__ import annotations

import pytest

from proconsul.domain.go_decode import GoDecodeError, parse_json


def test_what_is_not_utf8_is_replaced_as_go_does() -> None:
    assert parse_json(b'{"Name": "a\xff"}') == {"Name": "a\ufffd"}


@pytest.mark.parametrize(("body", "error"), [(b"", "EOF"), (b'{"a"', "unexpected EOF")])
def test_errors_are_go_s(body: bytes, error: str) -> None:
    with pytest.raises(GoDecodeError, match=error):
        parse_json(body)
