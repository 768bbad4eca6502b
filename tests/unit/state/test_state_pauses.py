"""How long the state keeps the event loop to itself, where there is much of it."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator

import pytest

from proconsul.domain.base import encode
from proconsul.domain.kv import DirEntry, KVSRequest
from proconsul.domain.messages import MessageType, encode_command
from proconsul.state.fsm import Fsm
from proconsul.wire import msgpack

KEYS = 100_000
STEP_S = 0.025
"""Of this thread's processor time: what a loaded machine does beside it does not count."""


def _pieces() -> Iterator[bytes]:
    piece = bytearray(msgpack.pack({"LastIndex": KEYS}))
    for number in range(KEYS):
        piece.append(MessageType.KVS)
        piece += encode(DirEntry.of(f"k{number:06}", b"x" * 100, modify_index=number + 1))
        if len(piece) > 256 << 10:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)


@pytest.fixture(autouse=True)
def _no_collections() -> Iterator[None]:
    """An agent has frozen what it started with; the test runner's own objects are many."""
    gc.disable()
    yield
    gc.enable()


def test_restores_and_snapshots_come_in_short_steps() -> None:
    fsm, pieces = Fsm(), list(_pieces())
    began = time.thread_time()
    longest = 0.0
    for _ in range(2):  # the second one replaces the first one's state
        steps = fsm.restore_steps(pieces)
        while True:
            started = time.thread_time()
            try:
                next(steps)
            except StopIteration as done:
                for _ in done.value():
                    longest = max(longest, time.thread_time() - started)
                    started = time.thread_time()
                break
            longest = max(longest, time.thread_time() - started)
    whole = time.thread_time() - began
    assert longest < min(STEP_S, whole / 10)
    assert len(fsm.store.kv.entries("k").value) == KEYS

    started = time.thread_time()
    snapshot = fsm.snapshot()
    assert time.thread_time() - started < 0.002  # nothing is copied
    size, index = 0, KEYS
    while True:
        started = time.thread_time()
        piece = next(snapshot, None)
        assert time.thread_time() - started < STEP_S
        if piece is None:
            break
        size += len(piece)
        index += 1
        request = KVSRequest(op="set", dir_ent=DirEntry.of(f"k{index * 7 % KEYS:06}", b"new"))
        fsm.apply(index, encode_command(MessageType.KVS, request))
    assert size > sum(map(len, pieces)) * 0.99
