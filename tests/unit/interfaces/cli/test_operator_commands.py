"""`operator` and `snapshot` against a tiny HTTP server."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from proconsul.drivers.snapshot_archive import ArchiveMeta, write_archive
from proconsul.interfaces.cli.main import main
from proconsul.wire.raft import Configuration

CONFIG = (
    b'{"CleanupDeadServers":true,"LastContactThreshold":"200ms","MaxTrailingLogs":250,'
    b'"MinQuorum":0,"ServerStabilizationTime":"10s","RedundancyZoneTag":"",'
    b'"DisableUpgradeMigration":false,"UpgradeVersionTag":"","CreateIndex":4,"ModifyIndex":9}'
)


class _Agent:
    """Answers every request with `status` and `body`; remembers method, path and body."""

    def __init__(self) -> None:
        self.status, self.body = 200, b"true"
        self.seen: list[tuple[str, str, bytes]] = []
        agent = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                agent.seen.append((self.command, self.path, self.rfile.read(size)))
                body = (
                    CONFIG if self.path.endswith("configuration") and agent.status == 200 else b""
                )
                body = body if self.command == "GET" and body else agent.body
                self.send_response(agent.status)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("X-Consul-Index", "77")
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PUT = do_DELETE = answer

            def log_message(self, *args: object) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Agent]:
    one = _Agent()
    one.thread.start()
    monkeypatch.setenv("CONSUL_HTTP_ADDR", f"127.0.0.1:{one.server.server_port}")
    for name in ("CONSUL_HTTP_TOKEN", "CONSUL_HTTP_SSL", "PROCONSUL_HTTP_ADDR", "PROCONSUL"):
        monkeypatch.delenv(name, raising=False)
    yield one
    one.server.shutdown()
    one.server.server_close()
    one.thread.join()


@pytest.fixture
def archive() -> bytes:
    out = io.BytesIO()
    meta = ArchiveMeta("2-9-16", 9, 2, Configuration(), 1, 5)
    write_archive(out, meta, io.BytesIO(b"state"), 0)
    return out.getvalue()


def test_what_is_set_is_what_was_given(agent: _Agent, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["operator", "autopilot", "set-config", "-min-quorum=3",
                 "-last-contact-threshold=1.5s"]) == 0  # fmt: skip
    assert capsys.readouterr().out == "Configuration updated!\n"
    method, path, body = agent.seen[-1]
    assert (method, path) == ("PUT", "/v1/operator/autopilot/configuration?cas=9")
    assert b'"MinQuorum": 3' in body
    assert b'"LastContactThreshold": "1.5s"' in body
    assert b'"MaxTrailingLogs": 250' in body
    agent.body = b"false"
    assert main(["operator", "autopilot", "set-config"]) == 1
    assert "could not be atomically updated" in capsys.readouterr().out
    assert main(["operator", "autopilot", "set-config", "-last-contact-threshold=x"]) == 1
    assert main(["operator", "autopilot", "get-config"]) == 0
    assert "MinQuorum = 0\n" in capsys.readouterr().out


def test_a_snapshot_gets_its_name_once_it_is_whole(
    agent: _Agent, archive: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "backup.snap"
    agent.body = archive[:-5]
    assert main(["snapshot", "save", str(path)]) == 1
    assert "Error verifying snapshot file: unexpected EOF" in capsys.readouterr().err
    agent.status, agent.body = 500, b"No cluster leader"
    assert main(["snapshot", "save", str(path)]) == 1
    assert capsys.readouterr().err == (
        "Error saving snapshot: Unexpected response code: 500 (No cluster leader)\n"
    )
    assert list(tmp_path.iterdir()) == []
    agent.status, agent.body = 200, archive
    assert main(["snapshot", "save", "-stale", str(path)]) == 0
    assert capsys.readouterr().out == "Saved and verified snapshot to index 77\n"
    assert agent.seen[-1][1] == "/v1/snapshot?stale="
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == archive
    assert main(["snapshot", "inspect", str(path)]) == 0
    shown = "ID           2-9-16\nSize         5\nIndex        9\nTerm         2\nVersion      1\n"
    assert capsys.readouterr().out == shown + "\n"
    assert main(["snapshot", "restore", str(path)]) == 0
    assert agent.seen[-1] == ("PUT", "/v1/snapshot", archive)
    assert main(["snapshot", "save", str(tmp_path / "no" / "where")]) == 1
    assert "no such file or directory" in capsys.readouterr().err
