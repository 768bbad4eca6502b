"""`Session.*` (agent/consul/session_endpoint.go)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from msgspec.structs import replace

from proconsul.domain import options as o
from proconsul.domain import session as s
from proconsul.domain.acl import Authorizer
from proconsul.domain.errors import PermissionDeniedError
from proconsul.domain.messages import MessageType
from proconsul.rpc.endpoints.base import EndpointServer, RequestError, meta, read
from proconsul.rpc.endpoints.vetting import unrestricted
from proconsul.rpc.methods import METHODS
from proconsul.rpc.table import Call, Endpoint, Requires
from proconsul.util.goduration import format_duration_ns, parse_duration_ns
from proconsul.util.goquote import go_quote

TTL_NS_MAX = 24 * 3600 * 1_000_000_000


class Timers(Protocol):
    """When sessions with a time to live end; kept by the leader."""

    def reset(self, session: s.Session) -> None:
        """Begin to wait (anew) for the end of a session, if it has one."""
        ...

    def clear(self, session_id: str) -> None: ...


class Sessions:
    """Sessions and their renewal. `new_id` gives a random UUID."""

    def __init__(
        self,
        server: EndpointServer,
        timers: Timers,
        ttl_ns_min: int,
        new_id: Callable[[], str],
    ) -> None:
        self._server, self._timers = server, timers
        self._ttl_ns_min, self._new_id = ttl_ns_min, new_id

    async def apply(self, request: s.SessionRequest, call: Call) -> str:
        session = request.session
        match request.op:
            case s.SESSION_DESTROY:
                if problem := s.id_problem(session.id):
                    with_acls = not unrestricted(call.authorizer)
                    raise RequestError(
                        f"Session lookup failed: {problem}" if with_acls else problem
                    )
                existing = self._server.store.sessions.get(session.id).value
                if existing is None:
                    return ""
                _require_write(call.authorizer, existing.node)
            case s.SESSION_CREATE:
                _require_write(call.authorizer, session.node)
                request = replace(request, session=self._completed(session))
            case _:
                raise RequestError(f"Invalid session operation {go_quote(request.op)}")
        result = await self._server.apply(MessageType.SESSION, request)
        if request.op == s.SESSION_CREATE:
            self._timers.reset(request.session)
        else:
            self._timers.clear(session.id)
        return result if isinstance(result, str) else ""

    def _completed(self, session: s.Session) -> s.Session:
        """With a valid behaviour and TTL, and an id: the log must not hold what is random."""
        behavior = session.behavior or s.BEHAVIOR_RELEASE
        if behavior not in {s.BEHAVIOR_RELEASE, s.BEHAVIOR_DELETE}:
            raise RequestError(f"Invalid Behavior setting '{behavior}'")
        if session.ttl:
            try:
                ttl_ns = parse_duration_ns(session.ttl)
            except ValueError as error:
                raise RequestError(f"Session TTL '{session.ttl}' invalid: {error}") from None
            if ttl_ns and not self._ttl_ns_min <= ttl_ns <= TTL_NS_MAX:
                raise RequestError(
                    f"Invalid Session TTL '{ttl_ns}', must be between "
                    f"[{format_duration_ns(self._ttl_ns_min)}={format_duration_ns(TTL_NS_MAX)}]"
                )
        session_id = self._new_id()
        while self._server.store.sessions.get(session_id).value is not None:
            session_id = self._new_id()
        return replace(session, behavior=behavior, id=session_id)

    async def get(self, request: s.SessionSpecificRequest, call: Call) -> s.IndexedSessions:
        session_id = _check_id(request.session_id or request.session)
        return await read(
            self._server,
            request,
            lambda: self._server.store.sessions.get(session_id),
            lambda row: _allowed([] if row is None else [row], call.authorizer),
            s.IndexedSessions,
        )

    async def list(self, request: s.SessionSpecificRequest, call: Call) -> s.IndexedSessions:
        return await read(
            self._server,
            request,
            self._server.store.sessions.all,
            lambda rows: _allowed(rows, call.authorizer),
            s.IndexedSessions,
        )

    async def node_sessions(self, request: o.NodeSpecificRequest, call: Call) -> s.IndexedSessions:
        return await read(
            self._server,
            request,
            lambda: self._server.store.sessions.of_node(request.node),
            lambda rows: _allowed(rows, call.authorizer),
            s.IndexedSessions,
        )

    async def renew(self, request: s.SessionSpecificRequest, call: Call) -> s.IndexedSessions:
        session_id = _check_id(request.session_id or request.session)
        found = self._server.store.sessions.get(session_id)
        head = meta(self._server, found.index)
        if found.value is None:
            return s.IndexedSessions(**head)
        _require_write(call.authorizer, found.value.node)
        self._timers.reset(found.value)
        return s.IndexedSessions(sessions=[found.value], **head)


def _of_somebody(request: s.SessionRequest) -> s.SessionRequest:
    """Before anybody looks at the token."""
    if not request.session.id and request.op == s.SESSION_DESTROY:
        raise RequestError("Must provide ID")
    if not request.session.node and request.op == s.SESSION_CREATE:
        raise RequestError("Must provide Node")
    return request


def _check_id(session_id: str) -> str:
    if problem := s.id_problem(session_id):
        raise RequestError(problem)
    return session_id


def _require_write(authorizer: Authorizer, node: str) -> None:
    if not authorizer.session_write(node):
        raise PermissionDeniedError


def _allowed(rows: list[s.Session], authorizer: Authorizer) -> dict[str, Any]:
    return {"sessions": [row for row in rows if authorizer.session_read(row.node)] or None}


def endpoints(
    server: EndpointServer, timers: Timers, ttl_ns_min: int, new_id: Callable[[], str]
) -> list[Endpoint]:
    """All of `Session`."""
    it = Sessions(server, timers, ttl_ns_min, new_id)
    read_, write = Requires.SESSION_READ, Requires.SESSION_WRITE
    return [
        Endpoint(METHODS["Session.Apply"], write, it.apply, _of_somebody),
        Endpoint(METHODS["Session.Get"], read_, it.get),
        Endpoint(METHODS["Session.List"], read_, it.list),
        Endpoint(METHODS["Session.NodeSessions"], read_, it.node_sessions),
        Endpoint(METHODS["Session.Renew"], write, it.renew),
    ]
