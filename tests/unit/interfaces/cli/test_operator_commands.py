"""`operator` and `snapshot` against a tiny HTTP server."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_support import Agent, answering_agent

from proconsul.drivers.snapshot_archive import ArchiveMeta, write_archive
from proconsul.interfaces.cli.main import main
from proconsul.wire.raft import Configuration

CONFIG = (
    b'{"CleanupDeadServers":true,"LastContactThreshold":"200ms","MaxTrailingLogs":250,'
    b'"MinQuorum":0,"ServerStabilizationTime":"10s","RedundancyZoneTag":"",'
    b'"DisableUpgradeMigration":false,"UpgradeVersionTag":"","CreateIndex":4,"ModifyIndex":9}'
)


AUTOPILOT = "/v1/operator/autopilot/configuration"


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    with answering_agent(monkeypatch) as one:
        yield one


@pytest.fixture
def archive() -> bytes:
    out = io.BytesIO()
    meta = ArchiveMeta("2-9-16", 9, 2, Configuration(), 1, 5)
    write_archive(out, meta, io.BytesIO(b"state"), 0)
    return out.getvalue()


def test_what_is_set_is_what_was_given(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    agent.answers[f"GET {AUTOPILOT}"] = (200, CONFIG)
    assert main(["operator", "autopilot", "set-config", "-min-quorum=3",
                 "-last-contact-threshold=1.5s"]) == 0  # fmt: skip
    assert capsys.readouterr().out == "Configuration updated!\n"
    method, path, body, _ = agent.requests[-1]
    assert (method, path) == ("PUT", f"{AUTOPILOT}?cas=9")
    assert b'"MinQuorum": 3' in body
    assert b'"LastContactThreshold": "1.5s"' in body
    assert b'"MaxTrailingLogs": 250' in body
    agent.answers[AUTOPILOT] = (200, False)
    assert main(["operator", "autopilot", "set-config"]) == 1
    assert "could not be atomically updated" in capsys.readouterr().out
    assert main(["operator", "autopilot", "set-config", "-last-contact-threshold=x"]) == 1
    assert main(["operator", "autopilot", "get-config"]) == 0
    assert "MinQuorum = 0\n" in capsys.readouterr().out


def test_a_snapshot_gets_its_name_once_it_is_whole(
    agent: Agent, archive: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "backup.snap"
    agent.answers["/v1/snapshot"] = (200, archive[:-5])
    assert main(["snapshot", "save", str(path)]) == 1
    assert "Error verifying snapshot file: unexpected EOF" in capsys.readouterr().err
    agent.answers["/v1/snapshot"] = (500, "No cluster leader")
    assert main(["snapshot", "save", str(path)]) == 1
    assert capsys.readouterr().err == (
        "Error saving snapshot: Unexpected response code: 500 (No cluster leader)\n"
    )
    assert list(tmp_path.iterdir()) == []
    agent.answers["/v1/snapshot"] = (200, archive)
    assert main(["snapshot", "save", "-stale", str(path)]) == 0
    assert capsys.readouterr().out == "Saved and verified snapshot to index 77\n"
    assert agent.requests[-1][1] == "/v1/snapshot?stale="
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == archive
    assert main(["snapshot", "inspect", str(path)]) == 0
    shown = "ID           2-9-16\nSize         5\nIndex        9\nTerm         2\nVersion      1\n"
    assert capsys.readouterr().out == shown + "\n"
    assert main(["snapshot", "restore", str(path)]) == 0
    assert agent.requests[-1][:3] == ("PUT", "/v1/snapshot", archive)
    assert main(["snapshot", "save", str(tmp_path / "no" / "where")]) == 1
    assert "no such file or directory" in capsys.readouterr().err


def test_a_snapshot_is_written_through_nobodys_link(
    agent: Agent, archive: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agent.answers["GET /v1/snapshot"] = (200, archive)
    precious = tmp_path / "precious"
    precious.write_bytes(b"mine")
    directory = tmp_path / "shared"
    directory.mkdir()
    for name in ("a.snap", "a.snap.unverified"):
        (directory / name).symlink_to(precious)
    path = directory / "a.snap"
    assert main(["snapshot", "save", str(path)]) == 0
    assert precious.read_bytes() == b"mine"
    assert path.read_bytes() == archive
    assert (path.is_symlink(), path.stat().st_mode & 0o777) == (False, 0o600)
    agent.answers["GET /v1/snapshot"] = (200, archive[:50])
    assert main(["snapshot", "save", str(path)]) == 1
    assert "Error verifying snapshot file" in capsys.readouterr().err
    assert path.read_bytes() == archive
    assert {p.name for p in directory.iterdir()} == {"a.snap", "a.snap.unverified"}


def test_why_a_restore_is_refused_is_shown_though_its_bytes_were_not_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "large.snap"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    listener = socket.create_server(("127.0.0.1", 0))

    def refuse() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            answer = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 5\r\n\r\nlater"
            connection.sendall(answer)

    monkeypatch.setenv("CONSUL_HTTP_ADDR", f"127.0.0.1:{listener.getsockname()[1]}")
    refusing = threading.Thread(target=refuse)
    refusing.start()
    try:
        assert main(["snapshot", "restore", str(path)]) == 1
    finally:
        refusing.join()
        listener.close()
    text = "Error restoring snapshot: Unexpected response code: 429 (later)\n"
    assert capsys.readouterr().err == text
