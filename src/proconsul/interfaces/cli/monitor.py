"""`monitor`: an agent's log as it is written (`command/monitor`)."""

from __future__ import annotations

from proconsul.config.goflags import Parsed, bool_flag, string_flag
from proconsul.interfaces.cli.command import CLIENT_FLAGS, Command, CommandError, connect, out


def _run(parsed: Parsed) -> int:
    query = {"loglevel": parsed["log-level"]}
    if parsed["log-json"]:
        query["logjson"] = "true"
    try:
        for line in connect(parsed).lines("/v1/agent/monitor", query):
            out(line or " ")
    except KeyboardInterrupt:
        return 0
    except CommandError as error:
        what = "JSON monitor" if parsed["log-json"] else "monitor"
        raise CommandError(f"Error starting {what}: {error}") from None
    out()
    out(
        "Remote side ended the monitor! This usually means that the\n"
        "remote side has exited or crashed."
    )
    return 1


MONITOR = Command(
    usage="""
Usage: proconsul monitor [options]

  Prints what the agent logs from now on, at any level, whatever level the agent
  itself logs at. It ends by interrupt.""",
    run=_run,
    flags=(
        string_flag("log-level", "The least level that is shown.", "INFO"),
        bool_flag("log-json", "One JSON object a line."),
        *CLIENT_FLAGS,
    ),
)
