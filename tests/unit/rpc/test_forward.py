from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from proconsul.core.raft.types import LeadershipLost, NotLeader, TransferInProgress
from proconsul.domain import catalog as c
from proconsul.domain import errors, federation, kv
from proconsul.domain.acl import Authorizer
from proconsul.domain.acl_authorizers import PolicyAuthorizer
from proconsul.domain.acl_rules import NO_RULES
from proconsul.domain.base import decode, encode
from proconsul.drivers.raft.errors import ApplyTimeout, Halted
from proconsul.drivers.stream import PeerInfo
from proconsul.rpc import forward
from proconsul.rpc.dialer import Destination, Hop, HopError
from proconsul.rpc.forward import ForwardConfig, Forwarder
from proconsul.rpc.methods import METHODS, Empty
from proconsul.rpc.table import Call, Endpoint, EndpointTable, Requires, UnknownMethod
from proconsul.rpc.token_resolver import EVERYTHING
from proconsul.util import throttle
from proconsul.util.errors import ProconsulError, WireError
from proconsul.util.metrics import Metrics

HERE = kv.KeyRequest(datacenter="dc1", key="a")
THERE = kv.KeyRequest(datacenter="dc2", key="a")
WRITE = kv.KVSRequest(datacenter="dc2", op=kv.KV_SET, dir_ent=kv.DirEntry.of("a"))
LOCAL_WRITE = kv.KVSRequest(datacenter="dc1", op=kv.KV_SET, dir_ent=kv.DirEntry.of("a"))
ANSWER = kv.IndexedDirEntries(index=7, entries=[kv.DirEntry.of("a")])
PEER = PeerInfo(("192.0.2.1", 99))


class _RemoteError(ProconsulError):
    is_remote = True


class _LostError(ProconsulError):
    """The connection broke; `safe` if before anything was sent."""

    def __init__(self, *, safe: bool) -> None:
        super().__init__("EOF")
        self.safe_to_retry = safe


@dataclass
class _Server:
    """`Forwarding` by hand. `outcomes` are what `send` does, in turn; the last one repeats."""

    is_leader: bool = False
    is_leaving: bool = False
    heard: bool = True
    led_by: Destination | None = None
    known: dict[str, list[Destination]] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    outcomes: list[bytes | Exception] = field(default_factory=list)
    sent: list[tuple[Destination, str, bytes]] = field(default_factory=list)
    deadlines: list[float] = field(default_factory=list)
    rights: dict[str, Authorizer] = field(default_factory=dict)
    """By token, where that is not the same for all."""
    failed: list[Destination] = field(default_factory=list)
    on_send: Callable[[], None] = lambda: None
    before_send: Callable[[Destination], Awaitable[object]] | None = None

    def heard_from_leader(self) -> bool:
        return self.heard

    def leader(self) -> Destination | None:
        return self.led_by

    def servers(self, datacenter: str) -> list[Destination]:
        return self.known.get(datacenter, [])

    def knows_datacenter(self, datacenter: str) -> bool:
        return datacenter in self.names

    def failed_server(self, to: Destination) -> None:
        self.failed.append(to)

    async def send(self, to: Destination, method: str, body: bytes, deadline: float) -> bytes:
        assert deadline > asyncio.get_running_loop().time()
        outcome = self.outcomes[min(len(self.sent), len(self.outcomes) - 1)]
        self.sent.append((to, method, body))
        self.deadlines.append(deadline)
        self.on_send()
        if self.before_send is not None:
            await self.before_send(to)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def resolve_token(self, token: str) -> Authorizer | None:
        if not self.rights:
            return EVERYTHING
        return self.rights.get(token)

    async def resolve_token_later(self, token: str) -> Authorizer:
        raise errors.AclNotFoundError


def _to(node: str, datacenter: str = "dc1") -> Destination:
    return Destination(datacenter, node, ("127.0.0.1", 8300))


