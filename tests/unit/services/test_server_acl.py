"""Tokens that a server knows by itself, and what makes it think again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from proconsul.domain import acl_requests as r
from proconsul.domain import errors
from proconsul.domain.acl_rules import RulesError
from proconsul.domain.acl_types import ACLLink, ACLPolicy, ACLToken
from proconsul.domain.base import raw_bytes
from proconsul.domain.messages import MessageType, encode_command
from proconsul.rpc.token_resolver import TokenResolver
from proconsul.rpc.token_rows import Environment
from proconsul.services.acl_settings import AclSettings
from proconsul.services.server.acl import StoreSource
from proconsul.state.fsm import Fsm
from proconsul.util.metrics import Metrics
from proconsul.wire.gotime import encode_time

P1 = "5a000000-0000-0000-0000-000000000001"
NOW_NS = 1_700_000_000_000_000_000


class World:
    """A server's state and the resolver on it."""

    def __init__(self, *, is_primary: bool = True, replicates: bool = False) -> None:
        self.fsm, self.index, self.now = Fsm(), 9, 0.0
        settings = AclSettings(enabled=True, default_policy="deny", token_replication=replicates)
        self.resolver = TokenResolver(
            settings,
            StoreSource(self.fsm.store, settings, self._unix_ns, is_primary=is_primary),
            Environment(
                "dc1" if is_primary else "dc2", "dc1", self._call,
                lambda _name, work: asyncio.get_running_loop().create_task(work),
                lambda: self.now, self._unix_ns, Metrics(lambda: self.now),
            ),
        )  # fmt: skip

    def _unix_ns(self) -> int:
        return NOW_NS + int(self.now * 1e9)

    @staticmethod
    async def _call(_method: str, _request: Any) -> Any:
        raise errors.NoPathToDatacenterError

    def apply(self, type_: MessageType, request: Any) -> None:
        self.index += 1
        assert self.fsm.apply(self.index, encode_command(type_, request)) is None

    def policy(self, rules: str) -> None:
        request = r.ACLPolicyBatchSetRequest([ACLPolicy(id=P1, name="p", rules=rules)])
        self.apply(MessageType.ACL_POLICY_SET, request)

    def token(self, secret: str, **fields: Any) -> None:
        token = ACLToken(accessor_id=f"a-{secret}", secret_id=secret, **fields)
        self.apply(MessageType.ACL_TOKEN_SET, r.ACLTokenBatchSetRequest([token]))


def test_what_is_here_is_known_at_once_and_follows_every_change() -> None:
    world = World()
    world.policy('key_prefix "" { policy = "read" }')
    world.token("s", policies=[ACLLink(P1)])
    first = world.resolver.known("s")
    assert first is not None
    assert first.key_read("k")
    assert world.resolver.known("s") is first
    world.policy('key_prefix "" { policy = "write" }')
    second = world.resolver.known("s")
    assert second is not None
    assert second.key_write("k")
    world.apply(MessageType.ACL_TOKEN_DELETE, r.ACLTokenBatchDeleteRequest(["a-s"]))
    with pytest.raises(errors.AclNotFoundError):
        world.resolver.known("s")


def test_a_token_ends_when_its_time_is_over() -> None:
    world = World()
    world.token("s", raw_expiration_time=raw_bytes(encode_time(NOW_NS + 5_000_000_000)))
    assert world.resolver.known("s") is not None
    world.now = 6.0
    with pytest.raises(errors.AclNotFoundError):
        world.resolver.known("s")


def test_who_has_no_token_is_anonymous() -> None:
    world = World()
    with pytest.raises(errors.AclNotFoundError):
        world.resolver.known("")
    world.policy('service_prefix "" { policy = "read" }')
    world.token("anonymous", policies=[ACLLink(P1)])
    may = world.resolver.known("")
    assert may is not None
    assert may.service_read("web")


def test_tokens_of_before_consul_1_4_carry_their_rules() -> None:
    world = World()
    world.token("m", type="management")
    world.token("c", type="client", rules='key "a" { policy = "write" }')
    management, client = world.resolver.known("m"), world.resolver.known("c")
    assert management is not None
    assert client is not None
    assert management.acl_write()
    assert client.key_write("abc")  # they know prefixes only
    assert not client.key_read("b")


def test_a_secondary_that_replicates_no_tokens_has_to_ask() -> None:
    async def scene() -> None:
        world = World(is_primary=False)
        world.token("s")
        assert world.resolver.known("s") is None
        replicating = World(is_primary=False, replicates=True)
        assert replicating.resolver.known("s") is None  # nothing has arrived yet
        replicating.token("s")
        assert replicating.resolver.known("s") is not None
        with pytest.raises(errors.AclNotFoundError):
            replicating.resolver.known("other")

    asyncio.run(scene())


def test_rules_that_cannot_be_read_are_an_error_of_their_policy() -> None:
    world = World()
    world.policy('acl = "nonsense"')
    world.token("s", policies=[ACLLink(P1)])
    with pytest.raises(RulesError, match='failed to parse "p": Invalid acl policy: "nonsense"'):
        world.resolver.known("s")
