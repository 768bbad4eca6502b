"""The agent's own watches (`watches` in its configuration; `agent/watch_handler.go`).

Each asks this agent's HTTP API, within the process, and hands what changed to a command or a URL.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

from proconsul.domain.go_json import to_json
from proconsul.domain.watches import Progress, Watch, WatchError, parse_watch
from proconsul.drivers.commands import CommandFailed, shell_command, start_command
from proconsul.drivers.http import Request, Response
from proconsul.drivers.probes import ProbeError, http_probe
from proconsul.drivers.scope import TaskScope
from proconsul.interfaces.http.api import HttpApi
from proconsul.util.goduration import parse_duration
from proconsul.util.goquote import go_quote

log = logging.getLogger("proconsul.watch")

OUTPUT_BYTES = 4 * 1024
HTTP_TIMEOUT_S = 10.0
COMMAND_S = 24 * 3600.0
_HTTP_KEYS = frozenset({"path", "method", "timeout", "header", "tls_skip_verify"})


@dataclass(frozen=True, slots=True)
class HttpHandler:
    """A URL that is told. `header` has lists of values."""

    path: str
    method: str
    timeout_s: float
    header: Mapping[str, Sequence[str]]
    tls_skip_verify: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """A watch and who is told: the words of a command, or a URL."""

    watch: Watch
    handler: HttpHandler | tuple[str, ...]


def parse_plans(configured: Sequence[Mapping[str, Any]], *, has_http: bool) -> list[Plan]:
    """The configured watches. Raises `WatchError` with Consul's text."""
    if configured and not has_http:
        raise WatchError("watch plans require an HTTP or HTTPS endpoint")
    return [_plan(params) for params in configured]


def _plan(params: Mapping[str, Any]) -> Plan:
    handler_type = params.get("handler_type", "script")
    if handler_type not in ("http", "script"):
        raise WatchError(f"Handler type '{handler_type}' not recognized")
    kind = params.get("type")
    if isinstance(kind, str) and kind.startswith("connect_"):
        raise WatchError(f"Watch type {kind} is not allowed in agent config")
    try:
        watch = parse_watch({**params, "handler_type": handler_type}, ("handler", "args"))
    except WatchError as error:
        raise WatchError(f"Failed to parse watch: {error}") from None
    rest = watch.rest
    if "handler" in rest:
        log.warning(
            "The 'handler' field in watches has been deprecated and replaced with the 'args' field."
            " See https://www.consul.io/docs/agent/watches.html"
        )
        if not isinstance(rest["handler"], str):
            raise WatchError("Watch handler must be a string")
    given = ("handler" in rest) + ("args" in rest) + (handler_type == "http")
    if given > 1:
        raise WatchError("Only one watch handler allowed")
    if not given:
        raise WatchError("Must define a watch handler")
    if handler_type == "http":
        return Plan(watch, _http_handler(rest["http_handler_config"]))
    if "handler" in rest:
        return Plan(watch, tuple(shell_command(rest["handler"])))
    args = [rest["args"]] if isinstance(rest["args"], str) else rest["args"]
    if not isinstance(args, list) or not all(isinstance(word, str) for word in args):
        raise WatchError("Watch args must be a list of strings")
    return Plan(watch, tuple(args))


def _http_handler(config: Any) -> HttpHandler:
    if isinstance(config, list) and len(config) == 1:
        config = config[0]  # a block of HCL
    problem = "Failed to parse watch: Failed to parse 'http_handler_config': "
    if not isinstance(config, Mapping) or not config.keys() <= _HTTP_KEYS:
        raise WatchError(f"{problem}it takes {', '.join(sorted(_HTTP_KEYS))}")
    if not config.get("path"):
        raise WatchError(f"{problem}Requires 'path' to be set")
    timeout_s = HTTP_TIMEOUT_S
    if raw := config.get("timeout"):
        try:
            timeout_s = parse_duration(str(raw))
        except ValueError as error:
            raise WatchError(f"{problem}Failed to parse timeout: {error}") from None
    header = config.get("header") or {}
    if isinstance(header, list) and len(header) == 1:
        header = header[0]
    if not isinstance(header, Mapping):
        raise WatchError(f"{problem}'header' is not a map")
    return HttpHandler(
        str(config["path"]),
        str(config.get("method") or "POST"),
        timeout_s,
        {k: [v] if isinstance(v, str) else list(map(str, v)) for k, v in header.items()},
        bool(config.get("tls_skip_verify", False)),
    )


