"""The tokens of HCL version 1, with the positions that Go's scanner gives them in errors."""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

from proconsul.util.errors import WireError


class HclError(WireError):
    """The text is not HCL; says where."""


class Kind(Enum):
    """Types of tokens, by the names that errors show."""

    EOF = "EOF"
    IDENT = "IDENT"
    NUMBER = "NUMBER"
    FLOAT = "FLOAT"
    BOOL = "BOOL"
    STRING = "STRING"
    HEREDOC = "HEREDOC"
    LBRACK = "LBRACK"
    RBRACK = "RBRACK"
    LBRACE = "LBRACE"
    RBRACE = "RBRACE"
    COMMA = "COMMA"
    ASSIGN = "ASSIGN"
    PERIOD = "PERIOD"
    ADD = "ADD"
    SUB = "SUB"


class Token(NamedTuple):
    """One token. `start` is its offset in the text, `at` line and column, "-" in JSON."""

    kind: Kind
    text: str
    value: str
    """What a string means, else its text."""
    start: int
    at: str

    def shown(self) -> str:
        """As Go prints it."""
        return f"{self.at} {self.kind.value} {self.text}"


_PUNCTUATION = {
    "[": Kind.LBRACK, "]": Kind.RBRACK, "{": Kind.LBRACE, "}": Kind.RBRACE, ",": Kind.COMMA,
    "=": Kind.ASSIGN, ".": Kind.PERIOD, "+": Kind.ADD, "-": Kind.SUB,
}  # fmt: skip
_OPEN_ENDED = frozenset({Kind.IDENT, Kind.BOOL, Kind.NUMBER, Kind.FLOAT})
"""What goes on until something else comes."""
_SKIPPED = re.compile(r"(?:[ \t\r\n]+|#[^\n]*|//[^\n]*|/\*.*?\*/)+", re.DOTALL)
_IDENTIFIER = re.compile(r"[^\W\d][\w.\-]*")
_NUMBER = re.compile(
    r"-?(?:0[xX][0-9a-fA-F]+|[0-9]+(?P<fraction>\.[0-9]*)?(?P<exponent>[eE][+-]?[0-9]*)?)"
    r"|\.[0-9]+(?:[eE][+-]?[0-9]*)?"
)
_PLAIN_STRING = re.compile(r'"((?:[^"\\\n$]|\$(?!\{))*)"')
_ESCAPE = re.compile(r'\\(?:[abfnrtv\\"]|[0-7]{3}|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})')
_ESCAPED = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_ANCHOR = re.compile(r"<<(-?\w+)\r?\n")


