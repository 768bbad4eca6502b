"""Tokens to authorizers: from a server's state, and by asking others (agent/consul/acl_test.go)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from proconsul.domain import errors
from proconsul.domain.acl_requests import (
    ACLPolicyBatchResponse,
    ACLRoleBatchResponse,
    ACLTokenResponse,
)
from proconsul.domain.acl_types import ACLLink, ACLPolicy, ACLRole, ACLServiceIdentity, ACLToken
from proconsul.rpc.token_resolver import EVERYTHING, RootDeniedError, TokenResolver
from proconsul.rpc.token_rows import Environment, NothingKnown
from proconsul.services.acl_settings import AclSettings
from proconsul.util.errors import ProconsulError
from proconsul.util.metrics import Metrics

POLICY = ACLPolicy(id="p", name="reads", rules='key_prefix "" { policy = "read" }')
TOKEN = ACLToken(accessor_id="a", secret_id="s", policies=[ACLLink("p")])


class Servers:
    """The servers that a client asks: what they know, and what they were asked."""

    def __init__(self) -> None:
        self.tokens = {"s": TOKEN, "anonymous": ACLToken(accessor_id="anon")}
        self.policies = {"p": POLICY}
        self.roles: dict[str, ACLRole] = {}
        self.asked: list[str] = []
        self.failure: Exception | None = None
        self.source_datacenter = "dc1"
        self.next_token: ACLToken | None = None
        """What the token becomes before its policies are asked for, which is refused then."""

    async def call(self, method: str, request: Any) -> Any:
        self.asked.append(method)
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        match method:
            case "ACL.TokenRead":
                if request.token_id not in self.tokens:
                    raise errors.AclNotFoundError
                token = self.tokens[request.token_id]
                return ACLTokenResponse(token=token, source_datacenter=self.source_datacenter)
            case "ACL.PolicyResolve" if self.next_token is not None:
                self.tokens["s"], self.next_token = self.next_token, None
                raise errors.PermissionDeniedError
            case "ACL.PolicyResolve":
                found = [self.policies[i] for i in request.policy_ids if i in self.policies]
                return ACLPolicyBatchResponse(policies=found)
            case _:
                return ACLRoleBatchResponse(roles=[self.roles[i] for i in request.role_ids])


class World:
    """A resolver with nothing of its own, and a clock."""

    def __init__(self, **settings: Any) -> None:
        self.servers, self.now = Servers(), 100.0
        loop = asyncio.get_running_loop()
        self.resolver = TokenResolver(
            AclSettings(**{"enabled": True, "default_policy": "deny", **settings}),
            NothingKnown(),
            Environment(
                "dc1", "dc1", self.servers.call,
                lambda _name, work: loop.create_task(work),
                lambda: self.now, lambda: int(self.now * 1e9), Metrics(lambda: self.now),
            ),
            may_be_disabled=True,
        )  # fmt: skip

    async def reads(self, secret: str = "s") -> bool:
        return (await self.resolver.resolve(secret)).key_read("k")


def play(scene: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(30):
            await scene()

    asyncio.run(run())


def test_a_token_is_asked_for_once_and_then_known_until_its_time_is_over() -> None:
    async def scene() -> None:
        world = World()
        assert world.resolver.known("s") is None
        assert await asyncio.gather(*(world.reads() for _ in range(5))) == [True] * 5
        assert sorted(world.servers.asked) == ["ACL.PolicyResolve", "ACL.TokenRead"]
        assert world.resolver.known("s") is await world.resolver.resolve("s")
        world.now += 31
        assert world.resolver.known("s") is None
        assert await world.reads()
        assert len(world.servers.asked) == 4

    play(scene)


def test_tokens_with_equal_rules_get_the_same_authorizer() -> None:
    async def scene() -> None:
        world = World()
        world.servers.tokens["t"] = ACLToken(
            accessor_id="b", secret_id="t", policies=[ACLLink("p")]
        )
        assert await world.resolver.resolve("s") is await world.resolver.resolve("t")

    play(scene)


def test_roles_bring_their_policies_and_identities() -> None:
    async def scene() -> None:
        world = World()
        world.servers.roles["r"] = ACLRole(
            id="r", policies=[ACLLink("p")], service_identities=[ACLServiceIdentity("web")]
        )
        world.servers.tokens["t"] = ACLToken(secret_id="t", roles=[ACLLink("r")])
        may = await world.resolver.resolve("t")
        assert may.key_read("k")
        assert may.service_write("web-sidecar-proxy")
        assert not may.service_write("api")

    play(scene)


def test_policies_for_other_datacenters_do_not_count() -> None:
    async def scene() -> None:
        world = World()
        world.servers.policies["p"] = ACLPolicy(id="p", rules=POLICY.rules, datacenters=["dc2"])
        assert not await world.reads()

    play(scene)


def test_unknown_and_root_tokens_are_refused() -> None:
    async def scene() -> None:
        world = World()
        with pytest.raises(errors.AclNotFoundError):
            await world.resolver.resolve("nobody")
        for root in ("allow", "deny", "manage"):
            with pytest.raises(RootDeniedError, match="Cannot resolve root ACL"):
                await world.resolver.resolve(root)

    play(scene)


def test_a_local_token_of_another_datacenter_is_refused() -> None:
    async def scene() -> None:
        world = World()
        world.servers.tokens["l"] = ACLToken(secret_id="l", local=True)
        world.servers.source_datacenter = "dc2"
        with pytest.raises(errors.PermissionDeniedError, match='local token in datacenter "dc2"'):
            await world.resolver.resolve("l")

    play(scene)


@pytest.mark.parametrize(
    ("down_policy", "cached", "fresh"),
    [
        ("allow", True, True),
        ("deny", False, False),
        ("extend-cache", True, False),
        ("async-cache", True, False),
    ],
)
def test_when_nobody_answers_the_down_policy_decides(
    down_policy: str, cached: bool, fresh: bool
) -> None:
    async def scene() -> None:
        world = World(down_policy=down_policy)
        assert await world.reads()
        world.servers.failure = ProconsulError("rpc error: no route")
        world.now += 100
        assert await world.reads() is cached
        world.servers.tokens["t"] = TOKEN
        assert await world.reads("t") is fresh

    play(scene)


def test_async_cache_answers_from_what_is_old_and_asks_behind_it() -> None:
    async def scene() -> None:
        world = World(down_policy="async-cache")
        assert await world.reads()
        world.servers.tokens.clear()
        world.now += 100
        assert world.resolver.known("s") is not None
        with pytest.raises(errors.AclNotFoundError):  # noqa: PT012
            while True:  # until the answer is there; `play` bounds it
                await world.resolver.resolve("s")
                await asyncio.sleep(0.001)

    play(scene)


def test_a_client_takes_acls_for_off_while_its_servers_say_so() -> None:
    async def scene() -> None:
        world = World()
        world.servers.failure = ProconsulError(errors.ACL_DISABLED)
        assert await world.resolver.resolve("s") is EVERYTHING
        world.servers.failure = None
        assert await world.resolver.resolve("nobody") is EVERYTHING
        world.now += 121
        with pytest.raises(errors.AclNotFoundError):
            await world.resolver.resolve("nobody")

    play(scene)


def test_a_token_that_lost_a_policy_meanwhile_is_looked_up_again() -> None:
    async def scene() -> None:
        world = World()
        world.servers.tokens["s"], world.servers.next_token = TOKEN, ACLToken(secret_id="s")
        assert not await world.reads()
        assert world.servers.asked == ["ACL.TokenRead", "ACL.PolicyResolve", "ACL.TokenRead"]

    play(scene)


def test_who_needs_more_does_not_take_the_answer_to_less() -> None:
    """One policy is too old and asked for; while that takes its time the other grows old, too."""

    async def scene() -> None:
        world = World()
        servers = world.servers
        servers.policies["q"] = ACLPolicy(id="q", name="q", rules='key "k" { policy = "deny" }')
        servers.tokens["t"] = ACLToken(accessor_id="b", secret_id="t", policies=[ACLLink("p")])
        assert await world.reads("t")
        world.now += 20
        servers.tokens["s"] = ACLToken(
            accessor_id="a", secret_id="s", policies=[ACLLink("p"), ACLLink("q")]
        )
        assert not await world.reads()
        world.now += 20
        answered, call = asyncio.Event(), servers.call

        async def slow(method: str, request: Any) -> Any:
            if method == "ACL.PolicyResolve":
                await answered.wait()
            return await call(method, request)

        world.resolver._rows._env = world.resolver._rows._env._replace(call=slow)
        first = asyncio.ensure_future(world.reads())
        while not world.resolver._rows._flights:  # noqa: ASYNC110
            await asyncio.sleep(0)
        world.now += 20
        second = asyncio.ensure_future(world.reads())
        for _ in range(5):
            await asyncio.sleep(0)
        answered.set()
        assert not any(await asyncio.gather(first, second))

    play(scene)


def test_that_nobody_answers_is_told_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        world = World()
        world.servers.failure = ProconsulError("EOF")
        for secret in "abcd":
            assert not await world.reads(secret)
        world.servers.failure = ProconsulError("another")
        assert not await world.reads("e")

    play(scene)
    lines = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert [line.rpartition(": ")[2] for line in lines] == ["EOF", "another"]
