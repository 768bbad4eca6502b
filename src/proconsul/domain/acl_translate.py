"""Rules of before Consul 1.4 in today's syntax (`TranslateLegacyRules` in acl/policy.go).

There, `key "a"` meant what `key_prefix "a"` means today. The result is laid out as Consul's printer
does it; comments, which the parser passes over, are lost.
"""

from __future__ import annotations

from itertools import groupby

from proconsul.domain.acl_rules import RulesError
from proconsul.wire.hcl import HclError, Item, Items, Literal, Node, Token, Values, parse

_RENAMED = {
    name: f"{name}_prefix"
    for name in ("agent", "key", "node", "query", "service", "session", "event")
}
_INDENT = "  "


def translate_legacy_rules(text: str) -> str:
    """Raises `RulesError`."""
    try:
        root = parse(text)
    except HclError as error:
        raise RulesError(f"Failed to parse rules: {error}") from None
    return "\n\n".join(_item(item, "") for item in root.items)


def _item(item: Item, indent: str, width: int = 0) -> str:
    keys = " ".join((_first(item.keys[0]), *(key.text for key in item.keys[1:])))
    assigned = "" if isinstance(item.value, Items) else "= "
    return f"{indent}{keys.ljust(width)} {assigned}{_value(item.value, indent)}"


def _first(key: Token) -> str:
    name = key.value
    return _RENAMED.get(name, "policy" if name == "policy" else key.text)


def _value(node: Node, indent: str) -> str:
    if isinstance(node, Literal):
        return node.token.text
    if isinstance(node, Values):
        return "[" + ", ".join(_value(value, indent) for value in node.values) + "]"
    return _object(node, indent)


def _object(node: Items, indent: str) -> str:
    """Assignments that follow each other have their `=` in one column."""
    if not node.items:
        return "{}"
    inner = indent + _INDENT
    parts = []
    for is_block, group in groupby(node.items, lambda item: isinstance(item.value, Items)):
        items = list(group)
        if is_block:
            parts += [_item(item, inner) for item in items]
            continue
        width = max(len(_first(item.keys[0])) for item in items)
        parts.append("\n".join(_item(item, inner, width) for item in items))
    return "{\n" + "\n\n".join(parts) + f"\n{indent}}}"
