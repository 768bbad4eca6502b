"""The watches of an agent's configuration: which handlers there are, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from proconsul.app.watches import HttpHandler, Plan, parse_plans
from proconsul.domain.watches import WatchError

KEY = {"type": "key", "key": "a"}


def parsed(**params: Any) -> Plan:
    (plan,) = parse_plans([{**KEY, **params}], has_http=True)
    return plan


def test_commands(caplog: pytest.LogCaptureFixture) -> None:
    assert parsed(args=["a", "b"]).handler == ("a", "b")
    assert parsed(args="a").handler == ("a",)
    assert not caplog.text
    handler = parsed(handler="a b").handler
    assert isinstance(handler, tuple)
    assert handler[1:] == ("-c", "a b")
    assert "The 'handler' field in watches has been deprecated" in caplog.text


def test_urls() -> None:
    config = {
        "path": "http://x/y",
        "timeout": "3s",
        "header": {"A": ["b"]},
        "tls_skip_verify": True,
    }
    for given in (config, [config]):
        plan = parsed(handler_type="http", http_handler_config=given)
        assert plan.handler == HttpHandler("http://x/y", "POST", 3.0, {"A": ["b"]}, True)


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({}, "Must define a watch handler"),
        ({"args": ["a"], "handler": "b"}, "Only one watch handler allowed"),
        ({"args": [1]}, "Watch args must be a list of strings"),
        ({"handler": 1}, "Watch handler must be a string"),
        ({"handler_type": "smoke"}, "Handler type 'smoke' not recognized"),
        ({"type": "connect_roots"}, "Watch type connect_roots is not allowed in agent config"),
        ({"type": "x", "args": ["a"]}, "Failed to parse watch: Unsupported watch type: x"),
        ({"handler_type": "http", "http_handler_config": {}}, "Requires 'path' to be set"),
        (
            {"handler_type": "http", "http_handler_config": {"path": "p", "timeout": "x"}},
            "Failed to parse timeout",
        ),
    ],
)
def test_refused(params: dict[str, Any], text: str) -> None:
    with pytest.raises(WatchError, match=text):
        parsed(**params)


def test_they_need_http() -> None:
    with pytest.raises(WatchError, match="watch plans require an HTTP or HTTPS endpoint"):
        parse_plans([{**KEY, "args": ["a"]}], has_http=False)
    assert parse_plans([], has_http=False) == []
