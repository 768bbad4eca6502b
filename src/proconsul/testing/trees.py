"""How two decoded messages differ, by place: what a failing comparison with a real peer shows."""

from __future__ import annotations

from typing import Any


def differences(ours: Any, theirs: Any, where: str = "") -> list[str]:
    """One line for each place that is not the same, types included; empty if all is."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        found = [f"{where}.{_name(key)}: only ours" for key in ours.keys() - theirs.keys()]
        found += [
            f"{where}.{_name(key)}: only theirs, {theirs[key]!r:.80}"
            for key in theirs.keys() - ours.keys()
        ]
        for key in ours.keys() & theirs.keys():
            found += differences(ours[key], theirs[key], f"{where}.{_name(key)}")
        return found
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [
            line
            for number, (a, b) in enumerate(zip(ours, theirs, strict=True))
            for line in differences(a, b, f"{where}[{number}]")
        ]
    if ours == theirs and type(ours) is type(theirs):
        return []
    return [f"{where}: ours {ours!r:.160}, theirs {theirs!r:.160}"]


def _name(key: object) -> str:
    return key.decode(errors="replace") if isinstance(key, bytes) else str(key)
