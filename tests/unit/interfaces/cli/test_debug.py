"""`debug`: what is refused, and what is in its archive."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proconsul.interfaces.cli import debug
from proconsul.interfaces.cli.command import CommandError


class Agent:
    """Answers what `debug` asks."""

    def __init__(self, *, profiles: bool = False) -> None:
        self.profiles = profiles

    def get(self, path: str, query: dict[str, str] | None = None) -> Any:
        if path == "/v1/agent/self":
            config = {"EnableDebug": self.profiles}
            return {"Config": {"Version": "1.8.7"}, "DebugConfig": config}
        return {"asked": path, **(query or {})}

    def lines(self, path: str, query: dict[str, str]) -> Iterator[str]:
        assert (path, query) == ("/v1/agent/monitor", {"loglevel": "DEBUG"})
        yield "a line of the log"

    def download(self, path: str, out: Any, query: dict[str, str]) -> None:
        out.write(f"{path} {query}".encode())


def capture(agent: Agent, path: Path, **given: Any) -> debug._Capture:
    settings = {
        "interval": 5.0, "duration": 10.0, "output": str(path / "kept"), "capture": [],
        "archive": True, **given,
    }  # fmt: skip
    parsed = type("Parsed", (), {"__getitem__": lambda _self, name: settings[name]})()
    return debug._Capture(agent, parsed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"duration": 9.0}, "duration must be longer than 10s"),
        ({"interval": 4.0}, "interval must be longer than 10s"),
        ({"interval": 20.0}, r"duration \(10s\) must be longer than interval \(20s\)"),
        ({"capture": ["x"]}, "target not found: x"),
    ],
)
def test_refused(tmp_path: Path, given: dict[str, Any], text: str) -> None:
    with pytest.raises(CommandError, match=text):
        capture(Agent(), tmp_path, **given).prepare()
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    with pytest.raises(CommandError, match="output directory already exists"):
        capture(Agent(), tmp_path).prepare()


@pytest.mark.parametrize("profiles", [True, False])
def test_the_archive_has_all_of_it(
    tmp_path: Path,
    profiles: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(debug, "GRACE_S", 0.0)
    one = capture(Agent(profiles=profiles), tmp_path)
    version = one.prepare()
    one._interval_s = one._duration_s = 0.3
    assert one.run(version) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["kept.tar.gz"]
    with tarfile.open(tmp_path / "kept.tar.gz") as packed:
        names = {Path(name).name for name in packed.getnames()}
        index = json.load(packed.extractfile("kept/index.json"))  # type: ignore[arg-type]
    wanted = {"host.json", "agent.json", "cluster.json", "metrics.json"}
    traces = {"heap.prof", "goroutine.prof", "profile.prof", "trace.out"}
    assert names >= wanted
    assert bool(names & traces) is profiles
    assert index["Targets"] == [t for t in debug.TARGETS if profiles or t != "pprof"]
    said = capsys.readouterr()
    assert ("Unable to capture pprof" in said.err) is not profiles
    assert said.out.endswith("kept.tar.gz\n")
