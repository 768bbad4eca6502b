"""`config_entries.bootstrap`: config entries that a new primary datacenter begins with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from proconsul.config.errors import SettingError

KEY = "config_entries.bootstrap"


def bootstrap_entries(raw: Sequence[Mapping[str, Any]], source: str) -> tuple[Any, ...]:
    """Them, normalised and validated. Raises SettingError with Consul's text."""
    if not raw:
        return ()
    from proconsul.domain.config_entry_forms import ConfigEntryError, from_map
    from proconsul.domain.config_entry_rules import InvalidEntryError, normalize, validate
    from proconsul.domain.weak_decode import WeakDecodeError

    entries = []
    for at, one in enumerate(raw):
        try:
            entry = normalize(from_map(dict(one)))
            validate(entry)
        except (ConfigEntryError, InvalidEntryError, WeakDecodeError) as error:
            raise SettingError(
                f"{KEY}[{at}]: {error}", key=KEY, source=source, remedy="Correct the config entry"
            ) from None
        entries.append(entry)
    return tuple(entries)
