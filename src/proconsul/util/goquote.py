"""Text as Go's `%q` quotes it: part of many of Consul's messages."""

from __future__ import annotations


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
