"""NOR flash in a file: erasing sets bits, programming clears them, and every change is in the file at once.
So killing the emulator cuts the power between two operations; `cut` cuts it in the middle of one."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Optional


class PowerCut(Exception):
    """The power is gone."""


class NorFlash:
    """A file of flash, blank where there is none yet. `cut` is the number of operations after which the next
    one is torn."""

    def __init__(self, path: Path, size: int, cut: Optional[int] = None) -> None:
        if not path.exists():
            path.write_bytes(b"\xff" * size)
        self.bytes = bytearray(path.read_bytes())
        self.cut = cut
        self.operations = 0
        self._file = path.open("r+b", buffering=0)

    def put(self, at: int, data: bytes) -> None:
        """Writes what a boot loader or a tool wrote."""
        self.bytes[at : at + len(data)] = data
        self._file.seek(at)
        self._file.write(data)

    def erase(self, at: int, length: int) -> None:
        """Sets all bits of a range."""
        self._change(at, bytes(self.bytes[at : at + length]), b"\xff" * length)

    def program(self, at: int, data: bytes) -> None:
        """Clears the bits of a range that are clear in `data`."""
        before = bytes(self.bytes[at : at + len(data)])
        self._change(at, before, bytes(old & new for old, new in zip(before, data)))

    def _change(self, at: int, before: bytes, after: bytes) -> None:
        if self.cut is not None and self.operations >= self.cut:
            self.put(at, _torn(before, after))
            raise PowerCut
        self.operations += 1
        self.put(at, after)


def _torn(before: bytes, after: bytes) -> bytes:
    """What a change leaves that was not finished: any of the bits that were to change have changed."""
    noise = secrets.token_bytes(len(before))
    return bytes(old ^ ((old ^ new) & some) for old, new, some in zip(before, after, noise))
