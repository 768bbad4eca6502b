"""User events: whom they are meant for, how they travel, what an agent remembers."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from proconsul.core.gossip.serf import UserEvent as GossipEvent
from proconsul.domain.base import raw_bytes
from proconsul.domain.errors import DomainError
from proconsul.services.agent.events import (
    EVENTS_MAX,
    REMOTE_EXEC,
    UserEvent,
    UserEvents,
    check_event,
    decode_event,
    encode_event,
)
from proconsul.util.errors import WireError

ID = "b54fe110-7af5-cafc-d1fb-afc8ba432b1c"
# Go's layout: fields by name, without empty ones; long text as str8, the payload as binary.
GOLDEN = (
    b"\x85\xa2ID\xd9\x24" + ID.encode() + b"\xa1n\xa6deploy\xa2nf\xa2^n\xa1p\xc4\x031.2\xa1v\x01"
)


class Service(NamedTuple):
    service: str
    tags: list[str] | None = None


def said(event: UserEvent, ltime: int = 1) -> GossipEvent:
    return GossipEvent(ltime, f"consul:event:{event.name}", encode_event(event), False)


def event(name: str = "deploy", **filters: str) -> UserEvent:
    return UserEvent(ID, name, version=1, **filters)


def test_the_encoding_is_consuls() -> None:
    made = UserEvent(ID, "deploy", "^n", raw_bytes(b"1.2"), version=1)
    assert encode_event(made) == GOLDEN
    assert decode_event(GOLDEN) == made
    assert decode_event(GOLDEN).payload == b"1.2"


def test_the_index_is_the_ids_halves_xored() -> None:
    assert event().index == 0xB54FE1107AF5CAFC ^ 0xD1FBAFC8BA432B1C


@pytest.mark.parametrize(
    ("filters", "meant"),
    [
        ({}, True),
        ({"node_filter": "^n1$"}, True),
        ({"node_filter": "^n2"}, False),
        ({"service_filter": "we"}, True),
        ({"service_filter": "web", "tag_filter": "^v1"}, True),
        ({"service_filter": "web", "tag_filter": "v2"}, False),
        ({"service_filter": "none"}, False),
        ({"node_filter": "n1", "service_filter": "(web|api)"}, True),
        ({"node_filter": "("}, False),
    ],
)
def test_filters_choose_agents(filters: dict[str, str], meant: bool) -> None:
    services = [Service("db"), Service("web", ["v1", "x"])]
    events = UserEvents("n1", lambda: services, None)
    changed = events.changed()
    events.heard(said(event(**filters)))
    assert bool(events.recent()) is changed.is_set() is meant


def test_only_users_events_are_kept_and_only_the_last() -> None:
    events = UserEvents("n1", list, None)
    events.heard(GossipEvent(1, "consul:new-leader", b"s1", False))
    events.heard(GossipEvent(1, "consul:event:x", b"\xc1", False))
    assert not events.recent()
    for ltime in range(EVENTS_MAX + 3):
        events.heard(said(event(), ltime))
    assert [heard.ltime for heard in events.recent()] == list(range(3, EVENTS_MAX + 3))


def test_commands_are_run_or_ignored_but_never_listed() -> None:
    run: list[UserEvent] = []
    for remote_exec in (run.append, None):
        events = UserEvents("n1", list, remote_exec)
        events.heard(said(event(REMOTE_EXEC)))
        assert not events.recent()
    assert [one.name for one in run] == [REMOTE_EXEC]


@pytest.mark.parametrize("wrong", ["", "x" * 36, ID[:-1], ID + "0", ID.replace("b", "z")])
def test_an_event_without_a_proper_id_is_malformed(wrong: str) -> None:
    with pytest.raises(WireError):
        decode_event(encode_event(UserEvent(wrong, "n", version=1)))


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (event(""), "User event missing name"),
        (event(tag_filter="a"), "Cannot provide tag filter without service filter"),
        (
            event(node_filter="("),
            "Invalid node filter: error parsing regexp: missing closing ): `(`",
        ),
        (event(service_filter="*"), "Invalid service filter: error parsing regexp: missing"),
    ],
)
def test_what_must_not_be_fired(wrong: UserEvent, text: str) -> None:
    with pytest.raises(DomainError) as caught:
        check_event(wrong)
    assert str(caught.value).startswith(text)
