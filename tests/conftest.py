"""What all tests share: worlds of agents, and the rule that CI leaves nothing out."""

from __future__ import annotations

pytest_plugins = ("pytester", "proconsul.testing.worlds", "proconsul.testing.required")
