"""Commands of operators, run on a store of keys in memory."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from proconsul.domain.base import raw_bytes
from proconsul.domain.kv import DirEntry, IndexedDirEntries
from proconsul.services.agent.events import UserEvent
from proconsul.services.agent.remote_exec import OUTPUT_BYTES, RemoteExec

EVENT = UserEvent("", "_rexec", "", raw_bytes(b'{"Prefix":"_rexec","Session":"s1"}'))


class Store:
    """Answers `KVS.Get` and takes what `KVS.Apply` locks."""

    def __init__(self, spec: dict[str, Any] | None, *, refuses: str = "") -> None:
        self.keys: dict[str, bytes] = {}
        self.asked: list[bool] = []
        self._spec, self._refuses = spec, refuses

    async def call(self, method: str, request: Any) -> Any:
        assert request.token == "t"
        if method == "KVS.Get":
            assert request.key == "_rexec/s1/job"
            self.asked.append(request.allow_stale)
            if self._spec is None or len(self.asked) == 1:
                return IndexedDirEntries()
            return IndexedDirEntries(
                entries=[DirEntry.of(request.key, json.dumps(self._spec).encode())]
            )
        assert (method, request.op, request.dir_ent.session) == ("KVS.Apply", "lock", "s1")
        if self._refuses and self._refuses in request.dir_ent.key:
            return False
        self.keys[request.dir_ent.key.removeprefix("_rexec/s1/n1/")] = request.dir_ent.value
        return True


def run(spec: dict[str, Any] | None, **settings: str) -> Store:
    store = Store(spec, **settings)

    async def bounded() -> None:
        async with asyncio.timeout(10):
            await RemoteExec("dc1", "n1", store, lambda: "t").run(EVENT)

    asyncio.run(bounded())
    return store


@pytest.mark.parametrize(
    "spec",
    [
        {"Command": "echo one; echo two >&2; exit 3"},
        {"Args": ["sh", "-c", "echo one; echo two >&2; exit 3"]},
        {"Script": base64.b64encode(b"#!/bin/sh\necho one\necho two >&2\nexit 3\n").decode()},
    ],
)
def test_a_job_is_acknowledged_run_and_told(spec: dict[str, Any]) -> None:
    store = run({**spec, "Wait": 2_000_000_000})
    assert store.asked == [True, False], "any server first, then the leader"
    assert store.keys == {"ack": b"", "out/00000": b"one\ntwo\n", "exit": b"3"}


def test_much_output_comes_in_pieces_and_silence_is_a_heartbeat() -> None:
    store = run(
        {"Command": f"head -c {OUTPUT_BYTES + 1} /dev/zero; sleep 1.2; echo x", "Wait": 100_000_000}
    )
    pieces = [store.keys[key] for key in sorted(store.keys) if key.startswith("out/")]
    assert len(pieces[0]) == OUTPUT_BYTES
    assert pieces[1] == b"\0"
    assert b"" in pieces
    assert pieces[-1] == b"x\n"
    assert store.keys["exit"] == b"0"


def test_what_cannot_be_run_is_told_as_255() -> None:
    assert run({"Args": ["/no/such/program"]}).keys == {"ack": b"", "exit": b"255"}


@pytest.mark.parametrize("spec", [None, {"Wait": "x"}])
def test_no_job_no_acknowledgement(spec: dict[str, Any] | None) -> None:
    assert run(spec).keys == {}


def test_a_session_that_is_gone_ends_the_command() -> None:
    assert run({"Command": "sleep 60", "Wait": 100_000_000}, refuses="/out/").keys == {
        "ack": b"", "exit": b"255",
    }  # fmt: skip


def test_heartbeats_are_bounded() -> None:
    keys = run({"Command": "sleep 0.45", "Wait": 1}).keys
    assert 1 <= sum(key.startswith("out/") for key in keys) <= 5
