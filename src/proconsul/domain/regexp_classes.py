"""Classes and escapes within Go's regular expressions (`regexp/syntax` with the Perl flags).

Unicode classes are those of the general categories (`\\pL`, `\\p{Nd}`, `\\p{Any}`); Go's classes of
scripts are refused.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import TypeAlias

from proconsul.domain.regexps import RegexpError

Matcher: TypeAlias = Callable[[str], bool]
"""Whether one character belongs to a class."""

RUNE_MAX = 0x10FFFF
_PERL = {
    "d": ((48, 57),),
    "s": ((9, 10), (12, 13), (32, 32)),
    "w": ((48, 57), (65, 90), (95, 95), (97, 122)),
}
_POSIX = {
    "alnum": ((48, 57), (65, 90), (97, 122)),
    "alpha": ((65, 90), (97, 122)),
    "ascii": ((0, 127),),
    "blank": ((9, 9), (32, 32)),
    "cntrl": ((0, 31), (127, 127)),
    "digit": ((48, 57),),
    "graph": ((33, 126),),
    "lower": ((97, 122),),
    "print": ((32, 126),),
    "punct": ((33, 47), (58, 64), (91, 96), (123, 126)),
    "space": ((9, 13), (32, 32)),
    "upper": ((65, 90),),
    "word": _PERL["w"],
    "xdigit": ((48, 57), (65, 70), (97, 102)),
}
_SIMPLE_ESCAPES = {"a": 7, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}
_CATEGORY_KINDS = {
    "C": "cfos",
    "L": "lmotu",
    "M": "cen",
    "N": "dlo",
    "P": "cdefios",
    "S": "ckmo",
    "Z": "lps",
}
_CATEGORIES = frozenset(
    major + minor for major, minors in _CATEGORY_KINDS.items() for minor in ("", *minors)
)


def up_to(text: str, rest: str) -> str:
    """The start of `text` that was read when `rest` is left."""
    return text[: len(text) - len(rest)]


def cases(char: str) -> tuple[str, ...]:
    """The character in its cases that are single characters."""
    return (char, *(c for c in (char.lower(), char.upper(), char.casefold()) if len(c) == 1))


def in_ranges(ranges: tuple[tuple[int, int], ...]) -> Matcher:
    """Whether a character's code lies in one of them, ends included."""
    return lambda c: any(low <= ord(c) <= high for low, high in ranges)


def _not(matcher: Matcher) -> Matcher:
    return lambda c: not matcher(c)


def posix(name: str) -> Matcher:
    """`[:alpha:]` or `[:^alpha:]`."""
    bare = name[2:-2]
    ranges = _POSIX.get(bare.removeprefix("^"))
    if ranges is None:
        raise RegexpError("invalid character class range", name)
    matcher = in_ranges(ranges)
    return _not(matcher) if bare.startswith("^") else matcher


def escaped_class(rest: str) -> tuple[Matcher, str] | None:
    """`\\d` and its like, `\\pL`, `\\p{Lu}`; None if it is none of them."""
    kind = rest[1:2] if rest.startswith("\\") else ""
    if kind and kind in "dswDSW":
        matcher = in_ranges(_PERL[kind.lower()])
        return (_not(matcher) if kind.isupper() else matcher), rest[2:]
    if not kind or kind not in "pP":
        return None
    if len(rest) < 3:
        return None
    if rest[2] == "{":
        end = rest.find("}")
        if end < 0:
            raise RegexpError("invalid character class range", rest)
        name, after = rest[3:end], rest[end + 1 :]
    else:
        name, after = rest[2], rest[3:]
    negated = (kind == "P") != name.startswith("^")
    name = name.removeprefix("^")
    if name == "Any":
        matcher = in_ranges(((0, RUNE_MAX),))
    elif name in _CATEGORIES:
        matcher = lambda c: unicodedata.category(c).startswith(name)  # noqa: E731
    else:
        raise RegexpError("invalid character class range", up_to(rest, after))
    return (_not(matcher) if negated else matcher), after


def class_char(rest: str, whole: str) -> tuple[int, str]:
    """The next character of the class `whole`, and what follows it."""
    if not rest:
        raise RegexpError("missing closing ]", whole)
    return escape(rest) if rest[0] == "\\" else (ord(rest[0]), rest[1:])


def escape(source: str) -> tuple[int, str]:
    """The character of an escape and what follows it."""
    rest = source[1:]
    if not rest:
        raise RegexpError("trailing backslash at end of expression", "")
    char, rest = rest[0], rest[1:]
    if char in _SIMPLE_ESCAPES:
        return _SIMPLE_ESCAPES[char], rest
    if char == "0" or ("1" <= char <= "7" and "0" <= rest[:1] <= "7"):
        digits = char
        while len(digits) < 3 and rest and rest[0] in "01234567":
            digits, rest = digits + rest[0], rest[1:]
        return int(digits, 8), rest
    if char == "x":
        return _hex(source, rest)
    if char.isascii() and not char.isalnum():
        return ord(char), rest
    raise RegexpError("invalid escape sequence", up_to(source, rest))


def _hex(source: str, rest: str) -> tuple[int, str]:
    """`\\x7f` or `\\x{1F600}`."""
    if rest.startswith("{"):
        code, digits, rest = 0, 0, rest[1:]
        while rest:
            char, rest = rest[0], rest[1:]
            if char == "}" and digits:
                return code, rest
            value = _nibble(char)
            if value is None or (code := code * 16 + value) > RUNE_MAX:
                break
            digits += 1
    elif rest:
        first, rest = _nibble(rest[0]), rest[1:]
        if rest:
            second, rest = _nibble(rest[0]), rest[1:]
            if first is not None and second is not None:
                return first * 16 + second, rest
    raise RegexpError("invalid escape sequence", up_to(source, rest))


def _nibble(char: str) -> int | None:
    return int(char, 16) if char in "0123456789abcdefABCDEF" else None
