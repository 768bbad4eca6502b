"""What the leader does for ACLs: the rows that every system has, upgrades, the end of tokens."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from proconsul.domain import acl_requests as r
from proconsul.domain import acl_types as t
from proconsul.domain.base import raw_bytes
from proconsul.domain.messages import MessageType, encode_command
from proconsul.services.acl_settings import AclSettings
from proconsul.services.server import acl_leader
from proconsul.state.acl_queries import AclQueries
from proconsul.state.fsm import Fsm
from proconsul.util.errors import ProconsulError
from proconsul.wire.gotime import encode_time

NOW_NS = 1_700_000_000_000_000_000
MASTER = "11111111-2222-3333-4444-555555555555"


class Admin:
    """`AclAdmin` on a state of its own."""

    enabled = True
    replication = None

    def __init__(self, *, primary: bool = True, **settings: Any) -> None:
        self.settings = AclSettings(enabled=True, **settings)
        self.in_primary_datacenter = self.local_tokens = primary
        self.fsm, self.index, self.ids = Fsm(), 10, 0
        self.forgotten: list[str] = []

    @property
    def acl_rows(self) -> AclQueries:
        return self.fsm.store.acl

    def unix_ns(self) -> int:
        return NOW_NS

    def new_id(self) -> str:
        self.ids += 1
        return f"aaaaaaaa-0000-0000-0000-{self.ids:012d}"

    def forget_token(self, secret: str) -> None:
        self.forgotten.append(secret)

    async def apply(self, type_: MessageType, request: Any) -> Any:
        self.index += 1
        result = self.fsm.apply(self.index, encode_command(type_, request))
        if isinstance(result, ProconsulError):
            raise result
        return result

    def put(self, type_: MessageType, request: Any) -> None:
        asyncio.run(self.apply(type_, request))

    def initialize(self) -> None:
        asyncio.run(acl_leader.initialize(self))  # type: ignore[arg-type]

    def secrets(self) -> list[str]:
        return [row.secret_id for row in self.acl_rows.tokens(local=True, global_=True).value]


def test_a_new_system_gets_its_rows_once() -> None:
    admin = Admin(master_token=MASTER)
    admin.initialize()
    assert admin.secrets() == [MASTER, "anonymous"]
    assert not admin.acl_rows.can_bootstrap()[0]
    policy = admin.acl_rows.policy(t.POLICY_MANAGEMENT_ID).value
    assert policy is not None
    assert (policy.name, policy.rules) == ("global-management", t.MANAGEMENT_RULES)
    index = admin.index
    admin.initialize()
    assert admin.index == index


def test_a_later_master_token_is_no_bootstrap_and_a_policys_name_stays() -> None:
    admin = Admin()
    admin.initialize()
    old = t.ACLPolicy(id=t.POLICY_MANAGEMENT_ID, name="mine", rules=t.MANAGEMENT_RULES)
    admin.put(MessageType.ACL_POLICY_SET, r.ACLPolicyBatchSetRequest([old]))
    admin.put(
        MessageType.ACL_BOOTSTRAP,
        r.ACLTokenBootstrapRequest(t.ACLToken(accessor_id=admin.new_id(), secret_id="first")),
    )
    index = admin.acl_rows.can_bootstrap()[1]
    later = Admin(master_token="not-a-uuid")
    later.fsm, later.index, later.ids = admin.fsm, admin.index, admin.ids
    later.initialize()
    assert later.secrets() == ["anonymous", "first", "not-a-uuid"]
    assert later.acl_rows.can_bootstrap() == (False, index)
    policy = later.acl_rows.policy(t.POLICY_MANAGEMENT_ID).value
    assert policy is not None
    assert policy.name == "mine"


def test_a_secondary_forgets_what_stood_for_a_hidden_secret() -> None:
    admin = Admin(primary=False)
    bad = t.ACLToken(accessor_id=admin.new_id(), secret_id=t.REDACTED)
    admin.put(MessageType.ACL_TOKEN_SET, r.ACLTokenBatchSetRequest([bad]))
    admin.initialize()
    assert admin.secrets() == []


def test_old_tokens_get_accessors() -> None:
    client = t.ACLToken(secret_id="s", type=t.TYPE_CLIENT, rules="x")
    assert (
        acl_leader.upgraded(client, "a")
        == t.ACLToken(accessor_id="a", secret_id="s", type=t.TYPE_CLIENT, rules="x").hashed()
    )
    management = t.ACLToken(secret_id="m", type=t.TYPE_MANAGEMENT)
    assert acl_leader.upgraded(management, "a").policies == [t.ACLLink(t.POLICY_MANAGEMENT_ID)]
    anonymous = t.ACLToken(secret_id="anonymous", type=t.TYPE_CLIENT)
    assert acl_leader.upgraded(anonymous, "a").accessor_id == t.TOKEN_ANONYMOUS_ID


@pytest.mark.parametrize("primary", [True, False])
def test_loops_upgrade_and_delete(primary: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acl_leader, "ROUND_S", 0.001)
    admin = Admin(primary=primary, token_replication=True)
    admin.local_tokens = True
    admin.initialize()
    ended = raw_bytes(encode_time(NOW_NS - 1))
    rows = [
        t.ACLToken(
            accessor_id=admin.new_id(), secret_id=secret, local=secret == "local",
            raw_expiration_time=ended,
        )
        for secret in ("local", "global")
    ]  # fmt: skip
    admin.put(MessageType.ACL_TOKEN_SET, r.ACLTokenBatchSetRequest(rows))
    legacy = t.ACL(id="old", type=t.TYPE_CLIENT)
    admin.put(MessageType.ACL, r.ACLRequest(op="set", acl=legacy))
    expected = ["anonymous", "old"] if primary else ["global", "old"]

    async def work() -> None:
        started: list[Any] = []
        acl_leader.start(
            admin,  # type: ignore[arg-type]
            lambda _name, loop: started.append(asyncio.ensure_future(loop())),
        )
        try:
            async with asyncio.timeout(5):
                while admin.secrets() != expected or (  # noqa: ASYNC110
                    primary and admin.acl_rows.tokens_to_upgrade(1).value
                ):
                    await asyncio.sleep(0.001)
        finally:
            for task in started:
                task.cancel()
            await asyncio.wait(started)

    asyncio.run(work())
    assert "local" in admin.forgotten
