"""Which prepared query answers a name; what the log refuses."""

from __future__ import annotations

import re
from typing import Any

import pytest
from msgspec.structs import replace

from proconsul.domain.errors import DomainError
from proconsul.domain.messages import MessageType, encode_command
from proconsul.domain.prepared_query import (
    PreparedQuery,
    PreparedQueryRequest,
    QueryTemplateOptions,
    ServiceQuery,
)
from proconsul.state.errors import StateError
from proconsul.state.fsm import Fsm
from proconsul.state.prepared_queries import QueryError
from proconsul.state.store import Store

TEMPLATE = QueryTemplateOptions(type="name_prefix_match")


class Queries:
    """A state that queries are applied to."""

    def __init__(self) -> None:
        self.store = Store()
        self.fsm = Fsm(self.store)
        self.index = 0

    def put(self, number: int, op: str = "create", **fields: Any) -> Any:
        """The command's result."""
        fields.setdefault("service", ServiceQuery(service=f"s{number}"))
        query = PreparedQuery(id=_id(number), **fields)
        self.index += 1
        request = PreparedQueryRequest(op=op, query=query)
        return self.fsm.apply(self.index, encode_command(MessageType.PREPARED_QUERY, request))

    def service(self, name: str) -> str | None:
        found = self.store.queries.resolve(name)
        return None if found is None else found.service.service


def _id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


def test_names_come_before_the_longest_prefix() -> None:
    queries = Queries()
    queries.put(1, name="Web")
    queries.put(2, name="web-", template=TEMPLATE)
    queries.put(3, name="web-long-", template=TEMPLATE)
    assert queries.service("other") is None
    queries.put(4, name="", template=TEMPLATE)
    names = {"web": "s1", "WEB": "s1", "web-": "s2", "Web-x": "s2", "web-long-x": "s3", "we": "s4"}
    assert {name: queries.service(name) for name in names} == names
    assert queries.service(_id(1)) == "s1"
    assert queries.service(_id(9)) == "s4"
    with pytest.raises(QueryError, match="only be resolved up by name"):
        queries.service(_id(2))
    with pytest.raises(QueryError, match="Missing Query ID"):
        queries.service("")


def test_changes_are_seen() -> None:
    queries = Queries()
    queries.put(1, name="a-", template=TEMPLATE, service=ServiceQuery(service="${name.suffix}"))
    assert queries.service("a-x") == "x"
    queries.put(1, "update", name="b-", template=TEMPLATE)
    assert (queries.service("a-x"), queries.service("b-x")) == (None, "s1")
    index, found, watch = queries.store.queries.get(_id(1))
    assert found is not None
    assert (index, found.create_index, found.modify_index) == (2, 1, 2)
    woken: list[int] = []
    watch.add(lambda: woken.append(1))
    queries.put(2, name="c")
    upper = PreparedQuery(id=_id(2).replace("4000", "400A"), name="d")
    for _ in range(2):
        request = PreparedQueryRequest(op="update", query=upper)
        queries.fsm.apply(5, encode_command(MessageType.PREPARED_QUERY, request))
        upper = replace(upper, id=upper.id.lower())
    assert len(queries.store.queries.all().value) == 3
    for one in (2, 1):
        queries.put(one, "delete")
    request = PreparedQueryRequest(op="delete", query=replace(upper, id=upper.id.upper()))
    queries.fsm.apply(6, encode_command(MessageType.PREPARED_QUERY, request))
    assert woken
    assert queries.service("b-x") is None
    assert queries.store.queries.all().value == []
    with pytest.raises(QueryError, match="UUID must be 36 characters"):
        queries.store.queries.get("b-")


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"name": "WEB"}, "name 'WEB' aliases an existing query name"),
        ({"name": _id(1)}, "aliases an existing query ID"),
        ({"name": "", "template": TEMPLATE}, "a query template with an empty name already exists"),
        ({"name": "x", "session": "nope"}, 'invalid session "nope"'),
        ({"name": "x", "template": QueryTemplateOptions(type="y")}, "Bad Template.Type 'y'"),
        (
            {"name": "x", "template": TEMPLATE, "service": ServiceQuery(service="${nope}")},
            "failed compiling template: .*unknown variable",
        ),
    ],
)
def test_what_the_log_refuses(fields: dict[str, Any], problem: str) -> None:
    queries = Queries()
    queries.put(1, name="web")
    queries.put(2, name="", template=TEMPLATE)
    refused = queries.put(3, **fields)
    assert isinstance(refused, StateError)
    assert re.search(problem, str(refused))
    assert len(queries.store.queries.all().value) == 2


def test_what_only_consul_can_render_is_stored_and_fails_when_it_is_used() -> None:
    queries = Queries()
    service = ServiceQuery(service="${1 + 2}")
    assert queries.put(1, name="x", template=TEMPLATE, service=service) is None
    with pytest.raises(DomainError, match="not supported"):
        queries.service("x")


def test_a_template_that_cannot_be_used_does_not_grow_with_its_use() -> None:
    queries = Queries()
    queries.put(1, name="t-", template=TEMPLATE, service=ServiceQuery(service="${1 + 1}"))
    depths = set[int]()
    for _ in range(5):
        with pytest.raises(DomainError, match="not supported here") as caught:
            queries.service("t-x")
        depths.add(len(caught.traceback))
    assert len(depths) == 1
