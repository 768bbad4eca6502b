"""Replication of ACLs: what differs, in which batches, and what is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from proconsul.domain import acl_requests as r
from proconsul.domain import acl_types as t
from proconsul.domain.base import raw_bytes
from proconsul.domain.messages import MessageType, encode_command
from proconsul.federation import acl_replication as acl
from proconsul.federation.rate import RateLimiter, Signal
from proconsul.federation.replicator import Pace, Progress, ReplicationStatus
from proconsul.state.acl_queries import AclQueries
from proconsul.state.fsm import Fsm
from proconsul.util.errors import ProconsulError
from proconsul.util.metrics import Metrics

_hashes = st.binary(min_size=1, max_size=2)
_rows = st.dictionaries(st.sampled_from("abcdef"), _hashes)


def _id(number: int) -> str:
    return f"aaaaaaaa-0000-0000-0000-{number:012d}"


@settings(derandomize=True)
@given(_rows, _rows)
def test_the_difference_makes_them_equal(ours: dict[str, bytes], theirs: dict[str, bytes]) -> None:
    found = acl.difference(
        [(key, raw_bytes(digest)) for key, digest in ours.items()],
        [(key, 5, raw_bytes(digest)) for key, digest in theirs.items()],
        0,
    )
    result = {key: digest for key, digest in ours.items() if key not in found.deletes}
    result.update({key: theirs[key] for key in found.upserts})
    assert result == theirs
    assert all(ours.get(key) != theirs[key] for key in found.upserts)


def test_what_was_seen_is_not_compared_again_and_rows_without_an_id_not_at_all() -> None:
    local = [("a", raw_bytes(b"1")), ("", raw_bytes(b"2"))]
    remote = [("a", 5, raw_bytes(b"9")), ("", 9, raw_bytes(b"2"))]
    assert acl.difference(local, remote, 5) == ([], [])
    assert acl.difference(local, remote, 4) == ([], ["a"])


@settings(derandomize=True)
@given(st.lists(st.integers(1, acl.BATCH_BYTES), max_size=20))
def test_batches_hold_all_in_order_and_none_too_much(sizes: list[int]) -> None:
    parts = list(acl.batches(sizes, lambda size: size))
    assert [size for part in parts for size in part] == sizes
    assert all(sum(part[:-1]) < acl.BATCH_BYTES for part in parts)


class Secondary:
    """`AclServer` whose primary is an answer per method."""

    primary_datacenter = "dc1"

    def __init__(self, *, redacted: bool = False) -> None:
        self.fsm, self.index = Fsm(), 10
        self.primary_appeared = Signal()
        self.token, self.redacted = "replication", redacted
        self.calls: list[tuple[str, Any]] = []
        self.policies: list[t.ACLPolicy] = []
        self.tokens: list[t.ACLToken] = []
        self.primary_index = 7

    @property
    def acl_rows(self) -> AclQueries:
        return self.fsm.store.acl

    def replication_token(self) -> str:
        return self.token

    async def apply(self, type_: MessageType, request: Any) -> Any:
        self.index += 1
        result = self.fsm.apply(self.index, encode_command(type_, request))
        if isinstance(result, ProconsulError):
            raise result
        return result

    async def call(self, method: str, request: Any) -> Any:
        self.calls.append((method, request))
        index: dict[str, Any] = {"index": self.primary_index}
        if request.min_query_index >= self.primary_index:
            await asyncio.Event().wait()
        match method:
            case "ACL.PolicyList":
                stubs = [t.policy_stub(row) for row in self.policies]
                return r.ACLPolicyListResponse(policies=stubs, **index)
            case "ACL.PolicyBatchRead":
                rows = [row for row in self.policies if row.id in request.policy_ids]
                return r.ACLPolicyBatchResponse(policies=rows, **index)
            case "ACL.TokenList":
                return r.ACLTokenListResponse(
                    tokens=[t.token_stub(row) for row in self.tokens], **index
                )
            case "ACL.TokenBatchRead":
                return r.ACLTokenBatchResponse(tokens=self.tokens, redacted=self.redacted, **index)
            case _:
                return r.ACLRoleListResponse(roles=None, **index)


def _policy(number: int, **fields: Any) -> t.ACLPolicy:
    row = t.ACLPolicy(id=_id(number), name=f"p{number}", modify_index=5, **fields)
    return row.hashed()


async def _rounds(secondary: Secondary, until: Any) -> acl.AclReplication:
    pace = Pace(rounds_per_s=1000, applies_per_s=1000)
    replication = acl.AclReplication(
        secondary, Metrics(), lambda: 1_600_000_000.4, tokens=True, pace=pace
    )
    loops = [asyncio.ensure_future(loop.run()) for loop in replication.loops.values()]
    try:
        async with asyncio.timeout(5):
            while not until(replication):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        assert replication.status().running
    finally:
        for loop in loops:
            loop.cancel()
        await asyncio.wait(loops)
    return replication


def test_rounds_copy_and_the_status_says_up_to_where() -> None:
    secondary = Secondary()
    secondary.policies = [_policy(1, rules="x"), _policy(2)]
    secondary.tokens = [
        t.ACLToken(accessor_id=_id(9), secret_id="s", policies=[t.ACLLink(_id(1))]).hashed()
    ]
    old = r.ACLPolicyBatchSetRequest([_policy(3)])
    asyncio.run(secondary.apply(MessageType.ACL_POLICY_SET, old))
    replication = asyncio.run(
        _rounds(
            secondary,
            lambda all_: all(loop.status.committed_index for loop in all_.loops.values()),
        )
    )
    assert [row.name for row in secondary.acl_rows.policies().value] == ["p1", "p2"]
    token = secondary.acl_rows.token_by_secret("s").value
    assert token is not None
    assert token.policies == [t.ACLLink(_id(1), "p1")]
    assert all(request.token == "replication" for _, request in secondary.calls)
    status = replication.status()
    assert (status.replicated_index, status.replicated_role_index) == (7, 7)
    assert (status.replicated_token_index, status.replication_type) == (7, "tokens")
    assert status.raw_last_success == acl.raw_time(1_600_000_000 * 1_000_000_000)
    assert (status.raw_last_error, status.running) == (acl.ZERO_TIME, False)


def test_hidden_secrets_are_never_committed() -> None:
    secondary = Secondary(redacted=True)
    secondary.tokens = [t.ACLToken(accessor_id=_id(9), secret_id=t.REDACTED).hashed()]
    replication = asyncio.run(
        _rounds(secondary, lambda all_: all_.loops["token"].status.failures > 0)
    )
    assert "does not grant acl:write" in replication.loops["token"].status.last_error
    assert secondary.acl_rows.tokens(local=True, global_=True).value == []
    assert replication.status().raw_last_error != acl.ZERO_TIME


def test_nothing_is_asked_before_there_is_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acl, "TOKEN_POLL_S", 0.001)
    secondary = Secondary()
    secondary.token = ""

    def later(all_: acl.AclReplication) -> bool:
        if not secondary.token:
            assert secondary.calls == []
            secondary.token = "now"
        return bool(all_.loops["role"].status.committed_index)

    replication = asyncio.run(_rounds(secondary, later))
    assert replication.status().raw_last_error == acl.ZERO_TIME


def test_policies_that_change_names_with_each_other_are_followed() -> None:
    """Neither could be written before the other: the round would fail for ever."""

    async def test() -> None:
        server = Secondary()
        policies = acl.AclReplica(server, acl.Policies(server), Metrics())
        one, two = (
            t.ACLPolicy(id=_id(n), name=f"p{n}", rules=f"# {n}", modify_index=5) for n in (1, 2)
        )
        for rows in ([one, two], [replace(one, name="P2"), replace(two, name="p1")]):
            server.policies = [row.hashed() for row in rows]
            await policies.commit(
                [t.policy_stub(row) for row in server.policies],
                0,
                Progress(ReplicationStatus(), RateLimiter(100.0, 10)),
            )
            found = server.acl_rows.policies().value
            assert [(row.id, row.name, row.rules) for row in found] == [
                (row.id, row.name, row.rules) for row in server.policies
            ]
            assert [row.raw_hash for row in found] == [row.raw_hash for row in server.policies]

    asyncio.run(test())


def test_a_role_takes_the_name_of_another() -> None:
    async def test() -> None:
        server = Secondary()
        roles = acl.AclReplica(server, acl.Roles(server), Metrics())
        before = [t.ACLRole(id=_id(n), name=f"r{n}", modify_index=5).hashed() for n in (1, 2)]
        after = [replace(before[0], name="r2").hashed(), replace(before[1], name="r3").hashed()]
        for rows in (before, after):
            await roles.commit(rows, 0, Progress(ReplicationStatus(), RateLimiter(100.0, 10)))
            assert [row.name for row in server.acl_rows.roles().value] == [r.name for r in rows]

    asyncio.run(test())


def test_the_end_of_a_term_does_not_stop_the_next_one() -> None:
    async def test() -> None:
        server = Secondary()
        replication = acl.AclReplication(server, Metrics(), lambda: 1.0, tokens=False)
        loop = replication.loops["policy"]
        old = asyncio.ensure_future(loop.run())
        await asyncio.sleep(0)
        new = asyncio.ensure_future(loop.run())
        await asyncio.sleep(0)
        old.cancel()
        await asyncio.wait([old])
        assert replication.status().running
        new.cancel()
        await asyncio.wait([new])
        assert not replication.status().running

    asyncio.run(test())
