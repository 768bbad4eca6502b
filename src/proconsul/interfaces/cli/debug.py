"""`debug`: gathers what helps to find faults, into an archive (`command/debug`).

Profiles of Go's runtime (`pprof`) exist in real agents with `enable_debug` only.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from proconsul.config.goflags import Flag, Parsed, bool_flag, string_flag, strings_flag
from proconsul.interfaces.cli.client import Client
from proconsul.interfaces.cli.command import CLIENT_FLAGS, Command, CommandError, connect, err, out
from proconsul.util.goduration import format_duration, parse_duration

VERSION = 1
INTERVAL_S, DURATION_S = 30.0, 120.0
INTERVAL_S_MIN, DURATION_S_MIN = 5.0, 10.0
GRACE_S = 2.0
"""So that the last interval is captured whole."""
ANSWER_S = 10.0
TARGETS = ("metrics", "logs", "pprof", "host", "agent", "cluster")
ARCHIVE = ".tar.gz"


class _Capture:
    """One run."""

    def __init__(self, client: Client, parsed: Parsed) -> None:
        self._client = client
        self._interval_s, self._duration_s = parsed["interval"], parsed["duration"]
        self._directory = Path(parsed["output"] or f"consul-debug-{int(time.time())}")
        self._targets = list(parsed["capture"]) or list(TARGETS)
        self._archive = parsed["archive"]

    def prepare(self) -> str:
        """The agent's version, once the directory is there. Raises `CommandError`."""
        if self._duration_s < DURATION_S_MIN:
            raise CommandError("duration must be longer than 10s")
        if self._interval_s < INTERVAL_S_MIN:
            raise CommandError("interval must be longer than 10s")
        if self._duration_s < self._interval_s:
            raise CommandError(
                f"duration ({format_duration(self._duration_s)}) must be longer than interval "
                f"({format_duration(self._interval_s)})"
            )
        try:
            about = self._client.get("/v1/agent/self")
        except CommandError as error:
            raise CommandError(
                f"error querying target agent: {error}. verify connectivity and agent address"
            ) from None
        enabled = about.get("DebugConfig", {}).get("EnableDebug")
        if not isinstance(enabled, bool):
            raise CommandError("agent response did not contain debug key")
        if not enabled and "pprof" in self._targets:
            self._targets = [target for target in self._targets if target != "pprof"]
            err(
                "[WARN] Unable to capture pprof. Set enable_debug to true on target agent to "
                "enable profiling."
            )
        for target in self._targets:
            if target not in TARGETS:
                raise CommandError(f"target not found: {target}")
        try:
            self._directory.mkdir(parents=True)
        except FileExistsError:
            raise CommandError(f"output directory already exists: {self._directory}") from None
        except OSError as error:
            raise CommandError(f"could not create output directory: {error}") from None
        return str(about["Config"]["Version"])

    def run(self, version: str) -> int:
        """Gather and save; the exit status."""
        saved = f"{self._directory}{ARCHIVE if self._archive else ''}"
        interval, duration = format_duration(self._interval_s), format_duration(self._duration_s)
        out("==> Starting debugger and capturing static information...")
        out(f"     Agent Version: '{version}'")
        out(f"          Interval: '{interval}'")
        out(f"          Duration: '{duration}'")
        out(f"            Output: '{saved}'")
        out(f"           Capture: '{', '.join(self._targets)}'")
        self._static()
        if {"metrics", "logs", "pprof"} & set(self._targets):
            self._dynamic()
        self._save(
            self._directory / "index.json",
            {
                "Version": VERSION,
                "AgentVersion": version,
                "Interval": interval,
                "Duration": duration,
                "Targets": self._targets,
            },
        )
        if self._archive:
            try:
                _pack(self._directory, Path(saved))
            except OSError as error:
                err(f"Archive creation failed: {error}")
                return 1
        out(f"    Saved debug archive: {saved}")
        return 0

    @staticmethod
    def _save(path: Path, value: Any) -> None:
        path.write_text(json.dumps(value, indent="\t"), encoding="utf-8")

    def _static(self) -> None:
        for target, path, query in (
            ("host", "/v1/agent/host", {}),
            ("agent", "/v1/agent/self", {}),
            ("cluster", "/v1/agent/members", {"wan": "1"}),
        ):
            if target in self._targets:
                try:
                    answer = self._client.get(path, query)
                    self._save(self._directory / f"{target}.json", answer)
                except (CommandError, OSError) as error:
                    err(f"Static capture failed: {error}")

    def _dynamic(self) -> None:
        began, count = time.monotonic(), 0
        out(f"==> Beginning capture interval {_stamp(time.time())} ({count})")
        try:
            while time.monotonic() - began < self._duration_s + GRACE_S:
                left_s = self._duration_s + GRACE_S - (time.monotonic() - began)
                at = int(time.time())
                if not self._interval(self._directory / str(at), left_s):
                    return
                count += 1
                out(f"==> Capture successful {_stamp(at)} ({count})")
        except KeyboardInterrupt:
            err(
                "==> Error encountered during collection: stopping collection due to shutdown signal"
            )

    def _interval(self, directory: Path, left_s: float) -> bool:
        """All targets at once, for one interval; False if the time was up before."""
        directory.mkdir(parents=True, exist_ok=True)
        works: list[Callable[[], None]] = []
        if "metrics" in self._targets:
            works.append(lambda: self._fetch("/v1/agent/metrics", directory / "metrics.json"))
        if "pprof" in self._targets:
            seconds = str(max(int(self._interval_s), 1))
            for name, file in (("heap", "heap.prof"), ("goroutine", "goroutine.prof")):
                works.append(self._profile(name, directory / file, {}))
            works.append(self._profile("profile", directory / "profile.prof", {"seconds": seconds}))
            works.append(self._profile("trace", directory / "trace.out", {"seconds": seconds}))
        if "logs" in self._targets:  # a quiet log is not waited for
            logs = directory / "consul.log"
            threading.Thread(
                target=self._guarded, args=(lambda: self._logs(logs),), daemon=True
            ).start()
        threads = [
            threading.Thread(target=self._guarded, args=(work,), daemon=True) for work in works
        ]
        for thread in threads:
            thread.start()
        time.sleep(min(self._interval_s, left_s))
        for thread in threads:
            thread.join(ANSWER_S)
        return bool(self._interval_s < left_s)

    @staticmethod
    def _guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except (CommandError, OSError) as error:
            err(f"==> Capture failure {error}")

    def _fetch(self, path: str, file: Path) -> None:
        self._save(file, self._client.get(path))

    def _logs(self, file: Path) -> None:
        deadline = time.monotonic() + self._interval_s
        with file.open("w", encoding="utf-8") as log:
            for line in self._client.lines("/v1/agent/monitor", {"loglevel": "DEBUG"}):
                log.write(line + "\n")
                log.flush()
                if time.monotonic() > deadline:
                    return

    def _profile(self, name: str, file: Path, query: dict[str, str]) -> Callable[[], None]:
        def work() -> None:
            with file.open("wb") as kept:
                self._client.download(f"/debug/pprof/{name}", kept, query)

        return work


