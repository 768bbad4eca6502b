"""Authorizers from rules (acl/policy_authorizer.go, static_authorizer.go, chained_authorizer.go).

Where Consul asks a chain (the token's policies, then the default policy), these have the default
folded in: every question has one answer, found by an exact name or else by the longest prefix.
"""

from __future__ import annotations

from collections.abc import Iterable

from proconsul.domain.acl_rules import (
    DENY,
    LIST,
    READ,
    WRITE,
    PolicyRules,
    Resource,
    Rule,
    Rules,
    merge,
)

_LEVELS = {DENY: 1, READ: 2, LIST: 3, WRITE: 4}
_READ, _LIST, _WRITE = 2, 3, 4
_NONE = 0
"""No rule applies: the default policy decides."""


def _level(policy: str) -> int:
    return _LEVELS.get(policy.lower(), _NONE)


class _Names:
    """The rules of one resource. Calling it gives the level for a name."""

    __slots__ = ("_exact", "_lengths", "_prefix")

    def __init__(self, exact: Iterable[Rule], prefix: Iterable[Rule]) -> None:
        self._exact = {rule.name: _level(rule.policy) for rule in exact}
        self._prefix = {rule.name: _level(rule.policy) for rule in prefix}
        self._lengths = sorted({len(name) for name in self._prefix}, reverse=True)

    def __call__(self, name: str) -> int:
        level = self._exact.get(name)
        if level is not None:
            return level
        return self.longest_prefix(name)

    def longest_prefix(self, name: str) -> int:
        """The level of the longest prefix rule, whatever the exact ones say."""
        for length in self._lengths:
            level = self._prefix.get(name[:length])
            if level is not None:
                return level
        return _NONE

    def below(self, prefix: str) -> Iterable[int]:
        """The levels of all rules for names that begin with `prefix`."""
        for rules in (self._exact, self._prefix):
            yield from (level for name, level in rules.items() if name.startswith(prefix))

    def any_allow(self, wanted: int) -> int:
        """For the wildcard: enough if one rule allows it."""
        if any(level >= wanted for level in self.below("")):
            return _WRITE
        return self._prefix.get("", _NONE)

    def all_allow(self, wanted: int) -> int:
        """For the wildcard: no rule may refuse it."""
        if any(level < wanted for level in self.below("")):
            return _LEVELS[DENY]
        return self._prefix.get("", _NONE)


def _intentions(rules: Iterable[Rule]) -> Iterable[Rule]:
    """Who may use a service may see its intentions; changing them must be allowed by name."""
    for rule in rules:
        policy = rule.intentions or (READ if rule.policy in {READ, WRITE} else DENY)
        yield Rule(rule.name, policy)


class PolicyAuthorizer:
    """What a token with these rules may do; `default_allow` decides where no rule applies."""

    __slots__ = (
        "_acl", "_agents", "_default", "_events", "_intentions", "_keyring", "_keys", "_nodes",
        "_operator", "_queries", "_services", "_sessions",
    )  # fmt: skip

    def __init__(self, rules: PolicyRules, *, default_allow: bool) -> None:
        def names(resource: Resource) -> _Names:
            return _Names(rules.exact.get(resource, ()), rules.prefix.get(resource, ()))

        self._default = default_allow
        self._acl, self._keyring = _level(rules.acl), _level(rules.keyring)
        self._operator = _level(rules.operator)
        self._agents = names(Resource.AGENT)
        self._events = names(Resource.EVENT)
        self._keys = names(Resource.KEY)
        self._nodes = names(Resource.NODE)
        self._queries = names(Resource.QUERY)
        self._services = names(Resource.SERVICE)
        self._sessions = names(Resource.SESSION)
        self._intentions = _Names(
            _intentions(rules.exact.get(Resource.SERVICE, ())),
            _intentions(rules.prefix.get(Resource.SERVICE, ())),
        )

    def acl_read(self) -> bool:
        return self._acl >= _READ

    def acl_write(self) -> bool:
        return self._acl == _WRITE

    def agent_read(self, node: str) -> bool:
        return level >= _READ if (level := self._agents(node)) else self._default

    def agent_write(self, node: str) -> bool:
        return level == _WRITE if (level := self._agents(node)) else self._default

    def event_read(self, name: str) -> bool:
        return level >= _READ if (level := self._events(name)) else self._default

    def event_write(self, name: str) -> bool:
        return level == _WRITE if (level := self._events(name)) else self._default

    def intention_default_allow(self) -> bool:
        return self._default

    def intention_read(self, service: str) -> bool:
        rules = self._intentions
        level = rules.any_allow(_READ) if service == "*" else rules(service)
        return level >= _READ if level else self._default

    def intention_write(self, service: str) -> bool:
        rules = self._intentions
        level = rules.all_allow(_WRITE) if service == "*" else rules(service)
        return level == _WRITE if level else self._default

    def key_list(self, prefix: str) -> bool:
        return level >= _LIST if (level := self._keys(prefix)) else self._default

    def key_read(self, key: str) -> bool:
        return level >= _READ if (level := self._keys(key)) else self._default

    def key_write(self, key: str) -> bool:
        return level == _WRITE if (level := self._keys(key)) else self._default

    def key_write_prefix(self, prefix: str) -> bool:
        """Nothing that begins with `prefix` may be kept from being written."""
        over = self._keys.longest_prefix(prefix)
        if over not in (_NONE, _WRITE):
            return False
        if any(level != _WRITE for level in self._keys.below(prefix)):
            return False
        return over == _WRITE or self._default

    def keyring_read(self) -> bool:
        return self._keyring >= _READ if self._keyring else self._default

    def keyring_write(self) -> bool:
        return self._keyring == _WRITE if self._keyring else self._default

    def node_read(self, node: str) -> bool:
        return level >= _READ if (level := self._nodes(node)) else self._default

    def node_write(self, node: str) -> bool:
        return level == _WRITE if (level := self._nodes(node)) else self._default

    def operator_read(self) -> bool:
        return self._operator >= _READ if self._operator else self._default

    def operator_write(self) -> bool:
        return self._operator == _WRITE if self._operator else self._default

    def prepared_query_read(self, name: str) -> bool:
        return level >= _READ if (level := self._queries(name)) else self._default

    def prepared_query_write(self, name: str) -> bool:
        return level == _WRITE if (level := self._queries(name)) else self._default

    def service_read(self, service: str) -> bool:
        return level >= _READ if (level := self._services(service)) else self._default

    def service_write(self, service: str) -> bool:
        return level == _WRITE if (level := self._services(service)) else self._default

    def session_read(self, node: str) -> bool:
        return level >= _READ if (level := self._sessions(node)) else self._default

    def session_write(self, node: str) -> bool:
        return level == _WRITE if (level := self._sessions(node)) else self._default

    def snapshot(self) -> bool:
        return self._acl == _WRITE


def authorizer(policies: Iterable[PolicyRules], *, default_allow: bool) -> PolicyAuthorizer:
    """Of a token with these policies."""
    return PolicyAuthorizer(merge(policies), default_allow=default_allow)


def agent_master(node: str) -> PolicyAuthorizer:
    """What `acl.tokens.agent_master` may do on this very agent, even when no server is there."""
    exact: Rules = {Resource.AGENT: (Rule(node, WRITE),)}
    prefix: Rules = {Resource.NODE: (Rule("", READ),)}
    return PolicyAuthorizer(PolicyRules(exact=exact, prefix=prefix), default_allow=False)
