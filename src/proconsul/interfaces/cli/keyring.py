"""`keyring`: the gossip keys of all pools (`command/keyring`)."""

from __future__ import annotations

import json
from typing import Any

from proconsul.config.goflags import Flag, Parsed, bool_flag, parse_int, string_flag
from proconsul.interfaces.cli.client import Client
from proconsul.interfaces.cli.command import CLIENT_FLAGS, Command, CommandError, connect, err, out

RELAY_FACTOR_MAX = 5
_CHANGES = {
    "install": ("POST", "Installing new gossip encryption key..."),
    "use": ("PUT", "Changing primary gossip encryption key..."),
    "remove": ("DELETE", "Removing gossip encryption key..."),
}


def _run(parsed: Parsed) -> int:
    actions = [name for name in ("list", "list-primary", *_CHANGES) if parsed[name]]
    if not actions:
        err(KEYRING.help())
        return 1
    if len(actions) > 1:
        raise CommandError("Only a single action is allowed")
    if not 0 <= parsed["relay-factor"] <= RELAY_FACTOR_MAX:
        raise CommandError("Error parsing relay factor: Relay factor must be in range: [0, 5]")
    if parsed["local-only"] and not parsed["list"]:
        raise CommandError(
            "Error validating local-only: local-only can only be set for list requests"
        )
    client = connect(parsed)
    query = {"relay-factor": str(parsed["relay-factor"])} if parsed["relay-factor"] else {}
    try:
        if actions[0] in _CHANGES:
            _change(client, actions[0], parsed[actions[0]], query)
        else:
            _list(client, actions[0], {**query, **_local(parsed)})
    except CommandError as error:
        raise CommandError(f"error: {error}") from None
    return 0


def _local(parsed: Parsed) -> dict[str, str]:
    return {"local-only": "true"} if parsed["local-only"] else {}


def _change(client: Client, action: str, key: str, query: dict[str, str]) -> None:
    method, said = _CHANGES[action]
    out(f"==> {said}")
    body = json.dumps({"Key": key}).encode()
    send = {"POST": client.post, "PUT": client.put}
    if method in send:
        send[method]("/v1/operator/keyring", body, query)
    else:
        client.delete("/v1/operator/keyring", query, body)


def _list(client: Client, action: str, query: dict[str, str]) -> None:
    primary = action == "list-primary"
    out(f"==> Gathering installed {'primary ' if primary else ''}encryption keys...")
    for row in client.get("/v1/operator/keyring", query) or ():
        out(_shown(row, row["PrimaryKeys"] if primary else row["Keys"]))


def _shown(row: dict[str, Any], keys: dict[str, int] | None) -> str:
    pool = "WAN" if row["WAN"] else f"{row['Datacenter']} (LAN)"
    segment = f" [{row['Segment']}]" if row.get("Segment") else ""
    lines = ["", f"{pool}{segment}:"]
    lines += [f"  ===> {node}: {said}" for node, said in (row.get("Messages") or {}).items()]
    lines += [f"  {key} [{count}/{row['NumNodes']}]" for key, count in (keys or {}).items()]
    return "\n".join(lines)


KEYRING = Command(
    usage="""
Usage: proconsul keyring [options]

  Shows and changes the keys that encrypt gossip, in the LAN and WAN pools of all
  datacenters at once. A key is rotated by installing the new one, using it, and
  removing the old one. It must be run against a server.""",
    run=_run,
    flags=(
        string_flag("install", "Give all members this key. They can read it from then on."),
        string_flag("use", "Encrypt with this key from now on. It must be installed."),
        string_flag("remove", "Forget this key. It must not be the one in use."),
        bool_flag("list", "List all keys and how many members have them."),
        bool_flag("list-primary", "List the keys in use and how many members use them."),
        Flag(
            "relay-factor",
            "Let each member answer through that many others too, at most 5.",
            parse_int,
            0,
            value_name="int",
        ),
        bool_flag("local-only", "With -list: ask the local datacenter's LAN pool alone."),
        *CLIENT_FLAGS,
    ),
)