class Scanner:
    """Tokens of a text, one after the other, with one to look ahead."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._offset = 0
        self._line, self._line_start, self._counted = 1, 0, 0
        self._ends_read = 0
        """Go counts a column each time that it reads the end; a word or comment there reads it."""
        self.token = Token(Kind.EOF, "", "", 0, "1:1")
        self._again = False

    def unscan(self) -> None:
        self._again = True

    def scan(self) -> Token:
        if self._again:
            self._again = False
        else:
            self.token = self._next()
        return self.token

    def _at(self, offset: int) -> str:
        """Line and column; offsets must never decrease."""
        newlines = self._text.count("\n", self._counted, offset)
        if newlines:
            self._line += newlines
            self._line_start = self._text.rindex("\n", self._counted, offset) + 1
        self._counted = max(offset, self._counted)
        return f"{self._line}:{offset - self._line_start + 1}"

    def _fail(self, offset: int, reason: str) -> HclError:
        return HclError(f"At {self._at(offset)}: {reason}")

    def _next(self) -> Token:
        text = self._text
        if (skipped := _SKIPPED.match(text, self._offset)) is not None:
            self._offset = skipped.end()
            if self._offset == len(text) and text[-1] not in " \t\r\n/":
                self._ends_read += 1
        start = self._offset
        if start >= len(text):
            at = self._at(start + self._ends_read)
            self._ends_read += 1
            return Token(Kind.EOF, "", "", start, at)
        at = self._at(start)
        first = text[start]
        if (found := _IDENTIFIER.match(text, start)) is not None:
            kind = Kind.BOOL if found[0] in {"true", "false"} else Kind.IDENT
            return self._made(kind, found.end(), start, at)
        if (found := _NUMBER.match(text, start)) is not None:
            if found[0] == "0" and text[start + 1 : start + 2] in {"x", "X"}:
                raise self._fail(start + 2, "illegal hexadecimal number")
            is_float = first == "." or found["fraction"] or found["exponent"]
            return self._made(Kind.FLOAT if is_float else Kind.NUMBER, found.end(), start, at)
        if first == '"':
            return self._string(start, at)
        if first == "<":
            return self._heredoc(start, at)
        if (kind_ := _PUNCTUATION.get(first)) is not None:
            return self._made(kind_, start + 1, start, at)
        if first == "/":
            if text.startswith("/*", start):
                raise self._fail(len(text), "comment not terminated")
            raise self._fail(start, "expected '/' for comment")
        raise self._fail(
            start, "unexpected null character (0x00)" if first == "\0" else "illegal char"
        )

    def _made(self, kind: Kind, end: int, start: int, at: str, value: str | None = None) -> Token:
        self._offset = end
        if end == len(self._text) and kind in _OPEN_ENDED:
            self._ends_read += 1
        text = self._text[start:end]
        return Token(kind, text, text if value is None else value, start, at)

    def _string(self, start: int, at: str) -> Token:
        if (plain := _PLAIN_STRING.match(self._text, start)) is not None:
            return self._made(Kind.STRING, plain.end(), start, at, plain[1])
        text, offset, braces = self._text, start + 1, 0
        parts: list[str] = []
        while True:
            char = text[offset : offset + 1]
            if char == "\n" and not braces:
                line, column = self._at(offset).split(":")
                raise HclError(f"At {int(line) + 1}:{int(column) - 1}: literal not terminated")
            if not char:
                raise self._fail(offset, "literal not terminated")
            if char == '"' and not braces:
                return self._made(Kind.STRING, offset + 1, start, at, "".join(parts))
            if char == "\\":
                escape = _ESCAPE.match(text, offset)
                if escape is None:
                    raise self._fail(offset + 1, "illegal char escape")
                # What is interpolated stays as it is written.
                parts.append(escape[0] if braces else _unescaped(escape[0]))
                offset = escape.end()
                continue
            if not braces and text.startswith("${", offset):
                braces, char = 1, "${"
            elif braces:
                braces += {"{": 1, "}": -1}.get(char, 0)
            parts.append(char)
            offset += len(char)

    def _heredoc(self, start: int, at: str) -> Token:
        text = self._text
        if not text.startswith("<<", start):
            raise self._fail(start + 1, "heredoc expected second '<', didn't see it")
        anchor = _ANCHOR.match(text, start)
        if anchor is None:
            raise self._fail(start + 2, "invalid characters in heredoc anchor")
        name = anchor[1].removeprefix("-")
        if not name:
            raise self._fail(start + 2, "zero-length heredoc anchor")
        end = re.compile(rf"^[ \t\r\f\v]*{re.escape(name)}\r*$\n", re.MULTILINE)
        found = end.search(text, anchor.end())
        if found is None:
            raise self._fail(len(text), "heredoc not terminated")
        body = text[anchor.end() : found.start()]
        if anchor[1].startswith("-"):
            body = _unindented(body, found[0])
        return self._made(Kind.HEREDOC, found.end(), start, at, body)


def _unescaped(escape: str) -> str:
    code = escape[1]
    if code in _ESCAPED:
        return _ESCAPED[code]
    if code in '\\"':
        return code
    number = int(escape[1:], 8) if code in "01234567" else int(escape[2:], 16)
    return chr(number) if number < 0x110000 else "\ufffd"


def _unindented(body: str, last: str) -> str:
    """`<<-` takes away the indentation of the closing line, where all lines have it."""
    indent = last[: len(last) - len(last.lstrip(" \t"))]
    lines = body.split("\n")
    if not indent or any(line and not line.startswith(indent) for line in lines):
        return body
    return "\n".join(line.removeprefix(indent) for line in lines)
