"""Config entries and intentions from the primary into a secondary's Raft.

`agent/consul/config_replication.go` and `replicateIntentions` of `leader_connect.go`, on the loop of
`federation.replicator`. Contents are compared, so that a new leader does not rewrite what is equal:
every write would wake every proxy.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from msgspec import Raw
from msgspec.structs import replace

from proconsul.domain import config_entries as c
from proconsul.domain import intention as ixn
from proconsul.domain.base import encode
from proconsul.domain.config_entry_messages import ConfigEntryRequest
from proconsul.domain.intention import Intention
from proconsul.domain.messages import MessageType
from proconsul.domain.options import DCSpecificRequest
from proconsul.domain.txn import TxnOp, TxnRequest, TxnResponse
from proconsul.federation.replicator import Progress, Replicator
from proconsul.state.errors import StateError
from proconsul.util.errors import ProconsulError

if TYPE_CHECKING:
    from proconsul.services.server.server import Server

T = TypeVar("T", bound=c.ConfigEntry | Intention)

INTENTIONS_BATCH_BYTES = 256 * 1024
"""Estimated size of the intentions that one transaction may change, as in Consul."""


def intentions_datacenter(server: Server) -> str:
    """Where intentions are written: in the primary if this datacenter copies them, else here ("")."""
    identity = server.config.identity
    if server.config.connect_enabled and not identity.is_primary:
        return identity.primary_datacenter
    return ""


def replicators(server: Server) -> dict[str, Callable[[], Awaitable[None]]]:
    """The loops of a secondary's leader, by name."""
    if server.config.identity.is_primary:
        return {}
    loops = {"config-entry-replication": _loop("config_entry", ConfigEntryReplica(server), server)}
    if server.config.connect_enabled:
        loops["intention-replication"] = _loop("intention", IntentionReplica(server), server)
    return {name: loop.run for name, loop in loops.items()}


def _loop(name: str, replica: ConfigEntryReplica | IntentionReplica, server: Server) -> Replicator:
    hurry, metrics = server.primary_appeared, server.metrics
    if isinstance(replica, ConfigEntryReplica):
        return Replicator(name, replica, hurry, metrics, time.time)
    return Replicator(name, replica, hurry, metrics, time.time)


def diff(
    local: Iterable[T], remote: Iterable[T], key: Callable[[T], tuple[str, str]]
) -> tuple[list[T], list[T]]:
    """(what must be deleted here, what must be written here) to equal the primary."""
    ours = {key(one): one for one in local}
    theirs = {key(one): one for one in remote}
    gone = [ours[at] for at in sorted(ours.keys() - theirs.keys())]
    changed = [
        theirs[at]
        for at in sorted(theirs)
        if at not in ours or _content(ours[at]) != _content(theirs[at])
    ]
    return gone, changed


def _content(one: T) -> T:
    return replace(one, create_index=0, modify_index=0)


def _query(server: Server, min_index: int) -> DCSpecificRequest:
    return DCSpecificRequest(
        datacenter=server.config.identity.primary_datacenter,
        allow_stale=True,
        min_query_index=min_index,
        token=server.config.replication_token(),
    )


class ConfigEntryReplica:
    """Config entries of all kinds."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def fetch(self, min_index: int) -> tuple[int, Sequence[c.ConfigEntry]]:
        """`ConfigEntry.ListAll` of the primary."""
        answer = await self._server.call("ConfigEntry.ListAll", _query(self._server, min_index))
        return answer.index, answer.entries

    async def commit(
        self, rows: Sequence[c.ConfigEntry], _last_index: int, progress: Progress
    ) -> None:
        """One command for each entry that differs.

        The state refuses what does not fit to the other entries yet: that comes again after them.
        """
        local = self._server.store.mesh.config_entries().value
        gone, changed = diff(local, rows, lambda one: (one.kind, one.name))
        progress.begin(len(gone) + len(changed))
        pending = [(c.DELETE, entry) for entry in reversed(in_order(gone))]
        pending += [(c.UPSERT, entry) for entry in in_order(changed)]
        while pending:
            refused = []
            for op, entry in pending:
                try:
                    await progress.apply(partial(self._apply, op, entry))
                except StateError as error:
                    refused.append((op, entry, error))
            if len(refused) == len(pending):
                raise refused[0][2]
            pending = [(op, entry) for op, entry, _ in refused]

    async def _apply(self, op: str, entry: c.ConfigEntry) -> None:
        request = ConfigEntryRequest(op, self._server.datacenter, entry)
        await self._server.apply(MessageType.CONFIG_ENTRY, request)


_FIRST = (c.PROXY_DEFAULTS, c.SERVICE_DEFAULTS, c.SERVICE_RESOLVER, c.SERVICE_SPLITTER)


def in_order(entries: Sequence[c.ConfigEntry]) -> list[c.ConfigEntry]:
    """Such that each finds what it builds on: routers need protocols, splitters need subsets.

    Deletions take the other direction. Consul has them by kind and name, and fails until they fit.
    """
    return sorted(
        entries, key=lambda one: _FIRST.index(one.kind) if one.kind in _FIRST else len(_FIRST)
    )


class IntentionReplica:
    """Intentions, in transactions of a bounded size."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def fetch(self, min_index: int) -> tuple[int, Sequence[Intention]]:
        """`Intention.List` of the primary."""
        answer = await self._server.call("Intention.List", _query(self._server, min_index))
        return answer.index, answer.intentions or ()

    async def commit(self, rows: Sequence[Intention], _last_index: int, progress: Progress) -> None:
        """Deletions first; an intention's hash says whether it differs.

        Those go as well whose services another one has now: they come again with their own change.
        """
        local = self._server.store.mesh.intentions().value
        known = {one.id: one.hash for one in local}
        theirs = {_between(one): one.id for one in rows}
        ids = set(theirs.values())
        gone = [
            one for one in local
            if one.id not in ids or theirs.get(_between(one), one.id) != one.id
        ]  # fmt: skip
        for one in gone:
            known.pop(one.id)
        changed = [one for one in rows if known.get(one.id) != one.hash]
        progress.begin(len(gone) + len(changed))
        ops = [(ixn.DELETE, one) for one in gone] + [(ixn.UPDATE, one) for one in changed]
        for batch in batches(ops):
            await progress.apply(partial(self._apply, batch), len(batch))

    async def _apply(self, batch: list[tuple[str, Intention]]) -> None:
        ops = [
            TxnOp(intention=Raw(encode(ixn.IntentionRequest(op=op, intention=one))))
            for op, one in batch
        ]
        answer = await self._server.apply(MessageType.TXN, TxnRequest(ops=ops))
        if isinstance(answer, TxnResponse) and answer.errors:
            raise ProconsulError("; ".join(error.what for error in answer.errors))


def _between(one: Intention) -> tuple[str, ...]:
    """What no two intentions share, in any case of letters."""
    names = (
        one.source_namespace, one.source_name,
        one.destination_namespace, one.destination_name,
    )  # fmt: skip
    return tuple(name.lower() for name in names)


def batches(ops: Iterable[tuple[str, Intention]]) -> Iterator[list[tuple[str, Intention]]]:
    """As many as fit into one transaction at a time."""
    batch: list[tuple[str, Intention]] = []
    size = 0
    for op, one in ops:
        batch.append((op, one))
        size += len(encode(one))
        if size >= INTENTIONS_BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
