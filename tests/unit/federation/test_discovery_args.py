"""`provider=...` strings as go-discover reads and writes them (its own cases, and properties)."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proconsul.federation.discovery.args import ArgsError, describe, parse, render

SECRET = "fpOfcHQJAQBczjAxiVpeyLmX1M0M0KPBST+GU2GvEN4="


@pytest.mark.parametrize(
    ("text", "args"),
    [
        ("", {}),
        ("   ", {}),
        ("key=a", {"key": "a"}),
        ("key=a key2=b", {"key": "a", "key2": "b"}),
        ("key=a+b key2=c/d", {"key": "a+b", "key2": "c/d"}),
        (" key=a    key2=b ", {"key": "a", "key2": "b"}),
        (" key = a   key2 = b ", {"key": "a", "key2": "b"}),
        (r'  "k e \\\" y" = "a \" b" key2=c', {r"k e \" y": 'a " b', "key2": "c"}),
        (f'secret_access_key="{SECRET}"', {"secret_access_key": SECRET}),
        (
            'project_name=Test zone_pattern=us-(?west|east).+ tag_value="consul server" '
            "credentials_file=xxx",
            {
                "project_name": "Test",
                "zone_pattern": "us-(?west|east).+",
                "tag_value": "consul server",
                "credentials_file": "xxx",
            },
        ),
        (r'k="\x41\u00e9\U0001F600\101\n\t"', {"k": "Aé😀A\n\t"}),
        ('a="b"c=d', {"a": "b", "c": "d"}),
        ('a=""', {"a": ""}),
        ("key=\ta", {"key": "a"}),
    ],
)
def test_good(text: str, args: dict[str, str]) -> None:
    assert parse(text) == args


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("provider=aws foo", "foo: missing '='"),
        ("key", "key: missing '='"),
        ("key=", "key: missing value"),
        ('key="a', "key: unbalanced quotes"),
        ('key="\\', "key: unterminated escape sequence"),
        ("key=a key=b", "key: duplicate key"),
        ("key key2", "key: missing '='"),
        ('key="\\q"', "key: invalid syntax"),
        ('key="\\\'"', "key: invalid syntax"),
        ('key="\\x4"', "key: invalid syntax"),
        ('key="\\ud800"', "key: invalid syntax"),
        ('key="\\777"', "key: invalid syntax"),
        ('key="a\nb"', "key: invalid syntax"),
        ("key==a", "key: missing value"),
        ('a=b "c', "a: error with key=value pair unbalanced quotes"),
        (
            f"secret_access_key={SECRET}",
            "secret_access_key: - equals in key's value, enclosing double-quote needed "
            'secret_access_key="value-with-=-symbol"',
        ),
    ],
)
def test_bad(text: str, error: str) -> None:
    with pytest.raises(ArgsError) as caught:
        parse(text)
    assert str(caught.value) == error


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("", ""),
        ('b=c "a a"="b b"', '"a a"="b b" b=c'),
        ("a=b provider=foo x=y", "provider=foo a=b x=y"),
        (
            'provider=k8s namespace=vault label_selector="app/name=vault,component=server"',
            'provider=k8s label_selector="app/name=vault,component=server" namespace=vault',
        ),
        (r'"k e \\\" y"="a \" b" key2=c', r'"k e \\\" y"="a \" b" key2=c'),
    ],
)
def test_rendering(text: str, rendered: str) -> None:
    assert render(parse(text)) == rendered


def test_secrets_are_not_described() -> None:
    text = describe(f'provider=aws access_key_id=AKIA secret_access_key="{SECRET}" tag_key=a')
    assert text == "provider=aws access_key_id=<hidden> secret_access_key=<hidden> tag_key=a"
    assert SECRET not in describe(f"provider=aws secret_access_key={SECRET} x")


_TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Z")) | st.sampled_from(' "\\='),
    min_size=1,
    max_size=12,
).filter(lambda text: text == text.strip())


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.dictionaries(_TEXT, _TEXT, max_size=5))
def test_what_is_rendered_reads_back(args: dict[str, str]) -> None:
    assert parse(render(args)) == args


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.text(st.sampled_from('ab ="\\xu0\n\t'), max_size=24))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ArgsError):
        parse(text)
