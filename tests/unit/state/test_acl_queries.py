"""Reads of tokens, policies, roles: what they find, in what order, and when they wake."""

from __future__ import annotations

from typing import Any

import pytest

from proconsul.domain import acl_requests as r
from proconsul.domain.acl_types import (
    MANAGEMENT_RULES,
    POLICY_MANAGEMENT_ID,
    ACLLink,
    ACLPolicy,
    ACLRole,
    ACLToken,
)
from proconsul.domain.base import bytes_of, raw_bytes
from proconsul.domain.messages import MessageType, encode_command
from proconsul.state.errors import StateError
from proconsul.state.fsm import Fsm
from proconsul.wire.gotime import encode_time

P1, P2 = ("5a000000-0000-0000-0000-00000000000" + n for n in "12")
R1 = "6a000000-0000-0000-0000-000000000001"
A1, A2, A3 = ("7a000000-0000-0000-0000-00000000000" + n for n in "123")


class World:
    def __init__(self) -> None:
        self.fsm, self.index = Fsm(), 9
        self.acl = self.fsm.store.acl

    def apply(self, type_: MessageType, request: Any) -> None:
        self.index += 1
        assert self.fsm.apply(self.index, encode_command(type_, request)) is None

    def policies(self, *policies: ACLPolicy) -> None:
        self.apply(MessageType.ACL_POLICY_SET, r.ACLPolicyBatchSetRequest(list(policies)))

    def tokens(self, *tokens: ACLToken) -> None:
        self.apply(MessageType.ACL_TOKEN_SET, r.ACLTokenBatchSetRequest(list(tokens)))


def _token(accessor: str, secret: str, **fields: Any) -> ACLToken:
    return ACLToken(accessor_id=accessor, secret_id=secret, **fields)


def test_links_show_todays_names_and_only_what_is_there() -> None:
    world = World()
    world.policies(ACLPolicy(id=P1, name="one"), ACLPolicy(id=P2, name="two"))
    world.apply(
        MessageType.ACL_ROLE_SET,
        r.ACLRoleBatchSetRequest([ACLRole(id=R1, name="r", policies=[ACLLink(P1)])]),
    )
    world.tokens(_token(A1, "s", policies=[ACLLink(P1), ACLLink(P2)], roles=[ACLLink(R1)]))
    world.policies(ACLPolicy(id=P1, name="uno"))
    world.apply(MessageType.ACL_POLICY_DELETE, r.ACLPolicyBatchDeleteRequest([P2]))
    token = world.acl.token_by_secret("s").value
    assert token is not None
    assert token.policies == [ACLLink(P1, "uno")]
    assert token.roles == [ACLLink(R1, "r")]
    role = world.acl.role_by_name("R").value
    assert role is not None
    assert role.policies == [ACLLink(P1, "uno")]
    assert [row.id for row in world.acl.roles(P1).value] == [R1]
    assert world.acl.roles(P2).value == []


def test_tokens_by_accessor_policy_and_locality() -> None:
    world = World()
    world.policies(ACLPolicy(id=P1, name="one"))
    assert world.acl.token_by_accessor(A1)[:2] == (1, None)
    world.tokens(
        _token(A1, "c", policies=[ACLLink(P1)]), _token(A2, "a", local=True), _token(A3, "b")
    )
    found = world.acl.token_by_accessor(A1.upper())
    assert found.index == world.index
    assert found.value is not None
    assert found.value.secret_id == "c"
    acl = world.acl

    def secrets(**filters: Any) -> list[str]:
        return [token.secret_id for token in acl.tokens(**filters).value]

    assert secrets(local=True, global_=True) == secrets(local=False, global_=False) == list("abc")
    assert secrets(local=True, global_=False) == ["a"]
    assert secrets(local=False, global_=True) == ["b", "c"]
    assert secrets(local=True, global_=True, policy=P1) == ["c"]
    with pytest.raises(StateError, match="can only filter by one of policy, role, or methodName"):
        acl.tokens(local=True, global_=True, policy=P1, role=R1)
    assert [t.secret_id for t in acl.tokens_by_accessors([A3, R1, A2]).value] == ["b", "a"]
    world.apply(MessageType.ACL_TOKEN_DELETE, r.ACLTokenBatchDeleteRequest([A1]))
    assert acl.token_by_accessor(A1).value is None
    with pytest.raises(StateError, match="failed acl token lookup: index error: UUID must be 36"):
        acl.token_by_accessor("x")


