"""Identical reads are evaluated once per change, however many ask.

What was found stays true until the next commit, whatever that commit touches: so a crowd of blocking
queries that one write wakes costs one evaluation, and the objects of the answer are shared, by which
the layers above recognise that they have encoded it before.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cache
from typing import Any, TypeVar, cast

import msgspec

from proconsul.domain.acl import Authorizer
from proconsul.domain.options import QueryOptions
from proconsul.state.store import Store
from proconsul.state.watch import Answer

T = TypeVar("T")

ENTRIES_MAX = 512
"""Questions remembered between two commits."""
_WHO_AND_WHEN = frozenset({"token", "min_query_index", "max_query_time_ns"})


class SharedReads:
    """The evaluated reads of one server since the last commit."""

    def __init__(self) -> None:
        self._version = -1
        self._answers: dict[Hashable, Answer[Any]] = {}

    def __len__(self) -> int:
        return len(self._answers)

    def shared(
        self,
        store: Store,
        method: str,
        request: QueryOptions,
        authorizer: Authorizer,
        evaluate: Callable[[], Answer[T]],
    ) -> Answer[T]:
        """`evaluate()`, or what it gave for this method, request and authorizer before."""
        if self._version != store.version or len(self._answers) >= ENTRIES_MAX:
            self._version = store.version
            self._answers.clear()
        who = cast("Hashable", authorizer)  # by identity: what another one may read can differ
        key = (method, who, *(_hashable(getattr(request, f)) for f in _fields(type(request))))
        answer = self._answers.get(key)
        if answer is None:
            answer = self._answers[key] = evaluate()
        return answer


@cache
def _fields(request: type[QueryOptions]) -> tuple[str, ...]:
    """The fields that say what is asked, not by whom and until when."""
    return tuple(f.name for f in msgspec.structs.fields(request) if f.name not in _WHO_AND_WHEN)


def _hashable(value: Any) -> Hashable:
    if isinstance(value, dict):
        return tuple(sorted(value.items()))
    if isinstance(value, list):
        return tuple(value)
    return value  # type: ignore[no-any-return]
