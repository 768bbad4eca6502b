"""LZW as Go's `compress/lzw` does it with LSB bit order and 8-bit literals, both directions.

Codes start at 9 bits, 256 clears the table, 257 ends the stream, widths grow to 12 bits. The
encoder clears the table when code 4,095 would be assigned; it writes the bytes that Consul 1.8
(Go 1.14) writes: later Go opens with a clear code, which only costs 9 bits.
"""

from __future__ import annotations

from proconsul.util.errors import WireError

_CLEAR = 256
_EOF = 257
_FIRST = 258
_WIDTH_MIN = 9
_WIDTH_MAX = 12
_CODE_MAX = (1 << _WIDTH_MAX) - 1
_LITERALS = [bytes((i,)) for i in range(256)] + [b"", b""]


def compress(data: bytes) -> bytes:
    """Encode `data`. Costs about 0.1 microseconds a byte: keep it off large inputs on a loop."""
    out = bytearray()
    bits = n_bits = 0
    width, overflow, high = _WIDTH_MIN, 1 << _WIDTH_MIN, _EOF
    table: dict[int, int] = {}
    lookup = table.get
    code = -1
    for literal in data:
        if code < 0:
            code = literal
            continue
        key = code << 8 | literal
        found = lookup(key)
        if found is not None:
            code = found
            continue
        bits |= code << n_bits
        n_bits += width
        if n_bits >= 64:
            out += (bits & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "little")
            bits >>= 64
            n_bits -= 64
        code = literal
        high += 1
        if high == overflow:
            width += 1
            overflow <<= 1
        if high == _CODE_MAX:
            bits |= _CLEAR << n_bits
            n_bits += width
            width, overflow, high = _WIDTH_MIN, 1 << _WIDTH_MIN, _EOF
            table.clear()
            continue
        table[key] = high
    if code >= 0:
        bits |= code << n_bits
        n_bits += width
        high += 1
        if high == overflow:
            width += 1
        if high == _CODE_MAX:
            bits |= _CLEAR << n_bits
            n_bits += width
            width = _WIDTH_MIN
    bits |= _EOF << n_bits
    n_bits += width
    out += bits.to_bytes((n_bits + 7) // 8, "little")
    return bytes(out)


def decompress(data: bytes, size_max: int) -> bytes:
    """Decode a stream up to its end code; bytes after it are ignored, as Go's reader does.

    Raises `WireError` for an invalid code, a missing end, or more than `size_max` bytes of output.
    """
    out = bytearray()
    table = _LITERALS.copy()
    width, mask, overflow = _WIDTH_MIN, (1 << _WIDTH_MIN) - 1, 1 << _WIDTH_MIN
    last: bytes | None = None
    bits = n_bits = position = 0
    end = len(data)
    while True:
        if n_bits < width:
            chunk = data[position : position + 8]
            bits |= int.from_bytes(chunk, "little") << n_bits
            n_bits += len(chunk) * 8
            position += 8
            if n_bits < width:
                raise WireError("lzw: truncated" if position >= end else "lzw: malformed")
        code = bits & mask
        bits >>= width
        n_bits -= width
        if code == _CLEAR:
            del table[_FIRST:]
            width, mask, overflow = _WIDTH_MIN, (1 << _WIDTH_MIN) - 1, 1 << _WIDTH_MIN
            last = None
            continue
        if code == _EOF:
            return bytes(out)
        known = len(table)
        if code < known:
            entry = table[code]
        elif code == known and last is not None and known <= _CODE_MAX:
            entry = last + last[:1]
        else:
            raise WireError("lzw: invalid code")
        out += entry
        if len(out) > size_max:
            raise WireError(f"lzw: more than {size_max} bytes of output")
        if last is not None and known <= _CODE_MAX:
            table.append(last + entry[:1])
            known += 1
            if known == overflow and width < _WIDTH_MAX:
                width += 1
                overflow <<= 1
                mask = overflow - 1
        last = entry
