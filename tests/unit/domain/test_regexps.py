"""Go's regular expressions: what they match, their errors, and that they cannot run away."""

from __future__ import annotations

import random
import re
import warnings

import pytest

from proconsul.domain.regexp_engine import Regexp
from proconsul.domain.regexps import RegexpError, compile_regexp


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("(", "missing closing ): `(`"),
        (")", "unexpected ): `)`"),
        ("a**", "invalid nested repetition operator: `**`"),
        ("*", "missing argument to repetition operator: `*`"),
        ("a|*", "missing argument to repetition operator: `*`"),
        ("[a", "missing closing ]: `[a`"),
        ("[z-a]", "invalid character class range: `z-a`"),
        ("[[:foo:]]", "invalid character class range: `[:foo:]`"),
        ("a{1001}", "invalid repeat count: `{1001}`"),
        ("(a{100}){100}", "invalid repeat count: `{100}`"),
        ("\\", "trailing backslash at end of expression: ``"),
        ("\\8", "invalid escape sequence: `\\8`"),
        ("\\x{110000}", "invalid escape sequence: `\\x{110000`"),
        ("(?z)", "invalid or unsupported Perl syntax: `(?z`"),
        ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
        ("(?P<a-b>x)", "invalid named capture: `(?P<a-b>`"),
        ("(?P<n", "invalid named capture: `(?P<n`"),
    ],
)
def test_errors_are_gos(expression: str, problem: str) -> None:
    with pytest.raises(RegexpError) as caught:
        compile_regexp(expression)
    assert str(caught.value) == f"error parsing regexp: {problem}"


@pytest.mark.parametrize(
    ("expression", "text", "groups"),
    [
        ("^db-(.*?)-([^-]+?)$", "db-new-york-main", ["db-new-york-main", "new-york", "main"]),
        ("a{,2}", "a{,2}", ["a{,2}"]),
        ("(?i)FOO", "a foo", ["foo"]),
        ("(?s).", "\n", ["\n"]),
        ("(?m)^b$", "a\nb\nc", ["b"]),
        ("(?U)a+", "aaa", ["a"]),
        ("(?P<x>a)(?:b)(c)?", "ab", ["ab", "a", ""]),
        ("[[:^alpha:]]+", "ab12", ["12"]),
        ("\\pLu?", "1x", ["x"]),
        ("\\p{Lu}", "xY", ["Y"]),
        ("[^\\D]", "a7", ["7"]),
        ("\\x41\\x{42}\\103", "ABC", ["ABC"]),
        ("\\Qa.b\\E+", "a.bb", ["a.bb"]),
        ("(a|ab)(c|bcd)(d*)", "abcd", ["abcd", "a", "bcd", ""]),
        ("x", "y", None),
    ],
)  # fmt: skip
def test_groups_are_gos(expression: str, text: str, groups: list[str] | None) -> None:
    compiled = compile_regexp(expression)
    assert compiled.groups(text) == groups
    assert compiled.matches(text) is (groups is not None)


def test_agrees_with_an_engine_that_backtracks() -> None:
    rng = random.Random(7)
    compared = 0
    while compared < 600:
        expression = "".join(rng.choice("ab(|)*+?.^[]2\\bw") for _ in range(rng.randint(1, 7)))
        try:
            ours = Regexp(expression)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                theirs = re.compile(expression)
        except (RegexpError, re.error):
            continue
        compared += 1
        text = "".join(rng.choice("ab\n 2") for _ in range(rng.randint(0, 6)))
        found = theirs.search(text)
        wanted = [g or "" for g in (found.group(0), *found.groups())] if found else None
        assert ours.groups(text) == wanted, (expression, text)
        assert ours.matches(text) is (found is not None), (expression, text)


def test_what_makes_others_backtrack_is_linear_here() -> None:
    compiled = Regexp("^(a+)+$")
    assert not compiled.matches("a" * 2000 + "b")
    assert compiled.work < 20_000


def test_too_large_programs_are_refused() -> None:
    with pytest.raises(RegexpError, match="expression too large"):
        compile_regexp("(?:abcdefgh){1000}")
    with pytest.raises(RegexpError, match="expression too large"):
        compile_regexp("a" * 5000)
    with pytest.raises(RegexpError, match="nests too deeply"):
        compile_regexp("(" * 500)
