"""Watches: parameters and their errors, what counts as news, how failures slow down."""

from __future__ import annotations

from typing import Any

import pytest

from proconsul.domain.watches import Progress, WatchError, event_index, parse_watch

IDS = ["b54fe110-7af5-cafc-d1fb-afc8ba432b1c", "4a1b9ff6-7d4e-4f0e-9be0-22b1b0d1ffff"]


@pytest.mark.parametrize(
    ("params", "path", "query"),
    [
        ({"type": "key", "key": "a/b", "stale": True}, "/v1/kv/a/b", {"stale": ""}),
        ({"type": "keyprefix", "prefix": "a/"}, "/v1/kv/a/", {"recurse": ""}),
        ({"type": "services"}, "/v1/catalog/services", {}),
        ({"type": "nodes"}, "/v1/catalog/nodes", {}),
        (
            {"type": "service", "service": "web", "tag": "v1", "passingonly": True},
            "/v1/health/service/web",
            {"tag": ["v1"], "passing": "1"},
        ),
        ({"type": "checks"}, "/v1/health/state/any", {}),
        ({"type": "checks", "service": "web"}, "/v1/health/checks/web", {}),
        ({"type": "event", "name": "deploy"}, "/v1/event/list", {"name": "deploy"}),
        ({"type": "connect_roots"}, "/v1/agent/connect/ca/roots", {}),
        ({"type": "connect_leaf", "service": "web"}, "/v1/agent/connect/ca/leaf/web", {}),
        ({"type": "agent_service", "service_id": "w1"}, "/v1/agent/service/w1", {}),
    ],
)
def test_types_are_requests(params: dict[str, Any], path: str, query: dict[str, Any]) -> None:
    watch = parse_watch({**params, "datacenter": "dc2", "token": "t"})
    assert (watch.path, dict(watch.query)) == (path, query)
    assert (watch.datacenter, watch.token) == ("dc2", "t")
    assert "token" not in repr(watch)


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({}, "Watch type must be specified"),
        ({"type": 5}, "Expecting type to be a string"),
        ({"type": "x"}, "Unsupported watch type: x"),
        ({"type": "key"}, "Must specify a single key to watch"),
        ({"type": "keyprefix"}, "Must specify a single prefix to watch"),
        ({"type": "service"}, "Must specify a single service to watch"),
        ({"type": "nodes", "stale": "yes"}, "Expecting stale to be a boolean"),
        ({"type": "service", "service": "a", "tag": 5}, "Expecting tag to be a string or []string"),
        ({"type": "service", "service": "a", "tag": ["b", 5]}, "Index 1 of tag expected to be string"),
        ({"type": "checks", "service": "a", "state": "b"}, "Cannot specify service and state"),
        ({"type": "nodes", "key": "a", "b": 1}, "Invalid parameters: [b key]"),
        (
            {"type": "nodes", "handler_type": "http"},
            "Handler type 'http' requires 'http_handler_config' to be set",
        ),
    ],
)  # fmt: skip
def test_wrong_parameters(params: dict[str, Any], text: str) -> None:
    with pytest.raises(WatchError) as caught:
        parse_watch(params)
    assert str(caught.value) == text


def test_excepted_parameters_are_left_for_the_caller() -> None:
    watch = parse_watch({"type": "nodes", "args": ["a"]}, ("handler", "args"))
    assert watch.rest == {"args": ["a"]}


def test_only_changes_are_news() -> None:
    progress = Progress(parse_watch({"type": "services"}))
    assert progress.query() == {}
    assert progress.news({"a": []}, 5) == (True, {"a": []})
    assert progress.query() == {"index": "5"}
    assert progress.news({"a": []}, 5)[0] is False, "the same index"
    assert progress.news({"a": []}, 6)[0] is False, "another index, the same content"
    assert progress.news({"b": []}, 7)[0] is True
    assert progress.failed() == 5.0
    assert progress.query() == {}, "after a failure all begins anew"
    assert progress.failed() == 20.0
    assert [progress.failed() for _ in range(9)][-1] == 180.0
    assert progress.news({"b": []}, 7)[0] is True


def test_an_event_is_told_once() -> None:
    progress = Progress(parse_watch({"type": "event"}))
    one, two = ({"ID": one} for one in IDS)
    assert progress.news([one], event_index(IDS[0])) == (True, [one])
    assert progress.news([one, two], event_index(IDS[1])) == (True, [two])


def test_a_local_service_is_followed_by_its_hash() -> None:
    progress = Progress(parse_watch({"type": "agent_service", "service_id": "w"}))
    assert progress.news({"ContentHash": "h1", "Port": 1}, 0)[0] is True
    assert progress.query() == {"hash": "h1"}
    assert progress.news({"ContentHash": "h1", "Port": 1}, 0)[0] is False
    assert progress.news({"ContentHash": "h2", "Port": 2}, 0)[0] is True


def test_a_missing_key_is_null() -> None:
    assert Progress(parse_watch({"type": "key", "key": "a"})).news(None, 3) == (True, None)
