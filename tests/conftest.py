"""What all tests share: worlds of agents, and the rule that CI leaves nothing out."""

from __future__ import annotations

import os

pytest_plugins = ("pytester", "proconsul.testing.worlds", "proconsul.testing.required")

# Agents that tests start would compile half a second's worth of modules each time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
