"""What is fuzzed, and the hostile inputs: noise, mutations of valid samples, sizes that never come.

Everything follows from a seed, so that a failure can be repeated.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from proconsul.util.errors import WireError

GOLDEN = Path(__file__).parent.parent / "golden"
INPUT_BYTES_MAX = 1 << 16

# Headers of msgpack that announce far more than there is, big-endian sizes, and bytes that
# are special in one format or another.
_FRAGMENTS = (
    b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x05", b"\xdc\xff\xff", b"\xde\xff\xff",
    b"\xda\xff\xff", b"\xdd\x00\x00\xff\xff", b"\xdd\x00\x0f\xff\xff", b"\xcf" + b"\xff" * 8,
    b"\xd3\x80" + b"\0" * 7, b"\xcb\x7f\xf8" + b"\0" * 6, b"\xcb\x7f\xf0" + b"\0" * 6,
    b"\xc0", b"\xc1", b"\x90", b"\x80", b"\xa0", b"\xa1\xff", b"\0" * 16, b"\xff" * 16,
    b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\r\n", b"\r\n\r\n",
    b"%zz", b"{", b"[", b'"', b"\\u0000", b"1e999", b"\xc3\x28", b"\xed\xa0\x80", b"-1", b"\n",
)  # fmt: skip

_BOMBS = (
    b"\x91" * 3000,
    b"\x81\xa1a" * 3000,
    b"\xdd\x00\x00\xff\xff" * 1500,
    b"\xdd\x00\x0f\xff\xff" * 1500,
    b"\xdd\xff\xff\xff\xff" * 20,
    b"\xdf\x00\x00\xff\xff\x01" * 1500,
    b"\xdc\xff\xff" * 4000,
    b"[" * 20_000,
    b'{"a":' * 10_000,
    b"a{" * 10_000,
    b"\xff" * INPUT_BYTES_MAX,
    b"\0" * INPUT_BYTES_MAX,
    b"(" * 5000,
)


@dataclass(frozen=True)
class Target:
    """One decoder."""

    name: str
    run: Callable[[bytes], object]
    samples: list[bytes]
    errors: tuple[type[Exception], ...] = (WireError,)
    weight: float = 1.0
    """Share of the inputs that it gets: less for the slow ones."""
    traced: bool = True
    """Whether its memory is measured, which makes pyhcl ten times slower."""


def inputs(samples: Sequence[bytes], count: int, seed: int) -> Iterator[bytes]:
    """The valid samples first, then bombs alone and behind prefixes of samples, then `count` more."""
    rng = random.Random(seed)
    yield b""
    yield from samples
    for bomb in _BOMBS:
        yield bomb
        if samples:
            sample = rng.choice(samples)
            yield sample[: rng.randrange(min(len(sample), 200) + 1)] + bomb
    for _ in range(count):
        if not samples or rng.random() < 0.1:
            yield rng.randbytes(int(rng.expovariate(1 / 60)) % 2000)
            continue
        data = bytearray(rng.choice(samples))
        for _ in range(1 + int(rng.expovariate(0.8))):
            _mutate(data, samples, rng)
        yield bytes(data[:INPUT_BYTES_MAX])


def _mutate(data: bytearray, samples: Sequence[bytes], rng: random.Random) -> None:
    at = rng.randrange(len(data) + 1)
    end = min(len(data), at + 1 + int(rng.expovariate(1 / 12)))
    match rng.randrange(8):
        case 0 if at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        case 1 if at < len(data):
            data[at] = rng.randrange(256)
        case 2:
            del data[at:]
        case 3:
            del data[at:end]
        case 4:
            data[at:at] = data[at:end] * rng.choice((1, 2, 50))
        case 5:
            data[at:at] = rng.choice(_FRAGMENTS)
        case 6:
            fragment = rng.choice(_FRAGMENTS)
            data[at : at + len(fragment)] = fragment
        case _:
            other = rng.choice(samples)
            cut = rng.randrange(len(other) + 1)
            data[at:end] = other[cut : cut + 1 + int(rng.expovariate(1 / 30))]
