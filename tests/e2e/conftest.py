"""Worlds of agents that the end-to-end tests share. Each costs seconds, so modules keep theirs."""

from __future__ import annotations

pytest_plugins = ("proconsul.testing.worlds",)