def test_names_and_accessors_follow_their_rows_also_through_a_snapshot() -> None:
    world = World()
    world.policies(ACLPolicy(id=P1, name="One"), ACLPolicy(id=P2, name="two"))
    world.policies(ACLPolicy(id=P1, name="Uno"))
    world.tokens(_token(A1, "s"))
    refused = r.ACLPolicyBatchSetRequest(
        [ACLPolicy(id=R1, name="new"), ACLPolicy(id=A2, name="TWO")]
    )
    result = world.fsm.apply(50, encode_command(MessageType.ACL_POLICY_SET, refused))
    assert str(result) == 'A policy with name "TWO" already exists'
    restored = Fsm()
    restored.restore(world.fsm.snapshot())
    for acl in (world.acl, restored.store.acl):
        names = {
            n: getattr(acl.policy_by_name(n).value, "id", None)
            for n in ("one", "uno", "TWO", "new")
        }
        assert names == {"one": None, "uno": P1, "TWO": P2, "new": None}
        found = acl.token_by_accessor(A1).value
        assert found is not None
        assert found.secret_id == "s"
    world.apply(MessageType.ACL_POLICY_DELETE, r.ACLPolicyBatchDeleteRequest([P1]))
    world.policies(ACLPolicy(id=R1, name="UNO"))
    assert world.acl.policy_by_name("uno").value == world.acl.policy(R1).value


def test_expired_tokens_come_in_the_order_of_their_ends() -> None:
    world = World()
    for accessor, secret, moment in ((A1, "a", 30), (A2, "b", 20), (A3, "c", 99)):
        raw = raw_bytes(encode_time(moment * 1_000_000_000))
        world.tokens(_token(accessor, secret, raw_expiration_time=raw))

    def expired(limit: int, *, local: bool = False) -> list[str]:
        found = world.acl.expired_tokens(local=local, now_ns=50_000_000_000, limit=limit)
        return [token.secret_id for token in found]

    assert expired(9) == ["b", "a"]
    assert expired(1) == ["b"]
    assert expired(9, local=True) == []
    world.apply(MessageType.ACL_TOKEN_DELETE, r.ACLTokenBatchDeleteRequest([A2]))
    assert expired(9) == ["a"]


def test_a_write_wakes_who_waits_for_its_table_alone() -> None:
    world, woken = World(), list[str]()
    world.acl.policies().watch.add(lambda: woken.append("policies"))
    world.acl.roles().watch.add(lambda: woken.append("roles"))
    world.policies(ACLPolicy(id=P1, name="one"))
    assert woken == ["policies"]


def test_hashes_are_consuls() -> None:
    """Of the rows that Consul 1.8.7's leader makes by itself."""
    policy = ACLPolicy(
        id=POLICY_MANAGEMENT_ID,
        name="global-management",
        description="Builtin Policy that grants unlimited access",
        rules=MANAGEMENT_RULES,
    )
    token = ACLToken(description="Anonymous Token")
    assert (
        bytes_of(policy.hashed().raw_hash).hex()
        == "b30210b7aba9facd1c57891e3df27669174a08b690cb2905e0797535f75eba69"
    )
    assert (
        bytes_of(token.hashed().raw_hash).hex()
        == "44d5454969df7790d43ae07cbe9969fa29a2be52276b77ca4159e4507876d5c0"
    )


def test_who_waits_for_one_row_wakes_at_any_of_its_kind() -> None:
    world = World()
    world.policies(ACLPolicy(id=P1, name="one"))
    world.tokens(_token(A1, "s"))
    woken = list[str]()
    found = world.acl.token_by_accessor(A1)
    found.watch.add(lambda: woken.append("token"))
    world.acl.policy(P1).watch.add(lambda: woken.append("policy"))
    world.tokens(_token(A2, "other"))
    world.policies(ACLPolicy(id=P2, name="two"))
    assert woken == ["token", "policy"]
    assert found.index < world.acl.token_by_accessor(A1).index < world.index, "which it shows"
