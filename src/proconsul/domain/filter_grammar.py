"""The language of `?filter=` (go-bexpr 0.1.2, `grammar.peg`), read into a tree.

The reference's parser is generated from a PEG: what it says of a faulty expression names the rules
and tokens that it tried last, in the order of its alternatives. So each rule here is tried as there,
and remembers how far it came; rules are remembered per place, since the reference's need time that
grows with the power of the nesting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from proconsul.domain.filter import FilterError
from proconsul.domain.filter_tree import Both, Either, Expression, Match, Not, Operator
from proconsul.util.goquote import go_unquote

EXPRESSION_CHARS_MAX = 16 << 10
DEPTH_MAX = 32
"""Of parentheses. The reference needs four times as long per level: nobody has expressions of 20."""


_Found: TypeAlias = tuple[Any, int] | None
"""What a rule gave and where it ended; None if it does not apply."""
_Rule: TypeAlias = Callable[["_Parser", int], _Found]

_WORDS = {
    Operator.IS_EMPTY: ("is", "empty"),
    Operator.IS_NOT_EMPTY: ("is", "not", "empty"),
}
_BETWEEN: tuple[tuple[Operator, tuple[str, ...]], ...] = (
    (Operator.EQUAL, ("==",)),
    (Operator.NOT_EQUAL, ("!=",)),
    (Operator.IN, ("contains",)),
    (Operator.NOT_IN, ("not", "contains")),
    (Operator.MATCHES, ("matches",)),
    (Operator.NOT_MATCHES, ("not", "matches")),
)
_SPACE = " \t\r\n"
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_DIGITS = frozenset("0123456789")
_IDENTIFIER = _LETTERS | _DIGITS | {"_"}


def parse(expression: str) -> Expression:
    """The tree of an expression. Raises `FilterError`."""
    if len(expression) > EXPRESSION_CHARS_MAX:
        raise FilterError(f"expression of {len(expression)} characters is too long")
    return _Parser(expression).parse()


class _Parser:
    """Methods named for the grammar's rules take a place and give `_Found`."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._memo: dict[tuple[str, int, bool], _Found] = {}
        self._errors: dict[str, None] = {}
        self._negated = False
        self._wanted_at, self._wanted = 0, set[str]()
        self._depth = 0

    def parse(self) -> Expression:
        found = self._input()
        if found is None and not self._errors:
            wanted = self._wanted - {"!."}
            names = sorted(wanted, key=str.encode) + (["EOF"] if "!." in self._wanted else [])
            listed = (
                ", ".join(names[:-1]) + " or " + names[-1] if len(names) > 1 else "".join(names)
            )
            self._problem(self._wanted_at, "", f"no match found, expected: {listed}")
        if found is None or self._errors:
            raise FilterError("\n".join(self._errors))
        tree: Expression = found
        return tree

    def _input(self) -> Any:
        at = self._space_maybe(0)
        if (inside := self._token("(", at)) is not None:
            found = self._either(self._space_maybe(inside))
            if found is not None:
                end = self._token(")", self._space_maybe(found[1]))
                if end is not None and self._end(self._space_maybe(end)):
                    return found[0]
        found = self._either(self._space_maybe(0))
        if found is not None and self._end(self._space_maybe(found[1])):
            return found[0]
        return None

    # -- what the generated parser keeps

    def _once(self, name: str, at: int, rule: Callable[[int], _Found]) -> _Found:
        key = (name, at, self._negated)
        if key not in self._memo:
            self._memo[key] = rule(at)
        return self._memo[key]

    def _note(self, ok: bool, at: int, want: str) -> None:
        """A token was tried: of those tried furthest, the failed ones are what was expected."""
        if ok != self._negated or at < self._wanted_at:
            return
        if at > self._wanted_at:
            self._wanted_at = at
            self._wanted.clear()
        self._wanted.add(f"!{want}" if self._negated else want)

    @contextmanager
    def _inverted(self) -> Iterator[None]:
        self._negated = not self._negated
        try:
            yield
        finally:
            self._negated = not self._negated

    def _problem(self, at: int, rule: str, text: str) -> None:
        """Line and column are those of the character at the place, the offset counts bytes."""
        before = self._text[: at + 1]
        line = before.count("\n") + 1
        column = at + 1 if line == 1 else at - before.rfind("\n")
        offset = len(self._text[:at].encode("utf-8", "surrogateescape"))
        where = f"{line}:{column} ({offset})" + (f': rule "{rule}"' if rule else "")
        self._errors[f"{where}: {text}"] = None

    def _token(self, token: str, at: int) -> int | None:
        ok = self._text.startswith(token, at)
        self._note(ok, at, '"' + token.replace('"', '\\"') + '"')
        return at + len(token) if ok else None

    def _char(self, chars: frozenset[str] | str, name: str, at: int) -> bool:
        ok = at < len(self._text) and self._text[at] in chars
        self._note(ok, at, name)
        return ok

    def _many(self, chars: frozenset[str] | str, name: str, at: int) -> int:
        while self._char(chars, name, at):
            at += 1
        return at

    def _end(self, at: int) -> bool:
        with self._inverted():
            more = at < len(self._text)
            self._note(more, at, ".")
        return not more

    def _space(self, at: int) -> int | None:
        end = self._many(_SPACE, "[ \\t\\r\\n]", at)
        return end if end > at else None

    def _space_maybe(self, at: int) -> int:
        return self._many(_SPACE, "[ \\t\\r\\n]", at)

    def _phrase(self, words: tuple[str, ...], at: int, *, tail: bool) -> int | None:
        """Words with space before each, and after the last if `tail`."""
        place: int | None = at
        for word in words:
            if place is None or (place := self._space(place)) is None:
                return None
            place = self._token(word, place)
        return self._space(place) if tail and place is not None else place

    # -- expressions

    def _either(self, at: int) -> _Found:
        return self._once("or", at, lambda at: self._chain("or", Either, self._both, at))

    def _both(self, at: int) -> _Found:
        return self._once("and", at, lambda at: self._chain("and", Both, self._not, at))

    def _chain(
        self, word: str, join: type[Both | Either], rule: Callable[[int], _Found], at: int
    ) -> _Found:
        found = rule(at)
        if found is None:
            return None
        parts, end = [found[0]], found[1]
        while (after := self._phrase((word,), end, tail=True)) is not None:
            found = rule(after)
            if found is None:
                break
            parts.append(found[0])
            end = found[1]
        return (parts[0] if len(parts) == 1 else join(tuple(parts))), end

    def _not(self, at: int) -> _Found:
        starts, place = [at], at
        while (word := self._token("not", place)) is not None and (
            after := self._space(word)
        ) is not None:
            place = after
            starts.append(place)
        found = self._once("grouping", starts.pop(), self._grouping)
        while starts:
            start = starts.pop()
            if found is None:
                # A name may begin with `not`, and be what it stands for after all.
                found = self._once("grouping", start, self._grouping)
            else:
                inner, end = found
                found = (inner.of if isinstance(inner, Not) else Not(inner)), end
        return found

    def _grouping(self, at: int) -> _Found:
        inside = self._token("(", at)
        found: _Found = None
        if inside is not None:
            self._depth += 1
            if self._depth > DEPTH_MAX:
                raise FilterError(f"parentheses are nested more than {DEPTH_MAX} deep")
            found = self._either(self._space_maybe(inside))
            self._depth -= 1
        if found is not None:
            place = self._space_maybe(found[1])
            if (end := self._token(")", place)) is not None:
                return found[0], end
        if (matched := self._match(at)) is not None:
            return matched
        if found is not None:
            place = self._space_maybe(found[1])
            with self._inverted():
                closed = self._token(")", place)
            if closed is None:
                self._problem(place, "grouping", "Unmatched parentheses")
        return None

    def _match(self, at: int) -> _Found:
        return self._selector_first(at) or self._value_first(at)

    def _selector_first(self, at: int) -> _Found:
        selector = self._selector(at)
        if selector is None:
            return None
        names, end = selector
        for operator, words in _BETWEEN:
            if operator in {Operator.EQUAL, Operator.NOT_EQUAL}:
                after = self._token(words[0], self._space_maybe(end))
                place = None if after is None else self._space_maybe(after)
            else:
                place = self._phrase(words, end, tail=True)
            if place is not None:
                value = self._value(place)
                if value is not None:
                    return Match(names, operator, value[0]), value[1]
                break
        self._selector(at)
        for operator, words in _WORDS.items():
            place = self._phrase(words, end, tail=False)
            if place is not None:
                return Match(names, operator, None), place
        return None

    def _value_first(self, at: int) -> _Found:
        value = self._value(at)
        if value is None:
            return None
        for operator, words in ((Operator.IN, ("in",)), (Operator.NOT_IN, ("not", "in"))):
            place = self._phrase(words, value[1], tail=True)
            if place is None:
                continue
            selector = self._selector(place)
            if selector is not None:
                return Match(selector[0], operator, value[0]), selector[1]
            with self._inverted():
                missing = self._selector(place) is None
            if missing:
                self._problem(place, "match", "Invalid selector")
            return None
        return None

    # -- selectors and values

    def _selector(self, at: int) -> _Found:
        return self._once("selector", at, self._read_selector)

    def _read_selector(self, at: int) -> _Found:
        found = self._identifier(at)
        if found is None:
            return None
        names, end = [found[0]], found[1]
        while True:
            dot = self._token(".", end)
            part = self._identifier(dot) if dot is not None else None
            part = part or self._index(end)
            if part is None:
                return tuple(names), end
            names.append(part[0])
            end = part[1]

    def _identifier(self, at: int) -> _Found:
        if not self._char(_LETTERS, "[a-zA-Z]", at):
            return None
        end = self._many(_IDENTIFIER, "[a-zA-Z0-9_]", at + 1)
        return self._text[at:end], end

    def _index(self, at: int) -> _Found:
        inside = self._token("[", at)
        if inside is None:
            return None
        place = self._space_maybe(inside)
        found = self._string(place)
        if found is not None:
            end = self._token("]", self._space_maybe(found[1]))
            if end is not None:
                return found[0], end
        with self._inverted():
            missing = self._string(place) is None
        if missing:
            self._problem(place, "index", "Invalid index")
            return None
        if found is not None:
            place = self._space_maybe(found[1])
            with self._inverted():
                self._token("]", place)
            self._problem(place, "index", "Unclosed index expression")
        return None

    def _value(self, at: int) -> _Found:
        return self._once("value", at, self._read_value)

    def _read_value(self, at: int) -> _Found:
        selector = self._selector(at)
        if selector is not None:
            return ".".join(selector[0]), selector[1]
        return self._number(at) or self._string(at)

    def _number(self, at: int) -> _Found:
        sign = self._token("-", at)
        end = self._digits(at if sign is None else sign)
        if end is None:
            return None
        if self._after_number(end):
            return self._text[at:end], end
        with self._inverted():
            self._after_number(end)
        self._problem(end, "number", "Invalid number literal")
        return None

    def _digits(self, at: int) -> int | None:
        end = self._token("0", at)
        if end is None:
            if not self._char(_DIGITS - {"0"}, "[1-9]", at):
                return None
            end = self._many(_DIGITS, "[0-9]", at + 1)
        dot = self._token(".", end)
        if dot is not None and (fraction := self._many(_DIGITS, "[0-9]", dot)) > dot:
            return fraction
        return end

    def _after_number(self, at: int) -> bool:
        return self._space(at) is not None or self._end(at) or self._token(")", at) is not None

    def _string(self, at: int) -> _Found:
        return self._once("string", at, self._read_string)

    def _read_string(self, at: int) -> _Found:
        for quote in '`"':
            inside = self._token(quote, at)
            if inside is None:
                continue
            close = self._text.find(quote, inside)
            end = close if close >= 0 else len(self._text)
            with self._inverted():
                if close >= 0:
                    self._note(True, close, '"' + quote.replace('"', '\\"') + '"')
            if close < 0:
                self._note(False, end, ".")
                self._note(False, end, '"' + quote.replace('"', '\\"') + '"')
                self._end(end)
                self._problem(end, "string", "Unterminated string literal")
                return None
            value = go_unquote(self._text[inside:close], quote)
            if value is None:
                self._problem(at, "string", "invalid syntax")
            return value or "", close + 1
        return None
