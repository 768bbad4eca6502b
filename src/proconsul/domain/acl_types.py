"""What the ACL system stores (`agent/structs/acl.go`): tokens, policies, roles, and what refers to them.

Their hashes, by which replication knows whether a row differs, are Consul's (`SetHash`). Secrets
are in `ACLToken.secret_id` alone. Requests and responses are in `domain.acl_requests`.
"""

from __future__ import annotations

import hashlib
from typing import Any

from msgspec import Raw
from msgspec.structs import replace

from proconsul.domain.base import NIL, GoStruct, Int64, Uint64, bytes_of, is_nil, raw_bytes
from proconsul.domain.federation import ZERO_TIME
from proconsul.wire.gotime import ZERO_TIME_NS, decode_time

POLICY_MANAGEMENT_ID = "00000000-0000-0000-0000-000000000001"
TOKEN_ANONYMOUS_ID = "00000000-0000-0000-0000-000000000002"  # an id, no secret
RESERVED_PREFIX = "00000000-0000-0000-0000-0000000000"
"""Ids that begin so are the system's own."""

TYPE_CLIENT = "client"
TYPE_MANAGEMENT = "management"
"""Types of tokens of before Consul 1.4; today's have none."""

ID_SECRET = "secret"
ID_ACCESSOR = "accessor"
"""By what a token is looked for."""

REDACTED = "<hidden>"
"""Stands for a secret that its reader may not see."""

_HASH_BYTES = 32

MANAGEMENT_RULES = """
acl = "write"
agent_prefix "" {
	policy = "write"
}
event_prefix "" {
	policy = "write"
}
key_prefix "" {
	policy = "write"
}
keyring = "write"
node_prefix "" {
	policy = "write"
}
operator = "write"
query_prefix "" {
	policy = "write"
}
service_prefix "" {
	policy = "write"
	intentions = "write"
}
session_prefix "" {
	policy = "write"
}"""
"""Of the built-in policy; compared by its bytes."""


class ACLLink(GoStruct, frozen=True, gc=False):
    """A reference to a policy or role. Stored by id; the name is looked up when read."""

    id: str = ""
    name: str = ""


class ACLServiceIdentity(GoStruct, frozen=True, gc=False):
    """All that a service needs, in some datacenters or (none named) everywhere."""

    service_name: str = ""
    datacenters: list[str] | None = None


class ACLNodeIdentity(GoStruct, frozen=True, gc=False):
    """All that a node's agent needs."""

    node_name: str = ""
    datacenter: str = ""


class ACLToken(GoStruct, frozen=True, gc=False):
    """A token. `type` and `rules` are of before Consul 1.4."""

    accessor_id: str = ""
    secret_id: str = ""
    description: str = ""
    policies: list[ACLLink] | None = None
    roles: list[ACLLink] | None = None
    service_identities: list[ACLServiceIdentity] | None = None
    node_identities: list[ACLNodeIdentity] | None = None
    type: str = ""
    rules: str = ""
    local: bool = False
    auth_method: str = ""
    raw_expiration_time: Raw = NIL
    expiration_ttl_ns: Int64 = 0
    raw_create_time: Raw = ZERO_TIME
    raw_hash: Raw = NIL
    create_index: Uint64 = 0
    modify_index: Uint64 = 0

    @property
    def expires_ns(self) -> int | None:
        """Unix time in nanoseconds; None if it never ends. Raises `WireError`."""
        moment = decode_time(bytes_of(self.raw_expiration_time))
        return None if moment == ZERO_TIME_NS else moment

    @property
    def created_ns(self) -> int:
        """Unix time in nanoseconds. Raises `WireError`."""
        return decode_time(bytes_of(self.raw_create_time))

    def is_expired(self, now_ns: int) -> bool:
        """At a Unix time in nanoseconds."""
        moment = self.expires_ns
        return moment is not None and moment < now_ns

    def uses_new_fields(self) -> bool:
        """Whether the interface of before Consul 1.4 must not touch it."""
        return bool(
            self.policies
            or self.service_identities
            or self.node_identities
            or self.roles
            or not self.type
            or self.expires_ns is not None
            or self.expiration_ttl_ns
            or self.auth_method
        )

    def hashed(self) -> ACLToken:
        """With the hash of what users set in it."""
        digest = hashlib.blake2b(digest_size=_HASH_BYTES)
        _feed(digest, self.description, self.type, self.rules)
        _feed(digest, "local" if self.local else "global")
        _feed_links(digest, self.policies, self.roles)
        _feed_identities(digest, self.service_identities, self.node_identities)
        return replace(self, raw_hash=raw_bytes(digest.digest()))

    def estimated_size(self) -> int:
        """Bytes, roughly, for batches (`EstimateSize`)."""
        texts = (
            self.accessor_id, self.secret_id, self.description, self.type, self.rules,
            self.auth_method,
        )  # fmt: skip
        links = _links_size(self.policies) + _links_size(self.roles)
        identities = _identities_size(self.service_identities, self.node_identities)
        return 41 + sum(_length(text) for text in texts) + links + identities


