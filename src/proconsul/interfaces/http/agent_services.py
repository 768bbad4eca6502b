"""`/v1/agent/service*`, `/v1/agent/check*`: what is registered with this agent."""

from __future__ import annotations

import hashlib
import time

from proconsul.domain.base import GoStruct
from proconsul.domain.catalog import CRITICAL, PASSING, WARNING, HealthCheck, NodeService
from proconsul.domain.definitions import (
    CheckDefinition,
    CheckType,
    DefinitionError,
    ServiceDefinition,
    UnknownIdError,
    is_any_address,
    multierror,
    validate_status,
)
from proconsul.domain.filter import create_filter
from proconsul.domain.go_decode import (
    GoDecodeError,
    decode_service_definition,
    parse_json,
)
from proconsul.domain.go_json import to_json
from proconsul.domain.validate import check_service, check_service_meta, check_weights
from proconsul.drivers.http import Response
from proconsul.interfaces.http import views
from proconsul.interfaces.http.agent import enable_of
from proconsul.interfaces.http.answers import JSON_HEAD
from proconsul.interfaces.http.api import Answer, HttpApi
from proconsul.interfaces.http.catalog import decode_body
from proconsul.interfaces.http.errors import HttpError, bad_request
from proconsul.interfaces.http.query import Ask

HASH_WAIT_S_MAX = 10 * 60.0
_BAD_STATUS = "Status for checks must 'passing', 'warning', 'critical'"


async def services(api: HttpApi, ask: Ask) -> Response:
    """GET /v1/agent/services"""
    found = await api.agent.services(api.token(ask))
    found = create_filter(ask.first("filter"), NodeService).values(dict(found))
    return api.json(ask, {key: views.agent_service(one) for key, one in sorted(found.items())})


async def checks(api: HttpApi, ask: Ask) -> Response:
    """GET /v1/agent/checks"""
    wanted = create_filter(ask.first("filter"), HealthCheck, judged_by_rows=True)
    found = wanted.values(dict(await api.agent.checks(api.token(ask))))
    return api.json(ask, {key: views.check(one) for key, one in sorted(found.items())})


async def service(api: HttpApi, ask: Ask) -> Response:
    """GET /v1/agent/service/:id, which blocks by the hash of its answer, not by index."""
    wait_s = ask.duration_ns("wait", "Invalid wait time") / 1e9
    hash_, token = ask.first("hash"), api.token(ask)
    wait_s = min(wait_s, HASH_WAIT_S_MAX) if wait_s > 0 else HASH_WAIT_S_MAX
    deadline = time.monotonic() + wait_s
    while True:
        found = await api.agent.service(ask.rest, token)
        if found is None:
            raise HttpError(404, f"unknown service ID: {ask.rest}")
        view = views.agent_service(found)
        content_hash = hashlib.sha256(to_json(view)).hexdigest()[:16]
        left_s = deadline - time.monotonic()
        if hash_ != content_hash or left_s <= 0:
            break
        await api.agent.service_changed(ask.rest, left_s)
    # Where Go's struct has it: before Proxy and Connect.
    tail = {key: view.pop(key) for key in ("Proxy", "Connect") if key in view}
    view = view | {"ContentHash": content_hash} | tail
    return api.json(ask, view, b"X-Consul-Contenthash: " + content_hash.encode() + b"\r\n")


async def register_service(api: HttpApi, ask: Ask) -> Response:
    """PUT /v1/agent/service/register"""
    try:
        definition = decode_service_definition(parse_json(ask.request.body))
    except GoDecodeError as error:
        raise bad_request(f"Request decode failed: {error}") from None
    _validate_service(definition)
    replace = ask.has("replace-existing-checks") and ask.first("replace-existing-checks") in {
        "",
        "true",
    }
    await api.agent.add_service(
        definition, persist=True, replace_existing_checks=replace, token=api.token(ask)
    )
    return Response()


def _validate_service(definition: ServiceDefinition) -> None:
    """Refuse what the catalog would refuse later, in the order and words of Consul."""
    service = definition.service
    if not service.service:
        raise bad_request("Missing service name")
    if is_any_address(service.address):
        raise bad_request("Invalid service address")
    if wrong := check_weights(service.weights):
        raise bad_request(f"Invalid Weights: {wrong}")
    if wrong := check_service_meta(service.kind, service.meta):
        raise bad_request(f"Invalid Service Meta: {wrong}")
    if problems := check_service(service):
        raise bad_request(multierror(problems))
    try:
        _validate_checks(definition.checks)
    except DefinitionError as error:
        raise bad_request(f"Invalid check: {error}") from None
    sidecar = service.connect.sidecar_service
    if sidecar is None:
        return
    try:
        _validate_checks(decode_service_definition(sidecar).checks)
    except (DefinitionError, GoDecodeError) as error:
        raise bad_request(f"Bad request: Invalid check in sidecar_service: {error}") from None


def _validate_checks(checks: tuple[CheckType, ...]) -> None:
    for check in checks:
        check.validate()
    if any(check.status and not validate_status(check.status) for check in checks):
        raise bad_request(_BAD_STATUS)


async def deregister_service(api: HttpApi, ask: Ask) -> Response:
    """PUT /v1/agent/service/deregister/:id; one that is not there is no error."""
    try:
        await api.agent.remove_service(ask.rest, api.token(ask))
    except UnknownIdError:
        pass
    return Response()


