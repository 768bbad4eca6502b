"""Clouds that are asked for an access token first, Google and Azure, and Scaleway, Alibaba and
Packet: libcloud's real connections, with real keys, against stand-ins of the APIs."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

import pytest
from cloud_standin import Answer, Api, Query, as_json, discover
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from proconsul.federation.discovery import DiscoveryError

TOKEN = "ya29.t0k3n/+x"
"""Characters that are encoded where a token is part of a URL."""


# -- Google ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def credentials(key: rsa.RSAPrivateKey, tmp_path: Path) -> Path:
    """A service account's key, as Google's console hands it out."""
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path = tmp_path / "account.json"
    path.write_text(
        json.dumps(
            {
                "type": "service_account",
                "project_id": "p",
                "private_key_id": "0123",
                "private_key": pem.decode(),
                "client_email": "consul@p.iam.gserviceaccount.com",
                "client_id": "1",
                "token_uri": "https://oauth2.googleapis.com/token",
            }
        )
    )
    return path


def instance(number: int, *tags: str, status: str = "RUNNING", **labels: str) -> dict[str, Any]:
    interfaces = [{"networkIP": f"10.0.0.{number}"}, {"networkIP": f"10.9.9.{number}"}]
    found: dict[str, Any] = {"kind": "compute#instance", "id": str(number), "status": status}
    found |= {"tags": {"items": list(tags)} if tags else {"fingerprint": "42WmSpB8rSM="}}
    return found | {"labels": labels, "networkInterfaces": interfaces}


GCE_PAGES = {
    None: {
        "kind": "compute#instanceAggregatedList",
        "items": {
            "zones/us-west1-a": {
                "instances": [
                    instance(1, "gw", env="prod"),
                    instance(2, "gw", status="TERMINATED"),
                    instance(3),
                ]
            },
            "zones/europe-west1-b": {
                "warning": {"code": "NO_RESULTS_ON_PAGE", "message": "There are no results"}
            },
        },
        "nextPageToken": "page2=",
    },
    "page2=": {
        "kind": "compute#instanceAggregatedList",
        "items": {
            "zones/us-east1-b": {"instances": [instance(4, "db"), instance(5, "db", "gw")]},
            "zones/us-west1-a": {"instances": [{**instance(6, "gw"), "networkInterfaces": []}]},
        },
    },
}


def google(key: rsa.RSAPrivateKey) -> Callable[[str, Query, bytes], Answer]:
    """Token endpoint and list of instances; whoever has no token gets Google's 401."""

    def answer(path: str, query: Query, body: bytes) -> Answer:
        if path == "/o/oauth2/token":
            form = parse_qs(body.decode())
            assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
            signed, _, signature = form["assertion"][0].rpartition(".")
            key.public_key().verify(
                base64.urlsafe_b64decode(signature),
                signed.encode(),
                padding.PKCS1v15(),
                hashes.SHA256(),
            )
            claims = json.loads(base64.urlsafe_b64decode(signed.split(".")[1]))
            assert claims["iss"] == "consul@p.iam.gserviceaccount.com"
            return as_json({"access_token": TOKEN, "token_type": "Bearer", "expires_in": 3599})
        assert path == "/compute/v1/projects/p/aggregated/instances"
        return as_json(GCE_PAGES[query.get("pageToken", [None])[0]])

    return answer


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ("tag_value=gw", ["10.0.0.5", "10.0.0.1"]),
        ("tag_value=gw zone_pattern=us-west1-.*", ["10.0.0.1"]),
        ("tag_value=gw zone_pattern=us-west1", []),
        ("label_key=env label_value=prod", ["10.0.0.1"]),
        ("tag_value=db label_key=env label_value=prod", []),
    ],
)
def test_google_instances_of_all_pages(
    filters: str, found: list[str], key: rsa.RSAPrivateKey, credentials: Path
) -> None:
    api = Api(google(key))
    with api.serving() as url:
        entry = f"provider=gce project_name=p credentials_file={credentials} endpoint={url}"
        assert discover(f"{entry} {filters}") == found
    assert [path for path, _ in api.requests].count("/o/oauth2/token") == 1
    assert [h["authorization"] for h in api.headers[1:]] == [f"Bearer {TOKEN}"] * 2