class ACLTokenListStub(GoStruct, frozen=True, gc=False):
    """A token without its secret."""

    accessor_id: str = ""
    description: str = ""
    policies: list[ACLLink] | None = None
    roles: list[ACLLink] | None = None
    service_identities: list[ACLServiceIdentity] | None = None
    node_identities: list[ACLNodeIdentity] | None = None
    local: bool = False
    auth_method: str = ""
    raw_expiration_time: Raw = NIL
    raw_create_time: Raw = ZERO_TIME
    raw_hash: Raw = NIL
    create_index: Uint64 = 0
    modify_index: Uint64 = 0
    legacy: bool = False


def token_stub(token: ACLToken) -> ACLTokenListStub:
    """What lists show of it."""
    return ACLTokenListStub(
        accessor_id=token.accessor_id,
        description=token.description,
        policies=token.policies,
        roles=token.roles,
        service_identities=token.service_identities,
        node_identities=token.node_identities,
        local=token.local,
        auth_method=token.auth_method,
        raw_expiration_time=token.raw_expiration_time,
        raw_create_time=token.raw_create_time,
        raw_hash=token.raw_hash,
        create_index=token.create_index,
        modify_index=token.modify_index,
        legacy=bool(token.rules),
    )


class ACLPolicy(GoStruct, frozen=True, gc=False):
    """Rules, valid in some datacenters or (none named) everywhere. `syntax` 1 is of before 1.4."""

    id: str = ""
    name: str = ""
    description: str = ""
    rules: str = ""
    syntax: Int64 = 0
    datacenters: list[str] | None = None
    raw_hash: Raw = NIL
    create_index: Uint64 = 0
    modify_index: Uint64 = 0

    def hashed(self) -> ACLPolicy:
        """With the hash of what users set in it."""
        digest = hashlib.blake2b(digest_size=_HASH_BYTES)
        _feed(digest, self.name, self.description, self.rules, *(self.datacenters or ()))
        return replace(self, raw_hash=raw_bytes(digest.digest()))

    def estimated_size(self) -> int:
        """Bytes, roughly, for batches (`EstimateSize`)."""
        texts = (self.name, self.description, self.rules, *(self.datacenters or ()))
        return 64 + sum(_length(text) for text in texts)


class ACLPolicyListStub(GoStruct, frozen=True, gc=False):
    """A policy without its rules."""

    id: str = ""
    name: str = ""
    description: str = ""
    datacenters: list[str] | None = None
    raw_hash: Raw = NIL
    create_index: Uint64 = 0
    modify_index: Uint64 = 0


def policy_stub(policy: ACLPolicy) -> ACLPolicyListStub:
    """What lists show of it."""
    return ACLPolicyListStub(
        id=policy.id,
        name=policy.name,
        description=policy.description,
        datacenters=policy.datacenters,
        raw_hash=policy.raw_hash,
        create_index=policy.create_index,
        modify_index=policy.modify_index,
    )


