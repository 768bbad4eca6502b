"""`provider=aliyun` and `provider=packet`: Alibaba Cloud's instances, Equinix Metal's devices."""

from __future__ import annotations

from typing import Any

from proconsul.federation.discovery.cloud.base import (
    PAGES_MAX,
    Args,
    CloudProvider,
    Endpoint,
    Secrets,
    arg_or_env,
    driver,
)
from proconsul.federation.discovery.provider import DiscoveryError

PAGE_MACHINES = 100

_ALIYUN_HELP = """Aliyun(Alibaba Cloud):

    provider:          "aliyun"
    region:            The Aliyun region.
    tag_key:           The tag key to filter on
    tag_value:         The tag value to filter on
    access_key_id:     The Aliyun access key to use
    access_key_secret: The Aliyun access key secret to use
    endpoint:          The URL of the ECS API, e.g. https://ecs.eu-central-1.aliyuncs.com

    The required RAM permission is 'ecs:DescribeInstances'.
"""

_PACKET_HELP = """Equinix Metal (Packet):

    provider:     "packet"
    project:      UUID of the project. Required (or PACKET_PROJECT)
    auth_token:   Authentication token. Required (or PACKET_AUTH_TOKEN)
    url:          URL of the REST API, if not the public one (or PACKET_URL)
    address_type: "private_v4", "public_v4" or "public_v6". Defaults to "private_v4"
    facility:     Filter for facilities, e.g. "ewr1,ams1"
    tag:          Filter by tags, e.g. "tag1,tag2": devices with any of them
"""

_ALIYUN_ADDRESSES = ("InnerIpAddress/IpAddress", "VpcAttributes/PrivateIpAddress/IpAddress")


def _aliyun(args: Args, endpoint: Endpoint | None, _secrets: Secrets) -> list[str]:
    region = args.get("region", "")
    if not region:
        raise DiscoveryError("region is required")
    cloud = driver(
        "aliyun_ecs",
        endpoint,
        args.get("access_key_id", ""),
        args.get("access_key_secret", ""),
        region=region,
    )
    params = {
        "Action": "DescribeInstances",
        "RegionId": region,
        "Status": "Running",
        "Tag.1.Key": args.get("tag_key", ""),
        "Tag.1.Value": args.get("tag_value", ""),
        "PageSize": str(PAGE_MACHINES),
    }
    out: list[str] = []
    for page in range(1, PAGES_MAX + 1):
        asked = {**params, "PageNumber": str(page)}
        answer = cloud.connection.request(cloud.path, params=asked).object
        if answer.tag != "DescribeInstancesResponse":
            raise DiscoveryError(f"an answer that is not understood: {answer.tag}")
        for instance in answer.iterfind("Instances/Instance"):
            found = [e.text for path in _ALIYUN_ADDRESSES for e in instance.iterfind(path)]
            out += [address for address in found if address][:1]
        if page * PAGE_MACHINES >= int(answer.findtext("TotalCount") or 0):
            break
    return out


def _packet(args: Args, endpoint: Endpoint | None, _secrets: Secrets) -> list[str]:
    project = arg_or_env(args, "project", "PACKET_PROJECT")
    if not project:
        raise DiscoveryError("'project' parameter must be provided")
    where = endpoint or Endpoint.of(arg_or_env(args, "url", "PACKET_URL"))
    cloud = driver("equinixmetal", where, arg_or_env(args, "auth_token", "PACKET_AUTH_TOKEN"))
    path = f"/metal/v1/projects/{project}/devices"
    out: list[str] = []
    for page in range(1, PAGES_MAX + 1):
        params = {"page": page, "per_page": PAGE_MACHINES}
        answer = cloud.connection.request(path, params=params).object
        for device in answer["devices"]:
            if _wanted(device, args):
                out += _packet_addresses(device, args.get("address_type", ""))
        if page >= int((answer.get("meta") or {}).get("last_page") or 1):
            break
    return out


def _wanted(device: dict[str, Any], args: Args) -> bool:
    facilities = set(filter(None, args.get("facility", "").split(",")))
    tags = set(filter(None, args.get("tag", "").split(",")))
    in_facility = not facilities or (device.get("facility") or {}).get("code") in facilities
    has_tag = not tags or not tags.isdisjoint(device.get("tags") or ())
    return in_facility and has_tag and device.get("state") != "inactive"


def _packet_addresses(device: dict[str, Any], kind: str) -> list[str]:
    is_public, family = kind.startswith("public"), 6 if kind == "public_v6" else 4
    return [
        found["address"]
        for found in device.get("ip_addresses") or ()
        if found.get("public") is is_public and found.get("address_family") == family
    ]


def aliyun(endpoint: str = "") -> CloudProvider:
    """The provider; `endpoint` is the URL of the API, if not the public one (as below)."""
    return CloudProvider("aliyun", _ALIYUN_HELP, _aliyun, endpoint)


def packet(endpoint: str = "") -> CloudProvider:
    """The provider."""
    return CloudProvider("packet", _PACKET_HELP, _packet, endpoint, ("PACKET_AUTH_TOKEN",))
