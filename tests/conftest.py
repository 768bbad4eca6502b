"""What all tests share: worlds of agents, who goes first, and the rule that CI leaves nothing out."""

from __future__ import annotations

import os

import pytest

pytest_plugins = ("pytester", "proconsul.testing.worlds", "proconsul.testing.required")

# Agents that tests start would compile half a second's worth of modules each time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

PATIENCE_S = 120.0
"""The timeout of tests that state none (pyproject.toml)."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that state a longer timeout go first, that no worker is left with one at the end."""
    items.sort(key=_patience_s, reverse=True)


def _patience_s(item: pytest.Item) -> float:
    stated = item.get_closest_marker("timeout")
    return max(PATIENCE_S, stated.args[0]) if stated and stated.args else PATIENCE_S
