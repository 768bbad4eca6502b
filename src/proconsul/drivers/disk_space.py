"""How much may still be written to a disk, so that what others send never fills it."""

from __future__ import annotations

import errno
import os

RESERVE_BYTES = 256 << 20
"""Left to Raft's log, to snapshots and to the rest of the machine."""


def room(where: str | int) -> int:
    """Bytes that may be written to the filesystem of a path or descriptor; raises `OSError`."""
    stat = os.statvfs(where)
    return max(stat.f_bavail * stat.f_frsize - RESERVE_BYTES, 0)


def no_room(size: int, free: int) -> OSError:
    """What is raised where `size` bytes are more than the `free` ones."""
    return OSError(
        errno.ENOSPC,
        f"{size} bytes do not fit on the disk of temporary files: {free} may be used, "
        f"{RESERVE_BYTES} stay reserved; free some, or set TMPDIR to a larger disk",
    )
