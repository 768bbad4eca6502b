"""Clouds whose API lists machines with their tags and addresses in one place: DigitalOcean, Linode,
Scaleway and OpenStack."""

from __future__ import annotations

from itertools import chain
from typing import Any

from proconsul.federation.discovery.cloud.base import (
    PAGES_MAX,
    REQUEST_S_MAX,
    Args,
    CloudProvider,
    Endpoint,
    Secrets,
    arg_or_env,
    driver,
    refuse_errors,
)
from proconsul.federation.discovery.cloud.metadata import openstack_project
from proconsul.federation.discovery.provider import DiscoveryError

_DIGITALOCEAN_HELP = """DigitalOcean:

    provider:  "digitalocean"
    region:    The DigitalOcean region to filter on
    tag_name:  The tag name to filter on
    api_token: The DigitalOcean API token to use
"""

_LINODE_HELP = """Linode:

    provider:     "linode"
    api_token:    The Linode API token to use (or LINODE_TOKEN)
    region:       The Linode region to filter on
    tag_name:     The tag name to filter on
    address_type: "private_v4", "public_v4" or "public_v6". (default: "private_v4")
"""

_SCALEWAY_HELP = """Scaleway:

    provider:     "scaleway"
    organization: The Scaleway organization access key
    tag_name:     The tag name to filter on
    token:        The Scaleway API access token
    region:       The zone, e.g. "fr-par-1" (the default) or "nl-ams-1"
    addr_type:    "private_v4", "public_v4" or "public_v6". Defaults to "private_v4"; machines in
                  Private Networks have no such address in the list, only public ones
"""
_SCALEWAY_HOST = "api.scaleway.com"
_SCALEWAY_ZONES = {"": "fr-par-1", "par1": "fr-par-1", "ams1": "nl-ams-1"}
"""Names of the API of old, which go-discover's documentation has."""
_SCALEWAY_PAGE = 100
_SCALEWAY_STOPPED = ("stopped", "stopped in place", "stopping", "locked")

_OPENSTACK_HELP = """Openstack:

    provider:     "os"
    auth_url:     The endpoint of OS identity
    project_id:   The id of the project (tenant id)
    project_name: The name of the project (tenant name)
    domain_name:  The domain of user and project
    region:       The region. Defaults to RegionOne
    tag_key:      The tag key to filter on
    tag_value:    The tag value to filter on
    user_name:    The user used to authenticate
    password:     The password of the provided user

    Variables can also be provided by environmental variables (OS_AUTH_URL, OS_USERNAME, ...).
"""


def _digitalocean(args: Args, endpoint: Endpoint | None, _secrets: Secrets) -> list[str]:
    cloud = driver("digitalocean", endpoint, args.get("api_token", ""), api_version="v2")
    region, tag = args.get("region", ""), args.get("tag_name", "")
    out = []
    # libcloud's `list_nodes` drops the region's slug, which is what people filter by
    for droplet in cloud._paginated_request("/v2/droplets", "droplets"):  # noqa: SLF001
        if tag not in droplet.get("tags", ()):
            continue
        if region and (droplet.get("region") or {}).get("slug") != region:
            continue
        networks = (droplet.get("networks") or {}).get("v4") or ()
        private = [net["ip_address"] for net in networks if net["type"] == "private"]
        out += private[:1]
    return out


def _linode(args: Args, endpoint: Endpoint | None, _secrets: Secrets) -> list[str]:
    token = arg_or_env(args, "api_token", "LINODE_TOKEN")
    cloud = driver("linode", endpoint, token, api_version="4.0")
    kind = args.get("address_type", "") or "private_v4"
    region, tag = args.get("region", ""), args.get("tag_name", "")
    out: list[str] = []
    for node in cloud.list_nodes():
        if (region and node.extra["location"] != region) or (tag and tag not in node.extra["tags"]):
            continue
        if kind == "public_v6":
            out += [str(node.extra["ipv6"]).partition("/")[0]] if node.extra["ipv6"] else []
        else:
            out += (node.public_ips if kind == "public_v4" else node.private_ips)[:1]
    return out


