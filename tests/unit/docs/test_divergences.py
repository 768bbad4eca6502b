"""docs/divergence.md stays true: every entry names, in divergences.toml, the tests that hold it.

An entry is a list item; its key is the beginning of its text. The tests named must exist; they fail when the
divergence is no more, or is another one.
"""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
TABLE = Path(__file__).parent / "divergences.toml"


def entries() -> list[str]:
    """The list items of the page, unwrapped and without markup."""
    items: list[str] = []
    for line in (ROOT / "docs/divergence.md").read_text().splitlines():
        if line.startswith("- "):
            items.append(line[2:])
        elif line.startswith("  ") and items:
            items[-1] += " " + line.strip()
    return [re.sub(r"[*`]", "", item) for item in items]


def table() -> dict[str, list[str]]:
    """Beginning of an entry -> tests, as pytest names them."""
    found: dict[str, list[str]] = tomllib.loads(TABLE.read_text())["entries"]
    return found


@cache
def names_in(path: str) -> frozenset[str]:
    """The names of the test functions in a file."""
    tree = ast.parse((ROOT / path).read_text())
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    )


def test_every_divergence_is_held_by_a_test() -> None:
    known = table()
    unheld = [e[:80] for e in entries() if sum(e.startswith(key) for key in known) != 1]
    stale = [key for key in known if not any(e.startswith(key) for e in entries())]
    assert not unheld, "entries of docs/divergence.md without tests in divergences.toml"
    assert not stale, "entries that docs/divergence.md does not have any more"


def test_the_tests_exist() -> None:
    missing = [
        name
        for tests in table().values()
        for name in tests or ["(an entry without a test)"]
        if "::" not in name
        or name.split("::")[1].partition("[")[0] not in names_in(name.split("::")[0])
    ]
    assert not missing
