"""Blocks of registers: what every one answers to, and the ones that only keep what is written."""

from __future__ import annotations

from typing import Mapping, Optional, Protocol


class Block(Protocol):
    """A peripheral's registers, whole words each."""

    def read(self, register: int) -> int:
        """The register at this offset."""

    def write(self, register: int, value: int, written: int) -> None:
        """Sets a register to `value`. `written` is what was on the bus, before an alias that sets, clears or
        flips bits made `value` of it: registers whose ones clear look at that."""


class Kept:
    """Registers that only keep what is written to them."""

    def __init__(self, initial: Optional[Mapping[int, int]] = None, default: int = 0) -> None:
        self._initial = dict(initial or {})
        self._default = default
        self.values = dict(self._initial)

    def reset(self) -> None:
        self.values = dict(self._initial)

    def read(self, register: int) -> int:
        return self.values.get(register, self._default)

    def write(self, register: int, value: int, written: int) -> None:
        self.values[register] = value
