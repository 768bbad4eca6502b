"""What a token's identities stand for, and which of its policies count in a datacenter.

`SyntheticPolicy` and `EmbeddedPolicy` of agent/structs/acl.go, `filterPoliciesByScope` of
agent/consul/acl.go.
"""

from __future__ import annotations

from collections.abc import Iterable

from proconsul.domain.acl_types import (
    MANAGEMENT_RULES,
    TYPE_CLIENT,
    TYPE_MANAGEMENT,
    ACLNodeIdentity,
    ACLPolicy,
    ACLRole,
    ACLServiceIdentity,
    ACLToken,
)

_LEGACY = 1
"""`ACLPolicy.syntax` of before Consul 1.4."""

_SERVICE = """
service "{name}" {{
	policy = "write"
}}
service "{name}-sidecar-proxy" {{
	policy = "write"
}}
service_prefix "" {{
	policy = "read"
}}
node_prefix "" {{
	policy = "read"
}}"""

_NODE = """
node "{name}" {{
	policy = "write"
}}
service_prefix "" {{
	policy = "read"
}}"""


def service_policy(identity: ACLServiceIdentity) -> ACLPolicy:
    """Register the service and its sidecar, see all services and nodes."""
    name = identity.service_name
    return ACLPolicy(
        name=f"synthetic policy of service {name}",
        rules=_SERVICE.format(name=name),
        datacenters=identity.datacenters,
    )


def node_policy(identity: ACLNodeIdentity) -> ACLPolicy:
    """Register the node in its datacenter, see all services."""
    name = identity.node_name
    return ACLPolicy(
        name=f"synthetic policy of node {name}",
        rules=_NODE.format(name=name),
        datacenters=[identity.datacenter],
    )


def embedded_policy(token: ACLToken) -> ACLPolicy | None:
    """The policy of a token of before Consul 1.4, which carries its rules itself."""
    if token.type == TYPE_MANAGEMENT:
        return ACLPolicy(name="legacy-management", rules=MANAGEMENT_RULES)
    if token.rules or token.type == TYPE_CLIENT:
        return ACLPolicy(name="legacy-policy", rules=token.rules, syntax=_LEGACY)
    return None


def has_links(token: ACLToken) -> bool:
    """Whether it has rights in today's form; only without any its own rules count."""
    return bool(token.policies or token.roles or token.service_identities or token.node_identities)


def linked_policies(token: ACLToken, roles: Iterable[ACLRole]) -> list[str]:
    """The ids of its policies and its roles', each once."""
    links = [*(token.policies or ())]
    for role in roles:
        links += role.policies or ()
    return sorted({link.id for link in links})


def synthetic_policies(token: ACLToken, roles: Iterable[ACLRole]) -> list[ACLPolicy]:
    """Of its identities and its roles'."""
    owners: list[ACLToken | ACLRole] = [token, *roles]
    return [
        policy
        for owner in owners
        for policy in (
            *map(service_policy, owner.service_identities or ()),
            *map(node_policy, owner.node_identities or ()),
        )
    ]


def valid_in(policies: Iterable[ACLPolicy], datacenter: str) -> list[ACLPolicy]:
    """Those for this datacenter, or for all."""
    return [p for p in policies if not p.datacenters or datacenter in p.datacenters]
