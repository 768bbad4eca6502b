"""Which rule decides (acl/policy_authorizer_test.go)."""

from __future__ import annotations

import pytest

from proconsul.domain.acl_authorizers import PolicyAuthorizer, agent_master, authorizer
from proconsul.domain.acl_rules import NO_RULES, parse_rules

LEVELS = ("deny", "read", "write")


def _of(text: str, *, default_allow: bool = False) -> PolicyAuthorizer:
    return authorizer([parse_rules(text)], default_allow=default_allow)


def test_an_exact_name_comes_before_any_prefix_and_the_longest_prefix_before_others() -> None:
    may = _of(
        """
        key "foo/bar" { policy = "write" }
        key_prefix "" { policy = "read" }
        key_prefix "foo/" { policy = "deny" }
        key_prefix "foo/bar" { policy = "list" }
        """
    )
    assert may.key_read("zip")
    assert not may.key_write("zip")
    assert not may.key_read("foo/x")
    assert may.key_write("foo/bar")
    assert not may.key_write("foo/bar2")
    assert may.key_list("foo/bar2")
    assert not may.key_list("zip")


@pytest.mark.parametrize("policy", LEVELS)
@pytest.mark.parametrize("default_allow", [True, False])
def test_levels_grant_what_they_say_and_the_default_the_rest(
    policy: str, default_allow: bool
) -> None:
    kinds = ("agent", "event", "node", "query", "service", "session")
    text = "\n".join(f'{kind} "a" {{ policy = "{policy}" }}' for kind in kinds)
    may = _of(text, default_allow=default_allow)
    for kind in kinds:
        name = "prepared_query" if kind == "query" else kind
        read, write = getattr(may, f"{name}_read"), getattr(may, f"{name}_write")
        assert read("a") is (policy != "deny")
        assert write("a") is (policy == "write")
        assert read("ab") is write("ab") is default_allow


@pytest.mark.parametrize("policy", LEVELS)
def test_words_without_names(policy: str) -> None:
    may = _of(f'acl = "{policy}" keyring = "{policy}" operator = "{policy}"', default_allow=True)
    for word in ("acl", "keyring", "operator"):
        assert getattr(may, f"{word}_read")() is (policy != "deny")
        assert getattr(may, f"{word}_write")() is (policy == "write")
    assert may.snapshot() is (policy == "write")


def test_a_default_of_allow_does_not_manage_acls() -> None:
    may = PolicyAuthorizer(NO_RULES, default_allow=True)
    assert may.key_write_prefix("")
    assert may.operator_write()
    assert may.intention_default_allow()
    assert not may.acl_read()
    assert not may.acl_write()
    assert not may.snapshot()


def test_intentions_follow_the_service_unless_they_are_named() -> None:
    may = _of(
        """
        service "read" { policy = "read" }
        service "write" { policy = "write" }
        service "deny" { policy = "deny" }
        service "other" { policy = "deny" intentions = "write" }
        """
    )
    assert may.intention_read("read")
    assert not may.intention_write("write")
    assert may.intention_read("write")
    assert not may.intention_read("deny")
    assert may.intention_write("other")


@pytest.mark.parametrize(
    ("text", "read", "write"),
    [
        ("", False, False),
        ('service "a" { policy = "deny" intentions = "read" }', True, False),
        ('service_prefix "" { policy = "write" intentions = "write" }', True, True),
        (
            'service_prefix "" { policy = "write" intentions = "write" } '
            'service "a" { policy = "read" }',
            True,
            False,
        ),
        ('service "a" { policy = "write" intentions = "write" }', True, False),
        (
            'service_prefix "" { policy = "deny" } '
            'service "a" { policy = "write" intentions = "write" }',
            True,
            False,
        ),
    ],
)
def test_the_wildcard_intention_is_read_by_any_and_written_by_all(
    text: str, read: bool, write: bool
) -> None:
    may = _of(text)
    assert may.intention_read("*") is read
    assert may.intention_write("*") is write


@pytest.mark.parametrize(
    ("text", "prefix", "allowed"),
    [
        ('key_prefix "foo/" { policy = "write" }', "foo/", True),
        ('key_prefix "foo/" { policy = "write" }', "fo", False),
        ('key_prefix "foo/" { policy = "write" } key "foo/a" { policy = "read" }', "foo/", False),
        ('key_prefix "" { policy = "write" } key_prefix "z" { policy = "deny" }', "a", True),
        ('key_prefix "" { policy = "read" } key_prefix "a" { policy = "write" }', "a", True),
        ('key "a" { policy = "write" }', "a", False),
    ],
)
def test_a_tree_may_be_deleted_only_if_nothing_in_it_is_kept(
    text: str, prefix: str, allowed: bool
) -> None:
    assert _of(text).key_write_prefix(prefix) is allowed


def test_without_a_rule_the_default_says_whether_a_tree_may_be_deleted() -> None:
    assert _of('key "b" { policy = "write" }', default_allow=True).key_write_prefix("b")
    assert not _of('key "b" { policy = "read" }', default_allow=True).key_write_prefix("")


def test_the_agent_master_token_is_for_its_own_agent() -> None:
    may = agent_master("me")
    assert may.agent_write("me")
    assert not may.agent_read("me2")
    assert may.node_read("anything")
    assert not may.node_write("me")
    assert not may.service_read("web")
    assert not may.operator_read()