async def service_maintenance(api: HttpApi, ask: Ask) -> Response:
    """PUT /v1/agent/service/maintenance/:id"""
    if not ask.rest:
        raise bad_request("Missing service ID")
    enable = enable_of(ask)
    try:
        await api.agent.service_maintenance(ask.rest, enable, ask.first("reason"), api.token(ask))
    except UnknownIdError as error:
        raise HttpError(404, str(error)) from None
    return Response()


async def register_check(api: HttpApi, ask: Ask) -> Response:
    """PUT /v1/agent/check/register"""
    definition = decode_body(ask, CheckDefinition)
    if not definition.name:
        raise bad_request("Missing check name")
    if definition.status and not validate_status(definition.status):
        raise bad_request("Bad check status")
    try:
        definition.validate()
    except DefinitionError as error:
        raise bad_request(f"Invalid check: {error}") from None
    await api.agent.add_check(definition, persist=True, token=api.token(ask))
    return Response()


async def deregister_check(api: HttpApi, ask: Ask) -> Response:
    """PUT /v1/agent/check/deregister/:id; one that is not there is no error."""
    try:
        await api.agent.remove_check(ask.rest, api.token(ask))
    except UnknownIdError:
        pass
    return Response()


def pass_check(api: HttpApi, ask: Ask) -> Answer:
    """PUT /v1/agent/check/pass/:id"""
    return _update(api, ask, PASSING, ask.first("note"))


def warn_check(api: HttpApi, ask: Ask) -> Answer:
    """PUT /v1/agent/check/warn/:id"""
    return _update(api, ask, WARNING, ask.first("note"))


def fail_check(api: HttpApi, ask: Ask) -> Answer:
    """PUT /v1/agent/check/fail/:id"""
    return _update(api, ask, CRITICAL, ask.first("note"))


class CheckUpdate(GoStruct, frozen=True, gc=False):
    """The body of an update."""

    status: str = ""
    output: str = ""


def update_check(api: HttpApi, ask: Ask) -> Answer:
    """PUT /v1/agent/check/update/:id"""
    update = decode_body(ask, CheckUpdate)
    if not validate_status(update.status):
        raise bad_request(f"Invalid check status: '{update.status}'")
    return _update(api, ask, update.status, update.output)


async def _update(api: HttpApi, ask: Ask, status: str, output: str) -> Response:
    await api.agent.update_ttl(ask.rest, status, output, api.token(ask))
    return Response()


async def health_by_id(api: HttpApi, ask: Ask) -> Response:
    """GET /v1/agent/health/service/id/:id: 200, 429 or 503 by the worst check."""
    if not ask.rest:
        # Consul's own slip: it answers 500 here.
        raise HttpError(500, "Bad request: Missing serviceID")
    found = await api.agent.service(ask.rest, api.token(ask))
    if found is None:
        reason = f"ServiceId {ask.rest} not found"
        if _wants_text(ask):
            return Response(404, b"", _reason_head(reason) + JSON_HEAD)
        missing = {"AggregatedStatus": CRITICAL, "Service": None, "Checks": None}
        return api.json(ask, missing, _reason_head(reason), 404)
    code, status, view = _service_health(api, found)
    if _wants_text(ask):
        return _status_text(code, status)
    return api.json(ask, view, _reason_head(status), code)


async def health_by_name(api: HttpApi, ask: Ask) -> Response:
    """GET /v1/agent/health/service/name/:name: all instances here, the worst state counts."""
    if not ask.rest:
        raise HttpError(500, "Bad request: Missing service Name")
    code, status = 404, f"ServiceName {ask.rest} Not Found"
    shown = []
    for one in await api.agent.services_named(ask.rest, api.token(ask)):
        its_code, its_status, view = _service_health(api, one)
        shown.append(view)
        if code == 404 or its_code > code:
            code, status = its_code, its_status
    if _wants_text(ask):
        return _status_text(code, status)
    return api.json(ask, shown, _reason_head(status), code)


def _service_health(api: HttpApi, service: NodeService) -> tuple[int, str, dict[str, object]]:
    found = api.agent.checks_of(service.id)
    status = aggregated_status([(one.check_id, one.status) for one in found])
    code = {WARNING: 429, PASSING: 200}.get(status, 503)
    view: dict[str, object] = {
        "AggregatedStatus": status,
        "Service": views.agent_service(service),
        "Checks": [views.agent_health_check(one) for one in found],
    }
    return code, status, view


def aggregated_status(checks: list[tuple[str, str]]) -> str:
    """The state of a service with these (check id, status): the worst, maintenance before all."""
    worst = {status for id_, status in checks if not _is_maintenance(id_)}
    if worst - {PASSING, WARNING, CRITICAL}:
        return ""
    if any(_is_maintenance(id_) for id_, _ in checks):
        return "maintenance"
    return next((status for status in (CRITICAL, WARNING) if status in worst), PASSING)


def _is_maintenance(check_id: str) -> bool:
    return check_id.startswith("_service_maintenance:") or check_id == "_node_maintenance"


def _wants_text(ask: Ask) -> bool:
    if ask.request.header(b"accept").startswith("text/plain"):
        return True
    return ask.first("format") == "text"


def _reason_head(reason: str) -> bytes:
    # The reason may quote a service id out of the path: no line breaks into the header.
    flat = reason.replace("\r", " ").replace("\n", " ")
    return b"X-Consul-Reason: " + flat.encode("utf-8", "surrogateescape") + b"\r\n"


def _status_text(code: int, status: str) -> Response:
    return Response(code, status.encode(), _reason_head(status) + b"Content-Type: text/plain\r\n")