def _forwarder(
    server: _Server,
    *,
    hold_s: float = 0.1,
    datacenter: str = "dc1",
    on_apply: Callable[[], None] = lambda: None,
) -> Forwarder:
    async def get(_request: Any, call: Call) -> Any:
        return ANSWER

    async def apply(_request: Any, call: Call) -> Any:
        on_apply()
        return True

    async def roots(_request: Any, call: Call) -> Any:
        await asyncio.sleep(0)
        return Empty()

    table = EndpointTable(
        [
            Endpoint(METHODS["KVS.Get"], Requires.KEY_READ, get),
            Endpoint(METHODS["KVS.Apply"], Requires.KEY_WRITE, apply),
            Endpoint(METHODS["FederationState.Apply"], Requires.OPERATOR_WRITE, apply),
            Endpoint(METHODS["Status.Ping"], Requires.NOTHING, roots),
        ]
    )
    config = ForwardConfig(datacenter, "dc1", hold_s)
    return Forwarder(config, server, table, Metrics(), random.Random(0))


def _call(forwarder: Forwarder, name: str, request: Any) -> Any:
    return asyncio.run(forwarder.call(name, request))


def test_the_leader_answers_itself_from_process_and_network() -> None:
    server = _Server(is_leader=True)
    forwarder = _forwarder(server)
    assert _call(forwarder, "KVS.Get", HERE) == ANSWER
    assert forwarder.try_call("KVS.Get", HERE) == ANSWER
    body = asyncio.run(forwarder.dispatch("KVS.Get", encode(HERE), PEER))
    assert decode(body, kv.IndexedDirEntries) == ANSWER
    assert not server.sent


def test_malformed_calls_are_the_callers_fault() -> None:
    forwarder = _forwarder(_Server(is_leader=True))
    for name, text in (
        ("KVS.Nothing", "rpc: can't find method KVS.Nothing"),
        ("Nothing.Get", "rpc: can't find service Nothing.Get"),
        ("nonsense", "rpc: service/method request ill-formed: nonsense"),
    ):
        with pytest.raises(UnknownMethod, match=text):
            asyncio.run(forwarder.dispatch(name, b"", PEER))
    with pytest.raises(WireError):
        asyncio.run(forwarder.dispatch("KVS.Get", b"\xc1", PEER))


def test_what_has_to_wait_is_not_tried() -> None:
    forwarder = _forwarder(_Server(is_leader=True))
    assert forwarder.try_call("KVS.Apply", WRITE) is None
    assert forwarder.try_call("Status.Ping", None) is None
    assert forwarder.try_call("KVS.Get", THERE) is None
    for waits in ({"min_query_index": 3}, {"require_consistent": True}):
        request = kv.KeyRequest(datacenter="dc1", key="a", **waits)
        assert forwarder.try_call("KVS.Get", request) is None


def test_followers_forward_and_answer_stale_reads_once_in_step() -> None:
    server = _Server(led_by=_to("s1"), outcomes=[encode(ANSWER)])
    forwarder = _forwarder(server)
    assert _call(forwarder, "KVS.Get", HERE) == ANSWER
    assert server.sent == [(_to("s1"), "KVS.Get", encode(HERE))]
    stale = kv.KeyRequest(datacenter="dc1", key="a", allow_stale=True)
    assert forwarder.try_call("KVS.Get", stale) == ANSWER
    server.heard = False
    assert forwarder.try_call("KVS.Get", stale) is None


def test_without_a_leader_calls_are_held_and_then_refused() -> None:
    server = _Server()
    forwarder = _forwarder(server, hold_s=0.05)
    with pytest.raises(errors.NoLeaderError):
        _call(forwarder, "KVS.Get", HERE)

    async def elected() -> Any:
        asyncio.get_running_loop().call_later(0.02, setattr, server, "is_leader", True)
        return await _forwarder(server, hold_s=5.0).call("KVS.Get", HERE)

    assert asyncio.run(elected()) == ANSWER
    server.is_leaving = True
    with pytest.raises(errors.NoLeaderError):
        _call(forwarder, "KVS.Get", HERE)


