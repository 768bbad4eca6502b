"""Templates of prepared queries: what is filled in, and who refuses what."""

from __future__ import annotations

import pytest

from proconsul.domain.prepared_query import (
    PreparedQuery,
    QueryDatacenterOptions,
    QueryTemplateOptions,
    ServiceQuery,
)
from proconsul.domain.query_template import CompiledTemplate, TemplateError, UnsupportedTemplate


def template(service: ServiceQuery, *, name: str = "geo-", **options: object) -> CompiledTemplate:
    settings = QueryTemplateOptions(**{"type": "name_prefix_match", **options})  # type: ignore[arg-type]
    return CompiledTemplate(PreparedQuery(name=name, template=settings, service=service))


def test_every_text_of_the_service_is_filled_in() -> None:
    compiled = template(
        ServiceQuery(
            service="${match(1)}",
            failover=QueryDatacenterOptions(2, ["${match(2)}", "dc2"]),
            ignore_check_ids=["${name.suffix}"],
            near="${ agent.segment }",
            tags=["${match(9)}", "a$b$${c}", "${name.full}/${name.prefix}", '${"x y"}${3}'],
            node_meta={"${k}": "${match(\"0\")}"},
            service_meta={"a": "${match(-1)}"},
        ),
        regexp="^geo-(.*?)-([^-]+)$",
    )  # fmt: skip
    service = compiled.render("geo-web-dc9", "seg").service
    assert service.service == "web"
    assert service.failover == QueryDatacenterOptions(2, ["dc9", "dc2"])
    assert service.ignore_check_ids == ["web-dc9"]
    assert service.near == "seg"
    assert service.tags == ["", "a$b${c}", "geo-web-dc9/geo-", "x y3"]
    assert service.node_meta == {"${k}": "geo-web-dc9"}
    assert service.service_meta == {"a": ""}
    assert compiled.render("geo-x").service.service == ""


def test_names_are_bounded() -> None:
    compiled = template(ServiceQuery(service="${match(1)}"), regexp="^(.*)$", name="")
    assert compiled.render("x" * 1024).service.service == "x" * 1024
    with pytest.raises(TemplateError, match="Name of 1025 characters"):
        compiled.render("x" * 1025)


def test_empty_tags_are_removed_if_wanted() -> None:
    service = ServiceQuery(service="x", tags=["${match(1)}", "a"])
    assert template(service, remove_empty_tags=True).render("geo-").service.tags == ["a"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("${name.nope}", "unknown variable accessed: name.nope"),
        ("${nope(1)}", "unknown function called: nope"),
        ("${name.full", "Bad format"),
    ],
)
def test_what_consul_refuses_too(text: str, problem: str) -> None:
    with pytest.raises(TemplateError, match=problem):
        template(ServiceQuery(service=text))


@pytest.mark.parametrize(
    "text", ["${1 + 2}", "${match(1 + 1)}", '${true ? "a" : "b"}', '${"${1}"}']
)
def test_what_only_consul_takes(text: str) -> None:
    with pytest.raises(UnsupportedTemplate, match="not supported"):
        template(ServiceQuery(service=text))


def test_expressions_and_types() -> None:
    with pytest.raises(TemplateError, match="Bad Regexp: error parsing regexp: missing closing"):
        template(ServiceQuery(), regexp="(")
    with pytest.raises(UnsupportedTemplate, match="Bad Regexp"):
        template(ServiceQuery(), regexp=r"\p{Greek}")
    with pytest.raises(TemplateError, match=r"Bad Template.Type 'other'"):
        template(ServiceQuery(), type="other")


def test_a_hostile_expression_takes_no_time() -> None:
    compiled = template(ServiceQuery(service="${match(1)}"), regexp="^geo-(a*)*(a*)*(a|aa)*$x")
    assert compiled.render("geo-" + "a" * 200 + "!").service.service == ""
