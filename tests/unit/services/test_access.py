"""Rights on an agent (agent/acl_test.go): its services, checks, members, and its master token."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from proconsul.core.gossip.serf import Member, MemberStatus
from proconsul.domain import catalog as c
from proconsul.domain import errors
from proconsul.domain.acl_types import ACLPolicy, ACLRole, ACLToken
from proconsul.rpc.token_resolver import RootDeniedError, TokenResolver
from proconsul.rpc.token_rows import Environment
from proconsul.services.acl_settings import AclSettings
from proconsul.services.agent.access import Access
from proconsul.services.agent.local import LocalState
from proconsul.services.agent.tokens import AgentTokens, Kind
from proconsul.util.metrics import Metrics

RULES = {
    "web": 'service "web" { policy = "write" }',
    "db": 'service "db" { policy = "write" }',
    "node": 'node "me" { policy = "write" }',
    "reader": 'node_prefix "" { policy = "read" } service_prefix "" { policy = "read" }',
    "agent": 'agent "me" { policy = "read" }',
    "operator": 'operator = "write"',
}


class Tokens:
    """Tokens whose secrets are the names of their rules."""

    def token(self, secret: str) -> tuple[bool, ACLToken | None]:
        rules = RULES.get(secret)
        if secret == "anonymous":
            return True, ACLToken(secret_id=secret)
        # Of before 1.4, these know prefixes only; here names that are no prefix of each other.
        return True, None if rules is None else ACLToken(secret_id=secret, rules=_legacy(rules))

    def policy(self, _policy_id: str) -> tuple[bool, ACLPolicy | None]:
        return True, None

    def role(self, _role_id: str) -> tuple[bool, ACLRole | None]:
        return True, None

    def on_change(self, callback: Callable[[], None]) -> None:
        pass


def _legacy(rules: str) -> str:
    return rules.replace("_prefix", "")


async def _nobody(_method: str, _request: Any) -> Any:
    raise errors.NoServersError


def world(*, enabled: bool = True) -> Access:
    local = LocalState("me", 300.0, discard_output=False)
    local.add_service(c.NodeService(id="web1", service="web"))
    web_check = c.HealthCheck(check_id="up", node="me", service_id="web1", service_name="web")
    local.add_check(web_check, now=0.0)
    local.add_check(c.HealthCheck(check_id="disk", node="me"), now=0.0)
    tokens = AgentTokens()
    tokens.update(Kind.AGENT_MASTER, "master")
    resolver = TokenResolver(
        AclSettings(enabled=enabled, default_policy="deny"),
        Tokens(),
        Environment(
            "dc1", "dc1", _nobody, lambda _name, work: asyncio.ensure_future(work),
            time.monotonic, time.time_ns, Metrics(),
        ),
    )  # fmt: skip
    return Access("me", resolver, tokens, local)


def service(name: str, **fields: Any) -> c.NodeService:
    return c.NodeService(service=name, **fields)


def check(**fields: Any) -> c.HealthCheck:
    return c.HealthCheck(node="me", **fields)


PROXY = service(
    "web", kind=c.CONNECT_PROXY, proxy=c.ConnectProxyConfig(destination_service_name="db")
)
Ask = Callable[[Access, str], Awaitable[None]]
CASES: list[tuple[Ask, dict[str, str]]] = [
    (lambda a, t: a.vet_service(t, service("web")),
     {"web": "", "db": "Missing service:write on web"}),
    (lambda a, t: a.vet_service(t, service("db", id="web1")),
     {"db": "Missing service:write on db", "web": "Missing service:write on db"}),
    (lambda a, t: a.vet_service(t, PROXY), {"web": "Missing service:write on db"}),
    (lambda a, t: a.vet_service_update(t, "web1"),
     {"web": "", "db": "Missing service:write on web"}),
    (lambda a, t: a.vet_check(t, check(check_id="new", service_id="web1")),
     {"web": "", "node": "Missing service:write on web"}),
    (lambda a, t: a.vet_check(t, check(check_id="new")),
     {"node": "", "web": "Missing node:write on me"}),
    (lambda a, t: a.vet_check(t, check(check_id="up")),
     {"node": "Missing service:write on web", "web": "Missing node:write on me"}),
    (lambda a, t: a.vet_check_update(t, "up"), {"web": "", "node": "Missing service:write on web"}),
    (lambda a, t: a.vet_check_update(t, "disk"), {"node": "", "web": "Missing node:write on me"}),
    (lambda a, t: a.require_agent_read(t), {"agent": "", "master": "", "web": "-"}),
    (lambda a, t: a.require_agent_write(t), {"agent": "-", "master": ""}),
    (lambda a, t: a.require_operator_write(t), {"operator": "", "master": "-", "": "-"}),
    (lambda a, t: a.require_federation_read(t), {"operator": "", "master": "", "agent": "-"}),
    (lambda a, t: a.require_node_write(t), {"node": "", "master": "-"}),
]  # fmt: skip


@pytest.mark.parametrize(("ask", "answers"), CASES)
def test_who_may_what(ask: Ask, answers: dict[str, str]) -> None:
    async def scene() -> None:
        access = world()
        for token, refusal in answers.items():
            if not refusal:
                await ask(access, token)
                continue
            with pytest.raises(errors.PermissionDeniedError) as caught:
                await ask(access, token)
            cause = "" if refusal == "-" else f": {refusal}"
            assert str(caught.value) == f"Permission denied{cause}"
        await ask(world(enabled=False), "whatever")

    asyncio.run(scene())


def test_only_what_may_be_read_is_shown() -> None:
    async def scene() -> None:
        access = world()
        members = [Member(name, ("10.0.0.1", 1), {}, MemberStatus.ALIVE) for name in ("me", "you")]
        services = {"web1": service("web"), "db1": service("db")}
        checks = {"up": check(service_name="web"), "disk": check()}
        assert await access.members("reader", members) == members
        assert await access.members("node", members) == members[:1]
        assert list(await access.services("web", services)) == ["web1"]
        assert list(await access.services("", services)) == []
        assert list(await access.checks("web", checks)) == ["up"]
        assert list(await access.checks("node", checks)) == ["disk"]

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("token", "error"), [("none", errors.AclNotFoundError), ("allow", RootDeniedError)]
)
def test_tokens_that_are_none(token: str, error: type[Exception]) -> None:
    async def scene() -> None:
        with pytest.raises(error):
            await world().authorizer(token)

    asyncio.run(scene())


def test_what_is_not_registered_cannot_be_changed_with_acls() -> None:
    async def scene() -> None:
        with pytest.raises(errors.DomainError, match=r'Unknown service \{"nope" \{\}\}'):
            await world().vet_service_update("web", "nope")
        with pytest.raises(errors.DomainError, match='Unknown check "nope"'):
            await world().vet_check_update("web", "nope")
        await world(enabled=False).vet_service_update("", "nope")

    asyncio.run(scene())