@pytest.mark.parametrize(
    ("failure", "write_again", "read_again"),
    [
        (HopError(Hop.DIAL, "dc1", "refused"), True, True),
        (_RemoteError("No cluster leader"), True, True),
        (_RemoteError("node is not the leader"), True, True),
        (_RemoteError("rpc error making call: leadership transfer in progress"), True, True),
        (_RemoteError("leadership lost while committing log"), False, False),
        (_RemoteError("rpc error making call: EOF"), False, True),
        (_RemoteError("rpc error getting client: failed to get conn: EOF"), True, True),
        (_RemoteError("rpc error: something else"), False, False),
        (_LostError(safe=True), True, True),
        (_LostError(safe=False), False, True),
        (TimeoutError(), False, True),
    ],
)
def test_only_what_cannot_happen_twice_is_repeated(
    failure: Exception, *, write_again: bool, read_again: bool
) -> None:
    for name, request, answer, again in (
        ("KVS.Apply", LOCAL_WRITE, True, write_again),
        ("KVS.Get", HERE, ANSWER, read_again),
    ):
        server = _Server(led_by=_to("s1"), outcomes=[failure, encode(answer)])
        if again:
            assert _call(_forwarder(server), name, request) == answer
        else:
            with pytest.raises(ProconsulError) as raised:
                _call(_forwarder(server), name, request)
            answered = str(failure) == "rpc error: something else"
            assert errors.is_outcome_unknown(raised.value) is (name == "KVS.Apply" and not answered)
            assert str(failure) in str(raised.value)
        assert len(server.sent) == 1 + again


@pytest.mark.parametrize("refusal", [NotLeader(), TransferInProgress()])
def test_a_leader_that_lost_the_lead_meanwhile_passes_the_call_on(refusal: Exception) -> None:
    server = _Server(is_leader=True, outcomes=[encode(True)])

    def refuse() -> None:
        server.is_leader, server.led_by = False, _to("s2")
        raise refusal

    assert _call(_forwarder(server, on_apply=refuse), "KVS.Apply", LOCAL_WRITE) is True
    assert [to.node for to, _, _ in server.sent] == ["s2"]


@pytest.mark.parametrize("loss", [LeadershipLost(), ApplyTimeout("apply"), Halted("raft halted")])
def test_a_write_that_may_have_happened_is_not_repeated_and_says_so(loss: Exception) -> None:
    server = _Server(is_leader=True)
    calls = 0

    def lose() -> None:
        nonlocal calls
        calls += 1
        raise loss

    with pytest.raises(errors.OutcomeUnknownError, match=f"{loss}; the write may or may not"):
        _call(_forwarder(server, on_apply=lose), "KVS.Apply", LOCAL_WRITE)
    assert calls == 1


def test_calls_go_on_as_soon_as_a_leader_is_known() -> None:
    async def main() -> float:
        server = _Server(outcomes=[encode(True)])
        forwarder = _forwarder(server, hold_s=600.0)
        loop = asyncio.get_running_loop()
        started = loop.time()

        def elected() -> None:
            server.led_by = _to("s1")
            forwarder.leader_changed()

        loop.call_later(0.01, elected)
        assert await forwarder.call("KVS.Apply", LOCAL_WRITE) is True
        return loop.time() - started

    assert asyncio.run(main()) < 4.0  # the shortest pause with such a hold time is 4.7 s


def test_a_query_is_held_anew_at_each_change_of_leaders_however_old_it_is() -> None:
    server = _Server(led_by=_to("s1"), outcomes=[_LostError(safe=False)] * 2 + [encode(ANSWER)])
    server.before_send = lambda _: asyncio.sleep(0.15)
    assert _call(_forwarder(server, hold_s=0.1), "KVS.Get", HERE) == ANSWER
    assert len(server.sent) == 3


def test_a_call_that_ran_into_its_deadline_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "CALL_S", 0.05)
    server = _Server(led_by=_to("s1"), outcomes=[TimeoutError()])
    server.before_send = lambda _: asyncio.sleep(0.06)
    with pytest.raises(ProconsulError, match="deadline exceeded"):
        _call(_forwarder(server, hold_s=5.0), "KVS.Get", HERE)
    assert len(server.sent) == 1


