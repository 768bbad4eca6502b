from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from proconsul.drivers import logs


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger("proconsul")
    before = root.handlers[:], root.level, root.propagate
    root.handlers = []
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers, root.level, root.propagate = before


def _log(*, as_json: bool = False) -> str:
    out = io.StringIO()
    logs.setup("info", as_json=as_json, stream=out)
    logging.getLogger("proconsul.serf.lan").warning("name=%s", "a\nb\x1b[0m\u2028\ud800é")
    logging.getLogger("proconsul.agent").info("hello")
    logging.getLogger("proconsul.agent").debug("not shown")
    return out.getvalue()


def test_text_is_consuls_layout_and_one_line_each() -> None:
    first, second = _log().splitlines()
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    text = re.escape(r"name=a\nb\x1b[0m\u2028\ud800é")
    assert re.fullmatch(rf"{stamp} \[WARN\]  agent\.serf\.lan: {text}", first)
    assert re.fullmatch(rf"{stamp} \[INFO\]  agent: hello", second)


def test_json_has_hclogs_keys() -> None:
    first, second = map(json.loads, _log(as_json=True).splitlines())
    assert first["@module"] == "agent.serf.lan"
    assert first["@level"] == "warn"
    assert second == {
        "@level": "info",
        "@message": "hello",
        "@module": "agent",
        "@timestamp": second["@timestamp"],
    }


@pytest.mark.parametrize("as_json", [False, True])
def test_exceptions_are_shown(as_json: bool) -> None:
    out = io.StringIO()
    logs.setup("trace", as_json=as_json, stream=out)
    try:
        raise ValueError("why")
    except ValueError:
        logging.getLogger("other").info("not ours")
        logging.getLogger("proconsul.rpc").exception("failed")
    assert "ValueError: why" in out.getvalue()
    assert "not ours" not in out.getvalue()


def test_files_rotate_by_size_and_time(tmp_path: Path) -> None:
    for number in range(2):  # setting up again closes the first file
        logs.setup(
            "debug", file=str(tmp_path / f"{number}.log"), rotate_bytes=200, rotate_max_files=2
        )
    for _ in range(20):
        logging.getLogger("proconsul.x").debug("some words to fill a line")
    assert len(list(tmp_path.glob("1.log*"))) == 3
    assert (tmp_path / "0.log").read_text() == ""
    logs.setup("debug", file=str(tmp_path / "t.log"), rotate_duration_s=3600.0)
    logs.set_level("ERR")
    logging.getLogger("proconsul.x").warning("not shown")
    logging.getLogger("proconsul.x").error("shown")
    assert (tmp_path / "t.log").read_text().count("shown") == 1
