"""RP2350's one-time programmable memory (datasheet 13): 4096 rows of 24 bits in a file, a little-endian word
each.

Rows 0 to 11 hold the chip's public identity and its random number. A row read with error correction gives 16
bits, a word two rows; the eight bits above them are a Hamming code and a mark that all bits are inverted
(13.6.1). Page locks are not modelled.
"""

from __future__ import annotations

import secrets
import struct
from pathlib import Path

ROWS = 4096
_IDENTITY = 12
_INVERTED = 0b11 << 22
# Where data bits stand in the Hamming code: not at the powers of two, which are its own bits.
_POSITIONS = [position for position in range(1, 22) if position & (position - 1)]


def protected(data: int) -> int:
    """A row of 16 bits with its code."""
    code = 0
    for bit, position in enumerate(_POSITIONS):
        if data >> bit & 1:
            code ^= position
    odd = (bin(data).count("1") + bin(code).count("1")) & 1
    return data | code << 16 | odd << 21


def corrected(row: int) -> int:
    """The 16 bits of a row, one wrong bit put right."""
    if row & _INVERTED == _INVERTED:
        row ^= 0xFFFFFF
    wrong = (protected(row & 0xFFFF) ^ row) >> 16 & 0x1F
    if wrong in _POSITIONS:
        row ^= 1 << _POSITIONS.index(wrong)
    return row & 0xFFFF


class Otp:
    """The rows of one chip."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            identity = [protected(secrets.randbits(16)) for _ in range(_IDENTITY)]
            path.write_bytes(struct.pack(f"<{ROWS}I", *identity, *[0] * (ROWS - _IDENTITY)))
        self._rows: tuple[int, ...] = struct.unpack(f"<{ROWS}I", path.read_bytes())

    def raw(self, row: int) -> int:
        """A row as it is."""
        return self._rows[row]

    def pair(self, row: int) -> int:
        """Two rows, corrected, the first in the low half."""
        return corrected(self._rows[row]) | corrected(self._rows[row + 1]) << 16
