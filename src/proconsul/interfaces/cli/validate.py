"""`validate`: would an agent start with these files?"""

from __future__ import annotations

from proconsul.config.goflags import Parsed, bool_flag, string_flag
from proconsul.interfaces.cli.command import Command, CommandError, err, out


def run(parsed: Parsed) -> int:
    """Exit status 1 where the agent would refuse."""
    from proconsul.config.load import load_config
    from proconsul.util.errors import ConfigError

    if not parsed.args:
        raise CommandError("Must specify at least one config file or directory")
    format_ = parsed["config-format"]
    if format_ not in ("", "hcl", "json"):
        raise CommandError("-config-format must be either 'hcl' or 'json'")
    flags = [part for path in parsed.args for part in ("-config-file", path)]
    try:
        loaded = load_config([*flags, *(("-config-format", format_) if format_ else ())])
    except ConfigError as error:
        raise CommandError(f"Config validation failed: {error}") from None
    if not parsed["quiet"]:
        for warning in loaded.warnings:
            err(warning)
        out("Configuration is valid!")
    return 0


COMMAND = Command(
    usage="""
Usage: proconsul validate [options] FILE_OR_DIRECTORY...

  Checks configuration files as the agent does when it starts, without starting
  one. All files that the agent gets must be given together.""",
    run=run,
    flags=(
        string_flag("config-format", "Take all files as 'hcl' or 'json', whatever their names."),
        bool_flag("quiet", "Say nothing where all is well."),
    ),
)
