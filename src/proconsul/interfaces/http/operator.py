"""`/v1/operator/`: Raft's members and autopilot (`agent/operator_endpoint.go`)."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from proconsul.domain.autopilot import OperatorHealthReply, ServerHealth
from proconsul.domain.go_decode import GoDecodeError, decode_struct, parse_json
from proconsul.domain.operator import (
    AutopilotConfig,
    AutopilotSetConfigRequest,
    RaftConfigurationResponse,
    RaftRemovePeerRequest,
)
from proconsul.domain.options import DCSpecificRequest
from proconsul.drivers.http import Response
from proconsul.interfaces.http.api import Answer, HttpApi
from proconsul.interfaces.http.errors import HttpError, bad_request
from proconsul.interfaces.http.options import query_options
from proconsul.interfaces.http.query import Ask
from proconsul.util.goduration import format_duration_ns
from proconsul.wire.gotime import format_time

_SECOND_NS = 1_000_000_000
_SERF = ("none", "alive", "leaving", "left", "failed")


def raft_configuration(api: HttpApi, ask: Ask) -> Answer:
    """GET /v1/operator/raft/configuration"""
    request = DCSpecificRequest(**query_options(ask, api.config))

    def render(out: RaftConfigurationResponse) -> Response:
        servers = [
            {
                "ID": one.id,
                "Node": one.node,
                "Address": one.address,
                "Leader": one.leader,
                "ProtocolVersion": one.protocol_version,
                "Voter": one.voter,
            }
            for one in out.servers or ()
        ]
        return api.json(ask, {"Servers": servers or None, "Index": out.index})

    return api.query("Operator.RaftGetConfiguration", request, render, level=False)


async def raft_peer(api: HttpApi, ask: Ask) -> Response:
    """DELETE /v1/operator/raft/peer with `?id` or `?address`"""
    by_id, by_address = ask.has("id"), ask.has("address")
    if not by_id and not by_address:
        raise bad_request(
            "Bad request: Must specify either ?id with the server's ID or ?address with IP:port "
            "of peer to remove"
        )
    if by_id and by_address:
        raise bad_request("Bad request: Must specify only one of ?id or ?address")
    request = RaftRemovePeerRequest(
        datacenter=ask.first("dc") or api.config.datacenter,
        address=ask.first("address"),
        id=ask.first("id"),
        token=api.token(ask),
    )
    await api.agent.rpc(f"Operator.RaftRemovePeerBy{'Address' if by_address else 'ID'}", request)
    return Response(200)


def autopilot_configuration(api: HttpApi, ask: Ask) -> Answer:
    """GET and PUT /v1/operator/autopilot/configuration, the latter with `?cas`"""
    if ask.request.method == "PUT":
        return _set_autopilot(api, ask)
    request = DCSpecificRequest(**query_options(ask, api.config))

    def render(out: AutopilotConfig) -> Response:
        view = {
            "CleanupDeadServers": out.cleanup_dead_servers,
            "LastContactThreshold": format_duration_ns(out.last_contact_threshold_ns),
            "MaxTrailingLogs": out.max_trailing_logs,
            "MinQuorum": out.min_quorum,
            "ServerStabilizationTime": format_duration_ns(out.server_stabilization_time_ns),
            "RedundancyZoneTag": out.redundancy_zone_tag,
            "DisableUpgradeMigration": out.disable_upgrade_migration,
            "UpgradeVersionTag": out.upgrade_version_tag,
            "CreateIndex": out.create_index,
            "ModifyIndex": out.modify_index,
        }
        return api.json(ask, view)

    return api.query("Operator.AutopilotGetConfiguration", request, render, level=False)


async def _set_autopilot(api: HttpApi, ask: Ask) -> Response:
    try:
        config = decode_struct(parse_json(ask.request.body), AutopilotConfig)
    except GoDecodeError as error:
        raise bad_request(f"Bad request: Error parsing autopilot config: {error}") from None
    cas, index = ask.has("cas"), 0
    if cas:
        try:
            index = ask.uint64("cas")
        except HttpError as error:
            raise bad_request(f"Bad request: Error parsing cas value: {error.text}") from None
    request = AutopilotSetConfigRequest(
        datacenter=ask.first("dc") or api.config.datacenter,
        config=replace(config, create_index=0, modify_index=index),
        cas=cas,
        token=api.token(ask),
    )
    done = await api.agent.rpc("Operator.AutopilotSetConfiguration", request)
    return api.json(ask, bool(done) if cas else True)


async def server_health(api: HttpApi, ask: Ask) -> Response:
    """GET /v1/operator/autopilot/health: 429 unless all servers are healthy"""
    request = DCSpecificRequest(**query_options(ask, api.config))
    out: OperatorHealthReply = await api.agent.rpc("Operator.ServerHealth", request)
    view = {
        "Healthy": out.healthy,
        "FailureTolerance": out.failure_tolerance,
        "Servers": [_health(one) for one in out.servers or ()] or None,
    }
    return api.json(ask, view, status=200 if out.healthy else 429)


def _health(one: ServerHealth) -> dict[str, Any]:
    return {
        "ID": one.id,
        "Name": one.name,
        "Address": one.address,
        "SerfStatus": _SERF[one.serf_status] if one.serf_status < len(_SERF) else "none",
        "Version": one.version,
        "Leader": one.leader,
        "LastContact": format_duration_ns(one.last_contact_ns),
        "LastTerm": one.last_term,
        "LastIndex": one.last_index,
        "Healthy": one.healthy,
        "Voter": one.voter,
        # Whole seconds, the half upwards, as Go's Time.Round
        "StableSince": format_time(
            (one.stable_since_ns + _SECOND_NS // 2) // _SECOND_NS * _SECOND_NS
        ),
    }
