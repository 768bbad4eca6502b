"""`operator raft` and `operator autopilot`: the servers' quorum in an operator's hands."""

from __future__ import annotations

import json
from typing import Any

from proconsul.config.goflags import Flag, Parsed, bool_flag, string_flag, uint_flag
from proconsul.interfaces.cli.client import Client
from proconsul.interfaces.cli.command import (
    CLIENT_FLAGS,
    SERVER_FLAGS,
    Command,
    CommandError,
    columnize,
    connect,
    out,
)
from proconsul.util.goduration import format_duration_ns, parse_duration_ns
from proconsul.util.goquote import go_quote

_API = (*CLIENT_FLAGS, *SERVER_FLAGS)
_RAFT = "/v1/operator/raft"
_AUTOPILOT = "/v1/operator/autopilot/configuration"


def _list_peers(parsed: Parsed) -> int:
    client = connect(parsed)
    try:
        found = client.get(f"{_RAFT}/configuration")
    except CommandError as error:
        raise CommandError(
            f"Error getting peers: Failed to retrieve raft configuration: {error}"
        ) from None
    rows = [("Node", "ID", "Address", "State", "Voter", "RaftProtocol")]
    rows += [
        (
            server["Node"],
            server["ID"],
            server["Address"],
            "leader" if server["Leader"] else "follower",
            "true" if server["Voter"] else "false",
            server.get("ProtocolVersion") or "<=1",
        )
        for server in found["Servers"] or ()
    ]
    out(columnize(rows))
    return 0


def _remove_peer(parsed: Parsed) -> int:
    address, server_id = parsed["address"], parsed["id"]
    if not address and not server_id:
        raise CommandError(
            "Error removing peer: an address or id is required for the peer to remove"
        )
    if address and server_id:
        raise CommandError("Error removing peer: cannot give both an address and id")
    what, value = ("address", address) if address else ("id", server_id)
    try:
        connect(parsed).delete(f"{_RAFT}/peer", {what: value})
    except CommandError as error:
        raise CommandError(f"Error removing peer: {error}") from None
    out(f"Removed peer with {what} {go_quote(value)}")
    return 0


def _config(client: Client) -> dict[str, Any]:
    try:
        found: dict[str, Any] = client.get(_AUTOPILOT)
    except CommandError as error:
        raise CommandError(f"Error querying Autopilot configuration: {error}") from None
    return found


def _get_config(parsed: Parsed) -> int:
    config = _config(connect(parsed))
    out(f"CleanupDeadServers = {_go(config['CleanupDeadServers'])}")
    for name in ("LastContactThreshold", "MaxTrailingLogs", "MinQuorum", "ServerStabilizationTime"):
        out(f"{name} = {config[name]}")
    out(f"RedundancyZoneTag = {go_quote(config['RedundancyZoneTag'])}")
    out(f"DisableUpgradeMigration = {_go(config['DisableUpgradeMigration'])}")
    out(f"UpgradeVersionTag = {go_quote(config['UpgradeVersionTag'])}")
    return 0


def _go(value: bool) -> str:
    return "true" if value else "false"


_SETTINGS = {
    "cleanup-dead-servers": "CleanupDeadServers",
    "max-trailing-logs": "MaxTrailingLogs",
    "min-quorum": "MinQuorum",
    "last-contact-threshold": "LastContactThreshold",
    "server-stabilization-time": "ServerStabilizationTime",
    "redundancy-zone-tag": "RedundancyZoneTag",
    "disable-upgrade-migration": "DisableUpgradeMigration",
    "upgrade-version-tag": "UpgradeVersionTag",
}


def _set_config(parsed: Parsed) -> int:
    client = connect(parsed)
    config = _config(client)
    config.update({_SETTINGS[f]: v for f, v in parsed.given.items() if f in _SETTINGS})
    try:
        cas = {"cas": str(config["ModifyIndex"])}
        answer = client.put(_AUTOPILOT, json.dumps(config).encode(), cas)
    except CommandError as error:
        raise CommandError(f"Error setting Autopilot configuration: {error}") from None
    if b"true" in answer:
        out("Configuration updated!")
        return 0
    out("Configuration could not be atomically updated, please try again")
    return 1


def _duration(text: str) -> str:
    return format_duration_ns(parse_duration_ns(text))


LIST_PEERS = Command(
    usage="""
Usage: proconsul operator raft list-peers [options]

  Displays the current Raft peer configuration. With -stale any server answers,
  also where there is no leader.""",
    run=_list_peers,
    flags=_API,
)

REMOVE_PEER = Command(
    usage="""
Usage: proconsul operator raft remove-peer [options]

  Removes a server from the Raft configuration by -address or -id: one that is
  gone for good and was left behind in the quorum. A server that is still in
  the LAN pool comes back by itself; let it leave instead.""",
    run=_remove_peer,
    flags=(
        string_flag("address", 'The address ("ip:port") to remove.'),
        string_flag("id", "The server id to remove."),
        *_API,
    ),
)

GET_CONFIG = Command(
    usage="""
Usage: proconsul operator autopilot get-config [options]

  Displays the current Autopilot configuration.""",
    run=_get_config,
    flags=_API,
)

SET_CONFIG = Command(
    usage="""
Usage: proconsul operator autopilot set-config [options]

  Modifies the current Autopilot configuration; what is not given stays.""",
    run=_set_config,
    flags=(
        bool_flag("cleanup-dead-servers", "Whether dead servers are removed (true or false)."),
        uint_flag(
            "max-trailing-logs", "How many log entries behind the leader a healthy server may be."
        ),
        uint_flag("min-quorum", "The number of servers below which no dead one is removed."),
        Flag(
            "last-contact-threshold",
            "For how long a healthy server may be without contact to the leader, such as 200ms.",
            _duration,
        ),
        Flag(
            "server-stabilization-time",
            "For how long a new server must be healthy before it gets a vote, such as 10s.",
            _duration,
        ),
        string_flag("redundancy-zone-tag", "A feature of Consul Enterprise; kept as it is."),
        bool_flag("disable-upgrade-migration", "A feature of Consul Enterprise; kept as it is."),
        string_flag("upgrade-version-tag", "A feature of Consul Enterprise; kept as it is."),
        *_API,
    ),
)
