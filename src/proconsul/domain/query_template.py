"""Templates of prepared queries (`agent/consul/prepared_query/template.go`).

The texts of a template's service are filled in from the name that is asked for: `${name.full}`,
`${name.prefix}`, `${name.suffix}`, `${agent.segment}` and `${match(N)}`, the N-th group of the
template's regular expression. That is what of HashiCorp's interpolation language (HIL) is of use
here; its arithmetic, comparisons and conditions are refused as `UnsupportedTemplate`, which is kept
apart from `TemplateError`, since servers of Consul take them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from proconsul.domain.errors import DomainError
from proconsul.domain.prepared_query import NAME_PREFIX_MATCH, PreparedQuery, ServiceQuery
from proconsul.domain.regexps import RegexpError, compile_regexp

if TYPE_CHECKING:
    from proconsul.domain.regexp_engine import Regexp

NAME_CHARS_MAX = 1024
"""Anybody may ask for any name, and the expression looks at each of its characters."""
_VARIABLES = ("name.full", "name.prefix", "name.suffix", "agent.segment")
_INTERPOLATION = re.compile(
    r"""\$\{ \s* (?: (?P<variable>[A-Za-z_][\w.\-]*)
             | match \s* \( \s* (?: (?P<group>-?\d{1,9}) | "(?P<quoted>\d{1,9})" ) \s* \)
             | "(?P<literal>[^"\\$]*)"
             | (?P<number>\d{1,9}) ) \s* \}""",
    re.VERBOSE,
)
_NAME = re.compile(r"\$\{\s*([A-Za-z_][\w.\-]*)\s*(\()?")


class TemplateError(DomainError):
    """No template: Consul refuses it too."""


class UnsupportedTemplate(DomainError):
    """A template that Consul may take and we do not."""


class _Part(NamedTuple):
    """A piece of a text: literal, or the value of a variable, or a group of the expression."""

    literal: str = ""
    variable: str = ""
    group: int | None = None


class CompiledTemplate:
    """A template ready to be rendered. Raises `TemplateError`, `UnsupportedTemplate`."""

    def __init__(self, query: PreparedQuery) -> None:
        template = query.template
        if template.type != NAME_PREFIX_MATCH:
            raise TemplateError(f"Bad Template.Type '{template.type}'")
        self._query = query
        self._texts: dict[str, list[_Part]] = {}
        _rewritten(query.service, self._parse)
        self._regexp: Regexp | None = None
        if template.regexp:
            try:
                self._regexp = compile_regexp(template.regexp)
            except RegexpError as error:
                kind = UnsupportedTemplate if _is_ours(error) else TemplateError
                raise kind(f"Bad Regexp: {error}") from error

    def _parse(self, path: str, text: str) -> str:
        if text not in self._texts:
            self._texts[text] = _parts(path, text)
        return text

    def render(self, name: str, segment: str = "") -> PreparedQuery:
        """The query that answers `name`. Raises `TemplateError` for one beyond `NAME_CHARS_MAX`."""
        query = self._query
        if len(name) > NAME_CHARS_MAX:
            raise TemplateError(
                f"Name of {len(name)} characters: templates are for {NAME_CHARS_MAX} at most"
            )
        groups = self._regexp.groups(name) if self._regexp is not None else None
        values = {
            "name.full": name,
            "name.prefix": query.name,
            "name.suffix": name.removeprefix(query.name),
            "agent.segment": segment,
        }

        def fill(_path: str, text: str) -> str:
            return "".join(_value(part, values, groups or []) for part in self._texts[text])

        service = _rewritten(query.service, fill)
        if query.template.remove_empty_tags:
            service = replace(service, tags=[tag for tag in service.tags or () if tag])
        return replace(query, service=service)


def _is_ours(error: RegexpError) -> bool:
    """Whether Go would take the expression: our limit on its size, and classes of scripts."""
    text = str(error)
    return "expression too large" in text or "`\\p{" in text or "`\\P{" in text


def _value(part: _Part, values: dict[str, str], groups: list[str]) -> str:
    if part.variable:
        return values[part.variable]
    if part.group is not None:
        return groups[part.group] if 0 <= part.group < len(groups) else ""
    return part.literal


def _parts(path: str, text: str) -> list[_Part]:
    parts, at = list[_Part](), 0
    while (dollar := text.find("$", at)) >= 0:
        parts.append(_Part(text[at:dollar]))
        if text.startswith("$${", dollar):
            parts.append(_Part("${"))
            at = dollar + 3
        elif text.startswith("${", dollar):
            found = _INTERPOLATION.match(text, dollar)
            if found is None:
                raise _refused(path, text, dollar)
            parts.append(_part(path, text, found))
            at = found.end()
        else:
            parts.append(_Part("$"))
            at = dollar + 1
    return [*parts, _Part(text[at:])]


def _part(path: str, text: str, found: re.Match[str]) -> _Part:
    if (variable := found["variable"]) is not None:
        if variable in _VARIABLES:
            return _Part(variable=variable)
        if variable in {"true", "false"}:
            return _Part("1" if variable == "true" else "0")
        raise TemplateError(
            f"Bad evaluation for '{text}' in Service{path}: unknown variable accessed: {variable}"
            f" in:\n\n{text}"
        )
    if (group := found["group"] or found["quoted"]) is not None:
        return _Part(group=int(group))
    return _Part(found["literal"] if found["literal"] is not None else str(int(found["number"])))


def _refused(path: str, text: str, at: int) -> DomainError:
    name = _NAME.match(text, at)
    if "}" not in text[at:]:
        return TemplateError(f"Bad format '{text}' in Service{path}: expected \"}}\" but found end")
    if name is not None and name[2] and name[1] != "match":
        return TemplateError(
            f"Bad evaluation for '{text}' in Service{path}: unknown function called: {name[1]}"
            f" in:\n\n{text}"
        )
    return UnsupportedTemplate(
        f"'{text}' in Service{path} has more than a variable or match(N) between braces, which is"
        " not supported here: let Template.Regexp take the name apart"
    )


def _rewritten(service: ServiceQuery, change: Callable[[str, str], str]) -> ServiceQuery:
    """The service with every text of it put through `change(path, text)`."""

    def items(path: str, texts: list[str] | None) -> list[str] | None:
        return texts and [change(f"{path}[{n}]", text) for n, text in enumerate(texts)]

    def pairs(path: str, texts: dict[str, str] | None) -> dict[str, str] | None:
        return texts and {key: change(f"{path}[{key}]", text) for key, text in texts.items()}

    failover = service.failover
    datacenters = items(".Failover.Datacenters", failover.datacenters)
    return replace(
        service,
        service=change(".Service", service.service),
        failover=replace(failover, datacenters=datacenters),
        ignore_check_ids=items(".IgnoreCheckIDs", service.ignore_check_ids),
        near=change(".Near", service.near),
        tags=items(".Tags", service.tags),
        node_meta=pairs(".NodeMeta", service.node_meta),
        service_meta=pairs(".ServiceMeta", service.service_meta),
    )
