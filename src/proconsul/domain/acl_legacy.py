"""Rules as agents of before Consul 1.4 take them (`ConvertToLegacy` in acl/policy.go).

They know prefixes only, so exact names and prefixes come in one list.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from proconsul.domain.acl_rules import PolicyRules, Resource, Rule

_FIELDS = {
    Resource.AGENT: ("Agents", "AgentPrefixes"),
    Resource.KEY: ("Keys", "KeyPrefixes"),
    Resource.NODE: ("Nodes", "NodePrefixes"),
    Resource.SERVICE: ("Services", "ServicePrefixes"),
    Resource.SESSION: ("Sessions", "SessionPrefixes"),
    Resource.EVENT: ("Events", "EventPrefixes"),
    Resource.QUERY: ("PreparedQueries", "PreparedQueryPrefixes"),
}


def legacy_policy(versions: Iterable[tuple[str, int]], merged: PolicyRules) -> dict[str, Any]:
    """`acl.Policy` of Go as a map. `versions`: id and modify index of what was merged, in order."""
    digest = hashlib.blake2b(digest_size=32)
    for policy_id, index in versions:
        digest.update(policy_id.encode() + index.to_bytes(8, "big"))
    policy: dict[str, Any] = {
        "ID": digest.hexdigest(),
        "Revision": 0,
        "ACL": merged.acl,
        "Keyring": merged.keyring,
        "Operator": merged.operator,
    }
    for resource, (together, prefixes) in _FIELDS.items():
        rules = (*merged.exact.get(resource, ()), *merged.prefix.get(resource, ()))
        policy[together] = [_rule(resource, rule) for rule in rules] or None
        policy[prefixes] = None
    return policy


def _rule(resource: Resource, rule: Rule) -> dict[str, str]:
    name_field = resource.value[2]
    fields = {name_field: rule.name, "Policy": rule.policy}
    if resource is Resource.SERVICE:
        fields["Intentions"] = rule.intentions
    return fields
