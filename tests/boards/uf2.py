"""UF2 files: blocks of 512 bytes, each with 256 bytes of flash and their address (microsoft/uf2,
README.md)."""

from __future__ import annotations

import struct
from pathlib import Path

from trap import Trap

_SIZE = 512
_MAGIC = (0x0A324655, 0x9E5D5157)
_END = 0x0AB16F30
PAYLOAD = 256


def blocks(path: Path, family: int) -> list[tuple[int, bytes]]:
    """Addresses and payloads of a file's blocks, all of which must be of this family."""
    data = path.read_bytes()
    found = []
    for at in range(0, len(data), _SIZE):
        first, second, _, address, length, _, _, of = struct.unpack_from("<8I", data, at)
        (end,) = struct.unpack_from("<I", data, at + _SIZE - 4)
        if (first, second) != _MAGIC or end != _END or of != family or length != PAYLOAD:
            raise Trap(f"{path} is not a UF2 file of family {family:#010x}")
        found.append((address, data[at + 32 : at + 32 + length]))
    return found
