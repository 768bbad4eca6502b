"""Every RPC that real Consul agents made: our structs decode it and encode it again to Go's bytes.

Go sorts the fields of a struct; the order of a map is random, so captured maps are sorted before the
comparison. Text of 32 to 255 bytes has a `str8` head here and a `raw16` head in Go's older msgpack, which
both read (docs/divergence.md).
"""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import msgpack
import pytest
from msgspec import Raw

from proconsul.domain.base import decode, encode
from proconsul.rpc.methods import METHODS
from proconsul.testing.trees import differences

VECTORS = [
    json.loads(line) for line in (Path(__file__).parent / "vectors.jsonl").read_text().splitlines()
]
MAP_HEADS = {bytes((head,)) for head in (*range(0x80, 0x90), 0xDE, 0xDF)}
ELSEWHERE = {"AutoEncrypt.Sign", "ACL.Bootstrap"}
"""Methods without vectors; README.md says why."""


def unkept(text: str) -> bytes:
    """Bytes as `rpc_capture` keeps them."""
    if text.startswith("z"):
        return zlib.decompress(base64.b64decode(text[1:]))
    return bytes.fromhex(text)


def canonical(tree: Any) -> Any:
    """Maps in order of their keys."""
    if isinstance(tree, dict):
        return {key: canonical(tree[key]) for key in sorted(tree)}
    return [canonical(item) for item in tree] if isinstance(tree, list) else tree


def tree_of(data: bytes) -> Any:
    tree = msgpack.unpackb(data, raw=True, strict_map_key=False)
    return opened(tree, whole=True) if isinstance(tree, bytes) else tree


def opened(tree: Any, *, whole: bool = False) -> Any:
    """What Go types that marshal themselves put into bytes: messages in a row, entries that are maps."""
    if isinstance(tree, bytes) and (whole or tree[:1] in MAP_HEADS):
        unpacker = msgpack.Unpacker(raw=True, strict_map_key=False)
        unpacker.feed(tree)
        try:
            return [opened(item) for item in unpacker]
        except ValueError:
            return tree
    if isinstance(tree, dict):
        return {key: opened(item) for key, item in tree.items()}
    return [opened(item) for item in tree] if isinstance(tree, list) else tree


def packed(tree: Any) -> bytes:
    data: bytes = msgpack.packb(tree, use_bin_type=False)
    return data


def again(data: bytes, type_: Any) -> list[str]:
    """How `data` differs once it was decoded as `type_` and encoded."""
    ours, theirs = encode(decode(data, type_)), canonical(tree_of(data))
    if packed(tree_of(ours)) == packed(theirs):
        return []
    return differences(tree_of(ours), theirs) or ["the order of fields"]


@pytest.mark.parametrize("method", sorted({v["method"] for v in VECTORS}))
def test_what_real_agents_say_is_said_again_byte_for_byte(method: str) -> None:
    signature = METHODS[method]
    found: list[str] = []
    for vector in (v for v in VECTORS if v["method"] == method):
        found += (f"request{d}" for d in again(unkept(vector["request"]), signature.request))
        if "response" in vector:
            if signature.response is Raw:
                continue
            found += (f"response{d}" for d in again(unkept(vector["response"]), signature.response))
    assert not sorted(set(found))


def test_every_method_is_captured() -> None:
    assert set(METHODS) - {v["method"] for v in VECTORS} == ELSEWHERE
