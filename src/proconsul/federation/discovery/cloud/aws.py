"""`provider=aws`: running EC2 instances with a tag."""

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
from proconsul.federation.discovery.cloud.metadata import Ec2Metadata
from proconsul.federation.discovery.provider import DiscoveryError

PAGE_INSTANCES = 1000

_HELP = """Amazon AWS:

    provider:          "aws"
    region:            The AWS region. Default to region of instance.
    tag_key:           The tag key to filter on
    tag_value:         The tag value to filter on
    addr_type:         "private_v4", "public_v4" or "public_v6". Defaults to "private_v4".
    access_key_id:     The AWS access key to use
    secret_access_key: The AWS secret access key to use
    session_token:     The session token that belongs to temporary keys
    endpoint:          The URL of the EC2 API, if not the region's public one

    Without keys those of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are used, or else of the
    instance's role. The only IAM permission needed is 'ec2:DescribeInstances'.
"""


def _look_up(args: Args, endpoint: Endpoint | None, secrets: Secrets) -> list[str]:
    if args.get("service", "ec2") == "ecs":
        raise DiscoveryError("service ecs is not supported, use ec2")
    key, secret, token = _credentials(args)
    secrets += [key, secret, token or ""]
    region = args.get("region") or Ec2Metadata().region()
    ec2 = driver("ec2", endpoint, key, secret, region=region, token=token, signature_version="4")
    params = {
        "Action": "DescribeInstances",
        "Filter.1.Name": f"tag:{args.get('tag_key', '')}",
        "Filter.1.Value.1": args.get("tag_value", ""),
        "Filter.2.Name": "instance-state-name",
        "Filter.2.Value.1": "running",
        "MaxResults": str(PAGE_INSTANCES),
    }
    out: list[str] = []
    for _ in range(PAGES_MAX):
        page = ec2.connection.request(ec2.path, params=dict(params)).object
        space = page.tag.partition("}")[0] + "}" if page.tag.startswith("{") else ""
        if page.tag != f"{space}DescribeInstancesResponse":
            raise DiscoveryError(f"an answer that is not understood: {page.tag}")
        for instance in page.iterfind(
            f"{space}reservationSet/{space}item/{space}instancesSet/{space}item"
        ):
            out += _addresses(instance, space, args.get("addr_type", ""))
        following = page.findtext(f"{space}nextToken")
        if not following:
            break
        params["NextToken"] = following
    return out


def _addresses(instance: Any, space: str, kind: str) -> list[str]:
    if kind == "public_v6":
        path = "networkInterfaceSet/item/ipv6AddressesSet/item/ipv6Address"
    else:
        path = "ipAddress" if kind == "public_v4" else "privateIpAddress"
    found = instance.iterfind("/".join(space + part for part in path.split("/")))
    return [element.text for element in found if element.text]


def _credentials(args: Args) -> tuple[str, str, str | None]:
    key, secret = args.get("access_key_id", ""), args.get("secret_access_key", "")
    if key and secret:
        return key, secret, args.get("session_token") or None
    key = arg_or_env({}, "", "AWS_ACCESS_KEY_ID")
    secret = arg_or_env({}, "", "AWS_SECRET_ACCESS_KEY")
    if key and secret:
        return key, secret, arg_or_env({}, "", "AWS_SESSION_TOKEN") or None
    return Ec2Metadata().credentials()


def aws(endpoint: str = "") -> CloudProvider:
    """The provider; `endpoint` is the URL of the API, if not Amazon's."""
    secrets = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    return CloudProvider("aws", _HELP, _look_up, endpoint, secrets)
