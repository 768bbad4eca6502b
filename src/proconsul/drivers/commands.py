"""Commands that an agent runs for its operators: by shell or directly, output taken as it comes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence

from proconsul.util.errors import ProconsulError

END_S = 5.0


class CommandFailed(ProconsulError):
    """The command could not be started."""


class RunningCommand:
    """A command with its output and errors in one stream. `async with` it: the end kills it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def output(self, size: int, idle_s: float, silence_s: float) -> AsyncIterator[bytes]:
        """Pieces of at most `size` bytes, of less after `idle_s` seconds without more.

        An empty piece says that nothing came for `silence_s`.
        """
        stdout = self._process.stdout
        assert stdout is not None
        gathered = b""
        while True:
            try:
                async with asyncio.timeout(idle_s if gathered else silence_s):
                    more = await stdout.read(size - len(gathered))
            except TimeoutError:
                yield gathered
                gathered = b""
                continue
            gathered += more
            if not more:
                if gathered:
                    yield gathered
                return
            if len(gathered) >= size:
                yield gathered
                gathered = b""

    async def status(self) -> int:
        """Its exit status; -1 if a signal ended it, as Go has it."""
        return max(await self._process.wait(), -1)

    async def __aenter__(self) -> RunningCommand:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_S):
                    await self._process.wait()


def shell_command(script: str) -> list[str]:
    """The words that run `script` by the shell, which SHELL may name."""
    return [os.environ.get("SHELL") or "/bin/sh", "-c", script]


async def start_command(
    words: Sequence[str],
    *,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
) -> RunningCommand:
    """Start a command in a process group of its own. Raises `CommandFailed`."""
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise CommandFailed(f"{words[0] if words else 'nothing'}: {error}") from error
    if process.stdin is not None:
        # A command need not read it, and may be over by now: uvloop's word for that is RuntimeError
        with contextlib.suppress(OSError, RuntimeError):
            process.stdin.write(stdin)
            process.stdin.close()
    return RunningCommand(process)
