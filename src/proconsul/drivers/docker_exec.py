"""Running a command inside a Docker container by the engine's HTTP API (`agent/checks/docker.go`)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import httptools

from proconsul.drivers.check_scripts import ScriptResult, captured
from proconsul.drivers.probes import HttpAnswer, ProbeError, read_answer

DEFAULT_HOST = "unix:///var/run/docker.sock"
_CREATED, _OK, _NOT_FOUND, _CONFLICT = 201, 200, 404, 409
_ANSWER_BYTES_MAX = 1 << 20


class DockerHost(NamedTuple):
    """Where the engine listens: a Unix socket's path, or host and port, and a path before all."""

    socket: str
    host: str = ""
    port: int = 0
    base: str = ""


def parse_host(text: str) -> DockerHost:
    """`unix:///var/run/docker.sock` or `tcp://host:port`. Raises `ProbeError`."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        raise ProbeError(f"unable to parse docker host `{text}`")
    if scheme == "unix":
        return DockerHost(rest)
    try:
        parts = urlsplit(f"tcp://{rest}")
        return DockerHost("", parts.hostname or "", parts.port or 2375, parts.path.rstrip("/"))
    except ValueError as error:
        raise ProbeError(f"unable to parse docker host `{text}`: {error}") from error


async def run_in_container(
    host: DockerHost, container: str, command: Sequence[str], output_max: int
) -> ScriptResult:
    """Run `command` in a container to its end. Raises `ProbeError` with Consul's words."""
    exec_id = await _create(host, container, command)
    answer = await _call(host, container, "start exec", "POST", f"/exec/{exec_id}/start",
                         {"Detach": False, "Tty": True})  # fmt: skip
    if answer.status == _NOT_FOUND:
        raise ProbeError(f"start exec failed for container {container}: invalid exec id {exec_id}")
    if answer.status == _CONFLICT:
        raise ProbeError(f"start exec failed since container {container} is paused or stopped")
    if answer.status != _OK:
        raise _unexpected("start exec", container, answer)
    output = captured(bytes(answer.body), output_max)
    ended = await _call(host, container, "inspect exec", "GET", f"/exec/{exec_id}/json", None)
    if ended.status == _NOT_FOUND:
        raise ProbeError(
            f"inspect exec failed for container {container}: invalid exec id {exec_id}"
        )
    if ended.status != _OK:
        raise _unexpected("inspect exec", container, ended)
    return ScriptResult(int(_field(ended, "ExitCode", 0, "inspect exec", container)), output)


async def _create(host: DockerHost, container: str, command: Sequence[str]) -> str:
    request = {
        "AttachStdin": False, "AttachStdout": True, "AttachStderr": True, "Tty": False,
        "Cmd": list(command),
    }  # fmt: skip
    path = f"/containers/{quote(container, safe='')}/exec"
    answer = await _call(host, container, "create exec", "POST", path, request)
    if answer.status == _NOT_FOUND:
        raise ProbeError(f"create exec failed for unknown container {container}")
    if answer.status == _CONFLICT:
        raise ProbeError(f"create exec failed since container {container} is paused or stopped")
    if answer.status != _CREATED:
        raise _unexpected("create exec", container, answer)
    return quote(str(_field(answer, "Id", "", "create exec", container)), safe="")


def _unexpected(what: str, container: str, answer: HttpAnswer) -> ProbeError:
    text = bytes(answer.body[:1024]).decode("utf-8", "replace")
    return ProbeError(
        f"{what} failed for container {container} with status {answer.status}: {text}"
    )


def _field(answer: HttpAnswer, name: str, missing: Any, what: str, container: str) -> Any:
    try:
        value = json.loads(bytes(answer.body)).get(name, missing)
        return type(missing)(value)
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise ProbeError(
            f"{what} response for container {container} cannot be parsed: {error}"
        ) from error


async def _call(
    host: DockerHost,
    container: str,
    what: str,
    method: str,
    path: str,
    body: Mapping[str, Any] | None,
) -> HttpAnswer:
    data = b"" if body is None else json.dumps(body).encode()
    head = (
        f"{method} {host.base}{path} HTTP/1.1\r\nHost: {host.host or 'docker'}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
        "Connection: close\r\n\r\n"
    )
    try:
        if host.socket:
            reader, writer = await asyncio.open_unix_connection(host.socket)
        else:
            reader, writer = await asyncio.open_connection(host.host, host.port)
        try:
            writer.write(head.encode() + data)
            return await read_answer(reader, _ANSWER_BYTES_MAX)
        finally:
            writer.transport.abort()
    except (OSError, httptools.HttpParserError, httptools.HttpParserUpgrade, ProbeError) as error:
        raise ProbeError(f"{what} failed for container {container}: {error}") from error
