"""Policies, roles and tokens from the primary into a secondary's Raft (agent/consul/acl_replication.go).

A list without rules and secrets tells by modify index and hash what differs; only that is fetched
whole and committed in batches. Tokens need a replication token that may write ACLs, or their secrets
would come hidden. The loop is `replicator`'s; `difference` and `batches` are the pure part.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

from msgspec import Raw
from msgspec.structs import replace

from proconsul.domain import acl_requests as r
from proconsul.domain import acl_types as t
from proconsul.domain.base import bytes_of
from proconsul.domain.federation import ZERO_TIME, raw_time
from proconsul.domain.messages import MessageType
from proconsul.drivers.timing import timed
from proconsul.federation.rate import Signal
from proconsul.federation.replicator import Pace, Progress, Replicator
from proconsul.state.acl_queries import AclQueries
from proconsul.util.errors import ProconsulError
from proconsul.util.metrics import Metrics

S = TypeVar("S")

BATCH_DELETES_MAX = 4096
BATCH_BYTES = 256 * 1024
TOKEN_POLL_S = 0.5
PACE = Pace(applies_per_s=100.0, applies_burst=10)


class ReplicationError(ProconsulError):
    """A round failed; the text says what of it."""


class AclServer(Protocol):
    """The secondary's server, as replication sees it."""

    @property
    def acl_rows(self) -> AclQueries:
        """Our own copy."""
        ...

    @property
    def primary_datacenter(self) -> str: ...

    @property
    def primary_appeared(self) -> Signal: ...

    def replication_token(self) -> str: ...

    async def call(self, method: str, request: Any) -> Any: ...

    async def apply(self, type_: MessageType, request: Any) -> Any: ...


class Difference(NamedTuple):
    """Ids of what must be deleted, and of what must be fetched and written."""

    deletes: list[str]
    upserts: list[str]


def difference(
    local: Iterable[tuple[str, Raw]], remote: Iterable[tuple[str, int, Raw]], last_index: int
) -> Difference:
    """Compare (id, hash) of ours with (id, modify index, hash) of the primary's rows.

    We have seen all up to `last_index`. Rows without an id (tokens that are not upgraded yet) are
    passed over.
    """
    ours = {row_id: bytes_of(digest) for row_id, digest in local if row_id}
    theirs = {row_id: (index, bytes_of(digest)) for row_id, index, digest in remote if row_id}
    return Difference(
        sorted(ours.keys() - theirs.keys()),
        [
            row_id
            for row_id, (index, digest) in sorted(theirs.items())
            if row_id not in ours or (index > last_index and ours[row_id] != digest)
        ],
    )


def batches(rows: Sequence[S], size: Callable[[S], int]) -> Iterator[Sequence[S]]:
    """The rows in order, in parts of about `BATCH_BYTES` by their estimated sizes."""
    start = total = 0
    for position, row in enumerate(rows):
        total += size(row)
        if total >= BATCH_BYTES:
            yield rows[start : position + 1]
            start, total = position + 1, 0
    if start < len(rows):
        yield rows[start:]


class Subject(Protocol):
    """What differs between policies, roles and tokens."""

    noun: str
    plural: str

    async def listed(self, min_index: int) -> tuple[int, Sequence[Any]]:
        """The primary's index and its list."""
        ...

    def mine(self) -> Iterable[tuple[str, Raw]]:
        """Id and hash of what we have."""
        ...

    def key(self, row: Any) -> str:
        """The id of a listed row."""
        ...

    async def whole(self, ids: list[str], rows: Sequence[Any]) -> Sequence[Any]:
        """What was listed with these ids, complete."""
        ...

    def displaced(self, rows: Sequence[Any]) -> Sequence[Any]:
        """Rows of ours whose names these `rows` have now, under names that stand in no one's way.

        They are written before `rows`, and among or after these comes what they are called now.
        """
        ...

    def deletion(self, ids: list[str]) -> tuple[MessageType, Any]: ...

    def upsert(self, rows: Sequence[Any]) -> tuple[MessageType, Any]: ...


class _OfServer:
    def __init__(self, server: AclServer) -> None:
        self._server = server

    def _options(self, min_index: int = 0) -> dict[str, Any]:
        return {
            "datacenter": self._server.primary_datacenter,
            "allow_stale": True,
            "min_query_index": min_index,
            "token": self._server.replication_token(),
        }


Named = TypeVar("Named", t.ACLPolicy, t.ACLRole)


def _displaced(mine: Iterable[Named], rows: Sequence[Named]) -> Sequence[Named]:
    """Names are unique: of two that changed places, neither could be written first."""
    wanted = {row.name.lower(): row.id for row in rows}
    return [
        replace(row, name=row.id).hashed()
        for row in mine
        if wanted.get(row.name.lower(), row.id) != row.id
    ]


