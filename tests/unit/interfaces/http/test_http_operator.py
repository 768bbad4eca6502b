"""Operators' endpoints, sessions and snapshots over HTTP, on an agent in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from ipaddress import IPv4Network
from typing import Any

import pytest
from http_fake_agent import FakeAgent

from proconsul.domain import autopilot as ap
from proconsul.domain import operator as op
from proconsul.domain import session as s
from proconsul.domain.base import raw_bytes
from proconsul.domain.errors import DomainError
from proconsul.domain.snapshot import SnapshotOp, SnapshotRequest, SnapshotResponse
from proconsul.drivers.http import Request, Response
from proconsul.interfaces.http.api import HttpApi
from proconsul.interfaces.http.ports import HttpApiConfig
from proconsul.interfaces.http.routes import build_api
from proconsul.rpc.snapshot_stream import Answer
from proconsul.wire.gotime import encode_time


class _Agent(FakeAgent):
    """Snapshots too: what is saved is `archive`, what is restored is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = 0
        self.archive = [b"one", b"two"]
        self.snapshots: list[tuple[SnapshotRequest, bytes]] = []
        self.refusal: Exception | None = None

    async def snapshot(
        self, request: SnapshotRequest, body: AsyncIterator[bytes]
    ) -> tuple[SnapshotResponse, Answer]:
        if self.refusal is not None:
            raise self.refusal
        self.snapshots.append((request, b"".join([part async for part in body])))
        left = list(self.archive)

        async def read() -> bytes:
            return left.pop(0) if left else b""

        def close() -> None:
            self.closed += 1

        return SnapshotResponse(index=42, known_leader=True), Answer(read, close)


async def _large() -> AsyncIterator[bytes]:
    for _ in range(2):
        yield b"large" * 50_000


@pytest.fixture
def agent() -> _Agent:
    return _Agent()


@pytest.fixture
def api(agent: _Agent) -> HttpApi:
    return build_api(agent, HttpApiConfig(datacenter="dc1", node_name="n1"))


def ask(api: HttpApi, method: str, target: str, body: bytes = b"", spool: Any = None) -> Response:
    async def run() -> Response:
        request = Request(method, target.encode(), ("127.0.0.1", 5))
        request.body, request.spool = body, spool
        answer = api(request)
        found = answer if isinstance(answer, Response) else await answer
        if found.stream is not None:
            found.body = b"".join([part async for part in found.stream])
        return found

    return asyncio.run(run())


def test_health_decides_the_status(agent: _Agent, api: HttpApi) -> None:
    when = raw_bytes(encode_time(1_600_000_000_499_999_999))
    row = ap.ServerHealth(
        id="i", name="n", address="a:1", serf_status=4, version="1.8.7", leader=True,
        last_contact_ns=1_500_000, last_term=2, last_index=3, voter=True, raw_stable_since=when,
    )  # fmt: skip
    agent.answers["Operator.ServerHealth"] = ap.OperatorHealthReply(servers=[row])
    answer = ask(api, "GET", "/v1/operator/autopilot/health?dc=dc2")
    assert agent.calls[-1][1].datacenter == "dc2"
    assert answer.status == 429
    assert json.loads(answer.body) == {
        "Healthy": False,
        "FailureTolerance": 0,
        "Servers": [
            {
                "ID": "i", "Name": "n", "Address": "a:1", "SerfStatus": "failed",
                "Version": "1.8.7", "Leader": True, "LastContact": "1.5ms", "LastTerm": 2,
                "LastIndex": 3, "Healthy": False, "Voter": True,
                "StableSince": "2020-09-13T12:26:40Z",
            }
        ],
    }  # fmt: skip
    agent.answers["Operator.ServerHealth"] = ap.OperatorHealthReply(healthy=True)
    assert ask(api, "GET", "/v1/operator/autopilot/health").status == 200


def test_peers_are_removed(agent: _Agent, api: HttpApi) -> None:
    agent.answers["Operator.RaftRemovePeerByID"] = None
    agent.answers["Operator.RaftRemovePeerByAddress"] = None
    assert ask(api, "DELETE", "/v1/operator/raft/peer?id=x&token=t").status == 200
    assert agent.calls[-1] == (
        "Operator.RaftRemovePeerByID",
        op.RaftRemovePeerRequest(datacenter="dc1", id="x", token="t"),
    )
    assert ask(api, "DELETE", "/v1/operator/raft/peer?address=1.2.3.4:5&dc=d").status == 200
    assert agent.calls[-1][1].address == "1.2.3.4:5"
    agent.answers["Operator.RaftRemovePeerByID"] = DomainError('id "x" was not found')
    answer = ask(api, "DELETE", "/v1/operator/raft/peer?id=x")
    assert (answer.status, answer.body) == (500, b'id "x" was not found')


