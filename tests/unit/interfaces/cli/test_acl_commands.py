"""What the `acl` commands make of rows and flags."""

from __future__ import annotations

from typing import Any

import pytest

from proconsul.interfaces.cli import acl_support as s
from proconsul.interfaces.cli.command import CommandError


class Rows:
    """A client with two rows."""

    def get(self, _path: str) -> list[dict[str, str]]:
        return [{"ID": "aab", "Name": "x"}, {"ID": "aac", "Name": "y"}]


def test_rows_by_the_beginning_of_their_ids() -> None:
    client: Any = Rows()
    assert s.role_id(client, "aac") == "aac"
    assert s.role_id(client, "z" * 36) == "z" * 36
    assert s.policy_id(client, "global-management") == s.POLICY_MANAGEMENT_ID
    assert s.id_by_name(client, "/", "y", "role") == "aac"
    for part, text in (
        ("aa", "Partial role ID is not unique"),
        ("b", "No such role ID with prefix"),
    ):
        with pytest.raises(CommandError, match=text):
            s.role_id(client, part)


def test_identities_of_flags() -> None:
    parsed: Any = {"service-identity": ["web", "db:dc1,dc2"], "node-identity": ["n:dc1"]}
    assert s.service_identities(parsed) == [
        {"ServiceName": "web"}, {"ServiceName": "db", "Datacenters": ["dc1", "dc2"]},
    ]  # fmt: skip
    assert s.node_identities(parsed) == [{"NodeName": "n", "Datacenter": "dc1"}]
    for flags in ({"service-identity": ["a:b:c"]}, {"node-identity": ["a"]}):
        with pytest.raises(CommandError, match="Malformed"):
            (s.service_identities if "service-identity" in flags else s.node_identities)(flags)  # type: ignore[arg-type]


def test_merging_keeps_what_is_there() -> None:
    assert s.merged_links([{"ID": "1", "Name": "a"}], [{"Name": "a"}, {"ID": "2"}]) == [
        {"ID": "1", "Name": "a"}, {"ID": "2"},
    ]  # fmt: skip
    web = {"ServiceName": "web"}
    assert s.merged_services([web], [web | {"Datacenters": ["x"]}]) == [
        web | {"Datacenters": ["x"]}
    ]
    node = {"NodeName": "n", "Datacenter": "a"}
    assert s.merged_nodes([node], [node, node | {"Datacenter": "b"}])[1]["Datacenter"] == "b"


def test_times_as_go_prints_them() -> None:
    for text, shown in (
        ("2026-11-23T02:42:56.158566921Z", "2026-11-23 02:42:56.158566921 +0000 UTC"),
        ("2026-11-23T02:42:56Z", "2026-11-23 02:42:56 +0000 UTC"),
        ("2026-11-23T02:42:56.50+02:00", "2026-11-23 02:42:56.5 +0200 +0200"),
    ):
        assert s.go_time(text) == shown


def test_json_as_go_indents_it() -> None:
    assert s.as_json({"a": "<&>é", "b": []}) == (
        '{\n    "a": "\\u003c\\u0026\\u003eé",\n    "b": []\n}'
    )
    assert s.in_order({"b": 1, "a": 2}, ("a", "b", "c", "d!")) == {"a": 2, "b": 1, "d": None}
