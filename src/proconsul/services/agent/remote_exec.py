"""Commands that operators run on many nodes at once (`agent/remote_exec.go`).

A user event names a prefix of keys and a session. The job is read from there; an acknowledgement,
output and the exit status are written back, each key locked by that session, so that all of it goes
when the session does. Off by default: whoever may write events and keys runs commands as the agent.
"""

from __future__ import annotations

import json
import logging
import os
import posixpath
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

from msgspec import MsgspecError, Struct
from msgspec import json as fast_json

from proconsul.domain.kv import (
    KV_LOCK,
    DirEntry,
    IndexedDirEntries,
    KeyRequest,
    KVSRequest,
)
from proconsul.drivers.commands import CommandFailed, shell_command, start_command
from proconsul.services.agent.events import UserEvent
from proconsul.util.errors import ProconsulError, WireError

log = logging.getLogger("proconsul.agent")

OUTPUT_BYTES = 4 * 1024
OUTPUT_IDLE_S = 0.5
NOT_RUN = 255
WAIT_S_MIN = 0.1
_NS = 1_000_000_000


class Caller(Protocol):
    """The way to the servers."""

    async def call(self, method: str, request: Any) -> Any: ...


class ExecEvent(Struct, rename="pascal"):
    """The event's payload."""

    prefix: str = ""
    session: str = ""


class ExecSpec(Struct, rename="pascal"):
    """The job. `wait` is in nanoseconds; `script` goes into a file that is run."""

    command: str = ""
    args: list[str] | None = None
    script: bytes | None = None
    wait: int = 0


T = TypeVar("T")


def decode_json(data: bytes, type_: type[T]) -> T:
    """A job's part as JSON, which anybody may have written. Raises `WireError`."""
    try:
        return fast_json.decode(data, type=type_)
    except (MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"malformed {type_.__name__}: {str(error)[:120]}") from error


class RemoteExec:
    """Runs jobs for one agent."""

    def __init__(self, datacenter: str, node: str, core: Caller, token: Callable[[], str]) -> None:
        self._datacenter, self._node = datacenter, node
        self._core, self._token = core, token

    async def run(self, event: UserEvent) -> None:
        """The whole of one job. Whatever goes wrong is logged, and told as far as possible."""
        log.debug("received remote exec event: id=%s", event.id)
        try:
            job = decode_json(event.payload, ExecEvent)
        except WireError as error:
            log.error("failed to decode remote exec event: error=%s", error)
            return
        try:
            spec = await self._spec(job)
            if spec is None:
                return
            await self._write(job, "ack", b"")
        except (ProconsulError, TimeoutError) as error:
            log.error("remote exec job cannot be taken: error=%s", error)
            return
        status = NOT_RUN
        try:
            status = await self._execute(job, spec)
        except (ProconsulError, TimeoutError, OSError) as error:
            log.error("remote exec job failed: error=%s", error)
        await self._tell_status(job, status)

    async def _tell_status(self, job: ExecEvent, status: int) -> None:
        try:
            await self._write(job, "exit", str(status).encode())
        except (ProconsulError, TimeoutError) as error:
            log.error("failed to write exit code for remote exec job: error=%s", error)

    async def _spec(self, job: ExecEvent) -> ExecSpec | None:
        """First from any server, since all nodes ask at once; if it has none, from the leader."""
        for stale in (True, False):
            request = KeyRequest(
                datacenter=self._datacenter,
                key=_join(job.prefix, job.session, "job"),
                allow_stale=stale,
                token=self._token(),
            )
            found: IndexedDirEntries = await self._core.call("KVS.Get", request)
            if found.entries:
                return decode_json(found.entries[0].value, ExecSpec)
        log.debug("remote exec aborted, job spec missing")
        return None

    async def _execute(self, job: ExecEvent, spec: ExecSpec) -> int:
        async with _words(spec) as words:
            log.info("remote exec script: script=%s", json.dumps(words[-1]))
            try:
                command = await start_command(words)
            except CommandFailed as error:
                log.debug("failed to start remote exec: error=%s", error)
                return NOT_RUN
            async with command:
                number = 0
                silence_s = max(spec.wait / _NS, WAIT_S_MIN)
                async for piece in command.output(OUTPUT_BYTES, OUTPUT_IDLE_S, silence_s):
                    await self._write(job, f"out/{number:05x}", piece)
                    number += 1
                return await command.status()

    async def _write(self, job: ExecEvent, name: str, value: bytes) -> None:
        request = KVSRequest(
            datacenter=self._datacenter,
            op=KV_LOCK,
            dir_ent=DirEntry.of(
                _join(job.prefix, job.session, self._node, name), value, session=job.session
            ),
            token=self._token(),
        )
        if not await self._core.call("KVS.Apply", request):
            raise ProconsulError("write failed")


def _join(*parts: str) -> str:
    """Go's `path.Join`."""
    return posixpath.normpath("/".join(part for part in parts if part)).removeprefix("./")


@asynccontextmanager
async def _words(spec: ExecSpec) -> AsyncIterator[list[str]]:
    """The command line; a script's file goes with the end of the block."""
    if not spec.script:
        yield list(spec.args) if spec.args else shell_command(spec.command)
        return
    path = _script_file(spec.script)
    try:
        yield shell_command(path)
    finally:
        os.unlink(path)


def _script_file(script: bytes) -> str:
    handle, path = tempfile.mkstemp(prefix="rexec")
    with os.fdopen(handle, "wb") as file:
        file.write(script)
    os.chmod(path, 0o750)
    return path
