"""HCL of version 1, as ACL policies are written in it (`github.com/hashicorp/hcl` v1: scanner, parser).

Servers of one quorum must read a policy alike, whoever they are: so items keep their order and
repetitions (a rule that is written twice is two rules), and errors have Go's words and positions.
Configuration files have no such need, and are read by a library.

Raises `HclError` and nothing else. Text and nesting are bounded.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, TypeAlias

from proconsul.wire.hcl_scanner import HclError, Kind, Scanner, Token

__all__ = ["HclError", "Item", "Items", "Kind", "Literal", "Node", "Token", "Values", "parse"]

TEXT_CHARS_MAX = 1 << 20
"""A policy is a few hundred characters; reading this much takes about a second."""
DEPTH_MAX = 32


@dataclass(frozen=True, slots=True)
class Literal:
    """A number, boolean, string or heredoc."""

    token: Token


@dataclass(frozen=True, slots=True)
class Items:
    """A list of items: a file, or an object."""

    items: tuple[Item, ...]
    brace: str
    """Where it begins."""

    @property
    def at(self) -> str:
        """Where Go says that it is: at its first item."""
        keys = self.items[0].keys if self.items else ()
        return keys[0].at if keys else self.brace


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


class _EndOfFile(Exception):
    """The text ends where another item could begin."""


class _Parser:
    def __init__(self, text: str) -> None:
        self._scanner = Scanner(text)
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
    return Items(tuple(reversed(found)), list_.brace)


def _inner_objects(item: Item) -> list[Item]:
    value = item.value
    if isinstance(value, Items) and all(isinstance(one.value, Items) for one in value.items):
        return [Item(item.keys + one.keys, one.value) for one in value.items]
    if isinstance(value, Values) and all(isinstance(one, Items) for one in value.values):
        return [Item(item.keys, one) for one in value.values]
    return []
