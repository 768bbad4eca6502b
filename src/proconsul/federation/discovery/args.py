"""`provider=... key=val` strings, read and written exactly as hashicorp/go-discover's `Config`.

Keys and values with spaces, quotes, backslashes or equals signs stand in double quotes, in which
the escapes of Go's string literals hold (`strconv.Unquote`). Error texts are the original's.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

from proconsul.util.errors import ProconsulError

_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""What Go's `strings.TrimSpace` removes."""

_ESCAPES = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
    "\\": "\\", '"': '"',
}  # fmt: skip
_HEX_DIGITS = {"x": 2, "u": 4, "U": 8}

_SECRET_WORDS = ("access_key", "api_key", "credential", "passw", "secret", "token")
_NO_SECRETS = frozenset({"credentials_file"})

_HIDDEN = "<hidden>"


class ArgsError(ProconsulError):
    """The string is malformed."""


class _Item(Enum):
    TEXT = auto()
    EQUAL = auto()
    ERROR = auto()


class _State(Enum):
    KEY = auto()
    EQUAL = auto()
    VALUE = auto()


def parse(text: str) -> dict[str, str]:
    """The arguments in order; empty for an empty string. Raises `ArgsError`."""
    args: dict[str, str] = {}
    rest, state, key = text.strip(_SPACE), _State.KEY, ""
    while rest:
        item, value, used = _lex(rest)
        rest = rest[used:]
        match state:
            case _State.KEY:
                key = _key(item, value, key, args)
                state = _State.EQUAL
            case _State.EQUAL:
                if item is not _Item.EQUAL:
                    raise ArgsError(f"{key}: missing '='")
                state = _State.VALUE
            case _State.VALUE:
                if item is _Item.ERROR:
                    raise ArgsError(f"{key}: {value}")
                if item is not _Item.TEXT:
                    raise ArgsError(f"{key}: missing value")
                args[key] = value
                state = _State.KEY
    if state is _State.EQUAL:
        raise ArgsError(f"{key}: missing '='")
    if state is _State.VALUE:
        raise ArgsError(f"{key}: missing value")
    return args


def is_secret(key: str) -> bool:
    """Whether the value of an argument is never shown. By words: a misspelt key hides its value too."""
    name = key.lower()
    return name not in _NO_SECRETS and any(word in name for word in _SECRET_WORDS)


def render(args: Mapping[str, str], *, hide_secrets: bool = False) -> str:
    """The string that `parse` understands: `provider` first, then by key, empty values left out."""
    keys = ["provider", *sorted(key for key in args if key != "provider")]
    shown = {k: _HIDDEN if hide_secrets and is_secret(k) else args.get(k, "") for k in keys}
    return " ".join(f"{_quote(k)}={_quote(v)}" for k, v in shown.items() if v)


def describe(entry: str) -> str:
    """A configured entry as it may be logged: without the values of secrets."""
    try:
        return render(parse(entry), hide_secrets=True)
    except ArgsError:
        return "provider=... (malformed)"


def _key(item: _Item, value: str, before: str, args: Mapping[str, str]) -> str:
    if item is _Item.TEXT:
        if value in args:
            raise ArgsError(f"{value}: duplicate key")
        return value
    if not value:
        raise ArgsError(
            f"{before}: - equals in key's value, enclosing double-quote needed "
            f'{before}="value-with-=-symbol"'
        )
    raise ArgsError(f"{before}: error with key=value pair {value}")


def _lex(text: str) -> tuple[_Item, str, int]:
    """The next token of a text that is not empty, its value, and how many characters it took."""
    start = 0
    while start < len(text) and text[start] == " ":
        start += 1
    if start == len(text):
        return _Item.TEXT, "", len(text)
    if text[start] == "=":
        return _Item.EQUAL, "", start + 1
    if text[start] == '"':
        return _lex_quoted(text, start)
    end = start + 1
    while end < len(text) and text[end] not in "= ":
        end += 1
    return _Item.TEXT, text[start:end].strip(_SPACE), end


def _lex_quoted(text: str, start: int) -> tuple[_Item, str, int]:
    at = start + 1
    while at < len(text) and text[at] != '"':
        if text[at] == "\\":
            at += 1
            if at == len(text):
                return _Item.ERROR, "unterminated escape sequence", len(text)
        at += 1
    if at >= len(text):
        return _Item.ERROR, "unbalanced quotes", len(text)
    try:
        return _Item.TEXT, _unquote(text[start + 1 : at]), at + 1
    except ValueError:
        return _Item.ERROR, "invalid syntax", at + 1


def _unquote(body: str) -> str:
    """What stands between the quotes of a Go string literal. Raises ValueError."""
    if "\\" not in body and "\n" not in body:
        return body
    out = bytearray()
    at = 0
    while at < len(body):
        char = body[at]
        at += 1
        if char == "\n":
            raise ValueError("newline in string")
        if char != "\\":
            out += char.encode("utf-8", "surrogateescape")
            continue
        kind = body[at]
        at += 1
        if kind in _ESCAPES:
            out += _ESCAPES[kind].encode()
            continue
        base, width = (16, _HEX_DIGITS[kind]) if kind in _HEX_DIGITS else (8, 3)
        first = at if base == 16 else at - 1
        at = first + width
        value = _number(body[first:at], base, width)
        if kind in "uU":
            out += _rune(value)
        elif value > 255:
            raise ValueError("octal escape beyond a byte")
        else:
            out.append(value)
    return out.decode("utf-8", "surrogateescape")


def _number(digits: str, base: int, width: int) -> int:
    if len(digits) != width or not digits.isalnum() or not digits.isascii():
        raise ValueError("bad escape")
    return int(digits, base)


def _rune(value: int) -> bytes:
    if value > 0x10FFFF or 0xD800 <= value < 0xE000:
        raise ValueError("not a code point")
    return chr(value).encode()


def _quote(text: str) -> str:
    if not any(char in ' "\\=' for char in text):
        return text
    out = ['"']
    for char in text:
        if char in '"\\':
            out.append("\\" + char)
        elif char.isprintable():
            out.append(char)
        else:
            out.extend(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))
    return "".join([*out, '"'])
