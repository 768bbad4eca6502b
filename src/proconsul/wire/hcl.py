"""HCL of version 1, as ACL policies are written in it (`github.com/hashicorp/hcl` v1: scanner, parser).

Servers of one quorum must read a policy alike, whoever they are: so items keep their order and
repetitions (a rule that is written twice is two rules), and errors have Go's words and positions.
Configuration files have no such need, and are read by a library.

Raises `HclError` and nothing else. Text and nesting are bounded.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple, TypeAlias

from proconsul.util.errors import WireError

TEXT_CHARS_MAX = 1 << 20
"""A policy is a few hundred characters; reading this much takes about a second."""
DEPTH_MAX = 32


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


@dataclass(frozen=True, slots=True)
class Literal:
    """A number, boolean, string or heredoc."""

    token: Token


@dataclass(frozen=True, slots=True)
class Items:
    """A list of items: a file, or an object."""

    items: tuple[Item, ...]
    at: str


@dataclass(frozen=True, slots=True)
class Values:
    """A list of values."""

    values: tuple[Node, ...]
    at: str


Node: TypeAlias = Literal | Items | Values


@dataclass(frozen=True, slots=True)
class Item:
    """`key "a" { ... }` or `key = ...`."""

    keys: tuple[Token, ...]
    value: Node


_PUNCTUATION = {
    "[": Kind.LBRACK, "]": Kind.RBRACK, "{": Kind.LBRACE, "}": Kind.RBRACE, ",": Kind.COMMA,
    "=": Kind.ASSIGN, ".": Kind.PERIOD, "+": Kind.ADD, "-": Kind.SUB,
}  # fmt: skip
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


class _EndOfFile(Exception):
    """The text ends where another item could begin."""


class _Scanner:
    """Tokens of a text, one after the other, with one to look ahead."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._offset = 0
        self._line, self._line_start, self._counted = 1, 0, 0
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
        start = self._offset
        at = self._at(start)
        if start >= len(text):
            return Token(Kind.EOF, "", "", start, at)
        first = text[start]
        if (found := _IDENTIFIER.match(text, start)) is not None:
            kind = Kind.BOOL if found[0] in {"true", "false"} else Kind.IDENT
            return self._made(kind, found.end(), start, at)
        if (found := _NUMBER.match(text, start)) is not None:
            is_float = first == "." or found["fraction"] or found["exponent"]
            return self._made(Kind.FLOAT if is_float else Kind.NUMBER, found.end(), start, at)
        if first == '"':
            return self._string(start, at)
        if first == "<":
            return self._heredoc(start, at)
        if (kind_ := _PUNCTUATION.get(first)) is not None:
            return self._made(kind_, start + 1, start, at)
        if first == "/":
            raise self._fail(
                start + 1,
                "comment not terminated"
                if text.startswith("/*", start)
                else "expected '/' for comment",
            )
        raise self._fail(
            start, "unexpected null character (0x00)" if first == "\0" else "illegal char"
        )

    def _made(self, kind: Kind, end: int, start: int, at: str, value: str | None = None) -> Token:
        self._offset = end
        text = self._text[start:end]
        return Token(kind, text, text if value is None else value, start, at)

    def _string(self, start: int, at: str) -> Token:
        if (plain := _PLAIN_STRING.match(self._text, start)) is not None:
            return self._made(Kind.STRING, plain.end(), start, at, plain[1])
        text, offset, braces = self._text, start + 1, 0
        parts: list[str] = []
        while True:
            char = text[offset : offset + 1]
            if not char or (char == "\n" and not braces):
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


