"""`/v1/session/` (`agent/session_endpoint.go`)."""

from __future__ import annotations

from typing import Any

from msgspec.structs import fields, replace

from proconsul.domain.catalog import SERF_CHECK_ID
from proconsul.domain.go_decode import GoDecodeError, decode_struct, parse_json
from proconsul.domain.options import NodeSpecificRequest
from proconsul.domain.session import (
    BEHAVIOR_RELEASE,
    SESSION_CREATE,
    SESSION_DESTROY,
    IndexedSessions,
    Session,
    SessionRequest,
    SessionSpecificRequest,
)
from proconsul.drivers.http import Response
from proconsul.interfaces.http.api import Answer, HttpApi
from proconsul.interfaces.http.errors import HttpError, bad_request
from proconsul.interfaces.http.options import query_options
from proconsul.interfaces.http.query import Ask

LOCK_DELAY_NS = 15_000_000_000
_LOW_DELAY = 1000
"""Lock delays below this are meant as seconds."""
_SECOND_NS = 1_000_000_000
_NAMES = {field.encode_name.lower() for field in fields(Session)}


async def create(api: HttpApi, ask: Ask) -> Response:
    """PUT /v1/session/create: by default a session of this node that holds while it is alive."""
    session = Session(
        node=api.config.node_name,
        node_checks=[SERF_CHECK_ID],
        checks=[SERF_CHECK_ID],
        lock_delay_ns=LOCK_DELAY_NS,
        behavior=BEHAVIOR_RELEASE,
    )
    if ask.request.body:
        session = _merged(session, ask.request.body)
    request = SessionRequest(op=SESSION_CREATE, session=_checks_fixed(session), **_write(api, ask))
    return api.json(ask, {"ID": await api.agent.rpc("Session.Apply", request)})


def _merged(session: Session, body: bytes) -> Session:
    """What the body says over the defaults. As in Consul, unknown fields are passed over."""
    try:
        value = parse_json(body)
        if isinstance(value, dict):
            value = {k: v for k, v in value.items() if k.lower() in _NAMES}
        given = decode_struct(value, Session)
    except GoDecodeError as error:
        raise bad_request(f"Request decode failed: {error}") from None
    names = {k.lower() for k, v in (value or {}).items() if v is not None}
    changes = {
        field.name: getattr(given, field.name)
        for field in fields(Session)
        if field.encode_name.lower() in names
    }
    # Null empties a list, and says nothing of all else.
    nulls = {k.lower() for k, v in (value or {}).items() if v is None}
    changes.update({n: None for n in ("node_checks", "checks") if n.replace("_", "") in nulls})
    if changes.get("lock_delay_ns", _LOW_DELAY) < _LOW_DELAY:
        changes["lock_delay_ns"] *= _SECOND_NS
    return replace(session, **changes)


def _checks_fixed(session: Session) -> Session:
    """One of the two fields for checks: `Checks` is the old one, which may switch both off."""
    if not session.checks:
        return replace(session, node_checks=[])
    if session.checks == [SERF_CHECK_ID] or not session.node_checks:
        return replace(session, checks=None)
    return session


async def destroy(api: HttpApi, ask: Ask) -> Response:
    """PUT /v1/session/destroy/:id"""
    session = Session(id=_named(ask, "Missing session"))
    request = SessionRequest(op=SESSION_DESTROY, session=session, **_write(api, ask))
    await api.agent.rpc("Session.Apply", request)
    return api.json(ask, True)


async def renew(api: HttpApi, ask: Ask) -> Response:
    """PUT /v1/session/renew/:id"""
    request = _specific(api, ask)
    out: IndexedSessions = await api.agent.rpc("Session.Renew", request)
    if out.sessions is None:
        raise HttpError(404, f"Session id '{request.session_id}' not found")
    return api.json(ask, [_view(one) for one in out.sessions])


def info(api: HttpApi, ask: Ask) -> Answer:
    """GET /v1/session/info/:id"""
    return _listed(api, ask, "Session.Get", _specific(api, ask))


def every(api: HttpApi, ask: Ask) -> Answer:
    """GET /v1/session/list"""
    request = SessionSpecificRequest(**query_options(ask, api.config))
    return _listed(api, ask, "Session.List", request)


def node(api: HttpApi, ask: Ask) -> Answer:
    """GET /v1/session/node/:node"""
    options = query_options(ask, api.config)
    request = NodeSpecificRequest(node=_named(ask, "Missing node name"), **options)
    return _listed(api, ask, "Session.NodeSessions", request)


def _listed(api: HttpApi, ask: Ask, method: str, request: Any) -> Answer:
    def render(out: IndexedSessions) -> Response:
        return api.json(ask, [_view(one) for one in out.sessions or ()], api.meta(out))

    return api.query(method, request, render, level=False)


def _specific(api: HttpApi, ask: Ask) -> SessionSpecificRequest:
    options = query_options(ask, api.config)
    name = _named(ask, "Missing session")
    return SessionSpecificRequest(session_id=name, session=name, **options)


def _named(ask: Ask, complaint: str) -> str:
    if not ask.rest:
        raise bad_request(complaint)
    return ask.rest


def _write(api: HttpApi, ask: Ask) -> dict[str, str]:
    return {"datacenter": ask.first("dc") or api.config.datacenter, "token": api.token(ask)}


def _view(one: Session) -> dict[str, Any]:
    services = one.service_checks
    view = {
        "ID": one.id,
        "Name": one.name,
        "Node": one.node,
        "LockDelay": one.lock_delay_ns,
        "Behavior": one.behavior,
        "TTL": one.ttl,
        "NodeChecks": one.node_checks,
        "ServiceChecks": None
        if services is None
        else [{"ID": check.id, "Namespace": check.namespace} for check in services],
        "Checks": one.checks,
        "CreateIndex": one.create_index,
        "ModifyIndex": one.modify_index,
    }
    if not one.checks:
        del view["Checks"]
    return view
