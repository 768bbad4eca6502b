"""Go's `base64.StdEncoding`: strict, with its error texts. Line breaks are passed over."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error


def decode(text: str) -> bytes:
    """The bytes. Raises ValueError with Go's text."""
    kept = text.replace("\r", "").replace("\n", "") if "\r" in text or "\n" in text else text
    try:
        return b64decode(kept, validate=True)
    except (Error, ValueError):
        raise ValueError(f"illegal base64 data at input byte {_illegal_at(kept)}") from None


def _illegal_at(text: str) -> int:
    """Where Go gives up: at the first foreign character, else in the last, incomplete quantum."""
    for at, char in enumerate(text):
        if not (char.isascii() and (char.isalnum() or char in "+/")):
            return at
    return len(text) // 4 * 4
