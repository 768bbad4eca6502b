"""The entry point: command line and files -> a validated `AgentConfig`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

from proconsul.config import goflags, sockaddr
from proconsul.config.agent_flags import agent_flags, flag_sources
from proconsul.config.build import Builder
from proconsul.config.defaults import default_source, dev_source
from proconsul.config.errors import SettingError
from proconsul.config.merge import merge
from proconsul.config.model import AgentConfig
from proconsul.config.sources import Source, parse_text, read_paths
from proconsul.config.validate import check_supported, validate


class Loaded(NamedTuple):
    """The configuration, and what is unwise in it."""

    config: AgentConfig
    warnings: list[str]


def load_config(
    argv: Sequence[str] = (),
    *,
    interfaces: Callable[[], list[sockaddr.Interface]] = sockaddr.interfaces,
    hostname: Callable[[], str] | None = None,
) -> Loaded:
    """Parse the flags of `agent`, read the files they name, merge, build and validate.

    Reads files only; nothing is written. Raises ConfigError.
    """
    return load_parsed(goflags.parse(agent_flags(), argv), interfaces=interfaces, hostname=hostname)


def load_parsed(
    parsed: goflags.Parsed,
    *,
    interfaces: Callable[[], list[sockaddr.Interface]] = sockaddr.interfaces,
    hostname: Callable[[], str] | None = None,
) -> Loaded:
    """The same for flags that are parsed already.

    Order, later over earlier: defaults, -dev, list flags, files in the order given, other flags,
    -hcl fragments.
    """
    if parsed.args:
        raise goflags.FlagError(f"Unexpected extra arguments: [{' '.join(parsed.args)}]")
    format_ = parsed["config-format"]
    if format_ not in ("", "hcl", "json"):
        raise SettingError("config: -config-format must be either 'hcl' or 'json'")
    warnings: list[str] = []
    flags = flag_sources(parsed)
    dev = parsed["dev"]
    sources: list[Source] = [
        default_source(),
        *([dev_source()] if dev else ()),
        flags.lists,
        *read_paths(parsed["config-file"], format_, warnings),
        flags.values,
        *(
            parse_text(text, "hcl", f"flags-{number}.hcl")
            for number, text in enumerate(flags.fragments)
        ),
    ]
    merged = merge(sources)
    check_supported(merged, warnings)
    builder = (
        Builder(merged, warnings, dev_mode=dev, interfaces=interfaces, hostname=hostname)
        if hostname
        else Builder(merged, warnings, dev_mode=dev, interfaces=interfaces)
    )
    config = dataclasses.replace(builder.build(), argv=parsed.argv)
    validate(config, merged, warnings)
    return Loaded(config, warnings)
