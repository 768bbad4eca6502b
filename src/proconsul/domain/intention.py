"""Intentions: who may connect to whom (`agent/structs/intention.go`).

The rules that every server applies alike are here too: precedence, hash, what is valid, what matches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from msgspec import Raw, field
from msgspec.structs import replace

from proconsul.domain.acl import AllowAll, Authorizer
from proconsul.domain.base import NIL, GoStruct, Int64, Uint64, bytes_of, raw_bytes
from proconsul.domain.config_entry_rules import META_VALUE_LENGTH_MAX, meta_problems
from proconsul.domain.definitions import multierror
from proconsul.domain.errors import DomainError
from proconsul.domain.mesh_requests import IntentionMatchEntry
from proconsul.domain.options import QueryMeta, WriteRequest
from proconsul.wire.gotime import ZERO_TIME_NS, decode_time, encode_time

ALLOW, DENY = "allow", "deny"
SOURCE_CONSUL = "consul"
CREATE, UPDATE, DELETE = "create", "update", "delete"
MATCH_SOURCE, MATCH_DESTINATION = "source", "destination"
WILDCARD = "*"
DEFAULT_NAMESPACE = "default"
_UUID_LENGTH, _UUID_HYPHENS_MAX = 36, 4
_HEX = frozenset("0123456789abcdefABCDEF")
_ZERO_TIME = raw_bytes(encode_time(ZERO_TIME_NS))


class InvalidIntentionError(DomainError):
    """An intention that must not be written; the text is Consul's."""


class Intention(GoStruct, frozen=True, gc=False):
    """One rule. Names may be `*`; so may namespaces, of which there is only `default` otherwise."""

    id: str = ""
    description: str = ""
    source_namespace: str = field(default="", name="SourceNS")
    source_name: str = ""
    destination_namespace: str = field(default="", name="DestinationNS")
    destination_name: str = ""
    source_type: str = ""
    action: str = ""
    default_addr: str = ""
    default_port: Int64 = 0
    meta: dict[str, str] | None = None
    precedence: Int64 = 0
    raw_created_at: Raw = _ZERO_TIME
    raw_updated_at: Raw = _ZERO_TIME
    raw_hash: Raw = NIL
    create_index: Uint64 = 0
    modify_index: Uint64 = 0

    @property
    def created_at_ns(self) -> int:
        """Unix time in nanoseconds. Raises `WireError` if a peer sent something else."""
        return decode_time(bytes_of(self.raw_created_at))

    @property
    def updated_at_ns(self) -> int:
        """Unix time in nanoseconds. Raises `WireError` if a peer sent something else."""
        return decode_time(bytes_of(self.raw_updated_at))

    @property
    def hash(self) -> bytes:
        """Of the contents; empty if it was never computed."""
        return bytes_of(self.raw_hash)

    def check_raw(self) -> None:
        """Raises `WireError` unless every server can read the times and the hash."""
        _ = self.created_at_ns, self.updated_at_ns, self.hash

    def created(self, unix_ns: int) -> Intention:
        """Stamped as created and changed now."""
        now = raw_bytes(encode_time(unix_ns))
        return replace(self, raw_created_at=now, raw_updated_at=now)

    def updated(self, unix_ns: int) -> Intention:
        """Stamped as changed now."""
        return replace(self, raw_updated_at=raw_bytes(encode_time(unix_ns)))


class IndexedIntentions(QueryMeta, frozen=True, gc=False):
    intentions: list[Intention] | None = None


class IndexedIntentionMatches(QueryMeta, frozen=True, gc=False):
    """One list for each name that was asked about, what decides first comes first."""

    matches: list[list[Intention] | None] | None = None


class IntentionRequest(WriteRequest, frozen=True, gc=False):
    datacenter: str = ""
    op: str = ""
    intention: Intention | None = None


class IntentionQueryCheckResponse(GoStruct, frozen=True, gc=False):
    allowed: bool = False


def completed(one: Intention) -> Intention:
    """With the source's type, namespaces and precedence filled in."""
    one = replace(
        one,
        source_type=one.source_type or SOURCE_CONSUL,
        source_namespace=one.source_namespace or DEFAULT_NAMESPACE,
        destination_namespace=one.destination_namespace or DEFAULT_NAMESPACE,
    )
    return replace(one, precedence=precedence(one))


def precedence(one: Intention) -> int:
    """The more exact the destination, then the source, the higher."""
    highest = (3, 6, 9)[_exact(one.destination_namespace, one.destination_name)]
    return highest - (2 - _exact(one.source_namespace, one.source_name))


def _exact(namespace: str, name: str) -> int:
    if namespace == WILDCARD:
        return 0
    return 1 if name == WILDCARD else 2