@pytest.mark.parametrize("name", ["KVS.Apply", "KVS.Get"])
def test_a_silent_leader_is_not_waited_for_once_another_leads(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "SUPERSEDED_S", 0.01)

    async def main() -> tuple[list[str], Any]:
        server = _Server(led_by=_to("s1"), outcomes=[encode(ANSWER)])
        forwarder = _forwarder(server)
        silence = asyncio.Event()
        server.before_send = lambda to: silence.wait() if to.node == "s1" else asyncio.sleep(0)

        def succeeded() -> None:
            server.led_by = Destination("dc1", "s2", ("127.0.0.2", 8300))
            forwarder.leader_changed()
            forwarder.leader_changed()

        asyncio.get_running_loop().call_later(0.01, succeeded)
        result: Any
        try:
            result = await forwarder.call(name, LOCAL_WRITE if name == "KVS.Apply" else HERE)
        except errors.OutcomeUnknownError as error:
            result = str(error)
        assert not forwarder._under_way
        return [to.node for to, _, _ in server.sent], result

    asked, result = asyncio.run(main())
    if name == "KVS.Get":
        assert (asked, result) == (["s1", "s2"], ANSWER)
    else:
        assert asked == ["s1"]
        assert "s1 does not lead any more; the write may or may not" in result


def test_other_datacenters_servers_are_tried_in_turn() -> None:
    servers = [_to(f"s{i}", "dc2") for i in range(5)]
    failure = HopError(Hop.DIAL, "dc2", "refused")
    server = _Server(known={"dc2": servers}, outcomes=[failure, encode(ANSWER)])
    assert _call(_forwarder(server), "KVS.Get", THERE) == ANSWER
    assert [to for to, _, _ in server.sent] == servers[:2]
    assert server.failed == servers[:1]

    server = _Server(known={"dc2": servers}, outcomes=[failure])
    with pytest.raises(HopError):
        _call(_forwarder(server), "KVS.Get", THERE)
    assert len(server.sent) == forward.CROSS_DC_SERVERS_MAX

    server = _Server(known={"dc2": servers}, outcomes=[TimeoutError()])
    with pytest.raises(ProconsulError, match="RPC deadline exceeded"):
        _call(_forwarder(server), "KVS.Apply", WRITE)
    assert len(server.sent) == 1

    server = _Server(known={"dc2": servers}, outcomes=[_RemoteError("Permission denied")])
    with pytest.raises(_RemoteError):
        _call(_forwarder(server), "KVS.Get", THERE)
    assert not server.failed


def test_datacenters_without_servers_are_told_apart() -> None:
    server = _Server(names={"dc2"})
    forwarder = _forwarder(server)
    with pytest.raises(errors.DatacenterNotAvailableError):
        _call(forwarder, "KVS.Get", THERE)
    with pytest.raises(errors.NoPathToDatacenterError):
        _call(forwarder, "KVS.Get", kv.KeyRequest(datacenter="dc9"))


