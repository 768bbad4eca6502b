"""The HTTP API: finds the route, keeps Consul's rules that hold for all, translates errors.

`HttpApi` is the handler that `drivers.http.HttpServer` calls; `admit` is its `admit`.
"""

from __future__ import annotations

import ipaddress
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from proconsul.domain.go_json import to_json
from proconsul.drivers.http import Request, Response
from proconsul.interfaces.http.answers import (
    JSON_HEAD,
    VARY_HEAD,
    SharedEncodings,
    accepts_gzip,
    indented,
    meta_head,
    question,
    text_answer,
)
from proconsul.interfaces.http.errors import HttpError, method_not_allowed, translate
from proconsul.interfaces.http.options import consistency_of, token_of
from proconsul.interfaces.http.ports import AgentPort, HttpApiConfig
from proconsul.interfaces.http.query import (
    Ask,
    clean_path,
    decode_path,
    needs_cleaning,
    parse_params,
    split_target,
)
from proconsul.interfaces.http.request_log import failed_request
from proconsul.services.agent.cache_types import CacheType
from proconsul.util.errors import ProconsulError

log = logging.getLogger("proconsul.http")

Answer: TypeAlias = Response | Coroutine[Any, Any, Response]
Handler: TypeAlias = Callable[["HttpApi", Ask], Answer]