def id_problem(intention_id: str) -> str | None:
    """What memdb says of an id that cannot be looked up, or None."""
    bare = intention_id.replace("-", "")
    hyphens = len(intention_id) - len(bare)
    if len(intention_id) != _UUID_LENGTH:
        problem = f"UUID must be {_UUID_LENGTH} characters"
    elif hyphens > _UUID_HYPHENS_MAX:
        problem = f'UUID should have maximum of {_UUID_HYPHENS_MAX} "-"; got {hyphens}'
    elif len(bare) % 2:
        problem = "Input (without hyphens) must be even length"
    elif (wrong := next((c for c in bare if c not in _HEX), None)) is not None:
        problem = f"Invalid UUID: encoding/hex: invalid byte: U+{ord(wrong):04X} {wrong!r}"
    else:
        return None
    return f"failed intention lookup: index error: {problem}"


def with_hash(one: Intention) -> Intention:
    """Replication compares by it. Go cannot write its `int` fields there, so they do not count."""
    digest = hashlib.blake2b(digest_size=32)
    for text in (
        one.id, one.description, one.source_namespace, one.source_name, one.destination_namespace,
        one.destination_name, one.source_type, one.action, one.default_addr,
    ):  # fmt: skip
        digest.update(text.encode("utf-8", "surrogateescape"))
    for key, value in sorted((one.meta or {}).items()):
        digest.update(key.encode("utf-8", "surrogateescape"))
        digest.update(value.encode("utf-8", "surrogateescape"))
    return replace(one, raw_hash=raw_bytes(digest.digest()))


def validate(one: Intention) -> None:
    """Raises `InvalidIntentionError` with all that is wrong with a completed intention."""
    problems = [
        f"{name} must be set"
        for name, value in (
            ("SourceNS", one.source_namespace), ("SourceName", one.source_name),
            ("DestinationNS", one.destination_namespace), ("DestinationName", one.destination_name),
        )
        if not value
    ]  # fmt: skip
    problems += _wildcard_problems("Source", one.source_namespace, one.source_name)
    problems += _wildcard_problems("Destination", one.destination_namespace, one.destination_name)
    if len(one.description.encode("utf-8", "surrogateescape")) > META_VALUE_LENGTH_MAX:
        problems.append(f"Description exceeds maximum length {META_VALUE_LENGTH_MAX}")
    problems += meta_problems(one.meta)
    if one.action not in (ALLOW, DENY):
        problems.append("Action must be set to 'allow' or 'deny'")
    if one.source_type != SOURCE_CONSUL:
        problems.append("SourceType must be set to 'consul'")
    if problems:
        raise InvalidIntentionError(multierror(problems))


def _wildcard_problems(side: str, namespace: str, name: str) -> list[str]:
    partial = "wildcard character '*' cannot be used with partial values"
    problems = []
    if namespace != WILDCARD and WILDCARD in namespace:
        problems.append(f"{side}NS: {partial}")
    if name != WILDCARD:
        if WILDCARD in name:
            problems.append(f"{side}Name: {partial}")
        if namespace == WILDCARD:
            problems.append(f"{side}Name: exact value cannot follow wildcard namespace")
    return problems


def can_read(one: Intention, may: Authorizer) -> bool:
    """By either side."""
    return any(
        name and may.intention_read(name) for name in (one.source_name, one.destination_name)
    )


def can_write(one: Intention, may: Authorizer) -> bool:
    """By the destination alone, which must be named, unless there are no ACLs."""
    if isinstance(may, AllowAll):
        return True
    return bool(one.destination_name) and may.intention_write(one.destination_name)


def ordered(many: Iterable[Intention]) -> list[Intention]:
    """Consul's `IntentionPrecedenceSorter`: what decides first comes first."""
    return sorted(many, key=_rank)


def _rank(one: Intention) -> tuple[int, str, str, str, str]:
    return (
        -one.precedence,
        one.source_namespace,
        one.source_name,
        one.destination_namespace,
        one.destination_name,
    )


def matching(many: Iterable[Intention], side: str, entry: IntentionMatchEntry) -> list[Intention]:
    """Those of `many` that concern a name as source or destination, in their order."""
    wanted = {(WILDCARD, WILDCARD)}
    if entry.namespace != WILDCARD:
        wanted |= {(entry.namespace, WILDCARD), (entry.namespace, entry.name)}
    if side == MATCH_SOURCE:
        return [one for one in many if (one.source_namespace, one.source_name) in wanted]
    return [one for one in many if (one.destination_namespace, one.destination_name) in wanted]


def decides(one: Intention, namespace: str, name: str) -> bool | None:
    """Whether it lets a source connect; None if it does not concern that source."""
    if one.source_namespace not in (WILDCARD, namespace) or one.source_name not in (WILDCARD, name):
        return None
    return one.action == ALLOW
