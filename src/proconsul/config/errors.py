"""Errors of configuration: each names the key, where it was set, and the remedy."""

from __future__ import annotations

from proconsul.util.errors import ConfigError


class SettingError(ConfigError):
    """One wrong setting.

    `key` is the dotted path ("connect.enabled"), `source` the file or flag that set it ("" where
    it was not set at all), `remedy` what to do.
    """

    def __init__(self, message: str, *, key: str = "", source: str = "", remedy: str = "") -> None:
        self.message = message
        self.key = key
        self.source = source
        self.remedy = remedy
        where = " in ".join(part for part in (f"key {key!r}" if key else "", source) if part)
        text = f"{message} ({where})" if where else message
        super().__init__(f"{text}. {remedy}" if remedy else text)
