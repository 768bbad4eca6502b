"""The delta xDS protocol without gRPC."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proconsul.interfaces.xds.subscriptions import (
    LISTENER_WAIT_S_MAX,
    NAMES_MAX,
    TYPES_MAX,
    Request,
    Response,
    Subscriptions,
)
from proconsul.mesh.resources import CLUSTER, ENDPOINT, LISTENER, Resource, ResourceSet
from proconsul.util.errors import WireError


def resources(**versions: str) -> dict[str, Resource]:
    return {name: Resource(name, version, version.encode()) for name, version in versions.items()}


def names(responses: list[Response]) -> list[tuple[str, list[str], list[str]]]:
    return [
        (r.type_url.rpartition(".")[2], [x.name for x in r.resources], list(r.removed))
        for r in responses
    ]


def ack(subscriptions: Subscriptions, *responses: Response) -> None:
    for response in responses:
        assert subscriptions.handle(Request(response.type_url, nonce=response.nonce)) is None


def target(clusters: dict[str, str], listener: str) -> ResourceSet:
    return ResourceSet(
        resources(**clusters),
        resources(**{name: version + "e" for name, version in clusters.items()}),
        resources(listener=listener),
    )


def connected(clusters: dict[str, str], listener: str = "1") -> Subscriptions:
    """A stream over which everything has been sent and accepted."""
    subscriptions = Subscriptions()
    subscriptions.update(target(clusters, listener))
    subscriptions.handle(Request(CLUSTER))
    ack(subscriptions, *subscriptions.poll(0))
    subscriptions.handle(Request(ENDPOINT, subscribe=tuple(clusters)))
    ack(subscriptions, *subscriptions.poll(0))
    subscriptions.handle(Request(LISTENER))
    ack(subscriptions, *subscriptions.poll(0))
    assert subscriptions.poll(0) == []
    return subscriptions


def test_start_sends_each_kind_as_it_is_asked_for() -> None:
    subscriptions = Subscriptions()
    subscriptions.handle(Request(CLUSTER))
    assert subscriptions.poll(0) == []
    subscriptions.update(target({"a": "1", "b": "1"}, "1"))
    first = subscriptions.poll(0)
    assert names(first) == [("Cluster", ["a", "b"], [])]
    assert subscriptions.poll(0) == []
    ack(subscriptions, *first)
    subscriptions.handle(Request(ENDPOINT, subscribe=("a",)))
    second = subscriptions.poll(0)
    assert names(second) == [("ClusterLoadAssignment", ["a"], [])]


def test_an_empty_start_is_answered_once() -> None:
    subscriptions = Subscriptions()
    subscriptions.update(target({}, "1"))
    subscriptions.handle(Request(CLUSTER))
    (empty,) = subscriptions.poll(0)
    assert names([empty]) == [("Cluster", [], [])]
    ack(subscriptions, empty)
    assert subscriptions.poll(0) == []


def test_only_differences_are_sent_and_changes_while_in_flight_are_one() -> None:
    subscriptions = connected({"a": "1", "b": "1"})
    new = target({"a": "1", "b": "1"}, "1")
    changed = ResourceSet(new.clusters, resources(a="1e", b="2e"), new.listeners)
    subscriptions.update(changed)
    sent = subscriptions.poll(0)
    assert names(sent) == [("ClusterLoadAssignment", ["b"], [])]
    for version in ("3e", "4e"):
        subscriptions.update(ResourceSet(new.clusters, resources(a="1e", b=version), new.listeners))
        assert subscriptions.poll(0) == []
    ack(subscriptions, *sent)
    (last,) = subscriptions.poll(0)
    assert [r.version for r in last.resources] == ["4e"]


def test_make_before_break() -> None:
    subscriptions = connected({"old": "1"})
    subscriptions.update(target({"new": "1"}, "2"))
    added = subscriptions.poll(0)
    assert names(added) == [("Cluster", ["new"], [])]
    ack(subscriptions, *added)
    assert subscriptions.poll(0.1) == []  # the listener waits for the endpoints
    assert subscriptions.get_timer() == LISTENER_WAIT_S_MAX
    subscriptions.handle(Request(ENDPOINT, subscribe=("new",)))
    endpoints = subscriptions.poll(0.2)
    assert names(endpoints) == [("ClusterLoadAssignment", ["new"], [])]
    ack(subscriptions, *endpoints)
    listeners = subscriptions.poll(0.3)
    assert names(listeners) == [("Listener", ["listener"], [])]
    assert subscriptions.get_timer() is None
    ack(subscriptions, *listeners)
    gone = subscriptions.poll(0.4)
    assert names(gone) == [("Cluster", [], ["old"])]
    ack(subscriptions, *gone)
    subscriptions.handle(Request(ENDPOINT, unsubscribe=("old",)))
    assert subscriptions.poll(0.5) == []


def test_listeners_do_not_wait_for_ever() -> None:
    subscriptions = connected({"a": "1"})
    subscriptions.update(target({"a": "1", "b": "1"}, "2"))
    ack(subscriptions, *subscriptions.poll(0))
    assert subscriptions.poll(0.5) == []
    assert names(subscriptions.poll(1.5)) == [("Listener", ["listener"], [])]


def test_changed_cluster_gets_its_endpoints_again() -> None:
    subscriptions = connected({"a": "1", "b": "1"})
    before = target({"a": "1", "b": "1"}, "1")
    subscriptions.update(ResourceSet(resources(a="2", b="1"), before.endpoints, before.listeners))
    assert names(subscriptions.poll(0)) == [
        ("Cluster", ["a"], []),
        ("ClusterLoadAssignment", ["a"], []),
    ]


def test_reconnect_sends_what_is_missing_and_takes_away_what_is_gone() -> None:
    subscriptions = Subscriptions()
    subscriptions.update(target({"a": "2", "b": "1"}, "1"))
    subscriptions.handle(Request(CLUSTER, initial_versions={"a": "1", "b": "1", "c": "1"}))
    subscriptions.handle(
        Request(ENDPOINT, subscribe=("a", "b"), initial_versions={"a": "2e", "b": "1e"})
    )
    subscriptions.handle(Request(LISTENER, initial_versions={"listener": "1"}))
    first = subscriptions.poll(0)
    assert names(first) == [
        ("Cluster", ["a"], []),
        ("ClusterLoadAssignment", ["a"], []),
    ]
    ack(subscriptions, *first)
    assert names(subscriptions.poll(0)) == [("Cluster", [], ["c"])]


def test_reconnect_with_everything_sends_nothing() -> None:
    subscriptions = Subscriptions()
    subscriptions.update(target({"a": "1"}, "1"))
    subscriptions.handle(Request(CLUSTER, initial_versions={"a": "1"}))
    subscriptions.handle(Request(ENDPOINT, ("a",), initial_versions={"a": "1e"}))
    subscriptions.handle(Request(LISTENER, initial_versions={"listener": "1"}))
    assert subscriptions.poll(0) == []


def test_refused_is_not_repeated_and_keeps_what_it_may_lead_to() -> None:
    subscriptions = connected({"a": "1"})
    subscriptions.update(target({}, "bad"))
    (listener,) = subscriptions.poll(0)
    refusal = subscriptions.handle(Request(LISTENER, nonce=listener.nonce, error="no good"))
    assert refusal is not None
    assert (refusal.reason, refusal.names) == ("no good", ("listener",))
    assert subscriptions.poll(0) == []  # cluster "a" stays: the last good listener leads to it
    subscriptions.update(target({}, "good"))
    (listener,) = subscriptions.poll(0)
    ack(subscriptions, listener)
    assert names(subscriptions.poll(0)) == [("Cluster", [], ["a"])]


def test_subscribing_again_sends_again() -> None:
    subscriptions = connected({"a": "1"})
    subscriptions.handle(Request(ENDPOINT, subscribe=("a",)))
    assert names(subscriptions.poll(0)) == [("ClusterLoadAssignment", ["a"], [])]


def test_answer_with_an_old_nonce_is_none() -> None:
    subscriptions = connected({"a": "1"})
    subscriptions.update(target({"a": "2"}, "1"))
    subscriptions.poll(0)
    assert subscriptions.handle(Request(CLUSTER, nonce="0", error="stale")) is None
    subscriptions.update(target({"a": "3"}, "1"))
    assert [r.type_url for r in subscriptions.poll(0)] == []


def test_explicit_names_and_wildcard() -> None:
    subscriptions = Subscriptions()
    subscriptions.update(target({"a": "1", "b": "1"}, "1"))
    subscriptions.handle(Request(CLUSTER, subscribe=("a", "missing")))
    first = subscriptions.poll(0)
    assert names(first)[0] == ("Cluster", ["a"], [])
    ack(subscriptions, *first)
    absent = subscriptions.poll(0)
    assert names(absent) == [("Cluster", [], ["missing"])]
    ack(subscriptions, *absent)
    assert subscriptions.poll(0) == []
    subscriptions.handle(Request(CLUSTER, subscribe=("*",)))
    assert names(subscriptions.poll(0)) == [("Cluster", ["b"], [])]


def test_type_that_is_not_served_is_answered_as_absent() -> None:
    subscriptions = connected({"a": "1"})
    subscriptions.handle(Request("type.googleapis.com/x.Secret", subscribe=("s",)))
    assert names(subscriptions.poll(0)) == [("Secret", [], ["s"])]


def test_bounds() -> None:
    subscriptions = Subscriptions()
    with pytest.raises(WireError):
        subscriptions.handle(Request(ENDPOINT, tuple(map(str, range(NAMES_MAX + 1)))))
    subscriptions = Subscriptions()
    for number in range(TYPES_MAX):
        subscriptions.handle(Request(f"type/{number}"))
    with pytest.raises(WireError):
        subscriptions.handle(Request("type/more"))


VERSIONS = st.dictionaries(st.sampled_from("abcd"), st.sampled_from("123"))


@settings(derandomize=True, max_examples=150, deadline=None)
@given(st.lists(st.tuples(VERSIONS, st.sampled_from("123")), min_size=1, max_size=6), st.data())
def test_envoy_always_ends_with_the_last_target(
    targets: list[tuple[dict[str, str], str]], data: st.DataObject
) -> None:
    """An Envoy model that acknowledges late, in any order, ends up with exactly the target."""
    subscriptions = Subscriptions()
    has: dict[str, dict[str, str]] = {CLUSTER: {}, ENDPOINT: {}, LISTENER: {}}
    for type_url in (CLUSTER, LISTENER):
        subscriptions.handle(Request(type_url))
    unanswered: list[Response] = []
    now = 0.0

    def receive() -> None:
        for response in subscriptions.poll(now):
            assert response.type_url not in {r.type_url for r in unanswered}
            has[response.type_url].update({r.name: r.version for r in response.resources})
            for name in response.removed:
                del has[response.type_url][name]
            unanswered.append(response)

    def answer(response: Response) -> None:
        unanswered.remove(response)
        ack(subscriptions, response)
        if response.type_url == CLUSTER:
            added = tuple(r.name for r in response.resources if r.name not in has[ENDPOINT])
            subscriptions.handle(Request(ENDPOINT, added, response.removed))
            for name in response.removed:
                has[ENDPOINT].pop(name, None)

    for clusters, listener in targets:
        subscriptions.update(target(clusters, listener))
        receive()
        if unanswered and data.draw(st.booleans()):
            answer(data.draw(st.sampled_from(unanswered)))
            receive()
    for _ in range(40):
        now += LISTENER_WAIT_S_MAX
        receive()
        for response in unanswered:
            answer(response)
    clusters, listener = targets[-1]
    assert not unanswered
    assert has[CLUSTER] == clusters
    assert has[ENDPOINT] == {name: version + "e" for name, version in clusters.items()}
    assert has[LISTENER] == {"listener": listener}
