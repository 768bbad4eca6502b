"""JSON with the bytes of Go's encoder.

`<`, `>` and `&` are escaped, floats have Go's form, text that is not UTF-8 is replaced. Which fields
are left out, null or empty is the business of whoever builds the value (`interfaces.http.views`).
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

_NESTING_MAX = 64
_encoder = msgspec.json.Encoder()
_ESCAPES = (
    (b"<", b"\\u003c"),
    (b">", b"\\u003e"),
    (b"&", b"\\u0026"),
    ("\u2028".encode(), b"\\u2028"),
    ("\u2029".encode(), b"\\u2029"),
)


def to_json(value: object) -> bytes:
    """Compact JSON, byte for byte as Go's `json.Marshal` of the same value."""
    try:
        data = _encoder.encode(value)
    except UnicodeEncodeError:
        data = _encoder.encode(_replace_invalid(value))
    for plain, escaped in _ESCAPES:
        if plain in data:
            data = data.replace(plain, escaped)
    return data


def _replace_invalid(value: object) -> object:
    if isinstance(value, str):
        text = value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        # Go writes its replacement for invalid bytes as an escape; U+FFFD itself it leaves alone.
        return Raw(_encoder.encode(text).replace("\ufffd".encode(), b"\\ufffd"))
    if isinstance(value, dict):
        return {_valid_key(key): _replace_invalid(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replace_invalid(item) for item in value]
    if isinstance(value, msgspec.Struct):
        return {
            field.encode_name: _replace_invalid(getattr(value, field.name))
            for field in msgspec.structs.fields(value)
        }
    return value


def _valid_key(key: object) -> object:
    if isinstance(key, str):
        return key.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return key


def number(value: float) -> int | float | Raw:
    """A float as Go writes it: integral ones without a point, no exponent from 1e-6 to 1e21."""
    size = abs(value)
    if size < 1e21 and value.is_integer():
        return int(value)
    if 1e-6 <= size < 1e-3:  # where Python's shortest form would have an exponent
        digits = f"{value:.{_decimals(value)}f}"
        return Raw(digits.encode())
    if size < 1e-6 or size >= 1e21:
        mantissa, _, exponent = repr(value).partition("e")
        sign = exponent[0] if exponent[0] in "+-" else "+"
        return Raw(f"{mantissa}e{sign}{exponent.lstrip('+-').lstrip('0').rjust(1, '0')}".encode())
    return value


def _decimals(value: float) -> int:
    mantissa, _, exponent = f"{value!r}".partition("e")
    fraction = len(mantissa.partition(".")[2]) if "." in mantissa else 0
    return fraction - int(exponent or 0)


def free_form(value: Any, depth: int = 0) -> Any:
    """An opaque configuration value: maps sorted, floats in Go's form."""
    if depth > _NESTING_MAX:
        return None
    if isinstance(value, float):
        return number(value)
    if isinstance(value, dict):
        return {key: free_form(value[key], depth + 1) for key in sorted(value)}
    if isinstance(value, list):
        return [free_form(item, depth + 1) for item in value]
    return value