class Watches:
    """Runs plans until others take their place."""

    def __init__(self, api: HttpApi, scope: TaskScope) -> None:
        self._api, self._scope = api, scope
        self._running: list[asyncio.Task[None]] = []

    def run(self, plans: Sequence[Plan]) -> None:
        """Stop those that run, and begin these."""
        for task in self._running:
            task.cancel()
        self._running = [
            self._scope.supervise(f"watch-{plan.watch.type}", partial(self._follow, plan))
            for plan in plans
        ]

    async def _follow(self, plan: Plan) -> None:
        progress = Progress(plan.watch)
        while True:
            response = await self._ask(plan.watch, progress.query())
            if response.status not in (200, 404):
                seconds = progress.failed()
                log.error(
                    "Watch errored: type=%s error=%s retry=%ds",
                    plan.watch.type,
                    go_quote(
                        f"Unexpected response code: {response.status} "
                        f"({response.body.decode('utf-8', 'replace')})"
                    ),
                    seconds,
                )
                await asyncio.sleep(seconds)
                continue
            answer = json.loads(response.body or b"null") if response.status == 200 else None
            index = _index(response)
            is_news, told = progress.news(answer, index)
            if is_news:
                await _tell(plan, told, index)

    async def _ask(self, watch: Watch, query: dict[str, Any]) -> Response:
        if watch.datacenter:
            query["dc"] = watch.datacenter
        target = quote(watch.path, safe="/-_.~") + "?" + urlencode(query, doseq=True)
        request = Request("GET", target.encode(), ("127.0.0.1", 0))
        if watch.token:
            request.headers.append((b"X-Consul-Token", watch.token.encode()))
        answer = self._api(request)
        return answer if isinstance(answer, Response) else await answer


def _index(response: Response) -> int:
    for line in response.head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"x-consul-index":
            return int(value)
    return 0


async def _tell(plan: Plan, told: Any, index: int) -> None:
    body = to_json(told) + b"\n"
    if isinstance(plan.handler, HttpHandler):
        await _tell_url(plan.handler, body, index)
        return
    words = " ".join(plan.handler)
    try:
        command = await start_command(
            plan.handler, stdin=body, environment={"CONSUL_INDEX": str(index)}
        )
    except CommandFailed as error:
        log.error("Failed to run watch handler: watch_handler=%s error=%s", words, error)
        return
    kept, size = b"", 0
    async with command:
        async for piece in command.output(OUTPUT_BYTES, COMMAND_S, COMMAND_S):
            kept, size = (kept + piece)[-OUTPUT_BYTES:], size + len(piece)
        status = await command.status()
    if status:
        log.error(
            "Failed to run watch handler: watch_handler=%s error=exit status %d", words, status
        )
    output = kept.decode("utf-8", "replace")
    if size > len(kept):
        output = f"Captured {len(kept)} of {size} bytes\n...\n{output}"
    log.debug("watch handler output: watch_handler=%s output=%s", words, output)


async def _tell_url(handler: HttpHandler, body: bytes, index: int) -> None:
    headers = {
        "User-Agent": ["Consul watch"],
        "Content-Type": ["application/json"],
        "X-Consul-Index": [str(index)],
        **handler.header,
    }
    try:
        answer = await http_probe(
            handler.path,
            method=handler.method,
            headers=headers,
            body=body.decode(),
            tls_skip_verify=handler.tls_skip_verify,
            timeout_s=handler.timeout_s,
            output_max=OUTPUT_BYTES,
        )
    except (ProbeError, ValueError, OverflowError) as error:  # no URL, a port above 65535
        log.error("Failed to invoke http watch handler: watch=%s error=%s", handler.path, error)
        return
    if not 200 <= answer.status <= 299:
        log.error(
            "http watch handler failed with output: watch=%s status=%d output=%s",
            handler.path,
            answer.status,
            bytes(answer.body).decode("utf-8", "replace"),
        )
