"""Google Cloud and Microsoft Azure, whose listings libcloud's nodes do not carry completely: its
connections (authentication, paging, errors) are used, the documents are read here."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

from proconsul.federation.discovery.cloud.base import (
    PAGES_MAX,
    Args,
    CloudProvider,
    Endpoint,
    arg_or_env,
    driver,
)
from proconsul.federation.discovery.cloud.metadata import gce_project
from proconsul.federation.discovery.provider import DiscoveryError

AZURE_NETWORK_API = "2023-09-01"
AZURE_SCALE_SET_API = "2018-10-01"

_GCE_HELP = """Google Cloud:

    provider:         "gce"
    project_name:     The name of the project. discovered if not set
    tag_value:        The tag value to filter on.
    label_key:        The label key to filter on. Required if label_value is set.
    label_value:      The label value to filter on. Required if label_key is set.
    zone_pattern:     A regular expression for filtering zones, e.g. us-west1-.*
    credentials_file: The path to a service account's key (JSON). Without it that of
                      GOOGLE_APPLICATION_CREDENTIALS, or else the machine's own service account.
"""

_AZURE_HELP = """Microsoft Azure:

    provider:          "azure"
    tenant_id:         The id of the tenant (or ARM_TENANT_ID)
    client_id:         The id of the client (or ARM_CLIENT_ID)
    subscription_id:   The id of the subscription (or ARM_SUBSCRIPTION_ID)
    secret_access_key: The authentication credential (or ARM_CLIENT_SECRET)

    Use these for tags of network interfaces:
    tag_name:          The name of the tag to filter on
    tag_value:         The value of the tag to filter on

    Use these for Virtual Machine Scale Sets:
    resource_group:    The name of the resource group to filter on
    vm_scale_set:      The name of the virtual machine scale set to filter on
"""


def _gce(args: Args, endpoint: Endpoint | None) -> list[str]:
    tag, key, value = (args.get(name, "") for name in ("tag_value", "label_key", "label_value"))
    if not tag and not key:
        raise DiscoveryError("tag_value or label_key must be provided")
    if bool(key) != bool(value):
        raise DiscoveryError("label_key and label_value must both be set or both be empty")
    project = args.get("project_name") or gce_project()
    credentials = arg_or_env(args, "credentials_file", "GOOGLE_APPLICATION_CREDENTIALS")
    user = _service_account(credentials) if credentials else ""
    with tempfile.TemporaryDirectory() as cache:  # libcloud keeps access tokens in a file
        cloud = driver(
            "gce",
            endpoint,
            user,
            credentials or None,
            project=project,
            auth_type="SA" if credentials else "GCE",
            credential_file=str(Path(cache) / "token"),
        )
        listing = cloud.connection.request_aggregated_items("instances")["items"]
    return gce_addresses(listing, args.get("zone_pattern", ""), tag, (key, value))


def gce_addresses(
    listing: dict[str, Any], zones: str, tag: str, label: tuple[str, str]
) -> list[str]:
    """Private addresses of the instances in an aggregated list that match every filter given."""
    pattern = re.compile(zones or ".*")
    out = []
    for zone in sorted(listing):
        if not pattern.fullmatch(zone.rpartition("/")[2]):
            continue
        for instance in listing[zone].get("instances", ()):
            has_tag = not tag or tag in (instance.get("tags") or {}).get("items", ())
            has_label = not label[0] or (instance.get("labels") or {}).get(label[0]) == label[1]
            interfaces = instance.get("networkInterfaces") or ()
            if has_tag and has_label and interfaces and interfaces[0].get("networkIP"):
                out.append(interfaces[0]["networkIP"])
    return out


def _service_account(path: str) -> str:
    import json

    return str(json.loads(Path(path).read_text(encoding="utf-8"))["client_email"])


def _azure(args: Args, endpoint: Endpoint | None) -> list[str]:
    tag = (args.get("tag_name", ""), args.get("tag_value", ""))
    group, scale_set = args.get("resource_group", ""), args.get("vm_scale_set", "")
    subscription = arg_or_env(args, "subscription_id", "ARM_SUBSCRIPTION_ID")
    if not subscription:
        raise DiscoveryError("subscription_id not provided as argument or environment variable")
    by_tag, by_set = all(tag) and not group and not scale_set, group and scale_set and not any(tag)
    if not by_tag and not by_set:
        raise DiscoveryError(
            "unclear configuration. use (tag name and value) or (resouce_group and vm_scale_set)"
        )
    root = f"/subscriptions/{subscription}"
    if by_tag:
        action, version = f"{root}/providers/Microsoft.Network/networkInterfaces", AZURE_NETWORK_API
    else:
        sets = f"{root}/resourceGroups/{group}/providers/microsoft.Compute/virtualMachineScaleSets"
        action, version = f"{sets}/{scale_set}/networkInterfaces", AZURE_SCALE_SET_API
    cloud = driver(
        "azure_arm",
        endpoint,
        tenant_id=arg_or_env(args, "tenant_id", "ARM_TENANT_ID"),
        subscription_id=subscription,
        key=arg_or_env(args, "client_id", "ARM_CLIENT_ID"),
        secret=arg_or_env(args, "secret_access_key", "ARM_CLIENT_SECRET"),
    )
    params = {"api-version": version}
    out: list[str] = []
    for _ in range(PAGES_MAX):
        page = cloud.connection.request(action, params=params).object
        out += azure_addresses(page.get("value") or (), tag if by_tag else None)
        following = re.search(r"[?&]\$skiptoken=([^&]+)", page.get("nextLink") or "", re.IGNORECASE)
        if following is None:
            break
        params = {"api-version": version, "$skiptoken": following[1]}
    if not out and by_set:
        raise DiscoveryError("no interfaces")
    return out


def azure_addresses(interfaces: Any, tag: tuple[str, str] | None) -> list[str]:
    """Private addresses of the network interfaces with that tag, if one is given."""
    out = []
    for interface in interfaces:
        if tag is not None and (interface.get("tags") or {}).get(tag[0]) != tag[1]:
            continue
        for configuration in (interface.get("properties") or {}).get("ipConfigurations") or ():
            address = (configuration.get("properties") or {}).get("privateIPAddress")
            if address:
                out.append(address)
    return out


def gce(endpoint: str = "") -> CloudProvider:
    """The provider; `endpoint` is the URL of the API, if not the public one (as below)."""
    return CloudProvider("gce", _GCE_HELP, _gce, endpoint)


def azure(endpoint: str = "") -> CloudProvider:
    """The provider."""
    return CloudProvider("azure", _AZURE_HELP, _azure, endpoint, ("ARM_CLIENT_SECRET",))
