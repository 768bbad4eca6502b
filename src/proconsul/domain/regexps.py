"""Go's regular expressions in linear time: for filter expressions and prepared queries' templates.

They come from whoever may ask, and Python's engine backtracks: a hostile one would hold up the loop.
Syntax and errors: `regexp_syntax`. It and the engine (`regexp_engine`) are loaded with the first use.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from proconsul.domain.errors import DomainError

if TYPE_CHECKING:
    from proconsul.domain.regexp_engine import Regexp

EXPRESSION_CHARS_MAX = 4096
PROGRAM_MAX = 2_000
"""Instructions; repetitions are written out."""


class RegexpError(DomainError):
    """The expression is none; the text is that of Go's `regexp.Compile`."""

    def __init__(self, problem: str, where: str) -> None:
        super().__init__(f"error parsing regexp: {problem}: `{where}`")


@lru_cache(maxsize=256)
def compile_regexp(source: str) -> Regexp:
    """Go's `regexp.Compile`. Raises `RegexpError` with its text, or for what is too large."""
    if len(source) > EXPRESSION_CHARS_MAX:
        raise RegexpError("expression too large", source[:64])
    from proconsul.domain.regexp_engine import Regexp

    return Regexp(source)