def test_autopilot_is_set(agent: _Agent, api: HttpApi) -> None:
    agent.answers["Operator.AutopilotSetConfiguration"] = False
    body = b'{"MaxTrailingLogs":9,"LastContactThreshold":"1s","ModifyIndex":3}'
    path = "/v1/operator/autopilot/configuration"
    assert ask(api, "PUT", path, body).body == b"true"
    assert ask(api, "PUT", path + "?cas=7", body).body == b"false"
    request = agent.calls[-1][1]
    assert (request.cas, request.config.modify_index) == (True, 7)
    assert request.config.last_contact_threshold_ns == 1_000_000_000


def test_snapshots_stream(agent: _Agent, api: HttpApi) -> None:
    answer = ask(api, "GET", "/v1/snapshot?stale&dc=dc2&token=t")
    assert (answer.status, answer.body) == (200, b"onetwo")
    assert b"X-Consul-Index: 42\r\n" in answer.head
    assert ask(api, "PUT", "/v1/snapshot", b"small").status == 200
    assert ask(api, "PUT", "/v1/snapshot", spool=_large()).status == 200
    assert agent.closed == 3
    assert agent.snapshots == [
        (SnapshotRequest("dc2", "t", True, SnapshotOp.SAVE), b""),
        (SnapshotRequest("dc1", "", False, SnapshotOp.RESTORE), b"small"),
        (SnapshotRequest("dc1", "", False, SnapshotOp.RESTORE), b"large" * 100_000),
    ]
    agent.refusal = DomainError("failed to decompress snapshot: EOF")
    answer = ask(api, "PUT", "/v1/snapshot")
    assert (answer.status, answer.body) == (500, b"failed to decompress snapshot: EOF")


def test_only_snapshots_that_are_restored_are_spooled(api: HttpApi) -> None:
    def spools(method: str, target: bytes) -> bool:
        return api.spools(Request(method, target, ("127.0.0.1", 5)))

    assert spools("PUT", b"/v1/snapshot")
    assert spools("PUT", b"/v1/snapshot?dc=x")
    assert not spools("PUT", b"/v1/kv/v1/snapshot")
    assert not spools("POST", b"/v1/snapshot")


@pytest.mark.parametrize(
    ("method", "settings", "status", "text"),
    [
        ("POST", {}, 405, b"method POST not allowed"),
        ("PUT", {"block_endpoints": ("/v1/snapshot",)}, 403, b"Endpoint is blocked"),
        ("PUT", {"allow_write_from": (IPv4Network("10.0.0.0/8"),)}, 403, b"Access is restricted"),
        ("PUT", {"allow_write_from": (IPv4Network("127.0.0.0/8"),)}, 0, b""),
        ("PUT", {}, 0, b""),
    ],
)
def test_a_restore_that_is_refused_is_refused_before_its_bytes_are_sent(
    agent: _Agent, method: str, settings: dict[str, Any], status: int, text: bytes
) -> None:
    config = HttpApiConfig("dc1", "n1", response_headers={"X-Own": "1"}, **settings)
    request = Request(method, b"/v1/snapshot?dc=x", ("127.0.0.1", 5))
    request.content_length = 60 << 30
    answer = build_api(agent, config).admit(request)
    if not status:
        assert answer is None
        return
    assert answer is not None
    assert answer.status == status
    assert answer.body.startswith(text)
    assert b"X-Own: 1\r\n" in answer.head


def test_sessions_have_consuls_defaults(agent: _Agent, api: HttpApi) -> None:
    agent.answers["Session.Apply"] = "new-id"
    assert ask(api, "PUT", "/v1/session/create").body == b'{"ID":"new-id"}'
    plain = agent.calls[-1][1].session
    assert plain == s.Session(
        node="n1", node_checks=["serfHealth"], lock_delay_ns=15_000_000_000, behavior="release"
    )
    body = b'{"lockdelay":"3s","TTL":"20s","Checks":null,"Unknown":1,"Name":null}'
    ask(api, "PUT", "/v1/session/create?dc=d", body)
    request = agent.calls[-1][1]
    assert (request.datacenter, request.session.lock_delay_ns) == ("d", 3_000_000_000)
    assert (request.session.node_checks, request.session.checks) == ([], None)
    agent.answers["Session.Renew"] = s.IndexedSessions()
    answer = ask(api, "PUT", "/v1/session/renew/x")
    assert (answer.status, answer.body) == (404, b"Session id 'x' not found")
