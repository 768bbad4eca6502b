"""Go's regular expressions (`regexp/syntax` with the Perl flags), read into a tree.

Syntax, limits and error texts are Go's; `regexp_classes` reads classes, `regexps` compiles and matches.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

from proconsul.domain.regexp_classes import (
    Matcher,
    cases,
    class_char,
    escape,
    escaped_class,
    in_ranges,
    posix,
    up_to,
)
from proconsul.domain.regexps import RegexpError

REPEAT_MAX = 1000
DEPTH_MAX = 100


class Char(NamedTuple):
    """One character of a class."""

    matches: Matcher


class Anchor(NamedTuple):
    """A place, not a character: `begin_text`, `end_text`, `begin_line`, `end_line`, `word`, `not_word`."""

    kind: str


class Concat(NamedTuple):
    parts: list[Node]


class Alternate(NamedTuple):
    choices: list[Node]


class Repeat(NamedTuple):
    """Between `low` and `high` times; `high` None is without end."""

    of: Node
    low: int
    high: int | None
    greedy: bool


class Capture(NamedTuple):
    of: Node
    number: int


Node: TypeAlias = "Char | Anchor | Concat | Alternate | Repeat | Capture"


@dataclass(frozen=True, slots=True)
class _Flags:
    fold: bool = False
    many_lines: bool = False
    dot_newline: bool = False
    lazy: bool = False


@dataclass(slots=True)
class _Group:
    """An open parenthesis (or the whole): finished choices, and the one being read."""

    number: int | None
    outside: _Flags
    choices: list[Node]
    parts: list[Node]


class Parser:
    """Reads one expression; `captures` counts its groups."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._flags = _Flags()
        self._groups = [_Group(None, self._flags, [], [])]
        self.captures = 0

    def parse(self) -> Node:
        """The tree. Raises `RegexpError`."""
        rest, last_repeat = self._source, ""
        while rest:
            before, repeated = rest, ""
            match rest[0]:
                case "(":
                    rest = self._open(rest)
                case "|":
                    top = self._groups[-1]
                    top.choices.append(_concat(top.parts))
                    top.parts, rest = [], rest[1:]
                case ")":
                    rest = self._close(rest)
                case "^":
                    rest = self._push(Anchor(self._line("begin")), rest[1:])
                case "$":
                    rest = self._push(Anchor(self._line("end")), rest[1:])
                case ".":
                    every = self._flags.dot_newline
                    rest = self._push(Char(lambda c, e=every: e or c != "\n"), rest[1:])  # type: ignore[misc]
                case "[":
                    rest = self._class(rest)
                case "*" | "+" | "?":
                    low, high = {"*": (0, None), "+": (1, None), "?": (0, 1)}[rest[0]]
                    rest = self._repeat(before, rest[1:], low, high, last_repeat)
                    repeated = before
                case "{" if (counts := _counts(rest)) is not None:
                    low, high, after = counts
                    if low > REPEAT_MAX or (high is not None and (high > REPEAT_MAX or low > high)):
                        raise RegexpError("invalid repeat count", up_to(before, after))
                    rest = self._repeat(before, after, low, high, last_repeat)
                    repeated = before
                case "\\":
                    rest = self._backslash(rest)
                case char:
                    rest = self._push(self._literal(char), rest[1:])
            last_repeat = repeated
        if len(self._groups) != 1:
            raise RegexpError("missing closing )", self._source)
        return _closed(self._groups[0])

    def _push(self, node: Node, rest: str) -> str:
        self._groups[-1].parts.append(node)
        return rest

    def _line(self, side: str) -> str:
        return f"{side}_line" if self._flags.many_lines else f"{side}_text"

    def _literal(self, char: str) -> Char:
        if not self._flags.fold:
            return Char(lambda c: c == char)
        same = frozenset(cases(char))
        return Char(lambda c: c in same)

    # -- groups

    def _open(self, rest: str) -> str:
        if len(self._groups) > DEPTH_MAX:
            raise RegexpError("expression nests too deeply", self._source)
        if rest.startswith("(?"):
            return self._perl_group(rest)
        self.captures += 1
        self._groups.append(_Group(self.captures, self._flags, [], []))
        return rest[1:]

    def _perl_group(self, rest: str) -> str:
        if len(rest) > 4 and rest.startswith("(?P<"):
            end = rest.find(">")
            if end < 0:
                raise RegexpError("invalid named capture", rest)
            name = rest[4:end]
            if not name or not all(c == "_" or (c.isascii() and c.isalnum()) for c in name):
                raise RegexpError("invalid named capture", rest[: end + 1])
            self.captures += 1
            self._groups.append(_Group(self.captures, self._flags, [], []))
            return rest[end + 1 :]
        names = {"i": "fold", "m": "many_lines", "s": "dot_newline", "U": "lazy"}
        flags, on, saw = self._flags, True, False
        at = 2
        while at < len(rest):
            char = rest[at]
            at += 1
            if char in names:
                flags, saw = replace(flags, **{names[char]: on}), True
            elif char == "-" and on:
                on = saw = False
            elif char in ":)" and (on or saw):
                if char == ":":
                    self._groups.append(_Group(None, self._flags, [], []))
                self._flags = flags
                return rest[at:]
            else:
                break
        raise RegexpError("invalid or unsupported Perl syntax", rest[:at])

    def _close(self, rest: str) -> str:
        if len(self._groups) == 1:
            raise RegexpError("unexpected )", self._source)
        group = self._groups.pop()
        self._flags = group.outside
        node = _closed(group)
        return self._push(node if group.number is None else Capture(node, group.number), rest[1:])

    def _repeat(self, before: str, after: str, low: int, high: int | None, last: str) -> str:
        lazy = self._flags.lazy
        if after.startswith("?"):
            after, lazy = after[1:], not lazy
        if last:
            raise RegexpError("invalid nested repetition operator", up_to(last, after))
        parts = self._groups[-1].parts
        if not parts:
            raise RegexpError("missing argument to repetition operator", up_to(before, after))
        node = Repeat(parts[-1], low, high, not lazy)
        if (low > 1 or (high or 0) > 1) and _times(node) > REPEAT_MAX:
            raise RegexpError("invalid repeat count", up_to(before, after))
        parts[-1] = node
        return after

    # -- classes and escapes

    def _backslash(self, rest: str) -> str:
        match rest[1:2]:
            case "A":
                return self._push(Anchor("begin_text"), rest[2:])
            case "z":
                return self._push(Anchor("end_text"), rest[2:])
            case "b":
                return self._push(Anchor("word"), rest[2:])
            case "B":
                return self._push(Anchor("not_word"), rest[2:])
            case "C":
                raise RegexpError("invalid escape sequence", rest[:2])
            case "Q":
                quoted, _, after = rest[2:].partition("\\E")
                for char in quoted:
                    self._push(self._literal(char), "")
                return after
            case _:
                pass
        if (found := escaped_class(rest)) is not None:
            matcher, rest = found
            return self._push(Char(self._folded(matcher)), rest)
        code, rest = escape(rest)
        return self._push(self._literal(chr(code)), rest)

    def _folded(self, matcher: Matcher) -> Matcher:
        return (lambda c: any(map(matcher, cases(c)))) if self._flags.fold else matcher

    def _class(self, whole: str) -> str:
        rest = whole[1:]
        negated = rest.startswith("^")
        if negated:
            rest = rest[1:]
        ranges: list[tuple[int, int]] = []
        matchers: list[Matcher] = []
        first = True
        while not rest or rest[0] != "]" or first:
            first = False
            if rest.startswith("[:") and (end := rest.find(":]", 2)) >= 0:
                matchers.append(posix(rest[: end + 2]))
                rest = rest[end + 2 :]
            elif (found := escaped_class(rest)) is not None:
                matcher, rest = found
                matchers.append(matcher)
            else:
                start = rest
                low, rest = class_char(rest, whole)
                high = low
                if len(rest) > 1 and rest[0] == "-" and rest[1] != "]":
                    high, rest = class_char(rest[1:], whole)
                    if high < low:
                        raise RegexpError("invalid character class range", up_to(start, rest))
                ranges.append((low, high))
        matchers.append(in_ranges(tuple(ranges)))
        inside = self._folded(lambda c: any(m(c) for m in matchers))
        return self._push(Char((lambda c: not inside(c)) if negated else inside), rest[1:])


def _concat(parts: list[Node]) -> Node:
    return parts[0] if len(parts) == 1 else Concat(parts)


def _closed(group: _Group) -> Node:
    last = _concat(group.parts)
    return Alternate([*group.choices, last]) if group.choices else last


def _times(node: Node) -> int:
    """How often the innermost part is repeated when written out."""
    match node:
        case Repeat(of, low, high, _):
            return max(low, high or 0, 1) * _times(of)
        case Capture(of, _):
            return _times(of)
        case Concat(parts) | Alternate(parts):
            return max(map(_times, parts), default=1)
        case Char() | Anchor():
            return 1


def _counts(rest: str) -> tuple[int, int | None, str] | None:
    """`{2}`, `{2,}` or `{2,5}` and what follows; None if the brace is only a brace."""
    inside, closed, after = rest[1:].partition("}")
    low, comma, high = inside.partition(",")
    if not closed or not _is_count(low) or (high and not _is_count(high)):
        return None
    if not comma:
        return _count(low), _count(low), after
    return _count(low), _count(high) if high else None, after


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and (text == "0" or text[0] != "0")


def _count(text: str) -> int:
    """Large ones are all the same: too large."""
    return int(text) if len(text) < 8 else REPEAT_MAX + 1
