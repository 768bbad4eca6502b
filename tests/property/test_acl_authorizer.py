"""Authorizers against the plainest reading of their rules: look at all of them for every question."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from proconsul.domain.acl_authorizers import PolicyAuthorizer, authorizer
from proconsul.domain.acl_rules import PolicyRules, Resource, Rule, parse_rules, takes_precedence

LEVELS = ("deny", "read", "list", "write")
NAMES = st.text("ab/", max_size=4)
RULES = st.lists(st.tuples(st.booleans(), NAMES, st.sampled_from(LEVELS)), max_size=8)
POLICIES = st.lists(RULES, max_size=3)
GRANTS = {"deny": "", "read": "r", "list": "rl", "write": "rlw"}


def _stands(found: list[str]) -> str:
    level = found[0]
    for other in found[1:]:
        level = other if takes_precedence(other, level) else level
    return level


def _naive(rules: list[tuple[bool, str, str]], name: str, default: str) -> str:
    exact = [level for prefix, rule, level in rules if not prefix and rule == name]
    if exact:
        return _stands(exact)
    over = [(rule, level) for prefix, rule, level in rules if prefix and name.startswith(rule)]
    if not over:
        return default
    longest = max(len(rule) for rule, _ in over)
    return _stands([level for rule, level in over if len(rule) == longest])


def _built(policies: list[list[tuple[bool, str, str]]], *, allow: bool) -> PolicyAuthorizer:
    parsed = []
    for policy in policies:
        exact = tuple(Rule(name, level) for prefix, name, level in policy if not prefix)
        below = tuple(Rule(name, level) for prefix, name, level in policy if prefix)
        parsed.append(PolicyRules(exact={Resource.KEY: exact}, prefix={Resource.KEY: below}))
    return authorizer(parsed, default_allow=allow)


@settings(derandomize=True, max_examples=300, deadline=None)
@given(POLICIES, NAMES, st.booleans())
def test_the_exact_rule_or_the_longest_prefix_decides(
    policies: list[list[tuple[bool, str, str]]], name: str, allow: bool
) -> None:
    rules = [rule for policy in policies for rule in policy]
    grants = GRANTS[_naive(rules, name, "write" if allow else "deny")]
    may = _built(policies, allow=allow)
    assert may.key_read(name) is ("r" in grants)
    assert may.key_list(name) is ("l" in grants)
    assert may.key_write(name) is ("w" in grants)


@settings(derandomize=True, max_examples=300, deadline=None)
@given(POLICIES, NAMES, st.booleans(), st.lists(NAMES, max_size=4))
def test_whoever_may_delete_a_tree_may_write_all_in_it(
    policies: list[list[tuple[bool, str, str]]], prefix: str, allow: bool, below: list[str]
) -> None:
    may = _built(policies, allow=allow)
    if may.key_write_prefix(prefix):
        assert all(may.key_write(prefix + name) for name in below)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=6), st.sampled_from(LEVELS)), max_size=5))
def test_hcl_and_json_read_alike(rules: list[tuple[str, str]]) -> None:
    as_json = [{name: {"policy": level}} for name, level in rules]
    as_hcl = "".join(f'key {_quoted(name)} {{ policy = "{level}" }}\n' for name, level in rules)
    from_json = parse_rules(json.dumps({"key": as_json} if rules else {}))
    assert parse_rules(as_hcl).exact.get(Resource.KEY, ()) == from_json.exact[Resource.KEY]


def _quoted(name: str) -> str:
    escapes = (
        f"\\U{ord(char):08x}" if char in '"\\$' or not char.isalnum() else char for char in name
    )
    return '"' + "".join(escapes) + '"'
