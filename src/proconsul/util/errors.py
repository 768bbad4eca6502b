"""The root of every error that proconsul raises on purpose.

An error names the thing that is wrong and the remedy. Layers derive their own families from
`ProconsulError`; only edges (HTTP, RPC, CLI) translate them.
"""

from __future__ import annotations


class ProconsulError(Exception):
    """Base of all expected failures. Its text is written for an operator."""


class WireError(ProconsulError):
    """Bytes from a peer that cannot be decoded, or exceed a bound. The peer is to blame."""


class ConfigError(ProconsulError):
    """A setting that is unknown, malformed or contradictory. Names key, file and remedy."""
