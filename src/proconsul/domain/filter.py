"""Filter expressions over rows: what `?filter=` means (go-bexpr 0.1.2, `validate.go`, `evaluate.go`).

An expression is parsed (`filter_grammar`), checked against what may be selected of a row
(`filter_fields`), and compiled to functions once per expression and type of row (`filter_compiler`).
All that is loaded with the first expression.

    create_filter('Service.Tags contains "v1"', CheckServiceNode).rows(found)

Where a selector leads through a pointer that is nil, the reference's server panics: here it is as if
a map had no such key. A filter that costs too much ends with an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import msgspec

from proconsul.domain.errors import DomainError

if TYPE_CHECKING:
    from proconsul.domain.regexp_engine import Regexp

MATCHES_MAX = 256
"""Comparisons in one expression."""
REGEXP_WORK_MAX = 1_000_000
"""Of all regular expressions of a filter, for one use of it: about a second."""

T = TypeVar("T")
K = TypeVar("K")
Test: TypeAlias = Callable[[Any], bool]

_PREFIX = "Failed to create boolean expression evaluator: "


class FilterError(DomainError):
    """Not a filter for these rows; the text is the reference's."""


class Filter:
    """Chooses among rows. Without an expression it takes them all."""

    def __init__(self, test: Test | None, regexps: list[Regexp], problem: str = "") -> None:
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
    from proconsul.domain.filter_compiler import compiled

    return compiled(expression, row, judged_by_rows)
