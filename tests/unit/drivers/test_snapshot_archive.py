"""Snapshot archives: whole ones come back, all others are refused in Consul's words."""

from __future__ import annotations

import gzip
import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proconsul.drivers.snapshot_archive import (
    ArchiveError,
    ArchiveMeta,
    read_archive,
    write_archive,
)
from proconsul.wire.raft import Configuration, Server, Suffrage

MEMBERS = Configuration(
    (
        Server(Suffrage.VOTER, "id1", "10.0.0.1:8300"),
        Server(Suffrage.NONVOTER, "id2", "10.0.0.2:8300"),
    )
)


def meta(size: int) -> ArchiveMeta:
    return ArchiveMeta("2-9-1600000000000", 9, 2, MEMBERS, 4, size)


def archive(state: bytes) -> bytes:
    out = io.BytesIO()
    write_archive(out, meta(len(state)), io.BytesIO(state), 1_600_000_000)
    return out.getvalue()


def read(data: bytes) -> tuple[ArchiveMeta, bytes]:
    state = io.BytesIO()
    return read_archive(io.BytesIO(data), state), state.getvalue()


@given(st.binary(max_size=3000))
@settings(derandomize=True, max_examples=50)
def test_round_trip(state: bytes) -> None:
    assert read(archive(state)) == (meta(len(state)), state)


def test_other_programs_read_it() -> None:
    with tarfile.open(fileobj=io.BytesIO(archive(b"state")), mode="r:gz") as tar:
        assert tar.getnames() == ["meta.json", "state.bin", "SHA256SUMS"]
        assert all(member.isfile() and member.mode == 0o600 for member in tar)
        sums = tar.extractfile("SHA256SUMS")
        assert sums is not None
        assert len(sums.read().splitlines()) == 2


def test_it_ends_where_go_expects_the_end() -> None:
    tar = gzip.decompress(archive(b"x" * 512))
    # Header and content of three files, a block each, but for a longer meta.json; two zero blocks.
    assert tar.endswith(bytes(1024))
    assert tar[-1536:-1024].rstrip(b"\0")


def test_a_state_that_is_shorter_than_announced() -> None:
    with pytest.raises(ArchiveError, match="failed to write snapshot metadata: EOF"):
        write_archive(io.BytesIO(), meta(10), io.BytesIO(b"short"), 0)


def _tar(**files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name.replace("_", "."))
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    # Without what Python's tar adds to fill a record.
    return out.getvalue().rstrip(b"\0") + bytes(2048)


NO_ARCHIVES = [
    (b"", "failed to decompress snapshot: EOF"),
    (b"x", "failed to decompress snapshot: gzip: invalid header"),
    (b"\x1f\x8b", "failed to decompress snapshot: unexpected EOF"),
    (gzip.compress(b""), 'failed checking integrity of snapshot: file missing for "meta.json"'),
    (gzip.compress(b"x" * 512), "failed reading snapshot: archive/tar: invalid tar header"),
    (gzip.compress(b"x" * 100), "failed reading snapshot: unexpected EOF"),
    (gzip.compress(_tar(other=b"")), 'unexpected file "other" in snapshot'),
    (gzip.compress(_tar(meta_json=b"{")), "failed to decode snapshot metadata"),
    (gzip.compress(_tar(meta_json=b'{"Index":-1}')), "Index is not an unsigned number"),
    (gzip.compress(_tar(meta_json=b"[" * 99_999)), "failed to decode snapshot metadata"),
    (gzip.compress(_tar(meta_json=b" " * (2 << 20))), "bytes are too many"),
    (gzip.compress(_tar(meta_json=b"{}", SHA256SUMS=b"x")), "input does not match format"),
    (
        gzip.compress(_tar(meta_json=b"{}", SHA256SUMS=b"0" * 64 + b"  other\n")),
        'list missing hash for "other"',
    ),
    (
        gzip.compress(_tar(meta_json=b"{}", SHA256SUMS=b"0" * 64 + b"  meta.json\n")),
        'hash check failed for "meta.json"',
    ),
]


@pytest.mark.parametrize("number", range(len(NO_ARCHIVES)))  # as ids the bytes would differ
def test_what_is_no_archive(number: int) -> None:
    data, text = NO_ARCHIVES[number]
    with pytest.raises(ArchiveError) as refusal:
        read(data)
    assert text in str(refusal.value)


WHOLE = archive(b"some state, " * 100)


@given(st.integers(0, len(WHOLE) - 1))
@settings(derandomize=True, max_examples=100)
def test_no_part_of_an_archive_passes_for_one(size: int) -> None:
    with pytest.raises(ArchiveError):
        read(WHOLE[:size])


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
@settings(derandomize=True, max_examples=200)
def test_a_changed_byte_is_noticed_or_does_not_matter(at: int, change: int) -> None:
    data = bytearray(WHOLE)
    data[at] ^= change
    try:
        found = read(bytes(data))
    except ArchiveError:
        return
    assert found == read(WHOLE)  # a time, a name: nothing of ours


def test_bytes_behind_the_end() -> None:
    with pytest.raises(ArchiveError, match="4 unread uncompressed bytes remain"):
        read(gzip.compress(gzip.decompress(WHOLE) + b"more"))