def test_google_by_the_machines_own_account(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(path: str, query: Query, _body: bytes) -> Answer:
        if path == "/computeMetadata/v1/project/project-id":
            return 200, "text/plain", "p"
        if path == "/computeMetadata/v1/instance/service-accounts/default/token":
            return as_json({"access_token": TOKEN, "expires_in": 3599, "token_type": "Bearer"})
        return as_json(GCE_PAGES[query.get("pageToken", [None])[0]])

    api = Api(answer)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    with api.serving() as url:
        monkeypatch.setenv("GCE_METADATA_HOST", url.removeprefix("http://"))
        assert len(discover(f"provider=gce tag_value=gw endpoint={url}")) == 2
    assert [h.get("metadata-flavor") for h in api.headers] == ["Google", "Google", None, None]
    assert api.headers[-1]["authorization"] == f"Bearer {TOKEN}"


def test_google_outside_of_google(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    with Api(lambda *_: as_json({})).serving() as url:
        pass
    monkeypatch.setenv("GCE_METADATA_HOST", url.removeprefix("http://"))
    with pytest.raises(DiscoveryError, match="set project_name and credentials_file"):
        discover("provider=gce tag_value=gw")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "cannot be read"),
        ("[1]", "is not the JSON key of a service account"),
        ('{"type": "authorized_user", "refresh_token": "x"}', "client_email and private_key"),
        ('{"client_email": "a", "private_key": "s3cr3t-key"}', "Unable to decode"),
    ],
)
def test_google_credentials_that_are_none(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    path.write_text(text)
    with pytest.raises(DiscoveryError, match=reason) as caught:
        discover(f"provider=gce project_name=p tag_value=gw credentials_file={path}")
    assert "s3cr3t" not in str(caught.value)


def test_google_says_why_not(key: rsa.RSAPrivateKey, credentials: Path) -> None:
    def answer(path: str, query: Query, body: bytes) -> Answer:
        if path == "/o/oauth2/token":
            return google(key)(path, query, body)
        text = f"Required 'compute.instances.list' permission for {TOKEN} {quote(TOKEN, safe='')}"
        error = {"code": 403, "message": text, "errors": [{"message": text, "reason": "forbidden"}]}
        return as_json({"error": error}, 403)

    with Api(answer).serving() as url, pytest.raises(DiscoveryError) as caught:
        discover(
            f"provider=gce project_name=p credentials_file={credentials} tag_value=gw "
            f"endpoint={url}"
        )
    text = str(caught.value)
    assert text.startswith("discover-gce: HTTP status 403 (Forbidden): ")
    assert "Required 'compute.instances.list' permission for <hidden> <hidden>" in text


def test_google_zones_that_are_no_pattern() -> None:
    with pytest.raises(DiscoveryError, match="zone_pattern is not a regular expression"):
        discover("provider=gce project_name=p tag_value=gw zone_pattern=us-(")


# -- Azure -----------------------------------------------------------------------------------------

_AZURE = "tenant_id=t client_id=c subscription_id=sub secret_access_key=fpOf+c/H4= "
AZURE = "provider=azure " + _AZURE.replace("fpOf+c/H4=", '"fpOf+c/H4="')


def interface(*addresses: str | None, **tags: str) -> dict[str, Any]:
    configurations = [
        {
            "name": "ipconfig",
            "properties": {
                "provisioningState": "Succeeded",
                "privateIPAllocationMethod": "Dynamic",
                **({"privateIPAddress": address} if address else {}),
            },
        }
        for address in addresses
    ]
    found: dict[str, Any] = {"name": "nic", "location": "westeurope"}
    return found | {"tags": tags} | {"properties": {"ipConfigurations": configurations}}


def azure(path: str, query: Query, body: bytes) -> Answer:
    if path == "/t/oauth2/token":
        form = parse_qs(body.decode())
        assert form["client_id"] == ["c"]
        assert form["client_secret"] == ["fpOf+c/H4="]
        assert form["grant_type"] == ["client_credentials"]
        return as_json({"token_type": "Bearer", "expires_on": "4102444800", "access_token": TOKEN})
    if query.get("$skiptoken") == ["a+b%/="]:
        return as_json({"value": [interface("10.0.0.4", "10.0.0.5", role="gw")]})
    following = quote("a+b%/=", safe="")
    first = [
        interface("10.0.0.1", role="gw"),
        interface("10.0.0.2", role="db"),
        {"name": "bare", "tags": None, "properties": None},
        interface(None, role="gw"),
    ]
    link = f"https://management.azure.com{path}?api-version=2023-09-01&$skiptoken={following}"
    return as_json({"value": first, "nextLink": link})


def test_azure_interfaces_with_a_tag() -> None:
    api = Api(azure)
    with api.serving() as url:
        found = discover(f"{AZURE} tag_name=role tag_value=gw endpoint={url}")
    assert found == ["10.0.0.1", "10.0.0.4", "10.0.0.5"]
    assert {path for path, _ in api.requests[1:]} == {
        "/subscriptions/sub/providers/Microsoft.Network/networkInterfaces"
    }
    assert [h["authorization"] for h in api.headers[1:]] == [f"Bearer {TOKEN}"] * 2
    assert all(query["api-version"] for _, query in api.requests[1:])


def test_azure_interfaces_of_a_scale_set() -> None:
    api = Api(azure)
    with api.serving() as url:
        found = discover(f"{AZURE} resource_group=g vm_scale_set=s endpoint={url}")
    assert found == ["10.0.0.1", "10.0.0.2", "10.0.0.4", "10.0.0.5"]
    assert api.requests[1][0] == (
        "/subscriptions/sub/resourceGroups/g/providers/microsoft.Compute/"
        "virtualMachineScaleSets/s/networkInterfaces"
    )


def test_azure_by_managed_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(path: str, query: Query, body: bytes) -> Answer:
        if path == "/metadata/identity/oauth2/token":
            assert query["resource"] == ["https://management.core.windows.net/"]
            return as_json({"access_token": TOKEN, "expires_on": "4102444800"})
        return azure(path, query, body)

    api = Api(answer)
    for name in ("ARM_TENANT_ID", "ARM_CLIENT_ID", "ARM_CLIENT_SECRET"):
        monkeypatch.delenv(name, raising=False)
    with api.serving() as url:
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", url)
        entry = f"provider=azure subscription_id=sub tag_name=role tag_value=gw endpoint={url}"
        assert len(discover(entry)) == 3
        with pytest.raises(DiscoveryError, match="client_id and secret_access_key missing"):
            discover(entry + " tenant_id=t")
    assert api.headers[0]["metadata"] == "true"
    assert api.headers[-1]["authorization"] == f"Bearer {TOKEN}"
    with pytest.raises(DiscoveryError, match="set tenant_id, client_id and secret_access_key"):
        discover(entry)


def test_azure_refuses_the_secret() -> None:
    def answer(_path: str, _query: Query, body: bytes) -> Answer:
        said = f"AADSTS7000215: Invalid client secret provided: fpOf+c/H4= in {body.decode()}"
        return as_json({"error": "invalid_client", "error_description": said}, 401)

    with Api(answer).serving() as url, pytest.raises(DiscoveryError) as caught:
        discover(f"{AZURE} tag_name=role tag_value=gw endpoint={url}")
    text = str(caught.value)
    assert text.startswith("discover-azure: HTTP status 401 (Unauthorized): AADSTS7000215")
    assert "fpOf" not in text


# -- Scaleway --------------------------------------------------------------------------------------


def server(number: int, *tags: str, state: str = "running") -> dict[str, Any]:
    return {
        "id": f"00000000-0000-0000-0000-{number:012}",
        "name": f"s{number}",
        "organization": "org",
        "project": "org",
        "tags": list(tags),
        "state": state,
        "location": None if state == "stopped" else {"zone_id": "fr-par-1"},
        "private_ip": None if number == 3 else f"10.1.0.{number}",
        "public_ip": {"address": f"198.51.100.{number}", "family": "inet"},
        "public_ips": [
            {"address": f"198.51.100.{number}", "family": "inet"},
            {"address": f"2001:db8::{number}", "family": "inet6"},
        ],
    }


def scaleway(path: str, query: Query, _body: bytes) -> Answer:
    assert path.startswith("/instance/v1/zones/")
    if not path.endswith("/fr-par-1/servers"):
        return as_json({"servers": []})
    assert query["per_page"] == ["100"]
    if query["page"] == ["2"]:
        return as_json({"servers": [server(4, "gw", "x"), server(5, "db")]})
    stopped = [server(2, "gw", state="stopped"), server(6, "gw", state="stopped in place")]
    filling = [server(200)] * 96
    return as_json({"servers": [server(1, "gw"), *stopped, server(3, "gw"), *filling]})


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ("", ["10.1.0.1", "10.1.0.4"]),
        ("region=par1", ["10.1.0.1", "10.1.0.4"]),
        ("region=nl-ams-1", []),
        ("addr_type=public_v4", ["198.51.100.1", "198.51.100.3", "198.51.100.4"]),
        ("addr_type=public_v6", ["2001:db8::1", "2001:db8::3", "2001:db8::4"]),
    ],
)
def test_scaleway_servers_of_all_pages(more: str, found: list[str]) -> None:
    api = Api(scaleway)
    with api.serving() as url:
        entry = f"provider=scaleway organization=org token=s3cr3t tag_name=gw endpoint={url}"
        assert discover(f"{entry} {more}") == found
    assert api.headers[0]["x-auth-token"] == "s3cr3t"


