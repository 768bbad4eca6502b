"""Policies as text: what is read, and the words of what is refused (acl/policy_test.go)."""

from __future__ import annotations

import pytest

from proconsul.domain.acl_rules import (
    PolicyRules,
    Resource,
    Rule,
    RulesError,
    Syntax,
    merge,
    parse_rules,
)

ONE_OF_EACH = """
acl = "write"
keyring = "deny"
operator = "read"
agent "a" { policy = "read" }        # exact
agent_prefix "" { policy = "write" } // prefix
key "k" { policy = "list" }
key_prefix "k/" { policy = "deny" }  /* both */
node_prefix "n" { policy = "read" }
service "web" {
  policy = "write"
  intentions = "read"
}
session_prefix "" { policy = "write" }
event "e" { policy = "read" }
query "q" { policy = "read" }
"""


def test_every_kind_of_rule_is_read_where_it_belongs() -> None:
    rules = parse_rules(ONE_OF_EACH)
    assert (rules.acl, rules.keyring, rules.operator) == ("write", "deny", "read")
    assert rules.exact[Resource.AGENT] == (Rule("a", "read"),)
    assert rules.prefix[Resource.AGENT] == (Rule("", "write"),)
    assert rules.exact[Resource.KEY] == (Rule("k", "list"),)
    assert rules.prefix[Resource.KEY] == (Rule("k/", "deny"),)
    assert rules.exact[Resource.SERVICE] == (Rule("web", "write", "read"),)
    assert rules.prefix[Resource.NODE] == (Rule("n", "read"),)


def test_json_says_the_same_as_hcl() -> None:
    text = """{"acl": "write", "key": {"a": {"policy": "read"}},
               "key_prefix": [{"b": {"policy": "deny"}}, {"c": {"policy": "list"}}]}"""
    rules = parse_rules(text)
    assert rules.acl == "write"
    assert rules.exact[Resource.KEY] == (Rule("a", "read"),)
    assert rules.prefix[Resource.KEY] == (Rule("b", "deny"), Rule("c", "list"))


def test_the_legacy_syntax_knows_prefixes_only() -> None:
    rules = parse_rules('key "a" { policy = "read" } acl = "write"', Syntax.LEGACY)
    assert rules.prefix[Resource.KEY] == (Rule("a", "read"),)
    assert not rules.exact[Resource.KEY]
    assert rules.acl == ""


def test_a_rule_written_twice_denies_if_one_of_both_does() -> None:
    """A library that keeps the last of both would let in whom Consul keeps out."""
    rules = parse_rules('key "a" { policy = "deny" } key "a" { policy = "write" }')
    assert merge([rules]).exact[Resource.KEY] == (Rule("a", "deny"),)


@pytest.mark.parametrize(
    ("one", "other", "stands"),
    [
        ("deny", "write", "deny"),
        ("read", "write", "write"),
        ("read", "list", "list"),
        ("list", "write", "write"),
        ("read", "deny", "deny"),
    ],
)
def test_deny_before_write_before_list_before_read(one: str, other: str, stands: str) -> None:
    rules = [
        PolicyRules(acl=policy, exact={Resource.KEY: (Rule("a", policy),)})
        for policy in (one, other)
    ]
    for order in (rules, rules[::-1]):
        merged = merge(order)
        assert merged.exact[Resource.KEY] == (Rule("a", stands),)
        assert merged.acl == stands


def test_policy_and_intentions_of_a_service_are_merged_apart() -> None:
    one = parse_rules('service "a" { policy = "read" intentions = "write" }')
    other = parse_rules('service "a" { policy = "write" intentions = "read" }')
    assert merge([one, other]).exact[Resource.SERVICE] == (Rule("a", "write", "write"),)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('acl = "list"', 'Invalid acl policy: "list"'),
        (
            'agent "a" { policy = "x" }',
            'Invalid agent policy: &acl.AgentRule{Node:"a", Policy:"x"}',
        ),
        (
            'key_prefix "a" { policy = "nope" }',
            'Invalid key_prefix policy: &acl.KeyRule{Prefix:"a", Policy:"nope", '
            "EnterpriseRule:acl.EnterpriseRule{}}",
        ),
        (
            'service "a" { policy = "read" intentions = "list" }',
            'Invalid service intentions policy: &acl.ServiceRule{Name:"a", Policy:"read", '
            'Intentions:"list", EnterpriseRule:acl.EnterpriseRule{}}',
        ),
        ('node "a" { policy = "list" }', "Invalid node policy: "),
        ('query "a" { }', 'Invalid query policy: &acl.PreparedQueryRule{Prefix:"a", Policy:""}'),
        ('operator = "x"', 'Invalid operator policy: "x"'),
        ('keyring = "list"', 'Invalid keyring policy: "list"'),
        ("acl = true", "root.acl: unknown type for string *ast.LiteralType"),
        ('key "a" { policy = "read" ', "object expected closing RBRACE got: EOF"),
        ('acl = "x', "At 1:9: literal not terminated"),
        ('key = "a"', "unknown slice type: *ast.LiteralType"),
        ("acl", "key 'acl' expected start of object ('{') or assignment ('=')"),
    ],
)
def test_what_is_wrong_is_said_in_consuls_words(text: str, reason: str) -> None:
    with pytest.raises(RulesError) as caught:
        parse_rules(text)
    assert reason in str(caught.value)


def test_unknown_words_are_ignored_and_levels_may_have_any_case() -> None:
    rules = parse_rules('nonsense "a" { b = 1 } acl = "WRITE" Key "k" { Policy = "Read" }')
    assert rules.acl == "WRITE"
    assert rules.exact[Resource.KEY] == (Rule("k", "Read"),)


def test_text_and_nesting_are_bounded() -> None:
    for text in ("a {" * 64, '{"a":' * 64, "x = " + "[" * 64, "#" * (1 << 21)):
        with pytest.raises(RulesError):
            parse_rules(text)


def test_merging_leaves_the_merged_as_they_are() -> None:
    """Consul's cache keeps what one token's merge wrote into a rule, for all tokens."""
    one, other = (parse_rules(f'service "a" {{ policy = "{p}" }}') for p in ("read", "deny"))
    assert merge([one, other]).exact[Resource.SERVICE] == (Rule("a", "deny"),)
    assert merge([one]).exact[Resource.SERVICE] == (Rule("a", "read"),)


def test_json_that_is_none_is_said_so_in_pythons_words() -> None:
    with pytest.raises(RulesError, match="Expecting property name enclosed in double quotes"):
        parse_rules("{acl = 1}")
