"""`proconsul dev` as a user runs it."""

from __future__ import annotations

import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from proconsul.app.worlds import netns
from proconsul.testing import peers

pytestmark = [pytest.mark.netns, pytest.mark.peer]
_DEV = [sys.executable, "-m", "proconsul.interfaces.cli.main", "dev"]


def _namespaces_of(pid: int) -> list[str]:
    return [
        line for line in netns.run(["ip", "netns", "list"]).split() if line.startswith(f"pc{pid}-")
    ]


def _agents_in(directory: Path) -> list[str]:
    """Processes whose command line names the directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(directory) in text and "dev" not in text.split():
            found.append(text)
    return found


def test_once_over_loopback_needs_no_root_and_proves_at_socket_level(tmp_path: Path) -> None:
    peers.envoy()
    argv = [*_DEV, "-once", "-loopback", "-dir", str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "at socket level" in done.stdout
    assert "0 directly to servers of others" in done.stdout
    assert not _agents_in(tmp_path)


def test_stays_up_publishes_http_and_ends_on_interrupt(tmp_path: Path) -> None:
    peers.namespaces()
    peers.envoy()
    process = subprocess.Popen(
        [*_DEV, "-netns", "-dir", str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process, process.stdout as output:
        seen, url = [], ""
        for line in output:
            seen.append(line)
            if line.strip().startswith("http://127.0.0.1:") and not url:
                url = line.split()[0]
            if "Ctrl-C" in line:
                break
        assert url, "".join(seen)
        with urllib.request.urlopen(f"{url}/v1/status/leader", timeout=5) as answer:
            assert b":8300" in answer.read()
        assert _namespaces_of(process.pid)
        process.send_signal(signal.SIGINT)
        rest = output.read()
        assert process.wait(20) == 0, rest
    assert "no process, no namespace is left" in rest
    assert not _namespaces_of(process.pid)
    assert not _agents_in(tmp_path)


def test_ends_cleanly_when_nobody_reads_any_more(tmp_path: Path) -> None:
    """As `make demo | head -1`."""
    argv = [*_DEV, "-loopback", "-dir", str(tmp_path)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline()
    process.stdout.close()
    with process.stderr as complaints:
        assert complaints.read() == ""
    assert process.wait(30) == 0
    assert not _agents_in(tmp_path)


def test_what_a_killed_world_leaves_the_next_one_removes(tmp_path: Path) -> None:
    peers.namespaces()
    process = subprocess.Popen(
        [*_DEV, "-netns", "-dir", str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process, process.stdout as output:
        for line in output:
            if "agents started" in line:
                break
        process.kill()
        process.wait()
    assert _namespaces_of(process.pid)
    netns.remove_stale()
    assert not _namespaces_of(process.pid)
    assert not _agents_in(tmp_path), "programs outlived the world that started them"


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["-datacenters", "6"], "not within 1 to 5"),
        (["-servers", "2"], "neither 1 nor 3"),
        (["-loopback", "-servers", "3"], "three need -netns"),
        (["-loopback", "-netns"], "exclude each other"),
        (["-datacentres", "2"], "flag provided but not defined"),
        (["-once", "two"], "unexpected arguments: two"),
        (["-once", "-dir", "/dev/null/x"], "name a directory to write to by -dir"),
    ],
)
def test_refuses_what_it_cannot_build(argv: list[str], complaint: str) -> None:
    done = subprocess.run([*_DEV, *argv], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert complaint in done.stderr
