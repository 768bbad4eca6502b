"""Why a proxy gets no configuration, or a datacenter no certificate."""

from __future__ import annotations

from proconsul.util.errors import ProconsulError


class UnknownProxyError(ProconsulError):
    """No proxy of this id is registered with the agent (any more)."""


class ProxyDeniedError(ProconsulError):
    """The token that the proxy shows may not act for its service."""


class SigningRequestError(ProconsulError):
    """A certificate is not signed: what is wrong with the request."""


class CertificateError(ProconsulError):
    """A certificate or key of the mesh that cannot be used, and why."""
