"""Every RPC that proconsul serves or calls, by Consul's names (`rpc.signatures` by subject)."""

from __future__ import annotations

from proconsul.rpc.signatures import acl, connect_ca, core, mesh, ops, prepared_query
from proconsul.rpc.signatures.base import Empty
from proconsul.rpc.signatures.core import RaftStats
from proconsul.rpc.table import Method

__all__ = ["METHODS", "Empty", "RaftStats"]

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        *core.SIGNATURES,
        *acl.SIGNATURES,
        *connect_ca.SIGNATURES,
        *mesh.SIGNATURES,
        *ops.SIGNATURES,
        *prepared_query.SIGNATURES,
    )
}
