"""The language of ACL policies: text to rules (acl/policy.go).

`parse_rules` takes exactly what Consul's `NewPolicyFromSource` takes, with its errors; unknown keys
are ignored there and so here. Rules that are written twice are kept twice: `merge` decides.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from proconsul.util.errors import ProconsulError
from proconsul.util.goquote import go_quote

DENY, READ, LIST, WRITE = "deny", "read", "list", "write"
_LEVELS = frozenset({DENY, READ, LIST, WRITE})
_PRECEDENCE = {DENY: 4, WRITE: 3, LIST: 2, READ: 1}


class Syntax(Enum):
    """`CURRENT` tells exact names from prefixes; `LEGACY` is of before Consul 1.4: prefixes only."""

    CURRENT = 0
    LEGACY = 1


class RulesError(ProconsulError):
    """Rules that cannot be read; the text is Consul's."""


class Resource(Enum):
    """What rules are about: (key in the text, Go's type, Go's field for the name)."""

    AGENT = ("agent", "AgentRule", "Node")
    KEY = ("key", "KeyRule", "Prefix")
    NODE = ("node", "NodeRule", "Name")
    SERVICE = ("service", "ServiceRule", "Name")
    SESSION = ("session", "SessionRule", "Node")
    EVENT = ("event", "EventRule", "Event")
    QUERY = ("query", "PreparedQueryRule", "Prefix")

    @property
    def key(self) -> str:
        return self.value[0]


_SCOPED = frozenset({Resource.KEY, Resource.NODE, Resource.SERVICE})
"""Whose Go structs show a part that only Consul Enterprise fills."""


class Rule(NamedTuple):
    """The level for one name, or for all names that begin with it."""

    name: str
    policy: str
    intentions: str = ""
    """Of services: of intentions towards them."""

    def shown(self, resource: Resource) -> str:
        """As Go's `%#v` prints it."""
        _, type_, name_field = resource.value
        shown = f"{name_field}:{go_quote(self.name)}, Policy:{go_quote(self.policy)}"
        if resource is Resource.SERVICE:
            shown += f", Intentions:{go_quote(self.intentions)}"
        if resource in _SCOPED:
            shown += ", EnterpriseRule:acl.EnterpriseRule{}"
        return f"&acl.{type_}{{{shown}}}"


Rules = dict[Resource, tuple[Rule, ...]]


@dataclass(frozen=True, slots=True)
class PolicyRules:
    """All that a policy says."""

    acl: str = ""
    keyring: str = ""
    operator: str = ""
    exact: Rules = field(default_factory=dict)
    prefix: Rules = field(default_factory=dict)


NO_RULES = PolicyRules()


def parse_rules(text: str, syntax: Syntax = Syntax.CURRENT) -> PolicyRules:
    """Read and check rules. Raises `RulesError`."""
    if not text:
        return NO_RULES
    # With the language it is written in: servers without ACLs never need it
    from proconsul.domain.acl_rules_text import read_rules

    rules = read_rules(text, syntax)
    _validate(rules, syntax)
    return rules


def is_level(policy: str, *, or_list: bool = False) -> bool:
    """Whether this is a level; `list` only where keys may be listed."""
    level = policy.lower()
    return level in _LEVELS and (or_list or level != LIST)


def _validate(rules: PolicyRules, syntax: Syntax) -> None:
    if rules.acl and not is_level(rules.acl):
        raise RulesError(f"Invalid acl policy: {go_quote(rules.acl)}")
    for resource in Resource:
        for suffix, found in (("", rules.exact), ("_prefix", rules.prefix)):
            # The legacy syntax has one word only, and it means prefixes.
            noun = resource.key + ("" if syntax is Syntax.LEGACY else suffix)
            for rule in found.get(resource, ()):
                if not is_level(rule.policy, or_list=resource is Resource.KEY):
                    raise RulesError(f"Invalid {noun} policy: {rule.shown(resource)}")
                if rule.intentions and not is_level(rule.intentions):
                    raise RulesError(f"Invalid {noun} intentions policy: {rule.shown(resource)}")
    for noun, policy in (("keyring", rules.keyring), ("operator", rules.operator)):
        if policy and not is_level(policy):
            raise RulesError(f"Invalid {noun} policy: {go_quote(policy)}")


# --- several policies as one


def takes_precedence(one: str, other: str) -> bool:
    """Whether level `one` stands against `other`, from another policy: deny, write, list, read."""
    return _PRECEDENCE.get(one, 0) > _PRECEDENCE.get(other, 0)


def merge(policies: Iterable[PolicyRules]) -> PolicyRules:
    """What a token with all these policies may do (acl/policy_merger.go)."""
    acl = keyring = operator = ""
    exact: dict[Resource, dict[str, Rule]] = {resource: {} for resource in Resource}
    prefix: dict[Resource, dict[str, Rule]] = {resource: {} for resource in Resource}
    for policy in policies:
        acl = policy.acl if takes_precedence(policy.acl, acl) else acl
        keyring = policy.keyring if takes_precedence(policy.keyring, keyring) else keyring
        operator = policy.operator if takes_precedence(policy.operator, operator) else operator
        for merged, given in ((exact, policy.exact), (prefix, policy.prefix)):
            for resource, rules in given.items():
                for rule in rules:
                    _merge_rule(merged[resource], rule)
    return PolicyRules(
        acl,
        keyring,
        operator,
        {resource: tuple(rules.values()) for resource, rules in exact.items()},
        {resource: tuple(rules.values()) for resource, rules in prefix.items()},
    )


def _merge_rule(merged: dict[str, Rule], rule: Rule) -> None:
    known = merged.get(rule.name)
    if known is None:
        merged[rule.name] = rule
        return
    if takes_precedence(rule.policy, known.policy):
        known = known._replace(policy=rule.policy)
    if takes_precedence(rule.intentions, known.intentions):
        known = known._replace(intentions=rule.intentions)
    merged[rule.name] = known
