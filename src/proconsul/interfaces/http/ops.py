"""`/v1/operator/keyring` and `/v1/event/` (`agent/operator_endpoint.go`, `event_endpoint.go`)."""

from __future__ import annotations

import asyncio
import base64
import re
import uuid
from typing import Any

from proconsul.domain.base import raw_bytes
from proconsul.domain.errors import ACL_NOT_FOUND, DomainError
from proconsul.domain.go_decode import GoDecodeError, parse_json
from proconsul.domain.ops import EventFireRequest, KeyringRequest, KeyringResponse, KeyringResponses
from proconsul.drivers.http import Response
from proconsul.interfaces.http.api import HttpApi
from proconsul.interfaces.http.errors import HttpError, bad_request
from proconsul.interfaces.http.options import wait_options
from proconsul.interfaces.http.query import Ask, parse_bool
from proconsul.services.agent.events import (
    VERSION_MAX,
    HeardEvent,
    UserEvent,
    check_event,
    encode_event,
)
from proconsul.util.errors import ProconsulError
from proconsul.util.goquote import go_quote

KEYRING_METHODS = ("GET", "POST", "PUT", "DELETE")
_OPERATIONS = {"GET": "list", "POST": "install", "PUT": "use", "DELETE": "remove"}
RELAY_FACTOR_MAX = 5
WAIT_S_MAX = 600.0
_GO_TYPES = {str: "string", int: "uint8", bool: "bool"}
_DIGITS = re.compile(r"[+-]?[0-9]{1,18}")


async def keyring(api: HttpApi, ask: Ask) -> Response:
    """GET, POST, PUT and DELETE /v1/operator/keyring: list, install, use and remove keys."""
    method = ask.request.method
    key, token, factor, local_only = ("", "", 0, False)
    if method != "GET":
        key, token, factor, local_only = _arguments(ask.request.body)
    if ask.first("relay-factor"):
        factor = _relay_factor(ask.first("relay-factor"))
    if raw := ask.first("local-only"):
        given = parse_bool(raw)
        if given is None:
            raise bad_request(
                "Bad request: Error parsing local-only: strconv.ParseBool: parsing "
                f"{go_quote(raw)}: invalid syntax"
            )
        local_only = given
        if local_only and method != "GET":
            raise bad_request(
                "Bad request: Invalid use of local-only: local-only can only be set for list "
                "requests"
            )
    if not api.agent.is_server:
        raise DomainError("keyring operations must run against a server node")
    request = KeyringRequest(
        operation=_OPERATIONS[method],
        key=key,
        token=api.token(ask) or token,
        relay_factor=factor,
        local_only=local_only and method == "GET",
    )
    answer: KeyringResponses = await api.agent.rpc("Internal.KeyringOperation", request)
    rows = answer.responses or []
    if problem := _problems(rows):
        raise HttpError(500, problem)
    return api.json(ask, [_row(row) for row in rows]) if method == "GET" else Response()


def _arguments(body: bytes) -> tuple[str, str, int, bool]:
    """Key, token, relay factor and whether local only, as the body says."""
    try:
        value = parse_json(body)
    except GoDecodeError as error:
        raise bad_request(f"Bad request: Request decode failed: {error}") from None
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise bad_request(
            f"Bad request: Request decode failed: json: cannot unmarshal {_kind(value)} into Go "
            "value of type agent.keyringArgs"
        )
    found: dict[str, Any] = {"key": "", "token": "", "relayfactor": 0, "localonly": False}
    for name, item in value.items():
        known = found.get(name.lower())
        if known is None:
            raise bad_request(f'Bad request: Request decode failed: json: unknown field "{name}"')
        if item is not None:
            if type(item) is not type(known):
                raise bad_request(
                    f"Bad request: Request decode failed: json: cannot unmarshal {_kind(item)} into "
                    f"Go struct field keyringArgs.{name} of type {_GO_TYPES[type(known)]}"
                )
            found[name.lower()] = item
    return found["key"], found["token"], found["relayfactor"] & 0xFF, found["localonly"]


def _kind(value: object) -> str:
    kinds = {bool: "bool", int: "number", float: "number", str: "string", list: "array"}
    return kinds.get(type(value), "object")


