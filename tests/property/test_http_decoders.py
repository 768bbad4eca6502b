"""Whatever a client sends: an answer or a closed connection, never an unhandled error."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from proconsul.domain.go_decode import GoDecodeError, decode_service_definition, parse_json
from proconsul.drivers.http import Request, Response
from proconsul.interfaces.http.ports import HttpApiConfig
from proconsul.interfaces.http.query import clean_path
from proconsul.interfaces.http.routes import build_api

sys.path.insert(0, str(Path(__file__).parent.parent / "unit" / "interfaces" / "http"))
from http_fake_agent import FakeAgent

QUICK = settings(derandomize=True, max_examples=150, deadline=None)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["Name", "Port", "Tags", "Check", "Checks", "TTL", "Proxy", "Meta", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@QUICK
@given(st.binary(max_size=40), st.sampled_from(["GET", "PUT", "DELETE"]))
def test_any_target_is_answered(tail: bytes, method: str) -> None:
    async def run() -> Response:
        api = build_api(FakeAgent(), HttpApiConfig("dc1", "n1"))
        answer = api(Request(method, b"/v1/kv/" + tail, ("127.0.0.1", 1)))
        return answer if isinstance(answer, Response) else await answer

    answer = asyncio.run(run())
    assert answer.status in {200, 301, 400, 404, 500}
    assert b"\n" not in answer.head.replace(b"\r\n", b"")


@QUICK
@given(JSON)
def test_definitions_decode_or_are_refused(value: object) -> None:
    try:
        definition = decode_service_definition(value)
    except GoDecodeError:
        return
    assert isinstance(definition.service.service, str)
    assert isinstance(definition.service.port, int)


@QUICK
@given(st.binary(max_size=60))
def test_bodies_parse_or_are_refused(body: bytes) -> None:
    try:
        parse_json(body)
    except GoDecodeError:
        pass


@QUICK
@given(st.text(alphabet="/.a", max_size=12))
def test_cleaning_is_final(path: str) -> None:
    cleaned = clean_path(path)
    assert cleaned.startswith("/")
    assert clean_path(cleaned) == cleaned
    assert "//" not in cleaned
