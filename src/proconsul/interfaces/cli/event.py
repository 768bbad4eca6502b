"""`event`: fires a user event (`command/event`)."""

from __future__ import annotations

import json

from proconsul.config.goflags import Parsed, string_flag
from proconsul.interfaces.cli.command import (
    CLIENT_FLAGS,
    Command,
    CommandError,
    connect,
    err,
    out,
)

FILTER_FLAGS = (
    string_flag("node", "Regular expression that the node's name has to match."),
    string_flag("service", "Regular expression that one of the node's services has to match."),
    string_flag("tag", "Regular expression that a tag of that service has to match."),
)


def check_filters(parsed: Parsed) -> dict[str, str]:
    """The filters as query parameters. Raises `CommandError`."""
    from proconsul.domain.regexps import RegexpError, compile_regexp

    for name in ("node", "service", "tag"):
        try:
            compile_regexp(parsed[name])
        except RegexpError as error:
            raise CommandError(f"Failed to compile {name} filter regexp: {error}") from None
    if parsed["tag"] and not parsed["service"]:
        raise CommandError("Cannot provide tag filter without service filter.")
    return {name: parsed[name] for name in ("node", "service", "tag") if parsed[name]}


def _run(parsed: Parsed) -> int:
    if not parsed["name"]:
        err(f"Event name must be specified\n\n{EVENT.help()}")
        return 1
    query = check_filters(parsed)
    if len(parsed.args) > 1:
        err(f"Too many command line arguments.\n\n{EVENT.help()}")
        return 1
    client = connect(parsed)
    client.node_name()
    payload = parsed.args[0].encode("utf-8", "surrogateescape") if parsed.args else b""
    try:
        fired = client.put(f"/v1/event/fire/{parsed['name']}", payload, query)
    except CommandError as error:
        raise CommandError(f"Error firing event: {error}") from None
    out(f"Event ID: {json.loads(fired)['ID']}")
    return 0


EVENT = Command(
    usage="""
Usage: proconsul event [options] [payload]

  Tells all agents of a datacenter something. What comes of it is up to those who
  watch for events of that name. Delivery is by gossip: fast, to all that can be
  reached, without confirmation.""",
    run=_run,
    flags=(
        string_flag("name", "Name of the event."),
        *FILTER_FLAGS,
        *CLIENT_FLAGS,
    ),
)