class Policies(_OfServer):
    noun, plural = "policy", "policies"

    async def listed(self, min_index: int) -> tuple[int, Sequence[t.ACLPolicyListStub]]:
        request = r.ACLPolicyListRequest(**self._options(min_index))
        answer: r.ACLPolicyListResponse = await self._server.call("ACL.PolicyList", request)
        return answer.index, answer.policies or ()

    def mine(self) -> Iterable[tuple[str, Raw]]:
        return ((row.id, row.raw_hash) for row in self._server.acl_rows.policies().value)

    def key(self, row: t.ACLPolicyListStub) -> str:
        return row.id

    async def whole(self, ids: list[str], _rows: Sequence[Any]) -> Sequence[t.ACLPolicy]:
        request = r.ACLPolicyBatchGetRequest(policy_ids=ids, **self._options())
        answer: r.ACLPolicyBatchResponse = await self._server.call("ACL.PolicyBatchRead", request)
        return answer.policies or ()

    def displaced(self, rows: Sequence[t.ACLPolicy]) -> Sequence[t.ACLPolicy]:
        return _displaced(self._server.acl_rows.policies().value, rows)

    def deletion(self, ids: list[str]) -> tuple[MessageType, Any]:
        return MessageType.ACL_POLICY_DELETE, r.ACLPolicyBatchDeleteRequest(ids)

    def upsert(self, rows: Sequence[t.ACLPolicy]) -> tuple[MessageType, Any]:
        return MessageType.ACL_POLICY_SET, r.ACLPolicyBatchSetRequest(list(rows))


class Roles(_OfServer):
    """Their list is complete already."""

    noun, plural = "role", "roles"

    async def listed(self, min_index: int) -> tuple[int, Sequence[t.ACLRole]]:
        request = r.ACLRoleListRequest(**self._options(min_index))
        answer: r.ACLRoleListResponse = await self._server.call("ACL.RoleList", request)
        return answer.index, answer.roles or ()

    def mine(self) -> Iterable[tuple[str, Raw]]:
        return ((row.id, row.raw_hash) for row in self._server.acl_rows.roles().value)

    def key(self, row: t.ACLRole) -> str:
        return row.id

    async def whole(self, ids: list[str], rows: Sequence[t.ACLRole]) -> Sequence[t.ACLRole]:
        wanted = set(ids)
        return [row for row in rows if row.id in wanted]

    def displaced(self, rows: Sequence[t.ACLRole]) -> Sequence[t.ACLRole]:
        return _displaced(self._server.acl_rows.roles().value, rows)

    def deletion(self, ids: list[str]) -> tuple[MessageType, Any]:
        return MessageType.ACL_ROLE_DELETE, r.ACLRoleBatchDeleteRequest(ids)

    def upsert(self, rows: Sequence[t.ACLRole]) -> tuple[MessageType, Any]:
        return MessageType.ACL_ROLE_SET, r.ACLRoleBatchSetRequest(
            list(rows), allow_missing_links=True
        )


class Tokens(_OfServer):
    """The global ones; local tokens belong to their datacenter."""

    noun, plural = "token", "tokens"

    async def listed(self, min_index: int) -> tuple[int, Sequence[t.ACLTokenListStub]]:
        request = r.ACLTokenListRequest(include_global=True, **self._options(min_index))
        answer: r.ACLTokenListResponse = await self._server.call("ACL.TokenList", request)
        return answer.index, answer.tokens or ()

    def mine(self) -> Iterable[tuple[str, Raw]]:
        tokens = self._server.acl_rows.tokens(local=False, global_=True).value
        return ((row.accessor_id, row.raw_hash) for row in tokens)

    def key(self, row: t.ACLTokenListStub) -> str:
        return row.accessor_id

    async def whole(self, ids: list[str], _rows: Sequence[Any]) -> Sequence[t.ACLToken]:
        request = r.ACLTokenBatchGetRequest(accessor_ids=ids, **self._options())
        answer: r.ACLTokenBatchResponse = await self._server.call("ACL.TokenBatchRead", request)
        tokens = answer.tokens or ()
        if answer.redacted or any(token.secret_id == t.REDACTED for token in tokens):
            raise ReplicationError(
                "failed to retrieve unredacted tokens - replication token in use does not grant "
                "acl:write"
            )
        return tokens

    def displaced(self, _rows: Sequence[t.ACLToken]) -> Sequence[t.ACLToken]:
        return ()

    def deletion(self, ids: list[str]) -> tuple[MessageType, Any]:
        return MessageType.ACL_TOKEN_DELETE, r.ACLTokenBatchDeleteRequest(ids)

    def upsert(self, rows: Sequence[t.ACLToken]) -> tuple[MessageType, Any]:
        return MessageType.ACL_TOKEN_SET, r.ACLTokenBatchSetRequest(
            list(rows), allow_missing_links=True, from_replication=True
        )


