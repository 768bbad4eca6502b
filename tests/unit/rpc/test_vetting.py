"""What may be written to the catalog with which rights (TestACL_vetRegisterWithACL and others)."""

from __future__ import annotations

from typing import Any

import pytest
from endpoint_support import ServerInMemory, registration

from proconsul.domain import catalog as c
from proconsul.domain import kv
from proconsul.domain import options as o
from proconsul.domain.acl_authorizers import PolicyAuthorizer, authorizer
from proconsul.domain.acl_rules import parse_rules
from proconsul.domain.errors import PermissionDeniedError
from proconsul.rpc.endpoints.base import RequestError


def may(text: str) -> PolicyAuthorizer:
    return authorizer([parse_rules(text)], default_allow=False)


NODE = 'node "ok-node" { policy = "write" }'
WEB = 'service "web" { policy = "write" }'
DB = 'service "db" { policy = "write" }'


@pytest.fixture
def server() -> ServerInMemory:
    """A node with service web under the id web1, and its checks."""
    server = ServerInMemory()
    checks = [
        c.HealthCheck(check_id="up", node="ok-node", service_id="web1", service_name="web"),
        c.HealthCheck(check_id="disk", node="ok-node"),
    ]
    service = c.NodeService(id="web1", service="web")
    server.call("Catalog.Register", registration(service=service, checks=checks))
    return server


@pytest.mark.parametrize(
    ("rights", "fields"),
    [
        (NODE, {"node_meta": {"a": "b"}}),
        (WEB, {"service": c.NodeService(id="web1", service="web")}),
        (WEB + DB, {"service": c.NodeService(id="web1", service="db")}),
        (WEB, {"checks": [c.HealthCheck(check_id="x", service_id="web1")]}),
        (DB, {"service": c.NodeService(service="db"),
              "checks": [c.HealthCheck(check_id="x", service_id="db")]}),
        (NODE, {"checks": [c.HealthCheck(check_id="x")]}),
        (DB, {"address": "other", "skip_node_update": True,
              "service": c.NodeService(service="db")}),
    ],
)  # fmt: skip
def test_registrations_that_are_allowed(
    server: ServerInMemory, rights: str, fields: dict[str, Any]
) -> None:
    server.call("Catalog.Register", registration(**fields), may(rights))


@pytest.mark.parametrize(
    ("rights", "fields"),
    [
        (WEB, {"address": "10.9.9.9", "service": c.NodeService(service="web")}),
        (WEB, {"node": "new", "service": c.NodeService(service="web")}),
        (DB, {"service": c.NodeService(id="web1", service="db")}),
        (WEB, {"checks": [c.HealthCheck(check_id="x")]}),
        (DB, {"checks": [c.HealthCheck(check_id="x", service_id="web1")]}),
    ],
)
def test_registrations_that_are_refused(
    server: ServerInMemory, rights: str, fields: dict[str, Any]
) -> None:
    with pytest.raises(PermissionDeniedError):
        server.call("Catalog.Register", registration(**fields), may(rights))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"checks": [c.HealthCheck(check_id="x", node="other")]},
         "Node 'other' for check 'x' doesn't match register request node 'ok-node'"),
        ({"checks": [c.HealthCheck(check_id="x", service_id="none")]},
         "Unknown service 'none' for check 'x'"),
    ],
)  # fmt: skip
def test_checks_that_belong_nowhere_are_refused_with_acls_alone(
    server: ServerInMemory, fields: dict[str, Any], reason: str
) -> None:
    with pytest.raises(RequestError) as caught:
        server.call("Catalog.Register", registration(**fields), may(NODE))
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("rights", "fields", "allowed"),
    [
        (NODE, {}, True),
        (NODE, {"service_id": "none"}, True),
        (WEB, {}, False),
        (WEB, {"service_id": "web1"}, True),
        (DB, {"service_id": "web1"}, False),
        (WEB, {"check_id": "up"}, True),
        (WEB, {"check_id": "disk"}, False),
    ],
)
def test_deregistrations(
    server: ServerInMemory, rights: str, fields: dict[str, Any], allowed: bool
) -> None:
    request = c.DeregisterRequest(node="ok-node", **fields)
    if allowed:
        server.call("Catalog.Deregister", request, may(rights))
        return
    with pytest.raises(PermissionDeniedError):
        server.call("Catalog.Deregister", request, may(rights))


@pytest.mark.parametrize("fields", [{"service_id": "none"}, {"check_id": "none"}])
def test_what_is_not_there_cannot_be_vetted(server: ServerInMemory, fields: dict[str, str]) -> None:
    with pytest.raises(RequestError, match=r"Unknown (service|check) 'none'"):
        server.call("Catalog.Deregister", c.DeregisterRequest(node="ok-node", **fields), may(WEB))


def test_a_dump_shows_of_a_node_what_may_be_read(server: ServerInMemory) -> None:
    rights = may('node_prefix "" { policy = "read" }')
    found = server.call("Internal.NodeDump", o.DCSpecificRequest(), rights).dump
    assert [(row.node, row.services, [one.check_id for one in row.checks]) for row in found] == [
        ("ok-node", [], ["disk"])
    ]


def test_services_of_a_node_are_shown_by_the_right_to_read_their_ids(
    server: ServerInMemory,
) -> None:
    request = o.NodeSpecificRequest(node="ok-node")
    reads = 'node_prefix "" { policy = "read" } service "%s" { policy = "read" }'
    shown = server.call("Catalog.NodeServices", request, may(reads % "web")).node_services
    assert shown.services == {}
    shown = server.call("Catalog.NodeServices", request, may(reads % "web1")).node_services
    assert list(shown.services) == ["web1"]


def test_keys_are_cut_at_a_separator_after_those_that_may_not_be_read_are_gone() -> None:
    server = ServerInMemory()
    for key in ("a/secret/1", "a/open/1", "b"):
        entry = kv.DirEntry(key=key)
        server.call("KVS.Apply", kv.KVSRequest(op=kv.KV_SET, dir_ent=entry))
    rights = may('key_prefix "a/open/" { policy = "read" }')
    request = kv.KeyListRequest(prefix="a/", separator="/")
    assert server.call("KVS.ListKeys", request, rights).keys == ["a/open/"]


def test_keys_are_listed_for_who_may_list_them_if_that_is_asked_for() -> None:
    server = ServerInMemory()
    reads, lists = (may(f'key_prefix "" {{ policy = "{p}" }}') for p in ("read", "list"))
    server.call("KVS.List", kv.KeyRequest(key="a"), reads)
    server.key_list_policy = True
    server.call("KVS.List", kv.KeyRequest(key="a"), lists)
    for method, request in (
        ("KVS.List", kv.KeyRequest(key="a")),
        ("KVS.ListKeys", kv.KeyListRequest(prefix="a")),
    ):
        with pytest.raises(PermissionDeniedError):
            server.call(method, request, reads)
