"""Command-line flags in the manner of Go's `flag` package.

`-flag`, `--flag`, `-flag=value`, `-flag value`; a boolean takes a value only after `=`. Parsing
stops at the first argument that is no flag, and after `--`. Small and import-light: the HTTP-only
commands must start quickly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from proconsul.util.errors import ConfigError

_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})


class FlagError(ConfigError):
    """An argument that does not parse; the text is that of Go's `flag`."""


def parse_bool(text: str) -> bool:
    """As strconv.ParseBool. Raises ValueError."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError("parse error")


def parse_int(text: str) -> int:
    """A decimal, 0x, 0o or 0b integer. Raises ValueError("parse error")."""
    try:
        return int(text, 0) if not text.lstrip("+-").startswith("0") or "x" in text else int(text)
    except ValueError:
        raise ValueError("parse error") from None


def parse_uint64(text: str) -> int:
    """As strconv.ParseUint with 64 bits. Raises ValueError."""
    value = parse_int(text)
    if value < 0:
        raise ValueError("parse error")
    if value >= 1 << 64:
        raise ValueError("value out of range")
    return value


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag. `parse` turns the text into the value; `many` collects a list."""

    name: str
    usage: str
    parse: Callable[[str], Any] = str
    default: Any = ""
    many: bool = False
    value_name: str = "value"
    dest: str = ""
    """The name that the value is stored under, where it is not the flag's own."""

    @property
    def is_bool(self) -> bool:
        return self.parse is parse_bool


def bool_flag(name: str, usage: str, default: bool = False) -> Flag:
    return Flag(name, usage, parse_bool, default, value_name="")


def string_flag(name: str, usage: str, default: str = "") -> Flag:
    return Flag(name, usage, str, default, value_name="string")


def strings_flag(name: str, usage: str) -> Flag:
    """May be given several times; the value is a list."""
    return Flag(name, usage, str, (), many=True)


def uint_flag(name: str, usage: str, default: int = 0) -> Flag:
    return Flag(name, usage, parse_uint64, default, value_name="uint")


def int_flag(name: str, usage: str, default: int = 0) -> Flag:
    return Flag(name, usage, parse_int, default, value_name="int")


class Parsed:
    """Values by flag name, and the arguments that are left."""

    def __init__(self, flags: Sequence[Flag]) -> None:
        self._defaults = {f.name: [] if f.many else f.default for f in flags}
        self.given: dict[str, Any] = {}
        """Only the flags that were on the command line."""
        self.args: list[str] = []
        self.argv: tuple[str, ...] = ()
        """Everything, as it was given."""

    def __getitem__(self, name: str) -> Any:
        return self.given[name] if name in self.given else self._defaults[name]


def parse(flags: Sequence[Flag], argv: Sequence[str]) -> Parsed:
    """Parse `argv`. Raises FlagError with Go's text."""
    by_name = {f.name: f for f in flags}
    parsed = Parsed(flags)
    parsed.argv = tuple(argv)
    rest = list(argv)
    while rest:
        token = rest[0]
        if len(token) < 2 or token[0] != "-":
            break
        rest.pop(0)
        if token == "--":
            break
        name = token[2:] if token.startswith("--") else token[1:]
        if not name or name[0] in "-=":
            raise FlagError(f"bad flag syntax: {token}")
        name, equals, text = name.partition("=")
        flag = by_name.get(name)
        if flag is None:
            raise FlagError(f"flag provided but not defined: -{name}")
        if not equals:
            if flag.is_bool:
                text = "true"
            elif rest:
                text = rest.pop(0)
            else:
                raise FlagError(f"flag needs an argument: -{name}")
        _store(parsed, flag, text)
    parsed.args = rest
    return parsed


def _store(parsed: Parsed, flag: Flag, text: str) -> None:
    try:
        value = flag.parse(text)
    except ValueError as error:
        if flag.is_bool:
            raise FlagError(f'invalid boolean value "{text}" for -{flag.name}: {error}') from None
        raise FlagError(f'invalid value "{text}" for flag -{flag.name}: {error}') from None
    if flag.many:
        parsed.given.setdefault(flag.dest or flag.name, []).append(value)
    else:
        parsed.given[flag.dest or flag.name] = value
