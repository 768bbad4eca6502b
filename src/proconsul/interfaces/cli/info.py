"""`info`: the agent's own counters, from /v1/agent/self."""

from __future__ import annotations

from proconsul.config.goflags import Parsed
from proconsul.interfaces.cli.command import CLIENT_FLAGS, Command, CommandError, connect, out


def run(parsed: Parsed) -> int:
    """Prints Stats, sorted."""
    try:
        stats = connect(parsed).get("/v1/agent/self").get("Stats")
    except CommandError as error:
        raise CommandError(f"Error querying agent: {error}") from None
    if not isinstance(stats, dict):
        raise CommandError("Agent response did not contain 'Stats' key")
    for key, values in sorted(stats.items()):
        out(f"{key}:")
        for name, value in sorted(values.items()):
            out(f"\t{name} = {value}")
    return 0


COMMAND = Command(
    usage="""
Usage: proconsul info [options]

  Provides debugging information for operators.""",
    run=run,
    flags=CLIENT_FLAGS,
)
