"""What a machine in a cloud can ask its cloud about itself, over link-local HTTP."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

TIMEOUT_S = 2.0
BYTES_MAX = 1024 * 1024

_EC2 = "http://169.254.169.254"
_GCE = "http://metadata.google.internal"
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
    """The project of the machine we run on."""
    headers = {"Metadata-Flavor": "Google"}
    return get(f"{_GCE}/computeMetadata/v1/project/project-id", headers)


def openstack_project() -> str:
    """The id of the project of the machine we run on."""
    return str(json.loads(get(_OPENSTACK))["project_id"])
