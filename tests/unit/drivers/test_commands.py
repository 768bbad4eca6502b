"""Commands: their output in pieces, their input, their end."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest
import uvloop

from proconsul.drivers.commands import CommandFailed, shell_command, start_command


async def output(script: str, stdin: bytes = b"", **environment: str) -> tuple[bytes, int]:
    command = await start_command(shell_command(script), stdin=stdin, environment=environment)
    async with asyncio.timeout(20), command:
        pieces = [piece async for piece in command.output(4096, 20.0, 20.0)]
        return b"".join(pieces), await command.status()


def test_input_environment_and_status() -> None:
    script = "cat; echo $WORD >&2; exit 4"
    assert uvloop.run(output(script, b"in ", WORD="out")) == (b"in out\n", 4)


def test_a_command_that_is_over_before_its_input_was_written_is_no_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Over:
        """As uvloop's transport of a process that has ended."""

        def write(self, _data: bytes) -> None:
            raise RuntimeError("unable to perform operation on it; the handler is closed")

    class Process:
        stdin, returncode = Over(), 0

        async def wait(self) -> int:
            return 0

    async def create(*_words: str, **_how: object) -> Process:
        return Process()

    monkeypatch.setattr(asyncio, "create_subprocess_exec", create)

    async def status() -> int:
        return await (await start_command(["true"], stdin=b"x")).status()

    assert asyncio.run(status()) == 0


def test_without_input_a_command_reads_its_end_at_once() -> None:
    assert uvloop.run(output("cat; echo over")) == (b"over\n", 0)


def test_what_cannot_be_started() -> None:
    with pytest.raises(CommandFailed, match="/no/such"):
        uvloop.run(start_command(["/no/such"]))


def test_the_end_of_the_block_kills_it_and_its_children(tmp_path: Path) -> None:
    async def leave() -> int:
        words = shell_command(f"echo $$ > {tmp_path}/pid; sleep 60 & wait")
        async with await start_command(words):
            async with asyncio.timeout(10):
                while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            return int((tmp_path / "pid").read_text())

    group = uvloop.run(leave())
    deadline = time.monotonic() + 10
    while True:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        assert time.monotonic() < deadline, "a child outlived its command"
        time.sleep(0.01)
