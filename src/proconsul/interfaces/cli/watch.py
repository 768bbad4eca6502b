"""`watch`: tells of changes, or runs a command for each (`command/watch`)."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import Any

import msgspec

from proconsul.config.goflags import Parsed, bool_flag, parse_bool, string_flag, strings_flag
from proconsul.domain.go_json import to_json
from proconsul.domain.watches import Progress, Watch, WatchError, parse_watch
from proconsul.interfaces.cli.children import exit_text, signals_forwarded, start
from proconsul.interfaces.cli.command import (
    CLIENT_FLAGS,
    SERVER_FLAGS,
    Command,
    CommandError,
    connect,
    err,
    out_bytes,
)
from proconsul.util.goduration import format_duration
from proconsul.util.goquote import go_quote


def _watch(parsed: Parsed) -> Watch:
    params: dict[str, Any] = {
        name: parsed[name]
        for name in ("type", "key", "prefix", "service", "state", "name")
        if parsed[name]
    }
    if parsed["tag"]:
        params["tag"] = parsed["tag"]
    if parsed["stale"]:
        params["stale"] = True
    if raw := parsed["passingonly"]:
        try:
            params["passingonly"] = parse_bool(raw)
        except ValueError:
            raise CommandError(
                "Failed to parse passingonly flag: strconv.ParseBool: parsing "
                f"{go_quote(raw)}: invalid syntax"
            ) from None
    try:
        watch = parse_watch(params)
    except WatchError as error:
        raise CommandError(str(error)) from None
    if watch.type.startswith(("connect_", "agent_")):
        raise CommandError(f"Type {watch.type} is not supported in the CLI tool")
    return watch


def _run(parsed: Parsed) -> int:
    if not parsed["type"]:
        err(f"Watch type must be specified\n\n{WATCH.help()}")
        return 1
    watch = _watch(parsed)
    client = connect(parsed)
    client.node_name()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    progress = Progress(watch)
    try:
        while True:
            try:
                answer, index = client.get_indexed(watch.path, progress.query())
            except CommandError as error:
                _wait_after(watch, error, progress.failed())
                continue
            is_news, told = progress.news(answer, index)
            if not is_news:
                continue
            if not parsed.args:
                out_bytes(msgspec.json.format(to_json(told), indent=4))
                return 0
            _handle(parsed, told, index)
    except KeyboardInterrupt:
        return 0


def _wait_after(watch: Watch, error: CommandError, seconds: float) -> None:
    retry = format_duration(seconds)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    err(
        f"{stamp} [ERROR] watch: Watch errored: type={watch.type} "
        f"error={go_quote(str(error))} retry={retry}"
    )
    time.sleep(seconds)


def _handle(parsed: Parsed, told: Any, index: int) -> None:
    """Run the command with the news on its standard input. Raises `CommandError`."""
    sys.stdout.flush()
    child = start(
        parsed.args,
        shell=parsed["shell"],
        environment={"CONSUL_INDEX": str(index)},
        stdin=subprocess.PIPE,
    )
    with signals_forwarded(child):
        child.communicate(to_json(told) + b"\n")
    if problem := exit_text(child):
        raise CommandError(f"Error executing handler: {problem}")


WATCH = Command(
    usage="""
Usage: proconsul watch [options] [child...]

  Waits for changes of a view of the catalog, of health, keys or events. Without a
  child it prints the first answer; a child is run for every change, with the view
  as JSON on its standard input and the index in CONSUL_INDEX.""",
    run=_run,
    flags=(
        string_flag(
            "type", "What to watch: key, keyprefix, services, nodes, service, checks or event."
        ),
        string_flag("key", "The key, for type key."),
        string_flag("prefix", "The prefix of keys, for type keyprefix."),
        string_flag("service", "The service, for types service and checks."),
        strings_flag("tag", "A tag that the service must have, for type service. Repeatable."),
        string_flag("passingonly", "true: only instances that are healthy, for type service."),
        string_flag("state", "The state of checks, for type checks."),
        string_flag("name", "The name of events, for type event."),
        bool_flag("shell", "Run the child by a shell, which SHELL may name.", True),
        *CLIENT_FLAGS,
        *SERVER_FLAGS,
    ),
)
