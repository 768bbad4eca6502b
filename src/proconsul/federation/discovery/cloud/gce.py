"""`provider=gce`: Google Cloud's instances with a network tag or a label.

libcloud's connection is used (authentication, errors); the documents are read here, since its
nodes do not carry everything that is asked for.
"""

from __future__ import annotations

import json
import re
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from proconsul.federation.discovery.cloud.base import (
    PAGES_MAX,
    Args,
    CloudProvider,
    Endpoint,
    Secrets,
    arg_or_env,
    reach,
    refuse_errors,
)
from proconsul.federation.discovery.cloud.metadata import gce_project, gce_token
from proconsul.federation.discovery.provider import DiscoveryError

PAGE_INSTANCES = 500
_STOPPED = ("STOPPING", "STOPPED", "SUSPENDING", "SUSPENDED", "TERMINATED")
_SERVICE_ACCOUNT = ("client_email", "private_key")

_HELP = """Google Cloud:

    provider:         "gce"
    project_name:     The name of the project. discovered if not set
    tag_value:        The tag value to filter on.
    label_key:        The label key to filter on. Required if label_value is set.
    label_value:      The label value to filter on. Required if label_key is set.
    zone_pattern:     A regular expression for filtering zones, e.g. us-west1-.*
    credentials_file: The path to a service account's key (JSON). Without it that of
                      GOOGLE_APPLICATION_CREDENTIALS, or else the machine's own service account.

    Tag and label can be combined: only instances with both are returned. The only permission
    needed is 'compute.instances.list'.
"""


def _look_up(args: Args, endpoint: Endpoint | None, secrets: Secrets) -> list[str]:
    tag, key, value = (args.get(name, "") for name in ("tag_value", "label_key", "label_value"))
    if not tag and not key:
        raise DiscoveryError("tag_value or label_key must be provided")
    if bool(key) != bool(value):
        raise DiscoveryError("label_key and label_value must both be set or both be empty")
    try:
        zones = re.compile(args.get("zone_pattern", "") or ".*")
    except re.error as error:
        raise DiscoveryError(f"zone_pattern is not a regular expression: {error}") from None
    path = arg_or_env(args, "credentials_file", "GOOGLE_APPLICATION_CREDENTIALS")
    account = _service_account(path) if path else None
    project = args.get("project_name") or gce_project()
    connection = _connect(project, account, endpoint, secrets)
    return _addresses(_instances(connection, zones), tag, (key, value))


def _connect(
    project: str, account: dict[str, Any] | None, endpoint: Endpoint | None, secrets: Secrets
) -> Any:
    from libcloud.compute.drivers.gce import GCEConnection, GCENodeDriver

    with tempfile.TemporaryDirectory() as cache:  # libcloud keeps access tokens in a file
        file = Path(cache) / "token"
        if account is None:
            token = gce_token()
            secrets.append(str(token["access_token"]))
            until = datetime.now(UTC) + timedelta(seconds=int(token["expires_in"]))
            token["expire_time"] = until.strftime("%Y-%m-%dT%H:%M:%SZ")
            file.touch(0o600)
            file.write_text(json.dumps(token), encoding="utf-8")
        make: Any = GCEConnection
        connection = make(
            account["client_email"] if account else "",
            account,
            auth_type="SA" if account else "GCE",
            credential_file=str(file),
            project=project,
            **reach(endpoint),
        )
    secrets.append(connection.oauth2_credential.access_token)
    connection.driver = GCENodeDriver
    connection.connect()
    refuse_errors(connection.connection)
    return connection


def _service_account(path: str) -> dict[str, Any]:
    try:
        account = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DiscoveryError(f"credentials_file {path!r} cannot be read: {error}") from None
    fields = account if isinstance(account, dict) else {}
    if not all(isinstance(fields.get(name), str) for name in _SERVICE_ACCOUNT):
        raise DiscoveryError(
            f"credentials_file {path!r} is not the JSON key of a service account: "
            f"it needs {' and '.join(_SERVICE_ACCOUNT)}"
        )
    return fields


def _instances(connection: Any, zones: re.Pattern[str]) -> list[dict[str, Any]]:
    """Of the zones that match, by zone, in the API's order."""
    params: dict[str, str] = {"maxResults": str(PAGE_INSTANCES)}
    found: dict[str, list[dict[str, Any]]] = {}
    for _ in range(PAGES_MAX):
        page = connection.request("/aggregated/instances", params=params).object
        for scope, listed in (page.get("items") or {}).items():
            zone = scope.rpartition("/")[2]
            if zones.fullmatch(zone):
                found.setdefault(zone, []).extend(listed.get("instances") or ())
        if not page.get("nextPageToken"):
            break
        params["pageToken"] = page["nextPageToken"]
    return [instance for zone in sorted(found) for instance in found[zone]]


def _addresses(instances: list[dict[str, Any]], tag: str, label: tuple[str, str]) -> list[str]:
    """The first private address of each instance that may run and matches every filter given."""
    out = []
    for instance in instances:
        if instance.get("status") in _STOPPED:
            continue
        has_tag = not tag or tag in ((instance.get("tags") or {}).get("items") or ())
        has_label = not label[0] or (instance.get("labels") or {}).get(label[0]) == label[1]
        interfaces = instance.get("networkInterfaces") or ()
        if has_tag and has_label and interfaces and interfaces[0].get("networkIP"):
            out.append(interfaces[0]["networkIP"])
    return out


def gce(endpoint: str = "") -> CloudProvider:
    """The provider; `endpoint` is the URL of the API, if not the public one. Tokens are then asked
    of it too."""
    return CloudProvider("gce", _HELP, _look_up, endpoint)