# -- Alibaba, Packet -------------------------------------------------------------------------------


def test_aliyun_instances_of_all_pages() -> None:
    def answer(_path: str, query: Query, _body: bytes) -> Answer:
        assert query["Tag.1.Key"] == ["role"]
        assert query["Tag.1.Value"] == ["gw"]
        assert query["Status"] == ["Running"]
        assert query["AccessKeyId"] == ["LTAIkey"]
        assert query["Signature"]
        number = int(query["PageNumber"][0])
        where = ("VpcAttributes><PrivateIpAddress", "PrivateIpAddress></VpcAttributes")
        if number == 2:
            where = ("InnerIpAddress", "InnerIpAddress")
        text = (
            f"<DescribeInstancesResponse><TotalCount>101</TotalCount><Instances><Instance>"
            f"<{where[0]}><IpAddress>10.2.0.{number}</IpAddress></{where[1]}>"
            f"</Instance></Instances></DescribeInstancesResponse>"
        )
        return 200, "text/xml", text

    api = Api(answer)
    with api.serving() as url:
        entry = (
            "provider=aliyun region=eu-central-1 tag_key=role tag_value=gw access_key_id=LTAIkey "
            f"access_key_secret=s3cr3t endpoint={url}"
        )
        assert discover(entry) == ["10.2.0.1", "10.2.0.2"]
    assert "s3cr3t" not in str(api.requests) + str(api.headers)
    with pytest.raises(DiscoveryError, match="region is required"):
        discover("provider=aliyun")


