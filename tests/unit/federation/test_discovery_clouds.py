"""Clouds' providers: libcloud's real drivers against stand-ins of the clouds' HTTP APIs."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest
from cloud_standin import Answer, Api, Query, as_json, discover
from federation_support import run

from proconsul.federation.discovery import Discover, DiscoveryError, DiscoveryResolver
from proconsul.federation.discovery.cloud import CLOUD_PROVIDERS
from proconsul.federation.discovery.cloud.aws import aws

# -- EC2 -----------------------------------------------------------------------------------------

_SPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"


def ec2_page(instances: list[tuple[str, str, list[str]]], following: str = "") -> str:
    items = "".join(
        f"<item><instanceId>i-{i}</instanceId><privateIpAddress>{private}</privateIpAddress>"
        + (f"<ipAddress>{public}</ipAddress>" if public else "")
        + "<networkInterfaceSet><item><ipv6AddressesSet>"
        + "".join(f"<item><ipv6Address>{a}</ipv6Address></item>" for a in v6)
        + "</ipv6AddressesSet></item></networkInterfaceSet></item>"
        for i, (private, public, v6) in enumerate(instances)
    )
    return (
        f'<?xml version="1.0"?><DescribeInstancesResponse xmlns="{_SPACE}"><reservationSet><item>'
        f"<reservationId>r-1</reservationId><instancesSet>{items}</instancesSet></item>"
        f"</reservationSet>{f'<nextToken>{following}</nextToken>' if following else ''}"
        "</DescribeInstancesResponse>"
    )


def ec2(_path: str, query: Query, _body: Any) -> Answer:
    if query.get("NextToken") == ["page2"]:
        return 200, "text/xml", ec2_page([("10.0.0.3", "", [])])
    first = [
        ("10.0.0.1", "198.51.100.1", ["2001:db8::1"]),
        ("10.0.0.2", "", ["2001:db8::2", "2001:db8::3"]),
    ]
    return 200, "text/xml", ec2_page(first, "page2")


_AWS = "provider=aws region=eu-west-1 tag_key=role tag_value=gw access_key_id=AKIAEXAMPLE " + (
    'secret_access_key="s3cr3t=" '
)


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("", ["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
        ("addr_type=private_v4", ["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
        ("addr_type=public_v4", ["198.51.100.1"]),
        ("addr_type=public_v6", ["2001:db8::1", "2001:db8::2", "2001:db8::3"]),
    ],
)
def test_ec2_instances_of_all_pages(kind: str, found: list[str]) -> None:
    api = Api(ec2)
    with api.serving() as url:
        assert discover(f"{_AWS} endpoint={url} {kind}") == found
    assert len(api.requests) == 2
    _, query = api.requests[0]
    assert query["Action"] == ["DescribeInstances"]
    assert query["Filter.1.Name"] == ["tag:role"]
    assert query["Filter.1.Value.1"] == ["gw"]
    assert query["Filter.2.Value.1"] == ["running"]
    assert "AKIAEXAMPLE" in api.headers[0]["authorization"]
    assert "s3cr3t" not in str(api.headers)


def test_ec2_addresses_as_primary_gateways() -> None:
    async def main() -> None:
        resolver = DiscoveryResolver(Discover([aws(url)]))
        assert await resolver.gateway_addresses([_AWS]) == [
            ("10.0.0.1", 8443),
            ("10.0.0.2", 8443),
            ("10.0.0.3", 8443),
        ]

    with Api(ec2).serving() as url:
        run(main)


def test_ec2_keys_and_region_of_the_instances_role(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(path: str, query: Query, body: Any) -> Answer:
        if path == "/latest/api/token":
            return 200, "text/plain", "metatoken"
        if path == "/latest/dynamic/instance-identity/document":
            return as_json({"region": "eu-west-1"})
        if path == "/latest/meta-data/iam/security-credentials/":
            return 200, "text/plain", "role"
        if path.startswith("/latest/meta-data"):
            keys = {"AccessKeyId": "ASIAROLE", "SecretAccessKey": "x", "Token": "session"}
            return as_json(keys)
        return ec2(path, query, body)

    api = Api(answer)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    with api.serving() as url:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)
        assert len(discover(f"provider=aws tag_key=a tag_value=b endpoint={url}")) == 3
    assert "ASIAROLE" in api.headers[-1]["authorization"]
    assert api.headers[-1]["x-amz-security-token"] == "session"


def test_ec2_errors_show_no_secret() -> None:
    def answer(_path: str, _query: Query, _body: Any) -> Answer:
        text = (
            "<Response><Errors><Error><Code>UnauthorizedOperation</Code>"
            "<Message>AKIAEXAMPLE with s3cr3t= may not</Message></Error></Errors></Response>"
        )
        return 403, "text/xml", text

    with Api(answer).serving() as url, pytest.raises(DiscoveryError) as caught:
        discover(f"{_AWS} endpoint={url}")
    text = str(caught.value)
    assert text.startswith("discover-aws: ")
    assert "UnauthorizedOperation" in text or "<hidden>" in text
    assert "s3cr3t" not in text
    assert "AKIAEXAMPLE" not in text


def test_ec2_that_nobody_answers_for() -> None:
    with Api(ec2).serving() as url:
        pass
    with pytest.raises(DiscoveryError, match="discover-aws: "):
        discover(f"{_AWS} endpoint={url}")
    with pytest.raises(DiscoveryError, match="not an http"):
        discover(f"{_AWS} endpoint=ftp://x")


# -- DigitalOcean --------------------------------------------------------------------------------


def droplet(number: int, region: str, tags: list[str]) -> dict[str, Any]:
    return {
        "id": number,
        "region": {"slug": region, "name": region.upper()},
        "tags": tags,
        "networks": {
            "v4": [
                {"type": "public", "ip_address": f"198.51.100.{number}"},
                {"type": "private", "ip_address": f"10.0.0.{number}"},
            ]
        },
    }


def droplets(_path: str, query: Query, _body: Any) -> Answer:
    page = int(query.get("page", ["1"])[0])
    rows = {
        1: [droplet(1, "fra1", ["gw"]), droplet(2, "nyc1", ["gw"])],
        2: [droplet(3, "fra1", ["gw", "x"]), droplet(4, "fra1", [])],
    }[page]
    last = "http://api.example/v2/droplets?page=2&per_page=200"
    links = {"pages": {"next": last, "last": last}} if page == 1 else {"pages": {}}
    return as_json({"droplets": rows, "links": links, "meta": {"total": 4}})


def test_droplets_of_all_pages() -> None:
    api = Api(droplets)
    with api.serving() as url:
        entry = f"provider=digitalocean tag_name=gw api_token=dop_v1_x endpoint={url}"
        assert discover(entry) == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
        assert discover(entry + " region=fra1") == ["10.0.0.1", "10.0.0.3"]
    assert api.headers[0]["authorization"] == "Bearer dop_v1_x"
    assert [q["page"] for _, q in api.requests[:2] if "page" in q] != []


def test_droplets_refused() -> None:
    def answer(_path: str, _query: Query, _body: Any) -> Answer:
        return as_json({"id": "unauthorized", "message": "bad dop_v1_secret"}, 401)

    with Api(answer).serving() as url, pytest.raises(DiscoveryError) as caught:
        discover(f"provider=digitalocean tag_name=gw api_token=dop_v1_secret endpoint={url}")
    assert str(caught.value).startswith("discover-digitalocean: ")
    assert "dop_v1_secret" not in str(caught.value)


# -- others --------------------------------------------------------------------------------------


def test_linodes_of_all_pages() -> None:
    def node(number: int, region: str, tags: list[str]) -> dict[str, Any]:
        names = ["hypervisor", "specs", "alerts", "backups", "watchdog_enabled"]
        return {
            **dict.fromkeys(names),
            "id": number, "label": f"l{number}", "status": "running", "tags": tags,
            "region": region, "type": "g6", "image": "x", "created": "2024-01-01T00:00:00",
            "ipv4": [f"198.51.100.{number}", f"192.168.1.{number}"],
            "ipv6": f"2001:db8::{number}/128",
        }  # fmt: skip

    def answer(_path: str, query: Query, _body: Any) -> Answer:
        page = int(query.get("page", ["1"])[0])
        rows = {1: [node(1, "eu", ["gw"])], 2: [node(2, "us", ["gw"]), node(3, "eu", [])]}[page]
        return as_json({"data": rows, "page": page, "pages": 2})

    with Api(answer).serving() as url:
        entry = f"provider=linode tag_name=gw api_token=t0k3n endpoint={url}"
        assert discover(entry) == ["192.168.1.1", "192.168.1.2"]
        assert discover(entry + " region=us address_type=public_v4") == ["198.51.100.2"]
        assert discover(entry + " region=us address_type=public_v6") == ["2001:db8::2"]


def test_openstack_servers_of_all_pages() -> None:
    def server(number: int, role: str) -> dict[str, Any]:
        addresses = [
            {"OS-EXT-IPS:type": "fixed", "addr": f"10.0.0.{number}", "version": 4},
            {"OS-EXT-IPS:type": "floating", "addr": f"198.51.100.{number}", "version": 4},
        ]
        return {"id": str(number), "metadata": {"role": role}, "addresses": {"net": addresses}}

    def answer(path: str, query: Query, body: Any) -> Answer:
        if path.endswith("/auth/tokens"):
            assert json.loads(body)["auth"]["identity"]["password"]["user"]["name"] == "me"
            endpoints = [{"region": "RegionOne", "interface": "public", "url": api.url + "/nova"}]
            for endpoint in endpoints:
                endpoint["region_id"] = "RegionOne"
            token = {
                "expires_at": "2099-01-01T00:00:00.000000Z",
                "issued_at": "2024-01-01T00:00:00.000000Z",
                "user": {"id": "u", "name": "me", "domain": {"id": "d"}},
                "roles": [],
                "catalog": [{"type": "compute", "name": "nova", "endpoints": endpoints}],
            }
            return as_json({"token": token}, 201)
        if query.get("marker") == ["2"]:
            return as_json({"servers": [server(3, "gw")]})
        if query.get("marker"):
            return as_json({"servers": []})
        following = [{"rel": "next", "href": f"{api.url}/nova/servers/detail?marker=2"}]
        return as_json({"servers": [server(1, "gw"), server(2, "db")], "servers_links": following})

    api = Api(answer)
    with api.serving() as url:
        entry = (
            f"provider=os auth_url={url} user_name=me password=s3cr3t project_name=p "
            "tag_key=role tag_value=gw"
        )
        assert discover(entry) == ["10.0.0.1", "10.0.0.3"]


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ("provider=gce project_name=p", "discover-gce: tag_value or label_key must be provided"),
        ("provider=gce project_name=p label_key=a", "label_key and label_value must both be set"),
        ("provider=azure", "subscription_id not provided"),
        ("provider=azure subscription_id=s tag_name=a", "unclear configuration"),
        ("provider=os user_name=a", "Auth url must be provided"),
        ("provider=aws service=ecs region=eu-west-1", "service ecs is not supported"),
    ],
)
def test_arguments_that_do_not_do(entry: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ARM_SUBSCRIPTION_ID", "OS_AUTH_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(DiscoveryError, match=text):
        discover(entry)


def test_every_cloud_has_a_name_and_help() -> None:
    for make in CLOUD_PROVIDERS:
        assert f'"{make().name}"' in make().help()


def test_without_libcloud_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("libcloud"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(DiscoveryError, match=r"the extra `cloud`"):
        discover(_AWS)