_SPOOLED = b"/v1/snapshot"
_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_LOGGED = frozenset({403, 405})
"""Refusals before a handler is asked. What handlers refuse is the client's affair."""
_PREFIX_SLASHES_MAX = 7
"""No route's prefix has more slashes: `/v1/agent/health/service/name/`."""


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint. A pattern that ends with `/` takes all paths below it."""

    pattern: str
    methods: tuple[str, ...]
    handler: Handler


class HttpApi:
    """Consul's HTTP API in front of an agent."""

    def __init__(
        self, agent: AgentPort, config: HttpApiConfig, routes: Mapping[str, Route]
    ) -> None:
        self.agent = agent
        self.config = config
        self.encodings = SharedEncodings()
        self._exact = {p: r for p, r in routes.items() if not p.endswith("/")}
        self._below = {p: r for p, r in routes.items() if p.endswith("/")}
        self._head = b"".join(
            f"{name}: {value}\r\n".encode("latin-1")
            for name, value in config.response_headers.items()
        )
        if config.translate_wan_addrs:
            self._head += b"X-Consul-Translate-Addresses: true\r\n"
        self._route_head = self._head + VARY_HEAD
        self._timers: dict[tuple[str, str], str] = {}

    # -- entry points of the driver

    def __call__(self, request: Request) -> Answer:
        """Answer one request; without a coroutine if nothing has to be waited for."""
        started = time.perf_counter()
        try:
            path, query = self._path(request)
            route = self._find(path)
            if route is None:
                return self._outside(path, query, request)
        except HttpError as error:
            return text_answer(error.status, error.text, error.head)
        try:
            answer = self._ask(route, path, query, request)
        except Exception as error:  # noqa: BLE001 - the edge where all errors become answers
            answer = self._failed(request, error)
        if isinstance(answer, Response):
            return self._finish(answer, request, route, started)
        return self._finish_later(answer, request, route, started)

    def admit(self, request: Request) -> Response | None:
        """Refuse before it is sent what is declared larger than allowed, or must not be kept."""
        limit = self.config.kv_value_bytes_max
        if request.content_length > limit and request.target.startswith(b"/v1/kv/"):
            refusal = value_too_large(request.content_length, limit)
            refusal.head = self._route_head + refusal.head
            return refusal
        if request.target.startswith(_SPOOLED):
            return self._admit_spooled(request)
        return None

    def _admit_spooled(self, request: Request) -> Response | None:
        try:
            path, _ = self._path(request)
            if path in self._exact and (refusal := self._check(self._exact[path], path, request)):
                return refusal
        except HttpError as error:
            return text_answer(error.status, error.text, self._route_head + error.head)
        return None

    @staticmethod
    def spools(request: Request) -> bool:
        """Whether a request's body is too large for memory: snapshots that are restored."""
        return request.method == "PUT" and request.target.partition(b"?")[0] == _SPOOLED

    # -- what handlers use

    def token(self, ask: Ask) -> str:
        """The request's ACL token, else the agent's default."""
        return token_of(ask, self.config)

    def json(self, ask: Ask, value: Any, head: bytes = b"", status: int = 200) -> Response:
        """A JSON answer."""
        return self.encoded(ask, to_json(value), head, status)

    def encoded(self, ask: Ask, body: bytes, head: bytes = b"", status: int = 200) -> Response:
        """A JSON answer from compact JSON, indented if that was asked for."""
        if self.config.dev_mode or "pretty" in ask.params:
            body = indented(body)
        return Response(status, body, head + JSON_HEAD if head else JSON_HEAD)

    def shared(
        self, ask: Ask, meta: Any, value: Any, view: Callable[[Any], Any], head: bytes
    ) -> Response:
        """A JSON answer whose encoding is shared with all who ask the same; `view` is its form."""
        body = self.encodings.encoded(
            question(ask), meta.index, value, lambda found: to_json(view(found))
        )
        return self.encoded(ask, body, head)

    def query(
        self,
        method: str,
        request: Any,
        render: Callable[[Any], Response],
        *,
        level: bool = True,
        cache: CacheType | None = None,
    ) -> Answer:
        """Ask `method` and render what it gives, at once if the agent can answer at once.

        With `level` an answer that is older than `max_stale` is asked for again, of the leader.
        With `cache` it may come from the agent's cache, if the request asks for that.
        """
        if cache is not None and self.may_use_cache(request):
            return self.cached(cache, request, render)
        out = self.agent.try_rpc(method, request)
        if out is not None and not (level and _too_stale(request, out)):
            return render(out)
        return self._query_later(method, request, render, level=level)

    def may_use_cache(self, request: Any) -> bool:
        """Whether `?cached` was given, and is to be heeded."""
        return bool(request.use_cache) and self.config.use_cache

    async def cached(
        self, kind: CacheType, request: Any, render: Callable[[Any], Response]
    ) -> Response:
        """Render what the agent's cache has, with the headers that tell so."""
        out, meta = await self.agent.cache.get(kind, request)
        if _too_stale(request, out):
            fresh = {"allow_stale": False, "max_stale_duration_ns": 0}
            out = await self.agent.rpc(kind.method, _replaced(request, fresh))
        response = render(out)
        head = f"Age: {meta.age_s:.0f}\r\nX-Cache: HIT\r\n" if meta.hit else "X-Cache: MISS\r\n"
        response.head += head.encode("ascii")
        return response

    async def _query_later(
        self, method: str, request: Any, render: Callable[[Any], Response], *, level: bool
    ) -> Response:
        out = await self.agent.rpc(method, request)
        if level and _too_stale(request, out):
            fresh = {"allow_stale": False, "max_stale_duration_ns": 0}
            out = await self.agent.rpc(method, _replaced(request, fresh))
        return render(out)

    @staticmethod
    def meta(out: Any, request: Any = None) -> bytes:
        """The X-Consul headers; with `request`, the consistency that it asked for too."""
        return meta_head(out, "" if request is None else consistency_of(request))

    # -- routing

    def _path(self, request: Request) -> tuple[str, bytes]:
        raw, query = split_target(request.target)
        path = decode_path(raw)
        if not path.isprintable() and not self.config.unprintable_paths_allowed:
            raise HttpError(400)
        return path, query

    def _find(self, path: str) -> Route | None:
        if needs_cleaning(path) and clean_path(path) != path:
            return None
        if path.startswith("/v1/kv/"):  # by far the most frequent
            return self._below["/v1/kv/"]
        if (route := self._exact.get(path)) is not None:
            return route
        slash, cuts = 0, list[int]()
        while len(cuts) < _PREFIX_SLASHES_MAX and (slash := path.find("/", slash) + 1):
            cuts.append(slash)
        for cut in reversed(cuts):
            if (route := self._below.get(path[:cut])) is not None:
                return route
        return None

    def _outside(self, path: str, query: bytes, request: Request) -> Response:
        """Paths of no endpoint: the index, redirects as Go's ServeMux gives them, 404."""
        cleaned = clean_path(path)
        if cleaned not in self._exact and cleaned + "/" in self._below:
            cleaned += "/"
        if cleaned != path:
            return _redirect(cleaned, query, request)
        if path == "/":
            return text_answer(200, "Consul Agent")
        return text_answer(404, "")

    def _ask(self, route: Route, path: str, query: bytes, request: Request) -> Answer:
        params = parse_params(query)
        if (refusal := self._check(route, path, request)) is not None:
            return refusal
        return route.handler(self, Ask(request, path, path[len(route.pattern) :], params))

    def _check(self, route: Route, path: str, request: Request) -> Response | None:
        """The rules that need no body; raises `HttpError`. The answer to OPTIONS is here too."""
        config = self.config
        if config.block_endpoints and path.startswith(config.block_endpoints):
            raise HttpError(403, "Endpoint is blocked by agent configuration")
        method = request.method
        if method not in route.methods:
            if method == "OPTIONS":
                allow = ",".join(("OPTIONS", *route.methods)).encode()
                return Response(200, b"", b"Allow: " + allow + b"\r\n")
            raise method_not_allowed(method, route.methods)
        if config.allow_write_from and method not in _READS:
            self._check_write_access(request)
        return None

    def _check_write_access(self, request: Request) -> None:
        try:
            address = ipaddress.ip_address(request.peer[0])
        except ValueError:
            raise HttpError(500, "unable to parse remote addr") from None
        if not any(address in network for network in self.config.allow_write_from):
            raise HttpError(403, "Access is restricted")

    # -- the end of every answer

    async def _finish_later(
        self,
        coming: Coroutine[Any, Any, Response],
        request: Request,
        route: Route,
        started: float,
    ) -> Response:
        try:
            answer = await coming
        except Exception as error:  # noqa: BLE001 - the edge where all errors become answers
            answer = self._failed(request, error)
        return self._finish(answer, request, route, started)

    def _finish(
        self, response: Response, request: Request, route: Route, started: float
    ) -> Response:
        response.head = self._route_head + response.head
        encoding = request.header(b"accept-encoding")
        if encoding and response.stream is None and accepts_gzip(encoding):
            self.encodings.compress(response)
        timer = self._timers.get((request.method, route.pattern))
        if timer is None:
            timer = self._timer(request.method, route.pattern)
        self.agent.metrics.sample(timer, (time.perf_counter() - started) * 1000.0)
        return response

    def _timer(self, method: str, pattern: str) -> str:
        parts = [part or "_" for part in pattern.split("/")[1:]]
        timer = ".".join(("consul", "http", method, *parts))
        self._timers[method, pattern] = timer
        return timer

    @staticmethod
    def _failed(request: Request, error: Exception) -> Response:
        if not isinstance(error, ProconsulError):
            log.exception("request failed: %s", request.method, exc_info=error)
        found = translate(error)
        if not isinstance(error, HttpError) or error.status in _LOGGED:
            log.error("%s", failed_request(request, found.text))
        return text_answer(found.status, found.text, found.head)


