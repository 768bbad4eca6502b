"""Operators' commands: ours and Consul's, against our agent and a real one, say the same."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from agent_support import OURS, THEIRS, AgentProcess, both_alone, needs_consul

pytestmark = needs_consul

ENTRIES = '[{"key":"in/a","flags":7,"value":"aGk8"},{"key":"in/b","flags":0,"value":""}]'
SAME = (
    ("event",), ("event", "-name", "deploy", "1.2"), ("event", "-name", "x", "-tag", "y"),
    ("event", "-name", "x", "a", "b"), ("keyring",), ("keyring", "-list"),
    ("keyring", "-list-primary"), ("keyring", "-list", "-local-only"),
    ("keyring", "-use", "x", "-local-only"), ("keyring", "-list", "-use", "x"),
    ("keyring", "-list", "-relay-factor", "6"),
    ("keyring", "-install", "MDEyMzQ1Njc4OWFiY2RlZg=="), ("keyring", "-install", "no-key"),
    ("kv", "import", ENTRIES), ("kv", "import"), ("kv", "import", "{"[:0]), ("kv", "import", "@none"),
    ("kv", "export", "in/"), ("kv", "export", "/in/a"), ("kv", "export", "none"),
    ("kv", "export", "a", "b"), ("maint",), ("maint", "-enable", "-disable"),
    ("maint", "-reason", "x"), ("maint", "-service", "x"),
    ("maint", "-enable", "-service", "none"), ("maint", "-enable", "-reason", "x y"), ("maint",),
    ("maint", "-disable"), ("rtt",), ("rtt", "none"), ("rtt", "-wan", "none"),
    ("rtt", "-wan", "none.dc1"), ("rtt", "-wan", "vm.dc1"), ("rtt", "a", "b", "c"),
)  # fmt: skip
_USAGE = re.compile(r"\n*Usage: (pro)?consul.*", re.DOTALL)
"""What help says is each program's own."""


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[AgentProcess, AgentProcess]]:
    """Ours and a real one, each a server alone."""
    with both_alone(tmp_path_factory.mktemp("ops")) as pair:
        yield pair


def shown(agent: AgentProcess, command: tuple[str, ...], *args: str) -> tuple[int, str, str]:
    """Status and output, without what differs from agent to agent or by the program's name."""
    status, out, err = agent.cli(command, *args)

    def plain(text: str) -> str:
        text = text.replace(agent.address, "ADDRESS")
        text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}", "ID", text)
        return _USAGE.sub("\nUSAGE", text)

    return status, plain(out), plain(err)


def test_the_same_output_and_status(both: tuple[AgentProcess, AgentProcess]) -> None:
    ours, theirs = both
    for line in SAME:
        expected = shown(theirs, THEIRS, *line)
        assert shown(ours, THEIRS, *line) == expected, ("their command, our agent", line)
        assert shown(theirs, OURS, *line) == expected, ("our command, their agent", line)
