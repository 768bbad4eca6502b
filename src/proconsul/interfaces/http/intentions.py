"""`/v1/connect/intentions` (`agent/intentions_endpoint.go`)."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from proconsul.domain import intention as ixn
from proconsul.domain import mesh_requests as m
from proconsul.domain.go_decode import GoDecodeError, decode_struct, parse_json
from proconsul.domain.options import DCSpecificRequest
from proconsul.drivers.http import Response
from proconsul.interfaces.http.api import Answer, HttpApi
from proconsul.interfaces.http.errors import HttpError, bad_request
from proconsul.interfaces.http.options import query_options
from proconsul.interfaces.http.query import Ask
from proconsul.util.errors import ProconsulError
from proconsul.util.goquote import go_quote
from proconsul.wire.gotime import format_time

_NOT_SET = frozenset({"hash", "createdat", "updatedat"})
"""Fields that a request may have, as text, and that mean nothing there."""
_NOT_FOUND = "Intention not found"


def view(one: ixn.Intention) -> dict[str, Any]:
    """An intention as JSON."""
    meta = one.meta
    return {
        "ID": one.id,
        "Description": one.description,
        "SourceNS": one.source_namespace,
        "SourceName": one.source_name,
        "DestinationNS": one.destination_namespace,
        "DestinationName": one.destination_name,
        "SourceType": one.source_type,
        "Action": one.action,
        "DefaultAddr": one.default_addr,
        "DefaultPort": one.default_port,
        "Meta": None if meta is None else dict(sorted(meta.items())),
        "Precedence": one.precedence,
        "CreatedAt": format_time(one.created_at_ns),
        "UpdatedAt": format_time(one.updated_at_ns),
        "Hash": base64.b64encode(one.hash).decode() if one.hash else None,
        "CreateIndex": one.create_index,
        "ModifyIndex": one.modify_index,
    }


def views(many: Sequence[ixn.Intention]) -> list[dict[str, Any]]:
    return [view(one) for one in many]


def intentions(api: HttpApi, ask: Ask) -> Answer:
    """GET and POST /v1/connect/intentions"""
    if ask.request.method == "POST":
        return _create(api, ask)

    def render(out: ixn.IndexedIntentions) -> Response:
        return api.shared(ask, out, out.intentions or [], views, api.meta(out))

    request = DCSpecificRequest(**query_options(ask, api.config))
    return api.query("Intention.List", request, render)


async def _create(api: HttpApi, ask: Ask) -> Response:
    try:
        one = _decoded(ask.request.body)
    except GoDecodeError as error:
        raise HttpError(500, f"Failed to decode request body: {error}") from None
    return api.json(ask, {"ID": await _apply(api, ask, ixn.CREATE, one)})


def _decoded(body: bytes) -> ixn.Intention:
    value = parse_json(body)
    if isinstance(value, dict):
        for key in [key for key in value if key.lower() in _NOT_SET]:
            if not isinstance(value[key], str | None):
                shown = next(
                    n for n in ("Hash", "CreatedAt", "UpdatedAt") if n.lower() == key.lower()
                )
                kind = "object" if isinstance(value[key], dict) else "number"
                raise GoDecodeError(
                    f"json: cannot unmarshal {kind} into Go struct field .{shown} of type string"
                )
            del value[key]
    try:
        return decode_struct(value, ixn.Intention)
    except GoDecodeError as error:
        # Consul decodes through a struct without a name.
        raise GoDecodeError(str(error).replace("field Intention.", "field .")) from None


async def _apply(api: HttpApi, ask: Ask, op: str, one: ixn.Intention) -> Any:
    request = ixn.IntentionRequest(
        datacenter=ask.first("dc") or api.config.datacenter,
        token=api.token(ask),
        op=op,
        intention=one,
    )
    return await api.agent.rpc("Intention.Apply", request)


async def intention(api: HttpApi, ask: Ask) -> Response:
    """GET, PUT and DELETE /v1/connect/intentions/:id"""
    if ask.request.method == "PUT":
        try:
            one = replace(_decoded(ask.request.body), id=ask.rest)
        except GoDecodeError as error:
            raise bad_request(f"Bad request: Request decode failed: {error}") from None
        return api.json(ask, {"ID": await _apply(api, ask, ixn.UPDATE, one)})
    if ask.request.method == "DELETE":
        await _apply(api, ask, ixn.DELETE, ixn.Intention(id=ask.rest))
        return api.json(ask, True)
    request = m.IntentionQueryRequest(intention_id=ask.rest, **query_options(ask, api.config))
    try:
        out: ixn.IndexedIntentions = await api.agent.rpc("Intention.Get", request)
    except ProconsulError as error:
        text = str(error)
        if text == _NOT_FOUND:
            raise HttpError(404, text) from None
        if "UUID" in text:
            raise bad_request(f"Bad request: {text}") from None
        raise
    if not out.intentions:
        raise HttpError(404)
    return api.json(ask, view(out.intentions[0]))


async def match(api: HttpApi, ask: Ask) -> Response:
    """GET /v1/connect/intentions/match?by=&name=..."""
    options = query_options(ask, api.config)
    by = ask.params.get("by", [])
    if len(by) != 1:
        raise HttpError(500, "required query parameter 'by' not set")
    if by[0] not in (ixn.MATCH_SOURCE, ixn.MATCH_DESTINATION):
        raise HttpError(500, "'by' parameter must be one of 'source' or 'destination'")
    names = ask.params.get("name")
    if not names:
        raise HttpError(500, "required query parameter 'name' not set")
    entries = [_match_entry("name", name) for name in names]
    request = m.IntentionQueryRequest(match=m.IntentionQueryMatch(by[0], entries), **options)
    out: ixn.IndexedIntentionMatches = await api.agent.rpc("Intention.Match", request)
    matches = out.matches or []
    if len(matches) != len(names):
        raise HttpError(500, "internal error: match response count didn't match input count")
    found = {
        name: None if many is None else views(many)
        for name, many in zip(names, matches, strict=True)
    }
    return api.json(ask, dict(sorted(found.items())))


async def check(api: HttpApi, ask: Ask) -> Response:
    """GET /v1/connect/intentions/check?source=&destination="""
    options = query_options(ask, api.config)
    kind = ask.params.get("source-type", [ixn.SOURCE_CONSUL])[0]
    sides = []
    for side in ("source", "destination"):
        values = ask.params.get(side, [])
        if len(values) != 1:
            raise HttpError(500, f"required query parameter '{side}' not set")
        sides.append(values[0])
    source = m.IntentionMatchEntry("", sides[0])
    if kind == ixn.SOURCE_CONSUL:
        source = _match_entry("source", sides[0])
    to = _match_entry("destination", sides[1])
    query = m.IntentionQueryCheck(source.namespace, source.name, to.namespace, to.name, kind)
    request = m.IntentionQueryRequest(check=query, **options)
    out: ixn.IntentionQueryCheckResponse = await api.agent.rpc("Intention.Check", request)
    return api.json(ask, {"Allowed": out.allowed})


def _match_entry(what: str, text: str) -> m.IntentionMatchEntry:
    """`name` or `namespace/name`."""
    first, slash, rest = text.partition("/")
    if "/" in rest:
        raise HttpError(
            500, f"{what} {go_quote(text)} is invalid: input can contain at most one '/'"
        )
    return m.IntentionMatchEntry(first, rest) if slash else m.IntentionMatchEntry("default", first)
