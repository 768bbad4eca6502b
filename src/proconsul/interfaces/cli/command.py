"""What a command is, and how it speaks to its user. Import-light: every command loads this."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from proconsul.config.goflags import Flag, Parsed, bool_flag, string_flag

if TYPE_CHECKING:
    from proconsul.interfaces.cli.client import Client


class CommandError(Exception):
    """Ends a command with a text on standard error and exit status 1."""


def out(text: str = "") -> None:
    """A line on standard output."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def out_bytes(data: bytes) -> None:
    """A line of raw bytes on standard output; values need not be text."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data + b"\n")
    sys.stdout.buffer.flush()


def err(text: str = "") -> None:
    """A line on standard error."""
    sys.stderr.write(text + "\n")


@dataclass(frozen=True, slots=True)
class Command:
    """A command with flags. `run` gets them parsed and returns the exit status."""

    usage: str
    run: Callable[[Parsed], int]
    flags: Sequence[Flag] = field(default=())

    def help(self) -> str:
        """The text that -h prints."""
        api = [f for f in self.flags if f.name in _HTTP_NAMES]
        own = [f for f in self.flags if f.name not in _HTTP_NAMES]
        parts = [self.usage.strip()]
        for title, flags in (("HTTP API Options", api), ("Command Options", own)):
            if flags:
                parts.append(title)
                parts.extend(_flag_help(f) for f in sorted(flags, key=lambda f: f.name))
        return "\n\n".join(parts)


def _flag_help(flag: Flag) -> str:
    value = f"=<{flag.value_name}>" if flag.value_name else ""
    usage = textwrap.fill(flag.usage, 67, break_long_words=False, break_on_hyphens=False)
    return f"  -{flag.name}{value}\n{textwrap.indent(usage, ' ' * 5)}"


CLIENT_FLAGS: tuple[Flag, ...] = (
    Flag(
        "http-addr",
        "The address and port of the agent's HTTP API, or unix:// and the path of its socket. Also"
        " set by the PROCONSUL_HTTP_ADDR or CONSUL_HTTP_ADDR environment variable. The default is"
        " http://127.0.0.1:8500; https:// or CONSUL_HTTP_SSL=true turns on TLS.",
        value_name="address",
    ),
    string_flag("token", "ACL token of the request. Also set by CONSUL_HTTP_TOKEN."),
    string_flag(
        "token-file", "File with the ACL token of the request. Also set by CONSUL_HTTP_TOKEN_FILE."
    ),
    string_flag("ca-file", "File of the CA that signed the agent. Also set by CONSUL_CACERT."),
    string_flag("ca-path", "Directory of CA certificates. Also set by CONSUL_CAPATH."),
    string_flag("client-cert", "Client certificate for TLS. Also set by CONSUL_CLIENT_CERT."),
    string_flag("client-key", "Key of the client certificate. Also set by CONSUL_CLIENT_KEY."),
    string_flag(
        "tls-server-name", "Name to expect in the agent's certificate. Also set by"
        " CONSUL_TLS_SERVER_NAME.",
    ),
)  # fmt: skip
"""Where the agent is, and how to reach it."""

SERVER_FLAGS: tuple[Flag, ...] = (
    string_flag("datacenter", "Datacenter to ask; the agent's own by default."),
    bool_flag("stale", "Let any server answer, not the leader alone; the answer may be old."),
)
"""Whom the agent asks on our behalf."""

NAMESPACE_FLAGS: tuple[Flag, ...] = (
    string_flag("namespace", "A feature of Consul Enterprise; sent along as it is."),
)

_HTTP_NAMES = frozenset(f.name for f in (*CLIENT_FLAGS, *SERVER_FLAGS))


def connect(parsed: Parsed) -> Client:
    """The HTTP client that the flags and the environment describe. Raises CommandError."""
    from proconsul.interfaces.cli.client import Client, settings_from

    return Client(settings_from(parsed))


def columnize(rows: Sequence[Sequence[str]]) -> str:
    """Columns two spaces apart, no padding after the last (ryanuber/columnize)."""
    widths: list[int] = []
    for row in rows:
        for i, cell in enumerate(row):
            if i == len(widths):
                widths.append(0)
            widths[i] = max(widths[i], len(cell))
    lines: list[str] = []
    for row in rows:
        cells = [cell.ljust(widths[i]) for i, cell in enumerate(row[:-1])]
        lines.append("  ".join([*cells, row[-1]]))
    return "\n".join(lines)


def pairs(items: Sequence[str], flag: str) -> dict[str, str]:
    """`key=value` flags as a dictionary. Raises CommandError."""
    out_: dict[str, str] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals:
            raise CommandError(f'invalid value "{item}" for flag -{flag}: missing "=" value')
        out_[key] = value
    return out_


def load_data(argument: str) -> bytes:
    """`@file`, `-` for standard input, or the argument itself. Raises CommandError."""
    if argument.startswith("@"):
        try:
            with open(argument[1:], "rb") as file:
                return file.read()
        except OSError as error:
            raise CommandError(
                f"Error! Failed to read file: open {argument[1:]}:"
                f" {(error.strerror or str(error)).lower()}"
            ) from None
    if argument == "-":
        return sys.stdin.buffer.read()
    return argument.encode("utf-8", "surrogateescape")
