"""The file of gossip keys: made, read, replaced, refused."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path

import pytest

from proconsul.drivers.gossip import keyring_file
from proconsul.util.errors import ConfigError

ONE, TWO = b"1" * 16, b"2" * 32


def text(*keys: bytes) -> str:
    return json.dumps([b64encode(key).decode() for key in keys])


def test_a_first_start_makes_the_file_and_the_next_one_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "serf/local.keyring"
    made = keyring_file.load(path, ONE, "LAN")
    assert made is not None
    assert made.keys == [ONE]
    assert path.stat().st_mode & 0o777 == 0o600
    keyring_file.save(path, [TWO, ONE])
    assert [p.name for p in path.parent.iterdir()] == ["local.keyring"], "nothing temporary stays"
    again = keyring_file.load(path, None, "LAN")
    assert again is not None
    assert again.keys == [TWO, ONE]
    # What serf itself writes
    assert path.read_text() == json.dumps(json.loads(text(TWO, ONE)), indent=2)


def test_the_file_wins_over_the_configured_key(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "k"
    path.write_text(text(TWO))
    found = keyring_file.load(path, ONE, "WAN")
    assert found is not None
    assert found.primary == TWO
    assert "keyring doesn't include key provided with -encrypt" in caplog.text
    assert b64encode(ONE).decode() not in caplog.text


def test_without_key_and_file_gossip_is_plain(tmp_path: Path) -> None:
    assert keyring_file.load(tmp_path / "k", None, "LAN") is None
    assert not (tmp_path / "k").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "not JSON"),
        ("{}", "not a JSON list of keys"),
        ("[1]", "not a JSON list of keys"),
        ("[]", "no keys present in keyring"),
        ('["!"]', "illegal base64 data"),
        ('["aGk="]', "key size must be 16, 24 or 32 bytes"),
        ("[" * 70_000, "more than"),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "bad.keyring"
    path.write_text(content)
    with pytest.raises(ConfigError, match=reason) as caught:
        keyring_file.load(path, ONE, "LAN")
    assert str(path) in str(caught.value)


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "serf").write_text("a file, not a directory")
    with pytest.raises(keyring_file.KeyringFileError, match="Failed to write keyring file"):
        keyring_file.save(tmp_path / "serf/local.keyring", [ONE])


def test_a_failed_write_leaves_the_old_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "k"
    keyring_file.save(path, [ONE])

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keyring_file.os, "fsync", full)
    with pytest.raises(keyring_file.KeyringFileError, match="No space left"):
        keyring_file.save(path, [TWO])
    assert keyring_file.decode(path.read_bytes()).keys == [ONE]


def test_a_ring_holds_64_keys() -> None:
    keys = [bytes([number]) * 16 for number in range(65)]
    assert len(keyring_file.decode(text(*keys[:64]).encode()).keys) == 64
    with pytest.raises(ConfigError, match="more than 64 keys"):
        keyring_file.decode(text(*keys).encode())
