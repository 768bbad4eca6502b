"""Filters: what they choose, and what the reference says of those that are none.

`tests/interop/test_filters.py` compares many more with a real agent.
"""

from __future__ import annotations

import pytest

from proconsul.domain import catalog as c
from proconsul.domain import filter as filter_module
from proconsul.domain.filter import FilterError, create_filter

ROWS = [
    c.CheckServiceNode(
        c.Node(node="n1", meta={"rack": "7"}),
        c.NodeService(service="web", port=80, tags=["a"], weights=c.Weights(1, 1)),
        [c.HealthCheck(status="passing"), c.HealthCheck(status="warning")],
    ),
    c.CheckServiceNode(c.Node(node="n2"), c.NodeService(service="web", port=81)),
]


@pytest.mark.parametrize(
    ("expression", "chosen"),
    [
        ("", [0, 1]),
        ("Node.Node == n1", [0]),
        ("Node.Meta.rack == 7", [0]),
        ("Node.Meta.rack != 7", [1]),
        ("Node.Meta is empty", [1]),
        ("Service.Tags contains a or Service.Port == 81", [0, 1]),
        ("a not in Service.Tags", [1]),
        ("Checks.Status != passing", [0]),
        ("not Checks.Status == passing", [1]),
        ("Service.Weights.Passing == 1", [0]),
        ("Service.Weights.Passing != 1", [1]),
        ('Service.Port == "0x50" and Node.Node matches `^n`', [0]),
    ],
)
def test_chosen_rows(expression: str, chosen: list[int]) -> None:
    wanted = create_filter(expression, c.CheckServiceNode)
    assert wanted.rows(ROWS) == [ROWS[i] for i in chosen]
    assert wanted.values(dict(enumerate(ROWS))) == {i: ROWS[i] for i in chosen}


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("Node", '1:5 (4): no match found, expected: "!=", ".", "==", "[", [ \\t\\r\\n] or [a-zA-Z0-9_]'),
        ("(Node == a", '1:11 (10): rule "grouping": Unmatched parentheses'),
        ("Nod == a", 'Selector "Nod" is not valid'),
        ("CreateIndex == 1", 'Selector "CreateIndex" is not valid'),
        ("Meta == a", 'Invalid match operator "Equal" for selector "Meta"'),
        (
            "Node matches `(`",
            'Failed to compile regular expression "(": error parsing regexp: missing closing ): `(`',
        ),
        ("(" * 100 + "Node == a" + ")" * 100, "parentheses are nested more than 32 deep"),
        ("a" * 20_000, "expression of 20000 characters is too long"),
        (" or ".join(["Node == a"] * 300), "Number of match expressions (300) exceeds the limit (256)"),
    ],
)  # fmt: skip
def test_errors(expression: str, problem: str) -> None:
    with pytest.raises(FilterError) as caught:
        create_filter(expression, c.Node)
    assert str(caught.value) == f"Failed to create boolean expression evaluator: {problem}"


def test_selectors_may_be_judged_once_there_are_rows() -> None:
    wanted = create_filter("Nope == 1", c.HealthCheck, judged_by_rows=True)
    assert wanted.rows([]) == []
    with pytest.raises(FilterError, match=r'^Selector "Nope" is not valid$'):
        wanted.rows([c.HealthCheck()])


def test_expensive_expressions_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filter_module, "REGEXP_WORK_MAX", 50_000)
    wanted = create_filter("Node matches `(a|b)*a[ab]{400}c`", c.Node)
    rows = [c.Node(node=f"{n:b}".replace("0", "a").replace("1", "b") * 40) for n in range(9999)]
    with pytest.raises(FilterError, match="take too long"):
        wanted.rows(rows)
