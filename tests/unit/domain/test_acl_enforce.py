"""Rights asked for by name (TestACL_Enforce in acl/authorizer_test.go), and made-up policies."""

from __future__ import annotations

import pytest

from proconsul.domain.acl_authorizers import authorizer
from proconsul.domain.acl_enforce import ACLAuthorizationRequest, answers
from proconsul.domain.acl_identities import node_policy, service_policy, valid_in
from proconsul.domain.acl_rules import parse_rules
from proconsul.domain.acl_types import MANAGEMENT_RULES, ACLNodeIdentity, ACLServiceIdentity
from proconsul.domain.errors import DomainError

ALL = [
    (resource, access)
    for resource in (
        "acl", "agent", "event", "intention", "key", "keyring", "node", "operator", "query",
        "service", "session",
    )
    for access in ("read", "write", *(("list", "write-prefix") if resource == "key" else ()))
]  # fmt: skip


def _allowed(rules: str, *asked: tuple[str, str, str]) -> list[bool]:
    may = authorizer([parse_rules(rules)], default_allow=False)
    requests = [ACLAuthorizationRequest(*one) for one in asked]
    return [answer.allow for answer in answers(may, requests)]


def test_the_management_policy_grants_everything_and_none_nothing() -> None:
    asked = [(resource, "x", access) for resource, access in ALL]
    assert all(_allowed(MANAGEMENT_RULES, *asked))
    assert not any(_allowed("", *asked))


@pytest.mark.parametrize(
    ("resource", "access", "reason"),
    [
        ("nonsense", "read", 'Invalid ACL resource requested: "nonsense"'),
        ("node", "list", "Invalid access level for node resource: list"),
        ("acl", "", "Invalid access level for acl resource: "),
    ],
)
def test_what_makes_no_sense_is_refused(resource: str, access: str, reason: str) -> None:
    with pytest.raises(DomainError) as caught:
        _allowed("", (resource, "", access))
    assert str(caught.value) == reason


def test_a_service_identity_registers_its_service_and_sidecar_and_sees_all() -> None:
    rules = service_policy(ACLServiceIdentity("web")).rules
    assert _allowed(
        rules,
        ("service", "web", "write"), ("service", "web-sidecar-proxy", "write"),
        ("service", "db", "read"), ("node", "any", "read"),
        ("service", "db", "write"), ("node", "any", "write"), ("key", "web", "read"),
    ) == [True] * 4 + [False] * 3  # fmt: skip


def test_a_node_identity_registers_its_node_where_it_is() -> None:
    policy = node_policy(ACLNodeIdentity("n", "dc1"))
    assert _allowed(
        policy.rules, ("node", "n", "write"), ("service", "s", "read"), ("node", "n2", "read")
    ) == [True, True, False]
    assert valid_in([policy], "dc1") == [policy]
    assert valid_in([policy], "dc2") == []
