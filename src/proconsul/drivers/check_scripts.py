"""Scripts that check something, run as child processes (`agent/checks`, `CheckMonitor`)."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from proconsul.drivers.probes import ProbeError
from proconsul.util.goduration import format_duration

_READ_BYTES = 65536
_PIPES_END_S = 1.0
"""A script's own children may hold its output open after its end: they are not waited for longer."""


class ScriptResult(NamedTuple):
    """`output` is the end of what was written to both outputs, with a note if it was more."""

    status: int
    output: str


class ScriptTimeoutError(ProbeError):
    """The script ran too long and was killed with all that it had started."""


class _Tail:
    """The last bytes of an output, and how many there were."""

    def __init__(self, size: int) -> None:
        self._size, self._data, self._total = size, bytearray(), 0

    def add(self, data: bytes) -> None:
        self._total += len(data)
        self._data += data
        del self._data[: -self._size]

    def text(self) -> str:
        """What is left, with a note if it was more."""
        text = self._data.decode("utf-8", "replace")
        if self._total <= self._size:
            return text
        return f"Captured {self._size} of {self._total} bytes\n...\n{text}"


def captured(data: bytes, size: int) -> str:
    """The end of `data` as scripts' outputs are shown."""
    tail = _Tail(size)
    tail.add(data)
    return tail.text()


async def run_script(args: Sequence[str], timeout_s: float, output_max: int) -> ScriptResult:
    """Run a program to its end. Raises `ProbeError` if it cannot be started or takes too long."""
    try:
        process = await asyncio.create_subprocess_exec(
            *args,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise ProbeError(_start_failure(args[0], error)) from error
    tail = _Tail(output_max)
    reading = asyncio.ensure_future(_read(process, tail))
    try:
        async with asyncio.timeout(timeout_s):
            status = await process.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(_PIPES_END_S):
                await asyncio.shield(reading)
    except TimeoutError:
        _kill(process)
        await process.wait()  # noqa: ASYNC120 - whoever cancels wants no result
        text = f"Timed out ({format_duration(timeout_s)}) running check"
        output = tail.text()
        raise ScriptTimeoutError(f"{text}\n\n{output}" if output else text) from None
    except asyncio.CancelledError:
        _kill(process)
        raise
    finally:
        reading.cancel()
    return ScriptResult(status, tail.text())


async def _read(process: asyncio.subprocess.Process, tail: _Tail) -> None:
    assert process.stdout is not None
    while data := await process.stdout.read(_READ_BYTES):
        tail.add(data)


def _kill(process: asyncio.subprocess.Process) -> None:
    """The script with its children: it leads a group of its own."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _start_failure(program: str, error: Exception) -> str:
    if isinstance(error, FileNotFoundError) and "/" not in program:
        return f'exec: "{program}": executable file not found in $PATH'
    reason = getattr(error, "strerror", "") or str(error)
    return f"fork/exec {program}: {reason.lower()}"
