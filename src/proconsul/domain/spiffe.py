"""SPIFFE ids of the mesh, and the common names of their certificates (`agent/connect/uri*.go`).

An id is a URI in a certificate: of a service, of an agent (AutoEncrypt), or of the CA itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import quote, unquote, urlsplit

from proconsul.domain.errors import DomainError

DEFAULT_NAMESPACE = "default"
COMMON_NAME_MAX = 64
_SERVICE_NAME_MAX = COMMON_NAME_MAX - 21
_SERVICE = re.compile(r"/ns/([^/]+)/dc/([^/]+)/svc/([^/]+)")
_AGENT = re.compile(r"/agent/client/dc/([^/]+)/id/([^/]+)")
_NOT_DNS = re.compile("[^a-z0-9]")
_PATH_SAFE = "/$&+,:;=@"
"""What Go's `URL.String` leaves in a path as it is, beside letters, digits and `-_.~`."""
URI_CHARS_MAX = 4096


class SpiffeError(DomainError):
    """Not an id of the mesh; the text is Consul's."""


@dataclass(frozen=True, slots=True)
class ServiceId:
    """A service of a datacenter. `host` is the trust domain."""

    host: str
    namespace: str
    datacenter: str
    service: str

    @property
    def uri(self) -> str:
        path = f"/ns/{self.namespace}/dc/{self.datacenter}/svc/{self.service}"
        return f"spiffe://{self.host}{quote(path, safe=_PATH_SAFE)}"

    @property
    def common_name(self) -> str:
        """Cut to what a certificate's common name may hold."""
        service, namespace = _dns(self.service), self.namespace
        spare = _SERVICE_NAME_MAX - len(namespace)
        return f"{service[:spare]}.svc.{namespace}.{self.host[:8]}.consul"


@dataclass(frozen=True, slots=True)
class AgentId:
    """A client agent that got its certificate from the servers. `agent` is its node name."""

    host: str
    datacenter: str
    agent: str

    @property
    def uri(self) -> str:
        path = f"/agent/client/dc/{self.datacenter}/id/{self.agent}"
        return f"spiffe://{self.host}{quote(path, safe=_PATH_SAFE)}"

    @property
    def common_name(self) -> str:
        return f"{_dns(self.agent)[:_SERVICE_NAME_MAX]}.agnt.{self.host[:8]}.consul"


@dataclass(frozen=True, slots=True)
class SigningId:
    """The CA of a trust domain."""

    cluster_id: str
    domain: str = "consul"

    @property
    def host(self) -> str:
        """The trust domain."""
        return f"{self.cluster_id}.{self.domain}".lower()

    @property
    def uri(self) -> str:
        return f"spiffe://{self.host}"

    def can_sign(self, other: SpiffeId) -> bool:
        """Whether certificates of this id are ours to sign: of our trust domain, and no agents'."""
        if isinstance(other, SigningId):
            return other.uri == self.uri
        return isinstance(other, ServiceId) and other.host.lower() == self.host


SpiffeId: TypeAlias = ServiceId | AgentId | SigningId


def parse(uri: str) -> SpiffeId:
    """The id that `uri` is. Raises `SpiffeError` with Consul's text."""
    if len(uri) > URI_CHARS_MAX:
        raise SpiffeError(f"SPIFFE ID of {len(uri)} characters is longer than {URI_CHARS_MAX}")
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise SpiffeError(f"SPIFFE ID is not in the expected format: {uri}") from error
    if parts.scheme != "spiffe":
        raise SpiffeError("SPIFFE ID must have 'spiffe' scheme")
    if match := _SERVICE.fullmatch(parts.path):
        namespace, datacenter, service = map(unquote, match.groups())
        return ServiceId(parts.netloc, namespace, datacenter, service)
    if match := _AGENT.fullmatch(parts.path):
        datacenter, agent = map(unquote, match.groups())
        return AgentId(parts.netloc, datacenter, agent)
    cluster_id, dot, domain = parts.netloc.partition(".")
    if not parts.path and cluster_id and dot:
        return SigningId(cluster_id, domain)
    raise SpiffeError(f"SPIFFE ID is not in the expected format: {uri}")


def authority_common_name(unique: str, cluster_id: str, *, primary: bool) -> str:
    """The common name of a root, or of a secondary's CA; `unique` tells it from its successors."""
    kind = "pri" if primary else "sec"
    return f"{kind}-{_dns(unique)[:8]}.consul.ca.{cluster_id[:8]}.consul"


def _dns(name: str) -> str:
    return _NOT_DNS.sub("", name.lower())
