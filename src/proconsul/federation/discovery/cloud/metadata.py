"""What a machine in a cloud can ask its cloud about itself, over link-local HTTP."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener

from proconsul.federation.discovery.provider import DiscoveryError

TIMEOUT_S = 2.0
BYTES_MAX = 1024 * 1024

_EC2 = "http://169.254.169.254"
_GCE = "metadata.google.internal"
_AZURE = "http://169.254.169.254"
_OPENSTACK = "http://169.254.169.254/openstack/latest/meta_data.json"


def get(url: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> str:
    """The body. Raises OSError. Never through a proxy: the address is the machine's own."""
    request = Request(url, headers=dict(headers or {}), method=method)
    with build_opener(ProxyHandler({})).open(request, timeout=TIMEOUT_S) as answer:
        body: bytes = answer.read(BYTES_MAX)
    return body.decode("utf-8", "replace")


class Ec2Metadata:
    """The instance metadata service, version 2."""

    def __init__(self) -> None:
        base = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "") or _EC2
        self._base = base.rstrip("/") + "/latest"
        token = get(
            f"{self._base}/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, "PUT"
        )
        self._headers = {"X-aws-ec2-metadata-token": token}

    def region(self) -> str:
        """Where the instance runs."""
        document = f"{self._base}/dynamic/instance-identity/document"
        return str(json.loads(get(document, self._headers))["region"])

    def credentials(self) -> tuple[str, str, str]:
        """Access key, secret key and session token of the instance's role."""
        path = f"{self._base}/meta-data/iam/security-credentials/"
        role = get(path, self._headers).split("\n")[0].strip()
        found: dict[str, Any] = json.loads(get(path + role, self._headers))
        return found["AccessKeyId"], found["SecretAccessKey"], found["Token"]


def gce_project() -> str:
    """The project of the machine we run on. Raises `DiscoveryError` where that is none of Google's."""
    return _gce("project/project-id")


def gce_token() -> dict[str, Any]:
    """Access token of the machine's own service account: `access_token`, `expires_in` (seconds)."""
    token: dict[str, Any] = json.loads(_gce("instance/service-accounts/default/token"))
    return token


def _gce(path: str) -> str:
    host = os.environ.get("GCE_METADATA_HOST", "") or _GCE
    try:
        return get(f"http://{host}/computeMetadata/v1/{path}", {"Metadata-Flavor": "Google"})
    except OSError as error:
        raise DiscoveryError(
            f"the metadata server of Google Cloud gives no {path} ({error}): set project_name and "
            "credentials_file"
        ) from error


def azure_token(resource: str) -> tuple[str, int]:
    """Access token of the machine's managed identity for `resource`, and when it expires (Unix)."""
    base = os.environ.get("AZURE_POD_IDENTITY_AUTHORITY_HOST", "") or _AZURE
    query = urlencode({"api-version": "2018-02-01", "resource": resource})
    try:
        text = get(
            f"{base.rstrip('/')}/metadata/identity/oauth2/token?{query}", {"Metadata": "true"}
        )
    except OSError as error:
        raise DiscoveryError(
            f"the machine's metadata server gives no token of a managed identity ({error}): set "
            "tenant_id, client_id and secret_access_key"
        ) from error
    found: dict[str, Any] = json.loads(text)
    return str(found["access_token"]), int(found["expires_on"])


def openstack_project() -> str:
    """The id of the project of the machine we run on."""
    return str(json.loads(get(_OPENSTACK))["project_id"])
