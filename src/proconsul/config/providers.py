"""Entries of the form `provider=...` that no lookup could ever answer end the start."""

from __future__ import annotations

from proconsul.config.errors import SettingError
from proconsul.config.merge import Merged
from proconsul.config.model import AgentConfig


def check_providers(config: AgentConfig, merged: Merged) -> None:
    """Raise SettingError for the first entry that is malformed or names an unknown provider."""
    for key, entries in (
        ("retry_join", config.join_lan.retry_join),
        ("retry_join_wan", config.join_wan.retry_join),
        ("primary_gateways", config.primary_gateways),
    ):
        for entry in entries:
            if "provider=" in entry:
                _check(key, entry, merged)


def _check(key: str, entry: str, merged: Merged) -> None:
    # Few need it, and it has all providers
    from proconsul.federation.discovery import DiscoveryError, installed_discover

    try:
        installed_discover().provider(entry)
    except DiscoveryError as error:
        raise SettingError(
            str(error), key=key, source=merged.origin(key),
            remedy="Write it as provider=NAME key=value key=\"value with spaces\"",
        ) from None  # fmt: skip