class ACLRole(GoStruct, frozen=True, gc=False):
    """Policies and identities under one name."""

    id: str = ""
    name: str = ""
    description: str = ""
    policies: list[ACLLink] | None = None
    service_identities: list[ACLServiceIdentity] | None = None
    node_identities: list[ACLNodeIdentity] | None = None
    raw_hash: Raw = NIL
    create_index: Uint64 = 0
    modify_index: Uint64 = 0

    def hashed(self) -> ACLRole:
        """With the hash of what users set in it."""
        digest = hashlib.blake2b(digest_size=_HASH_BYTES)
        _feed(digest, self.name, self.description)
        _feed_links(digest, self.policies)
        _feed_identities(digest, self.service_identities, self.node_identities)
        return replace(self, raw_hash=raw_bytes(digest.digest()))

    def estimated_size(self) -> int:
        """Bytes, roughly, for batches (`EstimateSize`)."""
        identities = _identities_size(self.service_identities, self.node_identities)
        texts = _length(self.name) + _length(self.description)
        return 60 + texts + _links_size(self.policies) + identities


class ACLBindingRule(GoStruct, frozen=True, gc=False):
    """What whoever logs in by an auth method is given."""

    id: str = ""
    description: str = ""
    auth_method: str = ""
    selector: str = ""
    bind_type: str = ""
    bind_name: str = ""
    create_index: Uint64 = 0
    modify_index: Uint64 = 0


class ACLAuthMethod(GoStruct, frozen=True, gc=False):
    """A foreign system whose credentials can be changed for tokens."""

    name: str = ""
    type: str = ""
    display_name: str = ""
    description: str = ""
    max_token_ttl_ns: Int64 = 0
    token_locality: str = ""
    config: dict[str, Any] | None = None
    create_index: Uint64 = 0
    modify_index: Uint64 = 0


class ACLAuthMethodListStub(GoStruct, frozen=True, gc=False):
    """An auth method without its configuration."""

    name: str = ""
    type: str = ""
    display_name: str = ""
    description: str = ""
    create_index: Uint64 = 0
    modify_index: Uint64 = 0


def method_stub(method: ACLAuthMethod) -> ACLAuthMethodListStub:
    """What lists show of it."""
    return ACLAuthMethodListStub(
        name=method.name,
        type=method.type,
        display_name=method.display_name,
        description=method.description,
        create_index=method.create_index,
        modify_index=method.modify_index,
    )


class ACL(GoStruct, frozen=True, gc=False):
    """A token of before Consul 1.4, which carries its rules itself. `id` is the secret."""

    id: str = ""
    name: str = ""
    type: str = ""
    rules: str = ""
    create_index: Uint64 = 0
    modify_index: Uint64 = 0


def legacy_of(token: ACLToken) -> ACL | None:
    """A token as the interface of before Consul 1.4 shows it; None if it cannot."""
    if not token.type:
        return None
    return ACL(
        id=token.secret_id,
        name=token.description,
        type=token.type,
        rules=token.rules,
        create_index=token.create_index,
        modify_index=token.modify_index,
    )


def same_hash(one: Raw, other: Raw) -> bool:
    """Whether two rows have the same content; without a hash nobody knows."""
    return not is_nil(one) and bytes_of(one) == bytes_of(other)


# --- parts of hashes and sizes


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _length(text: str) -> int:
    return len(_bytes(text))


def _feed(digest: hashlib.blake2b, *texts: str) -> None:
    for text in texts:
        digest.update(_bytes(text))


def _feed_links(digest: hashlib.blake2b, *lists: list[ACLLink] | None) -> None:
    for links in lists:
        _feed(digest, *(link.id for link in links or ()))


def _feed_identities(
    digest: hashlib.blake2b,
    services: list[ACLServiceIdentity] | None,
    nodes: list[ACLNodeIdentity] | None,
) -> None:
    for service in services or ():
        _feed(digest, service.service_name, *(service.datacenters or ()))
    for node in nodes or ():
        _feed(digest, node.node_name, node.datacenter)


def _links_size(links: list[ACLLink] | None) -> int:
    return sum(_length(link.id) + _length(link.name) for link in links or ())


def _identities_size(
    services: list[ACLServiceIdentity] | None, nodes: list[ACLNodeIdentity] | None
) -> int:
    size = 0
    for service in services or ():
        size += sum(_length(text) for text in (service.service_name, *(service.datacenters or ())))
    for node in nodes or ():
        size += _length(node.node_name) + _length(node.datacenter)
    return size
