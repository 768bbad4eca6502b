"""`members`: the pool as the agent sees it."""

from __future__ import annotations

import re
from typing import Any

from proconsul.config.goflags import Parsed, bool_flag, string_flag
from proconsul.interfaces.cli.command import (
    CLIENT_FLAGS,
    Command,
    CommandError,
    columnize,
    connect,
    out,
)

_STATUS = {0: "none", 1: "alive", 2: "leaving", 3: "left", 4: "failed"}
_ALL_SEGMENTS = "_all"


def run(parsed: Parsed) -> int:
    """Exit status 2 where no member matches."""
    try:
        pattern = re.compile(parsed["status"])
    except re.error as error:
        raise CommandError(f"Failed to compile status regexp: {error}") from None
    query: dict[str, str] = {"segment": parsed["segment"]}
    if parsed["wan"]:
        query["wan"] = "1"
    try:
        members = connect(parsed).get("/v1/agent/members", query) or []
    except CommandError as error:
        raise CommandError(f"Error retrieving members: {error}") from None
    for member in members:
        tags = member["Tags"]
        tags.setdefault("segment", "")
        if not tags["segment"]:
            tags["segment"] = "<default>"
        if parsed["segment"] == _ALL_SEGMENTS and tags.get("role") == "consul":
            tags["segment"] = "<all>"
    members = [m for m in members if pattern.search(_status(m))]
    if not members:
        return 2
    members.sort(key=lambda m: (m["Tags"]["segment"], m["Name"]))
    if parsed["detailed"]:
        rows = [["Node", "Address", "Status", "Tags"], *map(_detailed, members)]
    else:
        head = ["Node", "Address", "Status", "Type", "Build", "Protocol", "DC", "Segment"]
        rows = [head, *map(_standard, members)]
    out(columnize(rows))
    return 0


def _status(member: dict[str, Any]) -> str:
    return _STATUS.get(member["Status"], "unknown")


def _address(member: dict[str, Any]) -> str:
    host = member["Addr"]
    return f"[{host}]:{member['Port']}" if ":" in host else f"{host}:{member['Port']}"


def _standard(member: dict[str, Any]) -> list[str]:
    tags = member["Tags"]
    kind = {"node": "client", "consul": "server"}.get(tags.get("role", ""))
    first = [member["Name"], _address(member), _status(member)]
    if kind is None:
        return [*first, "unknown", "", "", "", ""]
    build = tags.get("build", "").partition(":")[0] or "< 0.3"
    return [*first, kind, build, tags.get("vsn", ""), tags.get("dc", ""), tags["segment"]]


def _detailed(member: dict[str, Any]) -> list[str]:
    tags = ",".join(f"{k}={v}" for k, v in sorted(member["Tags"].items()))
    return [member["Name"], _address(member), _status(member), tags]


COMMAND = Command(
    usage="""
Usage: proconsul members [options]

  Outputs the members of the cluster that a running agent belongs to.""",
    run=run,
    flags=(
        bool_flag("detailed", "Show every tag of each node."),
        bool_flag("wan", "Show the servers of all datacenters; only servers know them."),
        string_flag("status", "Show only nodes whose status matches this expression.", ".*"),
        string_flag("segment", "A feature of Consul Enterprise; sent along.", _ALL_SEGMENTS),
        *CLIENT_FLAGS,
    ),
)
