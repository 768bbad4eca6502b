"""`version`."""

from __future__ import annotations

from proconsul import CONSUL_VERSION, VERSION
from proconsul.config.goflags import Parsed, string_flag
from proconsul.interfaces.cli.command import Command, CommandError, out


def run(parsed: Parsed) -> int:
    """The first line is Consul's, since programs parse it; ours says whose it is."""
    if parsed["format"] == "json":
        import json

        rpc = {"Default": 2, "Min": 2, "Max": 3}
        fields = {"Version": CONSUL_VERSION, "Revision": "", "Prerelease": "", "RPC": rpc}
        out(json.dumps({**fields, "Proconsul": VERSION}, indent=4))
    elif parsed["format"] == "pretty":
        out(f"Consul v{CONSUL_VERSION}")
        out(f"proconsul v{VERSION}, which behaves as this version of Consul")
        out(
            "Protocol 2 spoken by default, understands 2 to 3 (agent will automatically use"
            " protocol >2 when speaking to compatible agents)\n"
        )
    else:
        raise CommandError(f"Unknown format: {parsed['format']}")
    return 0


COMMAND = Command(
    usage="""
Usage: proconsul version [options]

  Prints the version, and the version of Consul that this program behaves as.""",
    run=run,
    flags=(string_flag("format", "Output format {pretty|json}", "pretty"),),
)
