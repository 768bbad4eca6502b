"""Sessions end in time, and only on the leader; locks that were taken away rest."""

from __future__ import annotations

import asyncio

import pytest
from server_support import running, server_config

from proconsul.domain import kv
from proconsul.domain import session as s
from proconsul.domain.messages import MessageType
from proconsul.rpc.endpoints.base import RequestError
from proconsul.services.server import session_timers
from proconsul.services.server.server import Server
from proconsul.services.server.session_timers import LockDelays, SessionTimers
from proconsul.state import sessions as sessions_state
from proconsul.state.store import Store
from proconsul.state.tables import Transaction
from proconsul.testing.waiting import until
from proconsul.util.errors import ProconsulError
from proconsul.util.metrics import Metrics


class _Log:
    """Commits what timers apply, or fails."""

    def __init__(self) -> None:
        self.store, self.ended, self.failures = Store(), list[str](), 0

    async def apply(self, type_: MessageType, request: s.SessionRequest) -> None:
        assert (type_, request.op, request.datacenter) == (
            MessageType.SESSION, s.SESSION_DESTROY, "dc1",
        )  # fmt: skip
        if self.failures:
            self.failures -= 1
            raise ProconsulError("not now")
        self.ended.append(request.session.id)

    def add(self, session: s.Session) -> s.Session:
        def insert(tx: Transaction) -> None:
            sessions_state.insert(tx, session)

        self.store.write(5, insert)
        return session


def test_sessions_end_after_twice_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_timers, "RETRY_S", 0.01)

    async def run() -> None:
        log = _Log()
        log.failures = 2
        timers = SessionTimers("dc1", log.store, log.apply, Metrics())
        loop = asyncio.get_running_loop()
        found = log.add(s.Session(id="found", ttl="100ms"))
        for name, ttl in (("no", ""), ("zero", "0s"), ("odd", "x"), ("long", "1h")):
            log.add(s.Session(id=name, ttl=ttl))
        timers.reset(found)
        assert len(timers) == 0  # it does not lead
        began = loop.time()
        leading = loop.create_task(timers.run())
        await until(lambda: len(timers) == 2)
        renewed = s.Session(id="renewed", ttl="150ms")
        cleared = s.Session(id="cleared", ttl="50ms")
        timers.reset(renewed)
        timers.reset(cleared)
        timers.clear("cleared")
        await until(lambda: log.ended == ["found"])
        assert loop.time() - began >= 0.2
        timers.reset(renewed)
        again = loop.time()
        await until(lambda: log.ended == ["found", "renewed"])
        assert loop.time() - again >= 0.3
        leading.cancel()
        await asyncio.wait([leading])
        assert len(timers) == 0

    asyncio.run(run())


def test_locks_rest_for_a_bounded_time() -> None:
    now = [100.0]
    delays = LockDelays(lambda: now[0])
    delays.begin("a", 15_000_000_000)
    delays.begin("b", 3_600_000_000_000)
    assert delays.holds("a")
    assert not delays.holds("c")
    now[0] += 15
    assert not delays.holds("a")
    assert delays.holds("b")
    now[0] += 45
    assert not delays.holds("b")  # a minute at the most
    for i in range(session_timers.DELAYS_SWEEP + 1):
        delays.begin(str(i), 1)
        now[0] += 1
    assert len(delays._until) < session_timers.DELAYS_SWEEP


def test_a_session_and_its_lock_on_a_server() -> None:
    async def run() -> None:
        server = Server(server_config("s1", session_ttl_min_s=0.1), Metrics())
        async with running(server):
            await until(lambda: server.store.catalog.node("s1").value is not None)

            async def create(**fields: object) -> str:
                session = s.Session(node="s1", **fields)  # type: ignore[arg-type]
                request = s.SessionRequest(datacenter="dc1", op=s.SESSION_CREATE, session=session)
                found: str = await server.call("Session.Apply", request)
                return found

            async def lock(key: str, session: str) -> bool:
                entry = kv.DirEntry.of(key, b"", session=session)
                request = kv.KVSRequest(datacenter="dc1", op=kv.KV_LOCK, dir_ent=entry)
                taken: bool = await server.call("KVS.Apply", request)
                return taken

            for fields, text in (
                (
                    {"ttl": "1ms"},
                    r"Invalid Session TTL '1000000', must be between \[100ms=24h0m0s\]",
                ),
                ({"ttl": "25h"}, "Invalid Session TTL"),
                ({"ttl": "x"}, "Session TTL 'x' invalid"),
                ({"behavior": "x"}, "Invalid Behavior setting 'x'"),
            ):
                with pytest.raises(RequestError, match=text):
                    await create(**fields)
            short = await create(ttl="200ms", lock_delay_ns=300_000_000)
            other = await create()
            assert await lock("k", short)
            assert not await lock("k", other)
            asked = s.SessionSpecificRequest(datacenter="dc1", session=short)  # the old name
            renewed = await server.call("Session.Renew", asked)
            assert [row.id for row in renewed.sessions] == [short]
            await until(lambda: server.store.sessions.get(short).value is None)
            assert not await lock("k", other)  # it rests
            deadline = asyncio.get_running_loop().time() + 10
            while not await lock("k", other):
                assert asyncio.get_running_loop().time() < deadline
                await asyncio.sleep(0.02)
            assert (await server.call("Session.Renew", asked)).sessions is None
            listed = await server.call("Session.List", s.SessionSpecificRequest(datacenter="dc1"))
            assert [row.id for row in listed.sessions] == [other]

    asyncio.run(run())
