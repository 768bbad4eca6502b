"""Commands against a tiny HTTP server: requests, output, status, and what gets imported."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_support import Agent, answering_agent

from proconsul.interfaces.cli.command import columnize
from proconsul.interfaces.cli.main import COMMANDS, GROUPS, main


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    with answering_agent(monkeypatch) as one:
        yield one


Output = pytest.CaptureFixture[str]


def test_members(agent: Agent, capsys: Output) -> None:
    tags = {"role": "consul", "dc": "dc1", "build": "1.8.7:abc", "vsn": "2", "segment": ""}
    member = {"Name": "s1", "Addr": "10.0.0.1", "Port": 8301, "Status": 1, "Tags": tags}
    agent.answers["/v1/agent/members"] = (200, [member])
    assert main(["members", "-wan", "-token=t"]) == 0
    assert capsys.readouterr().out == (
        "Node  Address        Status  Type    Build  Protocol  DC   Segment\n"
        "s1    10.0.0.1:8301  alive   server  1.8.7  2         dc1  <all>\n"
    )
    assert agent.requests == [("GET", "/v1/agent/members?segment=_all&wan=1", b"", "t")]
    assert main(["members", "-status", "^failed$"]) == 2


def test_refusal_of_the_agent(agent: Agent, capsys: Output) -> None:
    agent.answers["/v1/agent/leave"] = (403, "Permission denied")
    assert main(["leave"]) == 1
    assert capsys.readouterr().err == (
        "Error leaving: Unexpected response code: 403 (Permission denied)\n"
    )


def test_kv_put_from_a_file(agent: Agent, tmp_path: Path) -> None:
    (tmp_path / "v").write_bytes(b"\xff\x00")
    assert main(["kv", "put", "-flags", "7", "a b", f"@{tmp_path / 'v'}"]) == 0
    assert agent.requests == [("PUT", "/v1/kv/a%20b?flags=7", b"\xff\x00", "")]


def test_cas_that_fails(agent: Agent, capsys: Output) -> None:
    agent.answers["/v1/kv/k"] = (200, False)
    assert main(["kv", "delete", "-cas", "-modify-index=3", "k"]) == 1
    assert "Did not delete key k: CAS failed" in capsys.readouterr().err


def test_nobody_listens(capsys: Output) -> None:
    assert main(["kv", "get", "-http-addr=127.0.0.1:1", "x"]) == 1
    assert "dial tcp 127.0.0.1:1: connect: connection refused" in capsys.readouterr().err


def test_help_everywhere(capsys: Output) -> None:
    for name, (target, _) in COMMANDS.items():
        if target.endswith(":run"):
            continue
        assert main([*name.split(), "-h"]) == 0, name
        assert capsys.readouterr().out.startswith(f"Usage: proconsul {name}")
    for name in GROUPS:
        assert main([*name.split(), "--help"]) == 0
        assert main(name.split()) == 1


def test_every_command_is_found_from_the_overview() -> None:
    leading = {
        " ".join(name.split()[:n]) for name in COMMANDS for n in range(1, name.count(" ") + 1)
    }
    assert leading == set(GROUPS)


def test_unknown_command(capsys: Output) -> None:
    assert main(["nope"]) == 127
    assert capsys.readouterr().err.startswith("Unknown command: nope\n")
    assert main(["acl", "polcy", "list"]) == 1
    assert capsys.readouterr().err.startswith("Unknown subcommand of acl: polcy\n")
    assert main([]) == 127
    assert "Available commands are:" in capsys.readouterr().err
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("Consul v1.8.7\n")


def test_tls_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["tls", "ca", "create"]) == 0
    assert main(["tls", "cert", "create", "-server", "-dc", "dc2", "-node", "n"]) == 0
    assert main(["tls", "cert", "create", "-server", "-dc", "dc2"]) == 0
    assert main(["tls", "cert", "create", "-client", "-node", "n"]) == 1
    assert "-node requires -server" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "consul-agent-ca-key.pem", "consul-agent-ca.pem", "dc2-server-consul-0-key.pem",
        "dc2-server-consul-0.pem", "dc2-server-consul-1-key.pem", "dc2-server-consul-1.pem",
    ]  # fmt: skip
    for path in tmp_path.glob("*-key.pem"):
        assert path.stat().st_mode & 0o777 == 0o600
    assert main(["tls", "ca", "create"]) == 1


def test_validate(tmp_path: Path, capsys: Output) -> None:
    file = tmp_path / "a.hcl"
    file.write_text('data_dir = "/nonexistent/d" bind_addr = "127.0.0.1"')
    assert main(["validate", str(file)]) == 0
    assert capsys.readouterr().out == "Configuration is valid!\n"
    file.write_text("nope = 1")
    assert main(["validate", str(file)]) == 1
    assert "invalid config key nope" in capsys.readouterr().err


def test_columnize() -> None:
    assert columnize([["a", "b"], ["long", ""]]) == "a     b\nlong  "


def test_members_imports_little() -> None:
    script = (
        "import sys; from proconsul.interfaces.cli.main import main;"
        " main(['members', '-http-addr=127.0.0.1:1']); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    heavy = {"msgspec", "cryptography", "uvloop", "asyncio", "grpc", "hcl", "lmdb", "httptools"}
    assert not heavy & loaded
    assert "proconsul.config.load" not in loaded
