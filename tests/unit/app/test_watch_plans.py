"""The watches of an agent's configuration: which handlers there are, and what is refused."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest

from proconsul.app.watches import HttpHandler, Plan, Watches, parse_plans
from proconsul.domain.kv import DirEntry, IndexedDirEntries
from proconsul.domain.watches import WatchError
from proconsul.drivers.scope import TaskScope
from proconsul.interfaces.http.ports import HttpApiConfig
from proconsul.interfaces.http.routes import build_api
from proconsul.util.metrics import Metrics

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


class Agent:
    """One key, which changes once."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.values = [b"one", b"two"]
        self.asked: list[str] = []

    def try_rpc(self, _method: str, _request: Any) -> None:
        return None

    async def rpc(self, method: str, request: Any) -> Any:
        assert (method, request.key, request.token) == ("KVS.Get", "a", "t")
        if request.min_query_index == 2:
            await asyncio.Event().wait()
        index = request.min_query_index + 1
        entry = DirEntry.of("a", self.values[index - 1])
        return IndexedDirEntries(entries=[entry], index=index, known_leader=True)


def test_the_agent_is_asked_within_the_process(tmp_path: Path) -> None:
    told = tmp_path / "told"
    script = f"cat >> {told}; echo $CONSUL_INDEX >> {told}"
    api = build_api(Agent(), HttpApiConfig("dc1", "n1"))  # type: ignore[arg-type]

    async def watch() -> None:
        async with TaskScope("test") as scope:
            watches = Watches(api, scope)
            watches.run([parsed(args=["sh", "-c", script], token="t")])
            async with asyncio.timeout(20):
                while not (told.exists() and told.read_text().endswith("2\n")):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            watches.run([])

    asyncio.run(watch())
    lines = told.read_text().splitlines()
    values = [base64.b64decode(json.loads(line)["Value"]) for line in lines[::2]]
    assert (values, lines[1::2]) == ([b"one", b"two"], ["1", "2"])


@pytest.mark.parametrize("url", ["http://[::1:1/", "http://127.0.0.1:99999/", "nonsense"])
def test_a_url_that_is_none_does_not_end_the_watch(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    api = build_api(Agent(), HttpApiConfig("dc1", "n1"))  # type: ignore[arg-type]
    plan = parsed(handler_type="http", http_handler_config={"path": url}, token="t")

    async def watch() -> None:
        async with TaskScope("test") as scope:
            Watches(api, scope).run([plan])
            async with asyncio.timeout(20):
                while len(caplog.records) < 2:  # noqa: ASYNC110 - one for each change
                    await asyncio.sleep(0.01)
            assert scope.restarts.total() == 0

    asyncio.run(watch())
    assert all("Failed to invoke http watch handler" in text for text in caplog.messages)


def test_they_need_http() -> None:
    with pytest.raises(WatchError, match="watch plans require an HTTP or HTTPS endpoint"):
        parse_plans([{**KEY, "args": ["a"]}], has_http=False)
    assert parse_plans([], has_http=False) == []
