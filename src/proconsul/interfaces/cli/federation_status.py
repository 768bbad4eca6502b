"""`federation status`: the way to each datacenter as the agent's server sees it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from proconsul.config.goflags import FlagError, Parsed, bool_flag, parse
from proconsul.interfaces.cli.command import (
    CLIENT_FLAGS,
    Command,
    CommandError,
    columnize,
    connect,
    err,
    out,
)

_HELP = frozenset({"-h", "-help", "--help"})
_DASH = "-"


def run(argv: Sequence[str]) -> int:
    """Exit status 0 if every datacenter is reachable, 1 if one is not, 2 if that is not known."""
    if any(argument in _HELP for argument in argv):
        out(COMMAND.help())
        return 0
    try:
        parsed = parse(COMMAND.flags, list(argv))
        return _show(parsed)
    except FlagError as error:
        err(f"{error}\n{COMMAND.help()}")
    except CommandError as error:
        err(f"Error querying federation status: {error}")
    return 2


def _show(parsed: Parsed) -> int:
    report = connect(parsed).get("/v1/internal/federation-status")
    if parsed["json"]:
        out(json.dumps(report, indent=4))
    else:
        out("\n".join(render(report)))
    return 0 if report["Healthy"] else 1


def render(report: dict[str, Any]) -> Iterator[str]:
    """The report for people, line by line."""
    role = "primary" if report["Datacenter"] == report["PrimaryDatacenter"] else "secondary"
    leader = "leader" if report["Leader"] else "follower"
    yield f"Seen from {report['Node']} in {report['Datacenter']} ({role}, {leader})"
    yield f"Route: {report['Route']}"
    yield from _replication(report["Replication"])
    yield ""
    yield columnize(
        [
            ["Datacenter", "Reachable", "RTT", "Leader", "Servers", "Gateways", "Failing hop"],
            *(_summary(row) for row in report["Datacenters"]),
        ]
    )
    for row in report["Datacenters"]:
        yield from _details(row)


def _replication(status: dict[str, Any] | None) -> Iterator[str]:
    if status is None:
        return
    if not status["Running"]:
        yield "Replication: runs on the leader of this datacenter; ask it for its status"
        return
    yield (
        f"Replication: index {status['RemoteIndex']}, lag {status['LagIndexes']} indexes,"
        f" {status['LagStates']} states,"
        f" last success {status['LastSuccess'] or 'never'},"
        f" failures in a row {status['FailuresInARow']}"
    )
    if status["LastError"]:
        yield f"  last error: {status['LastError']}"
    if status["Remedy"]:
        yield f"  remedy: {status['Remedy']}"


def _summary(row: dict[str, Any]) -> list[str]:
    gateways = row["Gateways"]
    working = sum(gateway["Reachable"] for gateway in gateways)
    alive, failed = row["AliveServers"], row["FailedServers"]
    return [
        row["Datacenter"] + (" (own)" if row["Local"] else " (primary)" if row["Primary"] else ""),
        "yes" if row["Reachable"] else "NO",
        _milliseconds(row["RoundTripMS"]),
        row["Leader"] or _DASH,
        f"{alive} alive, {failed} failed" if failed else f"{alive} alive",
        f"{working} of {len(gateways)} work" if gateways else "none",
        row.get("Hop", _DASH),
    ]


def _details(row: dict[str, Any]) -> Iterator[str]:
    lines = [*_failure(row, "  ")]
    table = [
        [
            f"  gateway {gateway['Address']}",
            gateway["Source"],
            "works" if gateway["Reachable"] else f"{gateway['Hop']} failed",
            f"last dial {gateway['LastDial']}",
            _milliseconds(gateway["RoundTripMS"]),
        ]
        for gateway in row["Gateways"]
    ]
    lines += [columnize(table)] if table else []
    for server in row["Servers"]:
        if server["Reachable"] and server["Status"] == "alive":
            continue
        state = "answers" if server["Reachable"] else f"{server['Hop']} failed"
        lines.append(
            f"  server {server['Node']} at {server['Address']}: {server['Status']}, {state}"
        )
        if server.get("Reason") != row.get("Reason"):
            lines += _failure(server, "    ")
    told = {row.get("Reason", "")}
    for gateway in row["Gateways"]:
        if not gateway["Reachable"] and gateway["Reason"] not in told:
            told.add(gateway["Reason"])
            lines.append(f"  gateway {gateway['Address']}:")
            lines += _failure(gateway, "    ")
    for gateway in row["UnusableGateways"]:
        lines.append(f"  gateway {gateway['Address']} is not used: {gateway['Reason']}")
    if lines:
        yield ""
        yield f"{row['Datacenter']}:"
        yield from lines


def _failure(row: dict[str, Any], indent: str) -> Iterator[str]:
    if row["Reachable"]:
        return
    yield f"{indent}{row['Hop']} fails ({row['Cause']}): {row['Reason']}"
    if row.get("NeededName"):
        yield f"{indent}needed name:   {row['NeededName']}"
        yield f"{indent}offered names: {', '.join(row['OfferedNames']) or 'none'}"
    if row["Remedy"]:
        yield f"{indent}what to do: {row['Remedy']}"


def _milliseconds(value: float | None) -> str:
    return _DASH if value is None else f"{value:.1f} ms"


COMMAND = Command(
    usage="""
Usage: proconsul federation status [options]

  Shows every datacenter as seen from the agent's server: reachable, or which hop on the way fails,
  why, and what to do about it. The exit status is 0 if all are reachable and 1 if one is not.""",
    run=_show,
    flags=(bool_flag("json", "Print the report as JSON."), *CLIENT_FLAGS),
)
