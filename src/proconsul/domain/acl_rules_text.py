"""The text of ACL policies, read as Consul's `hcl.Decode` fills its structs: for `acl_rules`."""

from __future__ import annotations

from proconsul.domain.acl_rules import PolicyRules, Resource, Rule, Rules, RulesError, Syntax
from proconsul.wire.hcl import HclError, Item, Items, Kind, Literal, Node, Values, parse


def read_rules(text: str, syntax: Syntax) -> PolicyRules:
    """Rules as written, not checked. Raises `RulesError`."""
    try:
        return _decoded(parse(text), syntax)
    except HclError as error:
        raise RulesError(f"Failed to parse ACL rules: {error}") from None


def _decoded(root: Items, syntax: Syntax) -> PolicyRules:
    exact: Rules = {}
    prefix: Rules = {}
    acl = ""
    if syntax is Syntax.CURRENT:
        _text(root, "id", "root.id")
        nested, values = _matching(root, "revision")
        if nested or values:
            first = nested[0].value if nested else values[0]
            at = first.token.at if isinstance(first, Literal) else first.at
            raise HclError(f"At {at}: root.revision: unknown kind to decode into: uint64")
        acl = _text(root, "acl", "root.acl")
    for resource in Resource:
        named = _rules(root, resource.key, resource)
        if syntax is Syntax.LEGACY:
            exact[resource], prefix[resource] = (), named
        else:
            exact[resource] = named
            prefix[resource] = _rules(root, f"{resource.key}_prefix", resource)
    keyring = _text(root, "keyring", "root.keyring")
    operator = _text(root, "operator", "root.operator")
    return PolicyRules(acl, keyring, operator, exact, prefix)


def _matching(items: Items, name: str) -> tuple[list[Item], list[Node]]:
    """What a field gets: (items with further keys, values)."""
    nested, values = list[Item](), list[Node]()
    for item in items.items:
        key = item.keys[0].value if item.keys else ""
        if key == name or (len(key) == len(name) and key.casefold() == name.casefold()):
            if len(item.keys) > 1:
                nested.append(Item(item.keys[1:], item.value))
            else:
                values.append(item.value)
    return nested, values


_GO_NODES = {Literal: "LiteralType", Items: "ObjectList", Values: "ListType"}


def _text(items: Items, name: str, path: str) -> str:
    """A field of text; the last assignment counts."""
    nested, values = _matching(items, name)
    if nested:
        at = nested[0].keys[0].at
        raise HclError(f"At {at}: {path}: unknown type for string *ast.ObjectList")
    text = ""
    for value in values:
        if not isinstance(value, Literal) or value.token.kind in {Kind.BOOL, Kind.FLOAT}:
            at = value.token.at if isinstance(value, Literal) else value.at
            type_ = _GO_NODES[type(value)]
            raise HclError(f"At {at}: {path}: unknown type for string *ast.{type_}")
        text = value.token.value
    return text


def _rules(root: Items, key: str, resource: Resource) -> tuple[Rule, ...]:
    path = f"root.{key}"
    nested, values = _matching(root, key)
    rules = [_rule(item, f"{path}[{at}]", resource) for at, item in enumerate(nested)]
    for value in values:
        if isinstance(value, Literal):
            raise HclError(f"At {value.token.at}: unknown slice type: *ast.LiteralType")
        if isinstance(value, Values):
            _refuse_list(value, path, resource)
            continue
        rules += [_rule(item, f"{path}[{at}]", resource) for at, item in enumerate(value.items)]
    return tuple(rules)


def _refuse_list(value: Values, path: str, resource: Resource) -> None:
    """Elements have no name, by which a rule must be known."""
    for number, one in enumerate(value.values):
        where = f"{path}[{number}]"
        if isinstance(one, Items):
            name_field = resource.value[2]
            raise HclError(f"At {one.at}: {where}: {name_field} asked for 'key', impossible")
        at = one.token.at if isinstance(one, Literal) else one.at
        type_ = _GO_NODES[type(one)]
        raise HclError(f"At {at}: {where}: not an object type for struct (*ast.{type_})")


def _rule(item: Item, path: str, resource: Resource) -> Rule:
    value = item.value
    if len(item.keys) == 2:
        body = Items((Item(item.keys[1:], value),), "-")
    elif isinstance(value, Literal):
        body = Items((item,), "-")
    elif isinstance(value, Values):
        raise HclError(f"At {value.at}: {path}: not an object type for struct (*ast.ListType)")
    else:
        body = value
    policy = _text(body, "policy", f"{path}.Policy")
    intentions = ""
    if resource is Resource.SERVICE:
        intentions = _text(body, "intentions", f"{path}.Intentions")
    return Rule(item.keys[0].value, policy, intentions)
