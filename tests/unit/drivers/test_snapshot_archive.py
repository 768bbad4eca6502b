"""Snapshot archives: whole ones come back, all others are refused in Consul's words."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import tempfile
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proconsul.drivers import snapshot_archive
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


def _sums(meta_text: bytes, state: bytes) -> bytes:
    files = {"meta.json": meta_text, "state.bin": state}
    return "".join(f"{sha256(d).hexdigest()}  {name}\n" for name, d in files.items()).encode()


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
        gzip.compress(_tar(state_bin=b"x", SHA256SUMS=_sums(b"", b"x"))),
        'file missing for "meta.json"',
    ),
    (
        gzip.compress(_tar(meta_json=b"{}", SHA256SUMS=_sums(b"{}", b""))),
        'file missing for "state.bin"',
    ),
    (gzip.compress(_tar(meta_json=b'{"Size":2}', state_bin=b"x")), "didn't match (1 != 2)"),
    (gzip.compress(_tar(meta_json=b'{"Index":4611686018427387904}')), "is beyond any log"),
    (gzip.compress(_tar(meta_json=b'{"Index":true}')), "Index is not an unsigned number"),
    (
        gzip.compress(_tar(meta_json=b'{"Configuration":{"Servers":[{"ID":1}]}}')),
        "ID is not a string",
    ),
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


def test_no_file_comes_twice() -> None:
    tar = gzip.decompress(WHOLE)[:-1024]
    with pytest.raises(ArchiveError, match=r'unexpected file "meta\.json"'):
        read(gzip.compress(tar + tar + bytes(1024)))


def test_what_the_disk_has_no_room_for_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_archive, "room", lambda _: 1000)
    with tempfile.TemporaryFile() as state:
        with pytest.raises(ArchiveError, match="1200 bytes do not fit on the disk"):
            read_archive(io.BytesIO(WHOLE), state)
        assert state.tell() == 0
        assert read_archive(io.BytesIO(archive(b"x" * 1000)), state).size == 1000


def test_what_is_behind_the_end_is_not_unpacked_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_archive, "_BEHIND_MAX", 3 << 20)
    with pytest.raises(ArchiveError, match="4194304 unread uncompressed bytes remain"):
        read(WHOLE + gzip.compress(bytes(40 << 20)))


ODD = st.one_of(
    st.none(), st.booleans(), st.floats(), st.integers(), st.text(max_size=5),
    st.integers((1 << 62) - 2, 1 << 65), st.just("\ud800"), st.lists(st.integers(), max_size=2),
    st.dictionaries(st.sampled_from(["Servers", "ID", "Suffrage"]), st.integers(), max_size=2),
)  # fmt: skip
SERVER = st.dictionaries(st.sampled_from(["Suffrage", "ID", "Address"]), ODD, max_size=3)
META = st.dictionaries(
    st.sampled_from(["Version", "ID", "Index", "Term", "ConfigurationIndex", "Size"]), ODD
)


@given(
    META,
    st.one_of(ODD, st.lists(st.one_of(SERVER, ODD), max_size=3)),
    st.permutations(["meta.json", "state.bin", "SHA256SUMS", "\udcffother"]),
    st.integers(2, 4),
    st.one_of(st.none(), st.tuples(st.integers(0, 511), st.integers(0, 255))),
)
@settings(derandomize=True, max_examples=300)
def test_nothing_but_refusals_comes_of_odd_archives(
    fields: dict[str, Any], servers: Any, order: list[str], count: int, header: Any
) -> None:
    text = json.dumps({"Size": 1, "Configuration": {"Servers": servers}, **fields}).encode()
    files = {"meta.json": text, "state.bin": b"x", "SHA256SUMS": _sums(text, b"x")}
    tar = bytearray(_tar(**{name: files.get(name, b"") for name in order[:count]}))
    if header is not None:  # damaged, with the right checksum
        at, value = header
        tar[at] = value
        checksum = sum(tar[:148]) + sum(tar[156:512]) + 8 * 32
        tar[148:156] = b"%06o\0 " % checksum
    try:
        found, _ = read(gzip.compress(bytes(tar), 1))
    except ArchiveError as error:
        str(error).encode()
        return
    found.to_json()
    assert (found.size, found.index < 1 << 62) == (1, True)


def test_bytes_behind_the_end() -> None:
    with pytest.raises(ArchiveError, match="4 unread uncompressed bytes remain"):
        read(gzip.compress(gzip.decompress(WHOLE) + b"more"))
