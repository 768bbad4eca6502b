"""What a filter expression means for one type of row: functions of a row (go-bexpr, `evaluate.go`)."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping as MappingOf
from typing import TYPE_CHECKING, Any

import msgspec

from proconsul.domain.filter import MATCHES_MAX, Filter, FilterError, Test
from proconsul.domain.filter_fields import Fields, Mapping, Record, Scalar, Sequence, fields_of
from proconsul.domain.filter_grammar import parse
from proconsul.domain.filter_tree import Both, Either, Expression, Match, Not, Operator
from proconsul.domain.regexps import RegexpError, compile_regexp
from proconsul.util.goquote import go_quote

if TYPE_CHECKING:
    from proconsul.domain.regexp_engine import Regexp

_NEGATED = {
    Operator.NOT_EQUAL: Operator.EQUAL,
    Operator.NOT_IN: Operator.IN,
    Operator.IS_NOT_EMPTY: Operator.IS_EMPTY,
    Operator.NOT_MATCHES: Operator.MATCHES,
}
_FALSE_WHERE_MISSING = frozenset({Operator.EQUAL, Operator.IS_NOT_EMPTY, Operator.IN})
_INT_BITS = 63


def compiled(expression: str, row: type[msgspec.Struct], judged_by_rows: bool) -> Filter:
    """Raises `FilterError`."""
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

    def compile(self, tree: Expression) -> Test:
        """A function of one row. Raises `FilterError`."""
        test = self._test(tree)
        if self._matches > MATCHES_MAX:
            raise FilterError(
                f"Number of match expressions ({self._matches}) exceeds the limit ({MATCHES_MAX})"
            )
        return test

    def _test(self, tree: Expression) -> Test:
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

    def _leaf(self, match: Match) -> Test:
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

    def _comparison(self, operator: Operator, at: Fields, value: Any) -> Test:
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
        self, at: Fields, selector: tuple[str, ...], operator: Operator, leaf: Test
    ) -> Test:
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
