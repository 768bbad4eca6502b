"""Rules of before Consul 1.4 in today's syntax, laid out as Consul does it."""

from __future__ import annotations

import pytest

from proconsul.domain.acl_legacy import legacy_policy
from proconsul.domain.acl_rules import RulesError, Syntax, merge, parse_rules
from proconsul.domain.acl_translate import translate_legacy_rules

LEGACY = """
# comments are lost
agent "" { policy = "read" }
key "private/" {
    policy = "deny"
}
service "web" { policy = "write", intentions = "read" }
keyring = "write"
operator = "read"
"""
CURRENT = """agent_prefix "" {
  policy = "read"
}

key_prefix "private/" {
  policy = "deny"
}

service_prefix "web" {
  policy     = "write"
  intentions = "read"
}

keyring = "write"

operator = "read\""""


def test_translated_rules_mean_the_same() -> None:
    assert translate_legacy_rules(LEGACY) == CURRENT
    assert parse_rules(CURRENT) == parse_rules(LEGACY, Syntax.LEGACY)
    assert translate_legacy_rules("") == ""
    with pytest.raises(RulesError, match="Failed to parse rules: At"):
        translate_legacy_rules("agent {")


def test_what_old_agents_are_sent() -> None:
    rules = parse_rules(
        'key "a" { policy = "read" } key_prefix "b" { policy = "write" } acl = "read"'
    )
    policy = legacy_policy([("p", 3)], merge([rules]))
    assert policy["Keys"] == [
        {"Prefix": "a", "Policy": "read"}, {"Prefix": "b", "Policy": "write"},
    ]  # fmt: skip
    assert (policy["KeyPrefixes"], policy["Services"], policy["ACL"]) == (None, None, "read")
    assert policy["ID"] != legacy_policy([("p", 4)], merge([rules]))["ID"]
