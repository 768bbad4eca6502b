"""`join`, `leave`, `force-leave` and `reload`: what an agent is told to do."""

from __future__ import annotations

from proconsul.config.goflags import Parsed, bool_flag
from proconsul.interfaces.cli.command import CLIENT_FLAGS, Command, CommandError, connect, err, out


def _join(parsed: Parsed) -> int:
    if not parsed.args:
        err(f"At least one address to join must be specified.\n\n{JOIN.help()}")
        return 1
    client = connect(parsed)
    joined = 0
    for address in parsed.args:
        try:
            client.put(f"/v1/agent/join/{address}", query={"wan": "1"} if parsed["wan"] else {})
            joined += 1
        except CommandError as error:
            err(f"Error joining address '{address}': {error}")
    if not joined:
        err("Failed to join any nodes.")
        return 1
    out(f"Successfully joined cluster by contacting {joined} nodes.")
    return 0


def _leave(parsed: Parsed) -> int:
    if parsed.args:
        err(f"Error found unexpected args: [{' '.join(parsed.args)}]")
        out(LEAVE.help())
        return 1
    try:
        connect(parsed).put("/v1/agent/leave")
    except CommandError as error:
        raise CommandError(f"Error leaving: {error}") from None
    out("Graceful leave complete")
    return 0


def _force_leave(parsed: Parsed) -> int:
    if len(parsed.args) != 1:
        err(f"A single node name must be specified to force leave.\n\n{FORCE_LEAVE.help()}")
        return 1
    query = {"prune": "1"} if parsed["prune"] else {}
    try:
        connect(parsed).put(f"/v1/agent/force-leave/{parsed.args[0]}", query=query)
    except CommandError as error:
        raise CommandError(f"Error force leaving: {error}") from None
    return 0


def _reload(parsed: Parsed) -> int:
    try:
        connect(parsed).put("/v1/agent/reload")
    except CommandError as error:
        raise CommandError(f"Error reloading: {error}") from None
    out("Configuration reload triggered")
    return 0


JOIN = Command(
    usage="""
Usage: proconsul join [options] address ...

  Tells a running agent to join the cluster of at least one existing member.""",
    run=_join,
    flags=(bool_flag("wan", "Join a server to a server of another datacenter."), *CLIENT_FLAGS),
)

LEAVE = Command(
    usage="""
Usage: proconsul leave [options]

  Makes the agent leave its cluster gracefully and end.""",
    run=_leave,
    flags=CLIENT_FLAGS,
)

FORCE_LEAVE = Command(
    usage="""
Usage: proconsul force-leave [options] name

  Puts a member that has failed into the state "left", so that nobody tries to
  reach it any more. A member that is alive after all joins again by itself.""",
    run=_force_leave,
    flags=(bool_flag("prune", "Remove the member from the list altogether."), *CLIENT_FLAGS),
)

RELOAD = Command(
    usage="""
Usage: proconsul reload

  Makes the agent read its configuration files again, as SIGHUP does.""",
    run=_reload,
    flags=CLIENT_FLAGS,
)
