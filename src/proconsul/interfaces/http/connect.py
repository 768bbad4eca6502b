"""The mesh's CA: its settings, leaves, and who may connect to whom.

After `agent/connect_ca_endpoint.go` and the `AgentConnect...` handlers of `agent/agent_endpoint.go`.
"""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from proconsul.domain import connect as ca
from proconsul.domain.base import GoStruct, bytes_of
from proconsul.domain.go_decode import GoDecodeError, decode_struct, parse_json
from proconsul.domain.options import DCSpecificRequest
from proconsul.drivers.http import Response
from proconsul.interfaces.http.api import HttpApi
from proconsul.interfaces.http.errors import bad_request
from proconsul.interfaces.http.options import query_options
from proconsul.interfaces.http.query import Ask
from proconsul.services.agent.connect import AuthorizeRequestError
from proconsul.util.errors import ProconsulError
from proconsul.wire.gotime import decode_time, format_time

STATE_READ_ONLY = "CA Provider State is read-only"


class ConnectAuthorizeRequest(GoStruct, frozen=True, gc=False):
    """Clients see the name in errors. The serial is for revocation lists, which nobody has yet."""

    target: str = ""
    client_cert_uri: str = ""
    client_cert_serial: str = ""


class CAConfiguration(GoStruct, frozen=True, gc=False):
    """`CAConfiguration` as requests have it; the cluster's id is nobody's to set."""

    provider: str = ""
    config: dict[str, Any] | None = None
    state: dict[str, str] | None = None
    force_without_cross_signing: bool = False
    create_index: int = 0
    modify_index: int = 0


async def leaf(api: HttpApi, ask: Ask) -> Response:
    """GET /v1/agent/connect/ca/leaf/:service: certificate and key, of the agent's cache."""
    options = query_options(ask, api.config)
    found = await api.agent.connect.leaf(
        ask.rest, options["datacenter"], options.get("token", ""), *_waiting(options)
    )
    cert, head = found.cert, _cached(hit=found.hit, age_s=found.age_s)
    head += b"X-Consul-Index: %d\r\n" % cert.modify_index
    body = {
        "SerialNumber": cert.serial_number,
        "CertPEM": cert.cert_pem,
        "PrivateKeyPEM": cert.private_key_pem,
        "Service": cert.service,
        "ServiceURI": cert.service_uri,
        "ValidAfter": _time(cert.raw_valid_after),
        "ValidBefore": _time(cert.raw_valid_before),
        "CreateIndex": cert.create_index,
        "ModifyIndex": cert.modify_index,
    }
    return api.json(ask, body, head)


async def authorize(api: HttpApi, ask: Ask) -> Response:
    """POST /v1/agent/connect/authorize: may this certificate's owner connect to `Target`?"""
    question = _decoded(ask, ConnectAuthorizeRequest)
    try:
        allowed, reason, meta = await api.agent.connect.authorize(
            question.target, question.client_cert_uri, api.token(ask)
        )
    except AuthorizeRequestError as error:
        raise bad_request(f"Bad request: {error}") from error
    return api.json(
        ask, {"Authorized": allowed, "Reason": reason}, _cached(hit=meta.hit, age_s=meta.age_s)
    )


async def configuration(api: HttpApi, ask: Ask) -> Response:
    """GET and PUT /v1/connect/ca/configuration. It holds the CA's key if the user gave one."""
    options = query_options(ask, api.config)
    if ask.request.method == "GET":
        out: ca.CAConfiguration = await api.agent.rpc(
            "ConnectCA.ConfigurationGet", DCSpecificRequest(**options)
        )
        body = {
            "Provider": out.provider,
            "Config": _plain(out.config),
            "State": out.state,
            "ForceWithoutCrossSigning": out.force_without_cross_signing,
            "CreateIndex": out.create_index,
            "ModifyIndex": out.modify_index,
        }
        return api.json(ask, body)
    given = _decoded(ask, CAConfiguration)
    config = ca.CAConfiguration(
        provider=given.provider,
        config=given.config,
        state=given.state,
        force_without_cross_signing=given.force_without_cross_signing,
        modify_index=given.modify_index,
    )
    request = ca.CARequest(
        datacenter=options["datacenter"], token=options.get("token", ""), config=config
    )
    try:
        await api.agent.rpc("ConnectCA.ConfigurationSet", request)
    except ProconsulError as error:
        if str(error) == STATE_READ_ONLY:
            raise bad_request(
                "Bad request: Provider State is read-only. It must be omitted or identical to the "
                "current value"
            ) from error
        raise
    return Response(200)


def _decoded(ask: Ask, type_: Any) -> Any:
    try:
        value = parse_json(ask.request.body)
        if isinstance(value, dict) and "force_without_cross_signing" in value:
            value = dict(value)
            value["ForceWithoutCrossSigning"] = value.pop("force_without_cross_signing")
        return decode_struct(value, type_)
    except GoDecodeError as error:
        raise bad_request(f"Bad request: Request decode failed: {error}") from None


def _waiting(options: dict[str, Any]) -> tuple[int, float]:
    return options.get("min_query_index", 0), options.get("max_query_time_ns", 0) / 1e9


def _cached(*, hit: bool, age_s: float) -> bytes:
    return b"X-Cache: HIT\r\nAge: %.0f\r\n" % age_s if hit else b"X-Cache: MISS\r\n"


def _plain(value: Any) -> Any:
    """Text that a Go server stored as bytes is text."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in sorted(value.items())}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _time(raw: Raw) -> str:
    return format_time(decode_time(bytes_of(raw)))
