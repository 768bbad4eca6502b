"""`snapshot save`, `restore` and `inspect`."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from proconsul.config.goflags import Parsed
from proconsul.interfaces.cli.command import (
    CLIENT_FLAGS,
    SERVER_FLAGS,
    Command,
    CommandError,
    connect,
    out,
)

_API = (*CLIENT_FLAGS, *SERVER_FLAGS)
_PATH = "/v1/snapshot"


def _file(parsed: Parsed) -> Path:
    if not parsed.args:
        raise CommandError("Missing FILE argument")
    if len(parsed.args) > 1:
        raise CommandError(f"Too many arguments (expected 1, got {len(parsed.args)})")
    return Path(parsed.args[0])


def _reason(action: str, path: Path, error: OSError) -> str:
    return f"{action} {path}: {(error.strerror or str(error)).lower()}"


def _save(parsed: Parsed) -> int:
    from proconsul.drivers.snapshot_archive import ArchiveError, read_archive

    path = _file(parsed)
    client = connect(parsed)
    unverified: Path | None = None
    try:
        # A name that nobody can have put a link at before.
        fd, name = tempfile.mkstemp(prefix=f"{path.name}.unverified-", dir=path.parent)
        unverified = Path(name)
        with open(fd, "w+b") as file:
            try:
                headers = client.download(_PATH, file)
            except CommandError as error:
                raise CommandError(f"Error saving snapshot: {error}") from None
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            read_archive(file, None)
        unverified.replace(path)
        unverified = None
        _sync_directory(path.parent)
    except ArchiveError as error:
        raise CommandError(f"Error verifying snapshot file: {error}") from None
    except OSError as error:
        reason = _reason("open", Path(f"{path}.unverified"), error)
        raise CommandError(f"Error writing unverified snapshot file: {reason}") from None
    finally:
        if unverified is not None:
            unverified.unlink(missing_ok=True)
    out(f"Saved and verified snapshot to index {headers.get('x-consul-index', '0')}")
    return 0


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _restore(parsed: Parsed) -> int:
    path = _file(parsed)
    client = connect(parsed)
    try:
        file = path.open("rb")
    except OSError as error:
        raise CommandError(f"Error opening snapshot file: {_reason('open', path, error)}") from None
    with file:
        try:
            client.upload(_PATH, file)
        except CommandError as error:
            raise CommandError(f"Error restoring snapshot: {error}") from None
    out("Restored snapshot")
    return 0


def _inspect(parsed: Parsed) -> int:
    from proconsul.drivers.snapshot_archive import ArchiveError, read_archive

    path = _file(parsed)
    try:
        with path.open("rb") as file:
            meta = read_archive(file, None)
    except ArchiveError as error:
        raise CommandError(f"Error verifying snapshot: {error}") from None
    except OSError as error:
        raise CommandError(f"Error opening snapshot file: {_reason('open', path, error)}") from None
    rows = {
        "ID": meta.id,
        "Size": meta.size,
        "Index": meta.index,
        "Term": meta.term,
        "Version": meta.version,
    }
    width = max(map(len, rows)) + 6
    out("".join(f"{name.ljust(width)}{value}\n" for name, value in rows.items()))
    return 0


SAVE = Command(
    usage="""
Usage: proconsul snapshot save [options] FILE

  Saves the state of the servers at one moment: keys, catalog, sessions and
  all else. The file is checked before it gets its name. With -stale any
  server may be asked, also where there is no leader.

      $ proconsul snapshot save backup.snap""",
    run=_save,
    flags=_API,
)

RESTORE = Command(
    usage="""
Usage: proconsul snapshot restore [options] FILE

  Replaces the state of all servers by a saved one. It is meant for recovery
  from a disaster, best into a fresh cluster, and no server should fail while
  it runs.

      $ proconsul snapshot restore backup.snap""",
    run=_restore,
    flags=_API,
)

INSPECT = Command(
    usage="""
Usage: proconsul snapshot inspect [options] FILE

  Checks a snapshot file and shows what it says of itself.

      $ proconsul snapshot inspect backup.snap""",
    run=_inspect,
)
