"""Records of Raft's log in LMDB, with checksums, and their examination at the start.

A value begins with the CRC-32 of key and value: 4 bytes, big-endian.
"""

from __future__ import annotations

import os
import resource
import struct
import zlib
from pathlib import Path
from typing import Any, NoReturn

import lmdb

from proconsul.wire.raft import decode_entry

FORMAT = 2
"""Of a log; format 1 had no checksums."""
FORMAT_KEY, HARD_KEY = b"Format", b"HardState"
_META_BYTES = 152
"""A meta page up to and with the transaction's number (lmdb.h's MDB_meta, 64 bits)."""
MAP_BYTES = 64 << 20
"""LMDB's map to begin with."""


class DamagedError(Exception):
    """A record is not what was written."""


def open_environment(path: Path, map_bytes: int = MAP_BYTES) -> Any:
    """The environment in the directory `path`. Raises `lmdb.Error`."""
    return lmdb.open(
        str(path), map_size=map_bytes, max_dbs=4, mode=0o600, meminit=False, max_readers=16
    )


def fill_up(env: Any, path: Path) -> None:
    """Give a file that lost its end (a full disk, a repair) zeros there.

    A read of a mapped page beyond the file's end would kill the process (SIGBUS); of zeros LMDB
    says that they are corrupt. A sound file may be a little short too: LMDB never writes pages
    that were taken and freed within one transaction. So this is no reason to refuse it.
    """
    needed = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
    file = path / "data.mdb"
    if file.stat().st_size < needed:
        os.truncate(file, needed)


def put(txn: Any, table: Any, key: bytes, value: bytes) -> None:
    """Write a value with its checksum."""
    checksum = zlib.crc32(value, zlib.crc32(key)).to_bytes(4, "big")
    txn.put(key, checksum + value, db=table)


def get(txn: Any, table: Any, key: bytes) -> memoryview | None:
    """A value. Of a transaction with buffers, it is valid while that lasts."""
    value = txn.get(key, db=table)
    if value is None:
        return None
    data = memoryview(value)
    if zlib.crc32(data[4:], zlib.crc32(key)) != int.from_bytes(data[:4], "big"):
        number = f"entry {int.from_bytes(key, 'big')}" if len(key) == 8 else key.decode()
        raise DamagedError(f"the checksum of {number} is wrong")
    return data[4:]


def child_probes(path: Path, writing: int, lock: int) -> NoReturn:
    """What runs in the child: tells in the pipe what is wrong, and fails."""
    code = 1
    try:
        os.close(lock)  # it must not outlast the parent
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # LMDB's assertions say nothing of use
        _check_heads(path / "data.mdb")
        env = open_environment(path)
        fill_up(env, path)
        logs, conf = (env.open_db(name) for name in (b"logs", b"conf"))
        with env.begin(buffers=True) as txn:
            if txn.get(FORMAT_KEY, db=conf) is not None:
                _check(txn, logs, conf)
        code = 0
    except Exception as error:  # noqa: BLE001 - told to the parent
        os.write(writing, str(error).encode())
    finally:
        os._exit(code)


def _check_heads(file: Path) -> None:
    """LMDB's two meta pages are written in turn, and the one with the higher number counts.

    A wrong number there would silently take back the last transaction.
    """
    with open(file, "rb") as data:
        head = data.read(_META_BYTES)
        (size,) = struct.unpack_from("=I", head, 40)
        data.seek(size)
        numbers = [
            struct.unpack_from("=Q", page, 144)[0] for page in (head, data.read(_META_BYTES))
        ]
    if numbers[0] % 2 or abs(numbers[0] - numbers[1]) != 1:
        raise DamagedError(f"its last two transactions have the numbers {numbers}")


def _check(txn: Any, logs: Any, conf: Any) -> None:
    """Every record is as it was written, and none is missing."""
    if int.from_bytes(get(txn, conf, FORMAT_KEY) or b"", "big") != FORMAT:
        return  # for the parent to refuse
    crc32 = zlib.crc32
    expected = last_term = 0
    with txn.cursor(db=logs) as cursor:
        for key, value in cursor:
            if len(key) != 8 or crc32(value[4:], crc32(key)) != int.from_bytes(value[:4], "big"):
                raise DamagedError(f"the checksum of entry {int.from_bytes(key, 'big')} is wrong")
            index = int.from_bytes(key, "big")
            if expected and index != expected:
                raise DamagedError(f"entry {expected} is missing, {index} follows")
            expected = index + 1
        if cursor.last():
            last_term = decode_entry(cursor.value()[4:]).term
    hard = get(txn, conf, HARD_KEY)
    if last_term > (0 if hard is None else int.from_bytes(hard[:8], "big")):
        raise DamagedError("the server's term and vote are missing")
