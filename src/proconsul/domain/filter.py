"""Filter expressions over rows: what `?filter=` means (go-bexpr 0.1.2, `validate.go`, `evaluate.go`).

An expression is parsed (`filter_grammar`), checked against what may be selected of a row
(`filter_fields`), and compiled to functions once per expression and type of row.

    create_filter('Service.Tags contains "v1"', CheckServiceNode).rows(found)

Where a selector leads through a pointer that is nil, the reference's server panics: here it is as if
a map had no such key. A filter that costs too much ends with an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Mapping as MappingOf
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

import msgspec

from proconsul.domain.filter_fields import Fields, Mapping, Record, Scalar, Sequence, fields_of
from proconsul.domain.filter_grammar import (
    Both,
    Either,
    Expression,
    FilterError,
    Match,
    Not,
    Operator,
    parse,
)
from proconsul.domain.regexps import Regexp, RegexpError, compile_regexp
from proconsul.util.goquote import go_quote

__all__ = ["Filter", "FilterError", "create_filter"]

MATCHES_MAX = 256
"""Comparisons in one expression."""
REGEXP_WORK_MAX = 1_000_000
"""Of all regular expressions of a filter, for one use of it: about a second."""

T = TypeVar("T")
K = TypeVar("K")
_Test: TypeAlias = Callable[[Any], bool]

_PREFIX = "Failed to create boolean expression evaluator: "
_NEGATED = {
    Operator.NOT_EQUAL: Operator.EQUAL,
    Operator.NOT_IN: Operator.IN,
    Operator.IS_NOT_EMPTY: Operator.IS_EMPTY,
    Operator.NOT_MATCHES: Operator.MATCHES,
}
_FALSE_WHERE_MISSING = frozenset({Operator.EQUAL, Operator.IS_NOT_EMPTY, Operator.IN})
_INT_BITS = 63


class Filter:
    """Chooses among rows. Without an expression it takes them all."""

    def __init__(self, test: _Test | None, regexps: list[Regexp], problem: str = "") -> None:
        self._test, self._regexps, self._problem = test, regexps, problem

    def rows(self, rows: list[T]) -> list[T]:
        """Those that match. Raises `FilterError` if it takes too long."""
        if self._test is None and not self._problem:
            return rows
        return list(self._chosen(rows, lambda row: row))

    def values(self, rows: dict[K, T]) -> dict[K, T]:
        """The items whose values match."""
        if self._test is None and not self._problem:
            return rows
        return dict(self._chosen(rows.items(), lambda item: item[1]))

    def _chosen(self, items: Iterable[T], row_of: Callable[[T], Any]) -> Iterable[T]:
        test = self._test
        worked = sum(regexp.work for regexp in self._regexps)
        for item in items:
            if self._problem or test is None:
                raise FilterError(self._problem)
            if test(row_of(item)):
                yield item
            if self._regexps and sum(r.work for r in self._regexps) - worked > REGEXP_WORK_MAX:
                raise FilterError("the regular expressions of the filter take too long")


_EVERYTHING = Filter(None, [])


def create_filter(
    expression: str, row: type[msgspec.Struct], *, judged_by_rows: bool = False
) -> Filter:
    """A filter for rows of this type; `FilterError` with the reference's words if it is none.

    `judged_by_rows`: whether selectors exist is known only once there is a row (`/v1/agent/checks`).
    """
    if not expression:
        return _EVERYTHING
    try:
        return _created(expression, row, judged_by_rows)
    except FilterError as error:
        raise FilterError(f"{_PREFIX}{error}") from None


@lru_cache(maxsize=128)
def _created(expression: str, row: type[msgspec.Struct], judged_by_rows: bool) -> Filter:
    tree = parse(expression)
    regexps: list[Regexp] = []
    try:
        test = _Compiler(fields_of(row), regexps).compile(tree)
    except FilterError as error:
        if judged_by_rows:
            return Filter(None, [], str(error))
        raise
    return Filter(test, regexps)


class _Compiler:
    def __init__(self, fields: Record, regexps: list[Regexp]) -> None:
        self._fields, self._regexps = fields, regexps
        self._matches = 0

    def compile(self, tree: Expression) -> _Test:
        """A function of one row. Raises `FilterError`."""
        test = self._test(tree)
        if self._matches > MATCHES_MAX:
            raise FilterError(
                f"Number of match expressions ({self._matches}) exceeds the limit ({MATCHES_MAX})"
            )
        return test

    def _test(self, tree: Expression) -> _Test:
        match tree:
            case Not(of):
                test = self._test(of)
                return lambda row: not test(row)
            case Both(parts):
                tests = [self._test(part) for part in parts]
                return lambda row: all(test(row) for test in tests)
            case Either(parts):
                tests = [self._test(part) for part in parts]
                return lambda row: any(test(row) for test in tests)
            case Match():
                self._matches += 1
                return self._select(self._fields, tree.selector, tree.operator, self._leaf(tree))

    def _leaf(self, match: Match) -> _Test:
        """The comparison at the end of a selector, with the checks that the reference makes."""
        at: Fields = self._fields
        for number, name in enumerate(match.selector, 1):
            below = _below(at, name)
            if below is None:
                selector = ".".join(match.selector[:number])
                raise FilterError(f"Selector {go_quote(selector)} is not valid")
            at = below
        selector = go_quote(".".join(match.selector))
        if match.operator not in at.operators:
            raise FilterError(
                f'Invalid match operator "{match.operator.value}" for selector {selector}'
            )
        value: Any = None
        if match.value is not None:
            try:
                value = _coerced(at, match.value)
            except ValueError as error:
                quoted = go_quote(match.value)
                raise FilterError(
                    f"Failed to coerce value {quoted} for selector {selector}: {error}"
                ) from None
        operator = _NEGATED.get(match.operator, match.operator)
        test = self._comparison(operator, at, value)
        return (lambda found: not test(found)) if operator is not match.operator else test

    def _comparison(self, operator: Operator, at: Fields, value: Any) -> _Test:
        if operator is Operator.EQUAL:
            return lambda found: bool(found == value)
        if operator is Operator.IS_EMPTY:
            return lambda found: not found
        if operator is Operator.IN:
            return lambda found: found is not None and value in found
        try:
            regexp = compile_regexp(value)
        except RegexpError as error:
            raise FilterError(
                f"Failed to compile regular expression {go_quote(value)}: {error}"
            ) from None
        self._regexps.append(regexp)
        return regexp.matches

    def _select(
        self, at: Fields, selector: tuple[str, ...], operator: Operator, leaf: _Test
    ) -> _Test:
        """`leaf` of what `selector` finds in a value."""
        if not selector:
            return leaf
        name, rest = selector[0], selector[1:]
        missing = operator not in _FALSE_WHERE_MISSING
        match at:
            case Sequence(of) if of is not None:
                inner = self._select(of, selector, operator, leaf)
                return lambda found: any(inner(item) for item in found or ())
            case Mapping(of) if of is not None:
                inner = self._select(of, rest, operator, leaf)
                return lambda found: inner(found[name]) if found and name in found else missing
            case Record(fields):
                attribute, below = fields[name]
                inner = self._select(below, rest, operator, leaf)
                if not isinstance(below, Record):
                    return lambda found: inner(getattr(found, attribute))
                return lambda found: (
                    missing if (value := getattr(found, attribute)) is None else inner(value)
                )
            case _:
                raise AssertionError(at)  # `_leaf` has followed the selector before


def _below(at: Fields, name: str) -> Fields | None:
    match at:
        case Record(fields):
            found = fields.get(name)
            return found[1] if found else None
        case Mapping(of):
            return of
        case Sequence(Record() as record):
            return _below(record, name)
        case Sequence() | Scalar():
            return None


def _coerced(at: Fields, text: str) -> Any:
    """The value of an expression in the type of what it is compared with. Raises `ValueError`."""
    kind = at.type if isinstance(at, Scalar) else str
    if isinstance(at, Sequence) and isinstance(at.of, Scalar):
        kind = at.of.type
    return _COERCIONS[kind](text)


def _int(text: str) -> int:
    """Go's `strconv.ParseInt` with base 0: signs, prefixes, a leading 0 for octal, underscores."""
    digits = text[1:] if text[:1] in {"+", "-"} else text
    if len(digits) > 1 and digits[0] == "0" and digits[1] in "01234567_":
        digits = "0o" + digits[1:]
    try:
        if not digits.isascii() or not digits[:1].isdigit():
            raise ValueError
        number = int(digits, 0)
    except ValueError:
        raise ValueError(f"strconv.ParseInt: parsing {go_quote(text)}: invalid syntax") from None
    if text.startswith("-"):
        number = -number
    if not -(1 << _INT_BITS) <= number < 1 << _INT_BITS:
        raise ValueError(f"strconv.ParseInt: parsing {go_quote(text)}: value out of range")
    return number


def _bool(text: str) -> bool:
    if text in {"1", "t", "T", "TRUE", "true", "True"}:
        return True
    if text in {"0", "f", "F", "FALSE", "false", "False"}:
        return False
    raise ValueError(f"strconv.ParseBool: parsing {go_quote(text)}: invalid syntax")


def _float(text: str) -> float:
    try:
        if text != text.strip():
            raise ValueError
        return float(text)
    except ValueError:
        raise ValueError(f"strconv.ParseFloat: parsing {go_quote(text)}: invalid syntax") from None


_COERCIONS: MappingOf[type, Callable[[str], Any]] = {
    str: str,
    int: _int,
    bool: _bool,
    float: _float,
}