def _scaleway(args: Args, endpoint: Endpoint | None, _secrets: Secrets) -> list[str]:
    cloud = driver("scaleway", endpoint, args.get("organization", ""), args.get("token", ""))
    if endpoint is None:  # libcloud's own hosts are those of the API of old
        cloud.connection.host = _SCALEWAY_HOST
        cloud.connection.connect()
        refuse_errors(cloud.connection.connection)
    region = args.get("region", "")
    path = f"/instance/v1/zones/{_SCALEWAY_ZONES.get(region, region)}/servers"
    tag, kind = args.get("tag_name", ""), args.get("addr_type", "") or "private_v4"
    out: list[str] = []
    for page in range(1, PAGES_MAX + 1):
        params = {"per_page": _SCALEWAY_PAGE, "page": page}
        servers = cloud.connection.request(path, params=params).object["servers"]
        for server in servers:
            if tag in server.get("tags", ()) and server.get("state") not in _SCALEWAY_STOPPED:
                out += _scaleway_addresses(server, kind)[:1]
        if len(servers) < _SCALEWAY_PAGE:
            break
    return out


def _scaleway_addresses(server: dict[str, Any], kind: str) -> list[str]:
    if kind == "private_v4":
        return [server["private_ip"]] if server.get("private_ip") else []
    public = server.get("public_ips") or [server.get("public_ip") or {}]
    wanted = "inet6" if kind == "public_v6" else "inet"
    return [
        ip["address"] for ip in public if ip.get("family", "inet") == wanted and "address" in ip
    ]


def _openstack(args: Args, endpoint: Endpoint | None, _secrets: Secrets) -> list[str]:
    url = arg_or_env(args, "auth_url", "OS_AUTH_URL")
    if not url:
        raise DiscoveryError("Auth url must be provided")
    project = arg_or_env(args, "project_name", "OS_PROJECT_NAME")
    project = project or arg_or_env(args, "project_id", "OS_PROJECT_ID") or openstack_project()
    cloud = driver(
        "openstack",
        None,
        arg_or_env(args, "user_name", "OS_USERNAME"),
        arg_or_env(args, "password", "OS_PASSWORD"),
        api_version="2.2",
        ex_force_auth_url=url,
        ex_force_auth_version="3.x_password",
        ex_tenant_name=project,
        ex_domain_name=arg_or_env(args, "domain_name", "OS_DOMAIN_NAME") or "Default",
        ex_force_service_region=arg_or_env(args, "region", "OS_REGION_NAME") or "RegionOne",
        ex_force_base_url=args.get("endpoint") or None,
    )
    del endpoint  # of the identity service: that is `auth_url`
    identity: Any = cloud.connection.get_auth_class()
    identity.timeout = REQUEST_S_MAX
    identity.connect()
    refuse_errors(identity.connection)
    answer = cloud._paginated_request(  # noqa: SLF001
        "/servers/detail", "servers", cloud.connection, {"status": "ACTIVE"}
    )
    key, value = args.get("tag_key", ""), args.get("tag_value", "")
    return [
        address["addr"]
        for server in answer["servers"]
        if (server.get("metadata") or {}).get(key) == value
        for address in chain.from_iterable((server.get("addresses") or {}).values())
        if address.get("OS-EXT-IPS:type") == "fixed"
    ]


def digitalocean(endpoint: str = "") -> CloudProvider:
    """The provider; `endpoint` is the URL of the API, if not the public one (as below)."""
    return CloudProvider("digitalocean", _DIGITALOCEAN_HELP, _digitalocean, endpoint)


def linode(endpoint: str = "") -> CloudProvider:
    """The provider."""
    return CloudProvider("linode", _LINODE_HELP, _linode, endpoint, ("LINODE_TOKEN",))


def scaleway(endpoint: str = "") -> CloudProvider:
    """The provider."""
    return CloudProvider("scaleway", _SCALEWAY_HELP, _scaleway, endpoint)


def openstack(endpoint: str = "") -> CloudProvider:
    """The provider."""
    return CloudProvider("os", _OPENSTACK_HELP, _openstack, endpoint, ("OS_PASSWORD",))
