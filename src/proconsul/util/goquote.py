"""Text as Go quotes it (`%q`, part of many of Consul's messages) and unquotes it."""

from __future__ import annotations

_ESCAPES = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92, '"': 34}


def go_quote(text: str) -> str:
    """Go's %q, for what is printable; the rest as escapes."""
    out = []
    for char in text:
        if char in '"\\':
            out.append("\\" + char)
        elif char.isprintable():
            out.append(char)
        else:
            out.append({"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(char, f"\\x{ord(char):02x}"))
    return '"' + "".join(out) + '"'


def go_unquote(inside: str, quote: str) -> str | None:
    """Go's `strconv.Unquote` of what is between two `quote`s; None if it refuses.

    There are no escaped quotes in it: what ends at the first one has none.
    """
    if quote == "`":
        return inside.replace("\r", "")
    if "\n" in inside:
        return None
    if "\\" not in inside:
        return inside
    out, at = bytearray(), 0
    while at < len(inside):
        char = inside[at]
        if char != "\\":
            out += char.encode("utf-8", "surrogateescape")
            at += 1
            continue
        escape = inside[at + 1 : at + 2]
        if escape in _ESCAPES and escape:
            out.append(_ESCAPES[escape])
            at += 2
            continue
        size, base, start = {"x": (2, 16, 2), "u": (4, 16, 2), "U": (8, 16, 2)}.get(
            escape, (3, 8, 1)
        )
        digits = inside[at + start : at + start + size]
        if len(digits) != size or not set(digits) <= set(
            "01234567" if base == 8 else "0123456789abcdefABCDEF"
        ):
            return None
        code = int(digits, base)
        if escape in {"u", "U"}:
            if code > 0x10FFFF:
                return None
            out += chr(code).encode("utf-8", "surrogatepass")
        elif code > 255:
            return None
        else:
            out.append(code)
        at += start + size
    return out.decode("utf-8", "surrogateescape")
