"""What was registered over HTTP, in files of the data directory that outlive a restart.

The files are Consul's (`persistService`, `persistCheck`, `persistCheckState` in agent/agent.go): an
agent that takes the place of a real one on its data directory knows its services, and so it is the
other way round. They hold tokens, and are readable by nobody else.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from proconsul.domain.base import wire_name
from proconsul.domain.catalog import HealthCheck, NodeService
from proconsul.domain.definitions import CheckType

log = logging.getLogger("proconsul.agent")

REMOTE, LOCAL = "remote", "local"
"""Where a definition came from: HTTP, or the agent's configuration."""
FILE_BYTES_MAX = 4 << 20

T = TypeVar("T", bound=msgspec.Struct)


class StoredService(msgspec.Struct, frozen=True, rename=wire_name):
    """A service without its checks, which have files of their own."""

    service: NodeService
    token: str = ""
    source: str = LOCAL
    locally_registered_as_sidecar: bool = False


class StoredHealth(msgspec.Struct, frozen=True, rename=wire_name):
    """Of the catalog's check what a restart needs."""

    check_id: str
    node: str = ""
    name: str = ""
    status: str = ""
    notes: str = ""
    output: str = ""
    service_id: str = ""
    service_name: str = ""
    service_tags: list[str] | None = None
    type: str = ""


class StoredCheck(msgspec.Struct, frozen=True, rename=wire_name):
    """A check, and how it is run; nothing runs those of maintenance."""

    check: StoredHealth
    chk_type: CheckType | None = None
    token: str = ""
    source: str = LOCAL


class StoredReport(msgspec.Struct, frozen=True, rename=wire_name):
    """What a TTL check said last. `expires` is in seconds since the epoch."""

    check_id: str
    output: str = ""
    status: str = ""
    expires: int = 0


class Persisted:
    """The files of one agent; without a data directory nothing is kept. Raises `OSError`.

    They are written synchronously: they are tiny and rare.
    """

    def __init__(self, data_dir: Path | None) -> None:
        self._services = data_dir / "services" if data_dir else None
        self._checks = data_dir / "checks" if data_dir else None
        self._reports = self._checks / "state" if self._checks else None

    def save_service(self, service: NodeService, token: str) -> None:
        """Keep a service that was registered over HTTP."""
        stored = msgspec.to_builtins(
            StoredService(service, token, REMOTE, service.locally_registered_as_sidecar)
        )
        for upstream in stored["Service"]["Proxy"]["Upstreams"] or ():
            # Consul reads files with a field that it never shows, nor takes, not at all.
            del upstream["IngressHosts"]
        _write(self._services, service.id, stored)

    def save_check(
        self, check: HealthCheck, kind: CheckType | None, token: str, source: str = REMOTE
    ) -> None:
        """Keep a check that was registered over HTTP, or a maintenance mode."""
        fields = {name: getattr(check, name) for name in StoredHealth.__struct_fields__}
        stored = StoredCheck(StoredHealth(**fields), kind, token, source)
        _write(self._checks, check.check_id, stored)

    def save_report(self, report: StoredReport) -> None:
        """Keep what a TTL check said. Often, and worth little after a crash: not synced."""
        _write(self._reports, report.check_id, report, sync=False)

    def forget_service(self, service_id: str) -> None:
        """Its checks are not its own business."""
        _remove(self._services, service_id)

    def forget_check(self, check_id: str) -> None:
        """The definition alone."""
        _remove(self._checks, check_id)

    def forget_report(self, check_id: str) -> None:
        """What it said last."""
        _remove(self._reports, check_id)

    def services(self) -> Iterator[StoredService]:
        """All of them; files that cannot be read are logged and left."""
        return _read_all(self._services, StoredService, "service")

    def checks(self) -> Iterator[StoredCheck]:
        """All of them; files that cannot be read are logged and left."""
        return _read_all(self._checks, StoredCheck, "check")

    def report(self, check_id: str) -> StoredReport | None:
        """What a TTL check said last, if it is kept and can be read."""
        if self._reports is None:
            return None
        try:
            return _read(_path(self._reports, check_id), StoredReport)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("cannot restore a check's state: check=%s error=%s", check_id, error)
            return None


def _path(directory: Path, key: str) -> Path:
    name = hashlib.md5(key.encode("utf-8", "surrogateescape"), usedforsecurity=False)
    return directory / name.hexdigest()


def _write(directory: Path | None, key: str, value: Any, *, sync: bool = True) -> None:
    if directory is None:
        return
    directory.mkdir(parents=True, exist_ok=True)
    path = _path(directory, key)
    temporary = path.with_suffix(".tmp")
    data = msgspec.json.encode(value)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        if sync:
            os.fsync(file.fileno())
    temporary.replace(path)


def _remove(directory: Path | None, key: str) -> None:
    if directory is not None:
        _path(directory, key).unlink(missing_ok=True)


def _read(path: Path, type_: type[T]) -> T:
    with path.open("rb") as file:
        return msgspec.json.decode(file.read(FILE_BYTES_MAX), type=type_)


def _read_all(directory: Path | None, type_: type[T], what: str) -> Iterator[T]:
    if directory is None or not directory.is_dir():
        return
    for path in sorted(directory.iterdir()):
        if path.name.endswith("tmp") or not path.is_file():
            continue
        try:
            stored = _read(path, type_)
        except (msgspec.MsgspecError, OSError) as error:
            log.error("cannot restore %s from %s, delete the file: %s", what, path, error)
            continue
        yield stored