def _stamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(seconds))


def _pack(directory: Path, archive: Path) -> None:
    """The directory becomes an archive, whole or not at all."""
    temporary = archive.with_name(archive.name + ".tmp")
    with tarfile.open(temporary, "x:gz") as packed:
        packed.add(directory, directory.name)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(archive)
    shutil.rmtree(directory)


def _run(parsed: Parsed) -> int:
    if parsed.args:
        raise CommandError("==> debug: Too many arguments provided, expected 0")
    capture = _Capture(connect(parsed), parsed)
    try:
        version = capture.prepare()
    except CommandError as error:
        raise CommandError(f"==> Capture validation failed: {error}") from None
    status = capture.run(version)
    sys.stdout.flush()
    return status


DEBUG = Command(
    usage="""
Usage: proconsul debug [options]

  Records an agent's configuration, members, metrics and log for a while, and packs
  it all into an archive for those who help.""",
    run=_run,
    flags=(
        strings_flag("capture", f"What to record: {', '.join(TARGETS)}. Repeatable; all."),
        Flag(
            "interval", "How often metrics are taken.", parse_duration, INTERVAL_S,
            value_name="duration",
        ),
        Flag(
            "duration", "How long to record.", parse_duration, DURATION_S, value_name="duration"
        ),
        bool_flag("archive", "Pack it; with false the directory stays.", True),
        string_flag("output", "Name of directory and archive; made from the time by default."),
        *CLIENT_FLAGS,
    ),
)  # fmt: skip
