"""`provider=azure`: Azure's network interfaces with a tag, or of a scale set.

libcloud's connection is used (authentication, errors); libcloud has no listing of interfaces over
all resource groups.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlsplit

from proconsul.federation.discovery.cloud.base import (
    PAGES_MAX,
    REQUEST_S_MAX,
    Args,
    CloudProvider,
    Endpoint,
    Secrets,
    arg_or_env,
    reach,
    refuse_errors,
)
from proconsul.federation.discovery.cloud.metadata import azure_token
from proconsul.federation.discovery.provider import DiscoveryError

NETWORK_API = "2023-09-01"
SCALE_SET_API = "2018-10-01"

_HELP = """Microsoft Azure:

    provider:          "azure"
    tenant_id:         The id of the tenant (or ARM_TENANT_ID)
    client_id:         The id of the client (or ARM_CLIENT_ID)
    subscription_id:   The id of the subscription (or ARM_SUBSCRIPTION_ID)
    secret_access_key: The authentication credential (or ARM_CLIENT_SECRET)

    Without tenant, client and credential the machine's managed identity is used.

    Use these for tags of network interfaces:
    tag_name:          The name of the tag to filter on
    tag_value:         The value of the tag to filter on

    Use these for Virtual Machine Scale Sets (deployed in Uniform mode):
    resource_group:    The name of the resource group to filter on
    vm_scale_set:      The name of the virtual machine scale set to filter on
"""


def _look_up(args: Args, endpoint: Endpoint | None, secrets: Secrets) -> list[str]:
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
        action, version = f"{root}/providers/Microsoft.Network/networkInterfaces", NETWORK_API
    else:
        sets = f"{root}/resourceGroups/{group}/providers/microsoft.Compute/virtualMachineScaleSets"
        action, version = f"{sets}/{scale_set}/networkInterfaces", SCALE_SET_API
    connection = _connect(args, endpoint)
    secrets.append(str(connection.access_token))
    params = {"api-version": version}
    out: list[str] = []
    for _ in range(PAGES_MAX):
        page = connection.request(action, params=params).object
        out += _addresses(page.get("value") or (), tag if by_tag else None)
        if not page.get("nextLink"):
            break
        # The link is followed by its arguments alone: it is not to lead the token to another host
        params = {**params, **dict(parse_qsl(urlsplit(page["nextLink"]).query))}
    if not out and by_set:
        raise DiscoveryError("no interfaces")
    return out


def _connect(args: Args, endpoint: Endpoint | None) -> Any:
    """Raises what libcloud does where the credentials are refused."""
    from libcloud.common.azure_arm import AzureBaseDriver, AzureResourceManagementConnection
    from libcloud.http import LibcloudConnection

    base: Any = AzureResourceManagementConnection
    plain: Any = LibcloudConnection

    class Connection(base):  # type: ignore[misc]
        def get_token_from_credentials(self) -> None:
            if credentials[0]:
                super().get_token_from_credentials()
            else:
                self.access_token, self.expires_on = azure_token(self.login_resource)

        @staticmethod
        def conn_class(host: str, port: int, **options: Any) -> Any:
            """libcloud has no setting for where tokens are asked for."""
            if endpoint is not None:
                host, port = endpoint.host, endpoint.port
                options["secure"] = endpoint.is_secure
            made = plain(host, port, **{"timeout": REQUEST_S_MAX, **options})
            made.driver = AzureBaseDriver  # which libcloud misses when a token cannot be read
            refuse_errors(made)
            return made

    names = ("tenant_id", "client_id", "secret_access_key")
    credentials = [
        arg_or_env(args, name, variable)
        for name, variable in zip(
            names, ("ARM_TENANT_ID", "ARM_CLIENT_ID", "ARM_CLIENT_SECRET"), strict=True
        )
    ]
    if any(credentials) and not all(credentials):
        missing = [n for n, value in zip(names, credentials, strict=True) if not value]
        raise DiscoveryError(f"{' and '.join(missing)} missing beside the other credentials")
    tenant, client, secret = credentials
    connection: Any = Connection(client, secret, tenant_id=tenant, **reach(endpoint))
    if endpoint is not None:
        connection.host = endpoint.host
    connection.driver = AzureBaseDriver
    connection.connect()
    return connection


def _addresses(interfaces: Any, tag: tuple[str, str] | None) -> list[str]:
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


def azure(endpoint: str = "") -> CloudProvider:
    """The provider; `endpoint` is the URL of the API, if not the public one. Tokens are then asked
    of it too."""
    return CloudProvider("azure", _HELP, _look_up, endpoint, ("ARM_CLIENT_SECRET",))
