"""WAN federation states (`agent/structs/federation_state.go`)."""

from __future__ import annotations

from msgspec import Raw

from proconsul.domain.base import GoStruct, Uint64, bytes_of, raw_bytes
from proconsul.domain.catalog import CheckServiceNode
from proconsul.domain.options import QueryMeta, QueryOptions, WriteRequest
from proconsul.wire.gotime import ZERO_TIME_NS, decode_time, encode_time

FEDERATION_UPSERT = "upsert"
FEDERATION_DELETE = "delete"

ZERO_TIME = raw_bytes(encode_time(ZERO_TIME_NS))


def raw_time(unix_ns: int) -> Raw:
    """A time field."""
    return raw_bytes(encode_time(unix_ns))


class FederationState(GoStruct, frozen=True, gc=False):
    """What every datacenter knows of one: its mesh gateways. One record per datacenter."""

    datacenter: str = ""
    mesh_gateways: list[CheckServiceNode] | None = None
    raw_updated_at: Raw = ZERO_TIME
    primary_modify_index: Uint64 = 0
    create_index: Uint64 = 0
    modify_index: Uint64 = 0

    @property
    def updated_at_ns(self) -> int:
        """Unix time in nanoseconds. Raises `WireError` if a peer sent something else."""
        return decode_time(bytes_of(self.raw_updated_at))

    def is_same(self, other: FederationState) -> bool:
        """Whether anti-entropy has nothing to do; time and indexes do not count."""
        mine, theirs = self.mesh_gateways or [], other.mesh_gateways or []
        return (
            self.datacenter == other.datacenter
            and len(mine) == len(theirs)
            and all(a.is_same(b) for a, b in zip(mine, theirs, strict=True))
        )


class FederationStateRequest(WriteRequest, frozen=True, gc=False):
    """Upsert, or delete by `state.datacenter`. Also a snapshot record."""

    datacenter: str = ""
    op: str = ""
    state: FederationState | None = None


class FederationStateQuery(QueryOptions, frozen=True, gc=False):
    """`target_datacenter` is the one asked about."""

    datacenter: str = ""
    target_datacenter: str = ""


class FederationStateResponse(QueryMeta, frozen=True, gc=False):
    state: FederationState | None = None


class IndexedFederationStates(QueryMeta, frozen=True, gc=False):
    states: list[FederationState] | None = None