def _relay_factor(raw: str) -> int:
    if not _DIGITS.fullmatch(raw):
        raise bad_request(
            "Bad request: Error parsing relay factor: strconv.Atoi: parsing "
            f"{go_quote(raw)}: invalid syntax"
        )
    if not 0 <= int(raw) <= RELAY_FACTOR_MAX:
        raise bad_request(
            "Bad request: Invalid relay-factor: Relay factor must be in range: "
            f"[0, {RELAY_FACTOR_MAX}]"
        )
    return int(raw)


def _problems(rows: list[KeyringResponse]) -> str:
    """All that failed in one text, as hashicorp/go-multierror writes it."""
    lines: list[str] = []
    for row in rows:
        if row.error:
            pool = "WAN" if row.wan else f"{row.datacenter} (LAN)"
            lines.append(f"{pool} error: {row.error}")
            lines += [f"{node}: {said}" for node, said in sorted((row.messages or {}).items())]
    if not lines:
        return ""
    head = "1 error occurred:" if len(lines) == 1 else f"{len(lines)} errors occurred:"
    return head + "".join(f"\n\t* {line}" for line in lines) + "\n\n"


def _row(row: KeyringResponse) -> dict[str, Any]:
    view: dict[str, Any] = {
        "WAN": row.wan,
        "Datacenter": row.datacenter,
        "Segment": row.segment,
    }
    if row.messages:
        view["Messages"] = dict(sorted(row.messages.items()))
    view["Keys"] = _sorted(row.keys)
    view["PrimaryKeys"] = _sorted(row.primary_keys)
    view["NumNodes"] = row.num_nodes
    return view


def _sorted(counts: dict[str, int] | None) -> dict[str, int] | None:
    return None if counts is None else dict(sorted(counts.items()))


async def event_fire(api: HttpApi, ask: Ask) -> Response:
    """PUT /v1/event/fire/:name"""
    if not ask.rest:
        raise bad_request("Missing name")
    event = UserEvent(
        id=str(uuid.uuid4()),
        name=ask.rest,
        node_filter=ask.first("node"),
        service_filter=ask.first("service"),
        tag_filter=ask.first("tag"),
        raw_payload=raw_bytes(ask.request.body or None),
        version=VERSION_MAX,
    )
    check_event(event)
    request = EventFireRequest(
        datacenter=ask.first("dc") or api.config.datacenter,
        name=event.name,
        payload=raw_bytes(encode_event(event)),
        token=api.token(ask),
        allow_stale=True,
    )
    try:
        await api.agent.rpc("Internal.EventFire", request)
    except ProconsulError as error:
        if ACL_NOT_FOUND in str(error):
            raise HttpError(500, str(error)) from None  # Consul's own slip
        raise
    return api.json(ask, _event(HeardEvent(event, 0)))


async def event_list(api: HttpApi, ask: Ask) -> Response:
    """GET /v1/event/list: what this agent heard; `?index` waits for other than that."""
    wait_ns, seen = wait_options(ask)
    wait_s = min(wait_ns / 1e9 or WAIT_S_MAX, WAIT_S_MAX)
    may = (await api.agent.authorizer(api.token(ask))).event_read
    name = ask.first("name")
    events = api.agent.events
    deadline = asyncio.get_running_loop().time() + wait_s
    while True:
        changed = events.changed()
        found = [
            heard
            for heard in events.recent()
            if (not name or heard.event.name == name) and may(heard.event.name)
        ]
        index = (found[-1].event.index or 1) if found else 1
        if not seen or index != seen:
            break
        try:
            async with asyncio.timeout_at(deadline):
                await changed.wait()
        except TimeoutError:
            break
    return api.json(ask, [_event(heard) for heard in found], b"X-Consul-Index: %d\r\n" % index)


def _event(heard: HeardEvent) -> dict[str, Any]:
    event = heard.event
    payload = event.payload
    return {
        "ID": event.id,
        "Name": event.name,
        "Payload": base64.b64encode(payload).decode() if payload else None,
        "NodeFilter": event.node_filter,
        "ServiceFilter": event.service_filter,
        "TagFilter": event.tag_filter,
        "Version": event.version,
        "LTime": heard.ltime,
    }
