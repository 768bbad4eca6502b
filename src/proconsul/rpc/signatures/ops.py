"""Gossip's keys, and user events."""

from __future__ import annotations

from proconsul.domain import ops
from proconsul.rpc.table import Method, Route

SIGNATURES = (
    # Not reads: neither is to be repeated by itself.
    Method(
        "Internal.KeyringOperation",
        ops.KeyringRequest,
        ops.KeyringResponses,
        Route.HERE,
        is_read=False,
    ),
    Method(
        "Internal.EventFire",
        ops.EventFireRequest,
        ops.EventFireResponse,
        Route.DATACENTER,
        is_read=False,
    ),
)
