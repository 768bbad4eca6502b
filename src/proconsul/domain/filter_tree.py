"""What an expression of `?filter=` says, as a tree (go-bexpr 0.1.2, `ast.go`)."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple, TypeAlias


class Operator(Enum):
    """How a value is compared; the values are the names in errors."""

    EQUAL = "Equal"
    NOT_EQUAL = "Not Equal"
    IN = "In"
    NOT_IN = "Not In"
    IS_EMPTY = "Is Empty"
    IS_NOT_EMPTY = "Is Not Empty"
    MATCHES = "Matches"
    NOT_MATCHES = "Not Matches"


class Match(NamedTuple):
    """One comparison; `value` is None for emptiness."""

    selector: tuple[str, ...]
    operator: Operator
    value: str | None


class Not(NamedTuple):
    of: Expression


class Both(NamedTuple):
    """All of them hold."""

    parts: tuple[Expression, ...]


class Either(NamedTuple):
    """One of them holds."""

    parts: tuple[Expression, ...]


Expression: TypeAlias = "Match | Not | Both | Either"