def test_a_way_that_is_missing_is_complained_of_once_in_a_while(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = HopError(Hop.DIAL, "dc2", "refused")
    server = _Server(known={"dc2": [_to("s1", "dc2")]}, outcomes=[failure])
    elsewhere = kv.KeyRequest(datacenter="dc3", key="a")

    async def main() -> None:
        forwarder = _forwarder(server)
        for _ in range(3):
            with pytest.raises(errors.NoPathToDatacenterError):
                await forwarder.call("KVS.Get", elsewhere)
            with pytest.raises(HopError):
                await forwarder.call("KVS.Get", THERE)
        lines = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
        assert sum("no path was found: datacenter=dc3" in line for line in lines) == 1
        assert sum("dial failed" in line for line in lines) == 1
        monkeypatch.setattr(throttle, "SAY_AGAIN_S", 0.0)
        caplog.clear()
        with pytest.raises(HopError):
            await forwarder.call("KVS.Get", THERE)
        assert "refused" in caplog.text

    asyncio.run(main())


def test_calls_to_other_datacenters_end() -> None:
    server = _Server(known={"dc2": [_to("s1", "dc2")]}, outcomes=[encode(ANSWER)])
    query = kv.KeyRequest(
        datacenter="dc2", key="a", min_query_index=5, max_query_time_ns=60 * 10**9
    )
    for request, at_most in ((THERE, forward.CALL_S), (query, 60 * 17 / 16 + forward.CALL_S)):

        async def main(request: kv.KeyRequest = request) -> float:
            started = asyncio.get_running_loop().time()
            await _forwarder(server).call("KVS.Get", request)
            return server.deadlines[-1] - started

        assert at_most <= asyncio.run(main()) < at_most + 5


def test_federation_states_are_written_in_the_primary() -> None:
    request = federation.FederationStateRequest(
        datacenter="dc2", state=federation.FederationState(datacenter="dc2")
    )
    server = _Server(is_leader=True, known={"dc1": [_to("p")]}, outcomes=[encode(True)])
    secondary = _forwarder(server, datacenter="dc2")
    assert _call(secondary, "FederationState.Apply", request) is True
    asyncio.run(secondary.dispatch("FederationState.Apply", encode(request), PEER))
    for _, _, body in server.sent:
        assert decode(body, federation.FederationStateRequest).datacenter == "dc1"
    assert asyncio.run(secondary.call_datacenter("KVS.Apply", "dc1", WRITE)) is True


def test_an_endpoint_is_defined_once() -> None:
    async def handler(_request: Any, _call: Call) -> Any:
        return c.IndexedNodes()

    endpoint = Endpoint(METHODS["KVS.Get"], Requires.KEY_READ, handler)
    with pytest.raises(ValueError, match=r"KVS\.Get is defined twice"):
        EndpointTable([endpoint, endpoint])
    assert list(EndpointTable([endpoint])) == [endpoint]


def test_rights_that_changed_while_a_query_waited_count() -> None:
    server = _Server(is_leader=True, rights={"t": PolicyAuthorizer(NO_RULES, default_allow=True)})
    asked: list[tuple[int, bool]] = []

    async def get(request: Any, call: Call) -> Any:
        asked.append((request.min_query_index, call.authorizer.key_read("k")))
        if request.min_query_index == 1:
            server.rights["t"] = PolicyAuthorizer(NO_RULES, default_allow=False)
        if request.min_query_index == 2:
            del server.rights["t"]
            server.rights["other"] = EVERYTHING
        return ANSWER

    table = EndpointTable([Endpoint(METHODS["KVS.Get"], Requires.KEY_READ, get)])
    forwarder = Forwarder(
        ForwardConfig("dc1", "dc1", 0.1), server, table, Metrics(), random.Random(0)
    )
    request = kv.KeyRequest(datacenter="dc1", key="k", token="t", min_query_index=1)
    assert _call(forwarder, "KVS.Get", request) == ANSWER
    assert asked == [(1, True), (0, False)]
    request = kv.KeyRequest(datacenter="dc1", key="k", token="t", min_query_index=2)
    with pytest.raises(errors.AclNotFoundError):
        _call(forwarder, "KVS.Get", request)


def test_what_else_is_wrong_may_come_before_that_there_is_no_such_token() -> None:
    server = _Server(is_leader=True, rights={"other": EVERYTHING})

    async def get(request: Any, call: Call) -> Any:
        assert request.min_query_index == 0
        if not request.key:
            raise errors.DomainError("Must provide key")
        if request.key == "secret" and not call.authorizer.key_read("secret"):
            raise errors.PermissionDeniedError
        return ANSWER

    endpoint = Endpoint(METHODS["KVS.Get"], Requires.KEY_READ, get, token_last=True)
    config = ForwardConfig("dc1", "dc1", 0.1)
    forwarder = Forwarder(config, server, EndpointTable([endpoint]), Metrics(), random.Random(0))
    for key, error in (
        ("", "Must provide key"),
        ("a", "ACL not found"),
        ("secret", "ACL not found"),
    ):
        request = kv.KeyRequest(datacenter="dc1", key=key, token="t", min_query_index=1)
        with pytest.raises(errors.DomainError, match=error):
            _call(forwarder, "KVS.Get", request)