def value_too_large(size: int, limit: int) -> Response:
    """413 in Consul's words; the connection ends, since the body will not be read."""
    text = (
        f"Request body({size} bytes) too large, max size: {limit} bytes. "
        "See https://www.consul.io/docs/agent/options.html#kv_max_value_size."
    )
    response = text_answer(413, text)
    response.close = True
    return response


def _too_stale(request: Any, out: Any) -> bool:
    if not request.allow_stale:
        return False
    return bool(0 < request.max_stale_duration_ns < out.last_contact_ns)


def _replaced(request: Any, changes: dict[str, Any]) -> Any:
    fields = {name: getattr(request, name) for name in request.__struct_fields__}
    return type(request)(**{**fields, **changes})


def _redirect(path: str, query: bytes, request: Request) -> Response:
    from html import escape
    from urllib.parse import quote

    location = quote(path.encode("utf-8", "surrogateescape"), safe="/$&+,:;=@!'()*~")
    if query:
        location += "?" + query.decode("latin-1")
    head = f"Location: {location}\r\n".encode("latin-1")
    if request.method in {"GET", "HEAD"}:
        head += b"Content-Type: text/html; charset=utf-8\r\n"
        if request.method == "GET":
            body = f'<a href="{escape(location)}">Moved Permanently</a>.\n\n'
            return Response(301, body.encode("latin-1"), head)
    return Response(301, b"", head)