class AclReplica:
    """`Replica` of one subject."""

    def __init__(self, server: AclServer, subject: Subject, metrics: Metrics) -> None:
        self._server, self._subject, self._metrics = server, subject, metrics

    def _timed(self, what: str) -> AbstractContextManager[None]:
        return timed(self._metrics, f"consul.leader.replication.acl.{self._subject.noun}.{what}")

    async def fetch(self, min_index: int) -> tuple[int, Sequence[Any]]:
        """The primary's list. Waits, as Consul does, for a replication token to be set."""
        while not self._server.replication_token():  # noqa: ASYNC110 - it may come from anywhere
            await asyncio.sleep(TOKEN_POLL_S)
        try:
            with self._timed("fetch"):
                return await self._subject.listed(min_index)
        except (ProconsulError, TimeoutError) as error:
            what = f"failed to retrieve remote ACL {self._subject.plural}"
            raise ReplicationError(f"{what}: {error or 'deadline exceeded'}") from error

    async def commit(self, rows: Sequence[Any], last_index: int, progress: Progress) -> None:
        """Deletions first, then what is new or differs."""
        with self._timed("apply"):
            await self._commit(rows, last_index, progress)

    async def _commit(self, rows: Sequence[Any], last_index: int, progress: Progress) -> None:
        subject = self._subject
        remote = ((subject.key(row), row.modify_index, row.raw_hash) for row in rows)
        todo = difference(subject.mine(), remote, last_index)
        progress.begin(len(todo.deletes) + len(todo.upserts))
        updates: Sequence[Any] = ()
        if todo.upserts:
            try:
                updates = await subject.whole(todo.upserts, rows)
            except ReplicationError:
                raise
            except (ProconsulError, TimeoutError) as error:
                what = f"failed to retrieve ACL {subject.noun} updates"
                raise ReplicationError(f"{what}: {error or 'deadline exceeded'}") from error
        for start in range(0, len(todo.deletes), BATCH_DELETES_MAX):
            ids = todo.deletes[start : start + BATCH_DELETES_MAX]
            await self._apply(progress, subject.deletion(ids), len(ids), "delete")
        updates = [*subject.displaced(updates), *updates]
        for batch in batches(updates, lambda row: int(row.estimated_size())):
            await self._apply(progress, subject.upsert(batch), len(batch), "update")

    async def _apply(
        self, progress: Progress, command: tuple[MessageType, Any], rows: int, verb: str
    ) -> None:
        try:
            await progress.apply(partial(self._server.apply, *command), rows)
        except (ProconsulError, TimeoutError) as error:
            what = f"failed to {verb} local ACL {self._subject.plural}"
            raise ReplicationError(f"{what}: {error or 'deadline exceeded'}") from error


class AclReplication:
    """The loops of a secondary's leader, and what they tell of themselves."""

    def __init__(
        self,
        server: AclServer,
        metrics: Metrics,
        wall: Callable[[], float],
        *,
        tokens: bool,
        pace: Pace = PACE,
    ) -> None:
        """With `tokens`, tokens too; policies and roles always."""
        self._server, self._with_tokens = server, tokens
        subjects: list[Subject] = [Policies(server), Roles(server)]
        if tokens:
            subjects.append(Tokens(server))
        self.loops = {
            subject.noun: Replicator(
                f"acl.{subject.noun}",
                AclReplica(server, subject, metrics),
                server.primary_appeared,
                metrics,
                wall,
                pace,
                f"consul.leader.replication.acl.{subject.noun}",
            )
            for subject in subjects
        }

    def status(self) -> r.ACLReplicationStatus:
        """What `/v1/acl/replication` shows; times are whole seconds."""
        of = {noun: loop.status for noun, loop in self.loops.items()}
        tokens = of.get("token")
        return r.ACLReplicationStatus(
            enabled=True,
            running=any(status.running for status in of.values()),
            source_datacenter=self._server.primary_datacenter,
            replication_type="tokens" if self._with_tokens else "policies",
            replicated_index=of["policy"].committed_index,
            replicated_role_index=of["role"].committed_index,
            replicated_token_index=tokens.committed_index if tokens else 0,
            raw_last_success=_moment(max(status.last_success for status in of.values())),
            raw_last_error=_moment(max(status.last_failure for status in of.values())),
        )


def _moment(seconds: float) -> Raw:
    """Rounded to the second; never is Go's zero time."""
    return ZERO_TIME if not seconds else raw_time(round(seconds) * 1_000_000_000)
