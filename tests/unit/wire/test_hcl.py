"""HCL of version 1 as its own parser reads it: values, positions, and what it lets pass."""

from __future__ import annotations

from typing import Any

import pytest

from proconsul.wire.hcl import DEPTH_MAX, TEXT_CHARS_MAX, HclError, Items, Literal, Node, parse


def _plain(node: Node) -> Any:
    if isinstance(node, Literal):
        return node.token.value
    if isinstance(node, Items):
        return [
            ("/".join(key.value for key in item.keys), _plain(item.value)) for item in node.items
        ]
    return [_plain(one) for one in node.values]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'a = "x\n\"\\\t"', 'x\n"\\\t'),
        (r'a = "\u00e4\x41\101\U0001F600"', "äAA😀"),
        ('a = "${x {"y"}} $z"', '${x {"y"}} $z'),
        ("a = <<E\none\n  two\nE\n", "one\n  two\n"),
        ("a = <<-E\n  one\n    two\n  E\n", "one\n  two\n"),
        ("a = <<-E\n one\ntwo\n  E\n", " one\ntwo\n"),
        ("a = 0x1F", "0x1F"),
        ("a = -1.5e3", "-1.5e3"),
        ("a = true", "true"),
        ('a = [1, "b", [true], {c = 2},]', ["1", "b", ["true"], [("c", "2")]]),
        ("a {}", []),
    ],
)
def test_values(text: str, value: Any) -> None:
    assert _plain(parse(text)) == [("a", value)]


def test_comments_commas_and_carriage_returns_are_passed_over() -> None:
    text = '# one\r\na = 1, // two\r\nb "c" d { /* three\n */ e = 2 }\n"f" = 3 #'
    assert _plain(parse(text)) == [("a", "1"), ("b/c/d", [("e", "2")]), ("f", "3")]


def test_objects_of_objects_in_json_are_items_with_more_keys() -> None:
    text = '{"a": {"b": {"c": {"d": 1}}}, "e": [{"f": {}}, {"g": "h"}], "e": null}'
    assert _plain(parse(text)) == [
        ("a/b/c", [("d", "1")]), ("e/f", []), ("e", [("g", "h")]), ("e", ""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a = {\n b }", "At 2:4: key 'b' expected start of object ('{') or assignment ('=')"),
        ('a "b" = 1', "At 1:7: nested object expected: LBRACE got: ASSIGN"),
        ("= 1", "At 1:1: no object keys found!"),
        ("{", "Expecting property name"),
        ("a = [1 2]", "At 1:8: error parsing list, expected comma or list end, got: NUMBER"),
        ("a = b", "At 1:5: Unknown token: 1:5 IDENT b"),
        ('\n a = "b\n', "At 3:7: literal not terminated"),
        ("a = <<E\nb", "heredoc not terminated"),
        ("/* a", "comment not terminated"),
        ("a = \0", "At 1:5: unexpected null character (0x00)"),
        ("a = {b = 1", "At 1:13: object expected closing RBRACE got: EOF"),
        ("a {" * (DEPTH_MAX + 1), f"nested deeper than {DEPTH_MAX} levels"),
        ('{"a":' * (DEPTH_MAX + 1) + "1" + "}" * (DEPTH_MAX + 1), "nested deeper"),
        ("#" * (TEXT_CHARS_MAX + 1), "too many"),
    ],
)
def test_errors(text: str, error: str) -> None:
    with pytest.raises(HclError) as caught:
        parse(text)
    assert error in str(caught.value)


def test_a_value_that_is_missing_at_the_end_is_none_at_all() -> None:
    assert parse("a =").items == ()  # so it is in Go
