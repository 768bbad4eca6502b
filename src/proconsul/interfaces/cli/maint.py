"""`maint`: maintenance mode of the agent's node or of one of its services (`command/maint`)."""

from __future__ import annotations

from proconsul.config.goflags import Parsed, bool_flag, string_flag
from proconsul.interfaces.cli.client import Client
from proconsul.interfaces.cli.command import CLIENT_FLAGS, Command, CommandError, connect, out
from proconsul.util.goquote import go_quote


def _run(parsed: Parsed) -> int:
    enable, disable, service = parsed["enable"], parsed["disable"], parsed["service"]
    if enable and disable:
        raise CommandError("Only one of -enable or -disable may be provided")
    if not enable and parsed["reason"]:
        raise CommandError("Reason may only be provided with -enable")
    if not enable and not disable and service:
        raise CommandError("Service requires either -enable or -disable")
    client = connect(parsed)
    if not enable and not disable:
        return _list(client)
    path = f"/v1/agent/service/maintenance/{service}" if service else "/v1/agent/maintenance"
    query = {"enable": "true" if enable else "false"}
    if enable:
        query["reason"] = parsed["reason"]
    what = "service" if service else "node"
    try:
        client.put(path, query=query)
    except CommandError as error:
        doing = "enabling" if enable else "disabling"
        raise CommandError(f"Error {doing} {what} maintenance: {error}") from None
    whose = f" for {go_quote(service)}" if service else ""
    out(f"{what.title()} maintenance is now {'enabled' if enable else 'disabled'}{whose}")
    return 0


def _list(client: Client) -> int:
    node = client.node_name()
    try:
        checks = client.get("/v1/agent/checks") or {}
    except CommandError as error:
        raise CommandError(f"Error getting checks: {error}") from None
    for check in checks.values():
        if check["CheckID"] == "_node_maintenance":
            out(f"Node:\n  Name:   {node}\n  Reason: {check['Notes']}\n")
        elif check["CheckID"].startswith("_service_maintenance:"):
            out(f"Service:\n  ID:     {check['ServiceID']}\n  Reason: {check['Notes']}\n")
    return 0


MAINT = Command(
    usage="""
Usage: proconsul maint [options]

  Puts the agent's node, or one of its services, into maintenance or out of it:
  what is in maintenance is found by nobody. Without -enable and -disable it lists
  what is.""",
    run=_run,
    flags=(
        bool_flag("enable", "Begin."),
        bool_flag("disable", "End."),
        string_flag("reason", "Why, for others to read."),
        string_flag("service", "Id of one service; without it the whole node is meant."),
        *CLIENT_FLAGS,
    ),
)