def test_packet_devices_of_all_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    def device(number: int, facility: str, tags: list[str], state: str) -> dict[str, Any]:
        addresses = [
            {"address": f"198.51.100.{number}", "public": True, "address_family": 4},
            {"address": f"2001:db8::{number}", "public": True, "address_family": 6},
            {"address": f"10.3.0.{number}", "public": False, "address_family": 4},
        ]
        found: dict[str, Any] = {"id": str(number), "tags": tags, "state": state}
        return found | {"facility": {"code": facility}, "ip_addresses": addresses}

    def answer(path: str, query: Query, _body: bytes) -> Answer:
        assert path == "/metal/v1/projects/p/devices"
        page = int(query["page"][0])
        rows = {
            1: [device(1, "ewr1", ["gw"], "active"), device(2, "ewr1", [], "active")],
            2: [device(3, "ams1", ["db", "gw"], "active"), device(4, "ams1", ["gw"], "inactive")],
        }[page]
        return as_json({"devices": rows, "meta": {"current_page": page, "last_page": 2}})

    api = Api(answer)
    with api.serving() as url:
        monkeypatch.setenv("PACKET_URL", url)
        entry = "provider=packet project=p auth_token=s3cr3t tag=gw,other"
        assert discover(entry) == ["10.3.0.1", "10.3.0.3"]
        assert discover(entry + " facility=ams1 address_type=public_v6") == ["2001:db8::3"]
    assert api.headers[0]["x-auth-token"] == "s3cr3t"
    monkeypatch.delenv("PACKET_PROJECT", raising=False)
    with pytest.raises(DiscoveryError, match="'project' parameter must be provided"):
        discover("provider=packet")
