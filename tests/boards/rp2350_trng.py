"""RP2350's TRNG (datasheet 12.12): blocks of 192 bits, each tested by the hardware before it is valid.

The boot ROM uses it (varm_boot_path.c of raspberrypi/pico-bootrom-rp2350) and leaves it with its bypasses on,
the source off and the last block, raw samples, marked valid.
"""

from __future__ import annotations

import secrets
import struct
from typing import Callable

from clock import Clock
from noise import Noise, Source

_ISR, _ICR, _VALID, _EHR, _EHR_END = 0x104, 0x108, 0x110, 0x114, 0x12C
_SOURCE_ENABLE, _SAMPLE_COUNT, _STATISTIC, _DEBUG_CONTROL = 0x12C, 0x130, 0x134, 0x138
_SW_RESET, _BUSY, _RESET_BITS = 0x140, 0x1B8, 0x1BC
_IMR, _CONFIG = 0x100, 0x10C
_EHR_VALID, _AUTOCORRELATION_ERROR, _REPETITION_ERROR, _VON_NEUMANN_ERROR = 1, 2, 4, 8
_BYPASS_VON_NEUMANN = 2
_BITS = 192
_BLOCK = 24
# What ROM code leaves: its samples repeat, as those of embassy-rs/embassy pull request 4139 do.
_ROM_BLOCK = bytes.fromhex("aaaaaa5255555555") * 3
_FIRST_BLOCKS = 3
# One block of so many fails a test, where that happens by bad luck.
_UNLUCKY = 8


class Trng:
    """Its registers."""

    def __init__(self, clock: Clock, source: Source, say: Callable[[str], None]) -> None:
        self._clock, self._source, self._say = clock, source, say
        self._blocks = 0
        self.reset()

    def reset(self) -> None:
        """As RESETS and TRNG_SW_RESET leave it."""
        self._values = {_SAMPLE_COUNT: 0xFFFF, _SOURCE_ENABLE: 0, _DEBUG_CONTROL: 0, _IMR: 0xF, _CONFIG: 0}
        self._block = [0] * 6
        self._flags = 0
        self._valid = self._of_rom = False
        self._begin()

    def left_by_boot_rom(self) -> None:
        self.reset()
        self._values.update({_DEBUG_CONTROL: 0xFF, _SAMPLE_COUNT: 0})
        self._fill(_ROM_BLOCK)
        self._of_rom = True

    def _begin(self) -> None:
        """The source starts another block."""
        cycles = _BITS * max(self._values[_SAMPLE_COUNT], 1)
        if not self._values[_DEBUG_CONTROL] & _BYPASS_VON_NEUMANN:
            cycles *= 4  # on average the corrector makes a bit of four
        self._ready = self._clock.now + cycles * 1000 // self._clock.megahertz
        self._decided = False

    def _fill(self, block: bytes) -> None:
        self._block = list(struct.unpack("<6I", block))
        self._valid = True
        self._flags |= _EHR_VALID
        self._of_rom = False

    def _busy(self) -> bool:
        return (
            bool(self._values[_SOURCE_ENABLE] & 1)
            and not self._valid
            and not self._flags & _AUTOCORRELATION_ERROR
        )

    def _sample(self) -> None:
        """Finishes the block at hand when its time has come."""
        if not self._busy() or self._decided or self._clock.now < self._ready:
            return
        self._decided = True
        noise, unlucky = self._source.noise, secrets.randbelow(_UNLUCKY) == 0
        if noise is Noise.SILENT:
            return
        if noise is Noise.AUTOCORRELATION and unlucky:
            self._flags |= _AUTOCORRELATION_ERROR
        elif (
            noise is Noise.REPETITION and unlucky or noise is Noise.FAILING and self._blocks >= _FIRST_BLOCKS
        ):
            self._flags |= _REPETITION_ERROR
        else:
            self._blocks += 1
            self._fill(self._source.bytes(_BLOCK))

    def read(self, register: int) -> int:
        if register in (_BUSY, _ISR, _VALID) and self._busy():
            # Whoever asks does nothing else meanwhile.
            self._clock.pass_until(max(self._ready, self._clock.now + 20_000))
        self._sample()
        if _EHR <= register < _EHR_END:
            return self._take(register)
        if register == _ISR:
            return self._flags
        if register == _VALID:
            return int(self._valid)
        if register == _BUSY:
            return int(self._busy())
        return self._values.get(register, 0)

    def _take(self, register: int) -> int:
        if not self._valid:
            return 0
        if self._of_rom and register == _EHR:
            self._say("noise: the block that the boot ROM left is read")
        word = self._block[(register - _EHR) // 4]
        if register + 4 == _EHR_END:  # reading the last word empties it
            self._valid = False
            self._flags &= ~_EHR_VALID
            self._block = [0] * 6
            self._begin()
        return word

    def write(self, register: int, value: int, written: int) -> None:
        if register == _ICR:
            self._flags &= ~(written & ~_AUTOCORRELATION_ERROR)  # which only a reset clears
        elif register == _SW_RESET:
            if value & 1:
                self.reset()
        elif register == _RESET_BITS:
            self._begin()
        elif register in (_ISR, _VALID, _BUSY, _STATISTIC) or _EHR <= register < _EHR_END:
            pass  # read only
        else:
            starts = register == _SOURCE_ENABLE and value & 1 and not self._values[_SOURCE_ENABLE] & 1
            self._values[register] = value
            if starts or register == _SAMPLE_COUNT:
                self._begin()
