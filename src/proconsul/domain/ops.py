"""Operators' requests that gossip serves: key rings and user events (`agent/structs/structs.go`)."""

from __future__ import annotations

from msgspec import Raw

from proconsul.domain.base import NIL, GoStruct, Int64
from proconsul.domain.options import QueryMeta, QueryOptions

KEYRING_OPERATIONS = ("list", "install", "use", "remove")
USER_EVENT_PREFIX = "consul:event:"
"""Of the names under which gossip carries users' events."""


class KeyringRequest(QueryOptions, frozen=True, gc=False):
    """`key` is base64. `forwarded`: answer for your own datacenter's LAN pool only."""

    operation: str = ""
    key: str = ""
    datacenter: str = ""
    forwarded: bool = False
    relay_factor: Int64 = 0
    local_only: bool = False


class KeyringResponse(GoStruct, frozen=True, gc=False):
    """Of one pool. Keys (base64) are counted by how many nodes have them."""

    wan: bool = False
    datacenter: str = ""
    segment: str = ""
    messages: dict[str, str] | None = None
    keys: dict[str, int] | None = None
    primary_keys: dict[str, int] | None = None
    num_nodes: Int64 = 0
    error: str = ""


class KeyringResponses(QueryMeta, frozen=True, gc=False):
    responses: list[KeyringResponse] | None = None


class EventFireRequest(QueryOptions, frozen=True, gc=False):
    """`payload` is the whole event as agents decode it (`services.agent.events`)."""

    datacenter: str = ""
    name: str = ""
    payload: Raw = NIL


class EventFireResponse(QueryMeta, frozen=True, gc=False):
    """Nothing but how it was answered."""