class _Parser:
    def __init__(self, text: str) -> None:
        self._scanner = _Scanner(text)
        self._depth = 0

    def file(self) -> Items:
        return self._items(within=False, at="1:1")

    @staticmethod
    def _fail(token: Token, reason: str) -> HclError:
        return HclError(f"At {token.at}: {reason}")

    def _items(self, *, within: bool, at: str) -> Items:
        scanner, found = self._scanner, list[Item]()
        while True:
            if within:
                closing = scanner.scan().kind is Kind.RBRACE
                scanner.unscan()
                if closing:
                    break
            try:
                found.append(self._item())
            except _EndOfFile:
                break
            if scanner.scan().kind is not Kind.COMMA:
                scanner.unscan()
        return Items(tuple(found), at)

    def _item(self) -> Item:
        keys, token = self._keys()
        if token.kind is Kind.ASSIGN:
            return Item(keys, self._value())
        if token.kind is Kind.LBRACE:
            return Item(keys, self._object(token))
        names = " ".join(key.text for key in keys)
        raise self._fail(
            token, f"key '{names}' expected start of object ('{{') or assignment ('=')"
        )

    def _keys(self) -> tuple[tuple[Token, ...], Token]:
        """The keys, and the token that follows them."""
        keys: list[Token] = []
        while True:
            token = self._scanner.scan()
            match token.kind:
                case Kind.IDENT | Kind.STRING:
                    keys.append(token)
                    continue
                case Kind.EOF if not keys:
                    raise _EndOfFile
                case Kind.ASSIGN if len(keys) > 1:
                    raise self._fail(token, "nested object expected: LBRACE got: ASSIGN")
                case Kind.ASSIGN if not keys:
                    raise self._fail(token, "no object keys found!")
                case Kind.LBRACE if not keys:
                    raise self._fail(token, "expected: IDENT | STRING got: LBRACE")
                case Kind.ASSIGN | Kind.LBRACE | Kind.EOF:
                    return tuple(keys), token
                case Kind.RBRACE if keys:
                    return tuple(keys), token
                case other:
                    raise self._fail(
                        token, f"expected: IDENT | STRING | ASSIGN | LBRACE got: {other.value}"
                    )

    def _value(self) -> Node:
        token = self._scanner.scan()
        match token.kind:
            case Kind.NUMBER | Kind.FLOAT | Kind.BOOL | Kind.STRING | Kind.HEREDOC:
                return Literal(token)
            case Kind.LBRACE:
                return self._object(token)
            case Kind.LBRACK:
                return self._list(token)
            case Kind.EOF:
                raise _EndOfFile
            case _:
                raise self._fail(token, f"Unknown token: {token.shown()}")

    def _descend(self, token: Token) -> None:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise self._fail(token, f"nested deeper than {DEPTH_MAX} levels")

    def _object(self, opening: Token) -> Items:
        self._descend(opening)
        found = self._items(within=True, at=opening.at)
        token = self._scanner.scan()
        if token.kind is not Kind.RBRACE:
            raise self._fail(token, f"object expected closing RBRACE got: {token.kind.value}")
        self._depth -= 1
        return found

    def _list(self, opening: Token) -> Values:
        self._descend(opening)
        found, need_comma = list[Node](), False
        while True:
            token = self._scanner.scan()
            if need_comma and token.kind not in {Kind.COMMA, Kind.RBRACK}:
                raise self._fail(
                    token,
                    f"error parsing list, expected comma or list end, got: {token.kind.value}",
                )
            match token.kind:
                case Kind.BOOL | Kind.NUMBER | Kind.FLOAT | Kind.STRING | Kind.HEREDOC:
                    found.append(Literal(token))
                    need_comma = True
                case Kind.COMMA:
                    need_comma = False
                case Kind.LBRACE:
                    found.append(self._object(token))
                    need_comma = True
                case Kind.LBRACK:
                    found.append(self._list(token))
                case Kind.RBRACK:
                    self._depth -= 1
                    return Values(tuple(found), opening.at)
                case other:
                    raise self._fail(token, f"unexpected token while parsing list: {other.value}")


def parse(text: str) -> Items:
    """Read HCL, or JSON if the first character is `{`."""
    if len(text) > TEXT_CHARS_MAX:
        raise HclError(f"{len(text)} characters are too many: at most {TEXT_CHARS_MAX}")
    if text.lstrip().startswith("{"):
        return _flattened(_parse_json(text))
    return _Parser(text.replace("\r\n", "\n")).file()


# --- JSON


def _parse_json(text: str) -> Items:
    def refuse(constant: str) -> Any:
        raise ValueError(f"unexpected token while parsing list: {constant}")

    try:
        raw = json.loads(
            text,
            object_pairs_hook=tuple,
            parse_constant=refuse,
            parse_int=_number,
            parse_float=_real,
        )
    except (ValueError, RecursionError) as error:
        raise HclError(str(error) or "nested too deeply") from None
    found = _node(raw, DEPTH_MAX)
    assert isinstance(found, Items)
    return found


def _json_token(kind: Kind, text: str) -> Token:
    return Token(kind, json.dumps(text) if kind is Kind.STRING else text, text, 0, "-")


def _number(text: str) -> Token:
    return _json_token(Kind.NUMBER, text)


def _real(text: str) -> Token:
    return _json_token(Kind.FLOAT, text)


def _node(raw: Any, depth: int) -> Node:
    if depth == 0:
        raise HclError(f"nested deeper than {DEPTH_MAX} levels")
    match raw:
        case Token():
            return Literal(raw)
        case str():
            return Literal(_json_token(Kind.STRING, raw))
        case None:
            return Literal(_json_token(Kind.STRING, ""))  # so it is in Go
        case bool():
            return Literal(_json_token(Kind.BOOL, str(raw).lower()))
        case list():
            return Values(tuple(_node(one, depth - 1) for one in raw), "-")
        case _:
            pairs = (
                Item((_json_token(Kind.STRING, key),), _node(value, depth - 1))
                for key, value in raw
            )
            return Items(tuple(pairs), "-")


def _flattened(list_: Items) -> Items:
    """Objects of nothing but objects become items with more keys, as HCL would write them."""
    found: list[Item] = []
    waiting = list(list_.items)
    while waiting:
        item = waiting.pop()
        inner = _inner_objects(item)
        if inner:
            waiting += inner
        else:
            value = item.value
            found.append(Item(item.keys, _flattened(value) if isinstance(value, Items) else value))
    return Items(tuple(reversed(found)), list_.at)


def _inner_objects(item: Item) -> list[Item]:
    value = item.value
    if isinstance(value, Items) and all(isinstance(one.value, Items) for one in value.items):
        return [Item(item.keys + one.keys, one.value) for one in value.items]
    if isinstance(value, Values) and all(isinstance(one, Items) for one in value.values):
        return [Item(item.keys, one) for one in value.values]
    return []
