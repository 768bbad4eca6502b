"""Operators' commands: ours and Consul's, against our agent and a real one, say the same."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from agent_support import OURS, THEIRS, AgentProcess, both_alone, needs_consul, until

pytestmark = needs_consul

ENTRIES = '[{"key":"in/a","flags":7,"value":"aGk8"},{"key":"in/b","flags":0,"value":""}]'
SAME = (
    ("event",), ("event", "-name", "deploy", "1.2"), ("event", "-name", "x", "-tag", "y"),
    ("event", "-name", "x", "a", "b"), ("keyring",), ("keyring", "-list"),
    ("keyring", "-list", "-use", "x"), ("keyring", "-list", "-relay-factor", "6"),
    ("keyring", "-use", "x", "-local-only"), ("keyring", "-install", "no-key"),
    ("kv", "import", ENTRIES), ("kv", "import", "@none"), ("kv", "export", "in/"),
    ("kv", "export", "none"), ("maint", "-reason", "x"), ("maint", "-enable", "-service", "none"),
    ("maint", "-enable", "-reason", "x y"), ("maint",), ("maint", "-disable"), ("rtt", "none"),
    ("rtt", "-wan", "none"), ("rtt", "-wan", "vm.dc1"), ("lock", "a"), ("lock", "-n", "0", "a", "b"),
    ("lock", "-verbose", "-child-exit-code", "l/a", "echo hi; exit 5"),
    ("lock", "-verbose", "-n", "2", "l/b", "echo hi"), ("debug", "-duration", "1s"),
    ("monitor", "-log-level", "x"),
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
    for line in SAME:
        compare(both, line, lambda result: result)


def compare(
    both: tuple[AgentProcess, AgentProcess],
    line: tuple[str, ...],
    plain: Callable[[tuple[int, str, str]], tuple[int, str, str]],
) -> None:
    """Their command on our agent, and ours on theirs, against theirs on theirs."""
    ours, theirs = both
    with ThreadPoolExecutor(1) as beside:
        on_ours = beside.submit(shown, ours, THEIRS, *line)
        expected = plain(shown(theirs, THEIRS, *line))
        our_command = plain(shown(theirs, OURS, *line))
    assert plain(on_ours.result()) == expected, ("their command, our agent", line)
    assert our_command == expected, ("our command, their agent", line)


WATCHES = (
    "watch -type bogus", "watch -type key -key w/a", "watch -type key -key none",
    "watch -type keyprefix -prefix w/", "watch -type services", "watch -type nodes",
    "watch -type service -service web", "watch -type service -service web -passingonly x",
    "watch -type checks -state critical", "watch -type event -name ev", "watch -type connect_roots",
    "watch -type key -key w/a -state x", "watch -type key -key w/a read -r x; echo $x; exit 3",
    "watch -type key -key w/a -shell=false none",
)  # fmt: skip


def test_watches_tell_the_same(both: tuple[AgentProcess, AgentProcess]) -> None:
    for agent in both:
        check = {"TTL": "1h", "Name": "c"}
        service = {"Name": "web", "Port": 80, "Tags": ["a"], "Meta": {"k": "v"}, "Check": check}
        agent.put("/v1/agent/service/register", service)
        agent.put("/v1/kv/w/a", "x")
        agent.put("/v1/event/fire/ev", "p")
    for agent in both:
        until(lambda agent=agent: agent.get("/v1/event/list?name=ev"))  # type: ignore[misc]
        until(lambda agent=agent: agent.get("/v1/catalog/service/web"))  # type: ignore[misc]

    def plain(result: tuple[int, str, str]) -> tuple[int, str, str]:
        status, out, err = result
        return status, re.sub(r'((?:Create|Modify)Index|LTime)": ?[0-9]+', r"\1", out), err

    for line in WATCHES:
        compare(both, tuple(line.split()), plain)


@pytest.mark.parametrize("limit", ["1", "2"])
def test_both_commands_contend_for_locks(
    both: tuple[AgentProcess, AgentProcess], limit: str
) -> None:
    ours, theirs = both
    for agent, holder, waiter in ((theirs, THEIRS, OURS), (ours, OURS, THEIRS)):
        prefix = f"contended/{limit}/{agent.path.name}"
        lock = ("lock", "-n", limit, prefix)
        with ThreadPoolExecutor(2) as beside:
            held = [beside.submit(agent.cli, holder, *lock, "sleep 1") for _ in range(int(limit))]
            until(lambda agent=agent, p=prefix: holders(agent, p) == int(limit))  # type: ignore[misc]
            refused = agent.cli(waiter, "lock", "-timeout=300ms", *lock[1:], "echo no")
            assert refused[:2] == (1, ""), refused
            assert "timeout during lock acquisition" in refused[2]
            assert agent.cli(waiter, *lock, "echo yes") == (0, "yes\n", "")
            assert [one.result()[0] for one in held] == [0] * int(limit)


def holders(agent: AgentProcess, prefix: str) -> int:
    """How many sessions hold the lock or semaphore."""
    rows = agent.get(f"/v1/kv/{prefix}?recurse")
    (lock,) = [row for row in rows if row["Key"].endswith("/.lock")]
    if lock.get("Session"):
        return 1
    return len(json.loads(base64.b64decode(lock["Value"]))["Holders"])
