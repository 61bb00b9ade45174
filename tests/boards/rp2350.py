"""A Raspberry Pi Pico 2: RP2350 (datasheet, build of 2025-02-20) as embassy-rp uses it, with 4 MiB of flash.

Traps stand where the real chip would go astray: flash that is read or executed while it is disconnected,
functions of the boot ROM that are called from flash or with interrupts on, narrow writes to peripherals, a
POWMAN write without password. Not modelled: the second core, DMA, caches and wait states, suspend and resume
of USB.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Callable, Optional

from unicorn import UC_PROT_EXEC, UC_PROT_NONE, UC_PROT_READ
from unicorn.arm_const import UC_CPU_ARM_CORTEX_M33

import rp2350_rom
import uf2
from chip import Chip, Outside, Reset, Settings, nonzero_words
from clock import Alarm, Clock
from cortex_m import CortexM
from nor_flash import NorFlash
from noise import Source
from registers import Block, Kept
from rp2350_otp import Otp
from rp2350_trng import Trng
from rp2350_usb import MEMORY, MEMORY_SIZE, UsbController
from trap import Trap

MEGAHERTZ = 150
FLASH, FLASH_SIZE = 0x10000000, 4 << 20
_RAM, _RAM_SIZE = 0x20000000, 520 << 10
_SECTOR, _PAGE = 4096, 256
_PROGRAM_TIME = 400_000  # nanoseconds a page (W25Q32RV datasheet, typical)
_FAMILY = 0xE48BFF59
_CORTEX_M33 = 0x411FD210
_PRIORITY_BITS = 4
_IRQ_TIMER, _IRQ_USB = 0, 14
_LIGHT = 25
_BOOT_TIME = 30_000_000  # the boot ROM's, in nanoseconds

_APB, _APB_SIZE, _BLOCK_SIZE = 0x40000000, 0x170000, 0x8000
_ALIAS_FLIPS, _ALIAS_SETS, _ALIAS_CLEARS = 0x1000, 0x2000, 0x3000

# Bits of RESETS; those of the second line are what the boot ROM releases.
_RESETS_ALL = 0x1FFFFFFF
_RESET_IO_QSPI, _RESET_PADS_QSPI, _RESET_TIMER0, _RESET_TRNG, _RESET_USB = (
    1 << 7,
    1 << 10,
    1 << 23,
    1 << 25,
    1 << 28,
)
_RELEASED_BY_ROM = (
    _RESET_IO_QSPI | _RESET_PADS_QSPI | _RESET_TIMER0 | _RESET_TRNG | _RESET_USB | 1 << 6 | 1 << 9 | 1 << 17
)


class Resets:
    """RESETS (7.5): tells of every block that is put into reset."""

    def __init__(self, held: Callable[[int], None]) -> None:
        self._held = held
        self.value = _RESETS_ALL

    def read(self, register: int) -> int:
        return {0: self.value, 8: ~self.value & _RESETS_ALL}.get(register, 0)

    def write(self, register: int, value: int, written: int) -> None:
        if register == 0:
            if value & (_RESET_IO_QSPI | _RESET_PADS_QSPI):
                raise Trap("RESETS: the flash's pins are reset while the program runs from it")
            before, self.value = self.value, value & _RESETS_ALL
            self._held(self.value & ~before)


class Clocks(Kept):
    """CLOCKS (8.1): a clock has switched at once."""

    _SELECTED = {
        0x38: (0x30, 3),
        0x44: (0x3C, 1),
    }  # reference and system clock: their CTRL registers and masks
    _ALWAYS = (0x50, 0x5C, 0x68, 0x74)

    def read(self, register: int) -> int:
        if register in self._SELECTED:
            control, mask = self._SELECTED[register]
            return 1 << (self.values.get(control, 0) & mask)
        return 1 if register in self._ALWAYS else super().read(register)


class Xosc(Kept):
    """XOSC (8.2): stable as soon as it is enabled."""

    def read(self, register: int) -> int:
        if register == 4:
            return 0x80001000 if self.values.get(0, 0) >> 12 & 0xFFF == 0xFAB else 0
        return super().read(register)


class Pll(Kept):
    """A PLL (8.6): locked as soon as it has power and a divider."""

    def read(self, register: int) -> int:
        if register == 0:
            powered = not self.values.get(4, 0x2D) & 0x21 and self.values.get(8, 0)
            return 0x80000001 if powered else 1
        return super().read(register)


class Powman(Kept):
    """POWMAN (6.4): a write needs its password."""

    CHIP_RESET = 0x2C
    HAD_POWER_ON = 1 << 16

    def write(self, register: int, value: int, written: int) -> None:
        if written >> 16 != 0x5AFE:
            raise Trap(f"POWMAN: {written:#010x} is written to {register:#x} without the password")
        super().write(register, value & 0xFFFF, written)


class FlashPins(Kept):
    """IO_QSPI (9.11): the flash's chip select is also the BOOTSEL button, which pulls it low while it is not
    driven."""

    STATUS, CONTROL = 0x18, 0x1C
    _FROM_PAD = 1 << 17

    def __init__(self, pressed: Callable[[], bool], floats: Callable[[bool], None]) -> None:
        super().__init__()
        self._pressed, self._floats = pressed, floats

    def _floating(self) -> bool:
        return self.values.get(self.CONTROL, 0) >> 14 & 3 == 2  # OEOVER: disable

    def read(self, register: int) -> int:
        if register == self.STATUS:
            return 0 if self._floating() and self._pressed() else self._FROM_PAD
        return super().read(register)

    def write(self, register: int, value: int, written: int) -> None:
        super().write(register, value, written)
        if register == self.CONTROL:
            self._floats(self._floating())


class Qmi(Kept):
    """XIP_QMI (12.14), of which the boot ROM's function is told."""

    def __init__(self, set_up: Callable[[], None]) -> None:
        super().__init__()
        self._set_up = set_up

    def write(self, register: int, value: int, written: int) -> None:
        if register == rp2350_rom.XIP_SET_UP_NOTICED:
            self._set_up()
        else:
            super().write(register, value, written)


class Timer:
    """TIMER0 (12.8), in microseconds; of its alarms the first has an interrupt that anybody uses."""

    _HIGH, _LOW, _ALARM, _ARMED, _INTR, _INTE, _INTS = 0x24, 0x28, 0x10, 0x20, 0x3C, 0x40, 0x48

    def __init__(self, clock: Clock, interrupt: Callable[[bool], None]) -> None:
        self._clock, self._interrupt = clock, interrupt
        self._alarms: list[Optional[Alarm]] = [None] * 4
        self.reset()

    def reset(self) -> None:
        for alarm in self._alarms:
            if alarm:
                alarm.cancel()
        self._alarms = [None] * 4
        self._times = [0] * 4
        self._start = self._clock.now
        self._rung = self._enabled = 0

    def _microseconds(self) -> int:
        return (self._clock.now - self._start) // 1000

    def read(self, register: int) -> int:
        if register == self._LOW:
            self._clock.looked_at()
            return self._microseconds() & 0xFFFFFFFF
        if self._ALARM <= register < self._ARMED:
            return self._times[(register - self._ALARM) // 4]
        armed = sum(1 << number for number, alarm in enumerate(self._alarms) if alarm)
        values = {self._HIGH: self._microseconds() >> 32, self._ARMED: armed, self._INTR: self._rung,
                  self._INTE: self._enabled, self._INTS: self._rung & self._enabled}  # fmt: skip
        if register not in values:
            raise Trap(f"TIMER0: read of {register:#x}, which is not modelled")
        return values[register]

    def write(self, register: int, value: int, written: int) -> None:
        if self._ALARM <= register < self._ARMED:
            number = (register - self._ALARM) // 4
            self._disarm(number)
            self._times[number] = value
            wait = (value - self._microseconds()) & 0xFFFFFFFF
            time = self._start + (self._microseconds() + wait) * 1000
            self._alarms[number] = self._clock.at(time, lambda: self._ring(number))
        elif register == self._ARMED:
            for number in range(4):
                if written >> number & 1:
                    self._disarm(number)
        elif register == self._INTR:
            self._rung &= ~written
        elif register == self._INTE:
            self._enabled = value
        else:
            raise Trap(f"TIMER0: write to {register:#x}, which is not modelled")
        self.update()

    def _disarm(self, number: int) -> None:
        alarm, self._alarms[number] = self._alarms[number], None
        if alarm:
            alarm.cancel()

    def _ring(self, number: int) -> None:
        self._alarms[number] = None
        self._rung |= 1 << number
        self.update()

    def update(self) -> None:
        """Tells its interrupt's line."""
        self._interrupt(bool(self._rung & self._enabled & 1))


class Watchdog:
    """WATCHDOG (12.9), in microseconds."""

    _CONTROL, _LOAD, _REASON, _SCRATCH, _SCRATCH_END = 0x00, 0x04, 0x08, 0x0C, 0x2C
    _TRIGGER, _ENABLE, _KEPT = 1 << 31, 1 << 30, 0x47000000
    _LONGEST = 0xFFFFFF
    TIMED_OUT = 1

    def __init__(self, clock: Clock, bite: Callable[[], None]) -> None:
        self._clock, self._bite = clock, bite
        self._alarm: Optional[Alarm] = None
        self._deadline = 0
        self._control = 0
        self.reason = 0
        self._scratch = [0] * 8

    def reset(self) -> None:
        """All but the reason and the scratch registers."""
        self._control = 0
        self._schedule()

    def read(self, register: int) -> int:
        if register == self._CONTROL:
            return self._control | max(0, self._deadline - self._clock.now) // 1000 & self._LONGEST
        if register == self._REASON:
            return self.reason
        if self._SCRATCH <= register < self._SCRATCH_END:
            return self._scratch[(register - self._SCRATCH) // 4]
        return 0

    def write(self, register: int, value: int, written: int) -> None:
        if register == self._CONTROL:
            self._control = value & self._KEPT
            self._schedule()
            if value & self._TRIGGER:
                self._bite()
        elif register == self._LOAD:
            if value > self._LONGEST:
                raise Trap(f"WATCHDOG: {value:#x} is longer than it can wait")
            self._deadline = self._clock.now + value * 1000
            self._schedule()
        elif self._SCRATCH <= register < self._SCRATCH_END:
            self._scratch[(register - self._SCRATCH) // 4] = value

    def _schedule(self) -> None:
        if self._alarm:
            self._alarm.cancel()
            self._alarm = None
        if self._control & self._ENABLE:
            self._alarm = self._clock.at(self._deadline, self._bite)


class Rp2350(Chip):
    """The chip, its flash, and the image in it."""

    def __init__(self, outside: Outside, directory: Path, settings: Settings) -> None:
        super().__init__(outside, directory, settings)
        self.clock = Clock(MEGAHERTZ)
        self.flash = NorFlash(directory / "flash", FLASH_SIZE, settings.cut)
        self._erase_time = settings.erase_time
        self._otp = Otp(directory / "otp")
        core = self.core = CortexM(UC_CPU_ARM_CORTEX_M33, _CORTEX_M33, _PRIORITY_BITS, self.clock)
        core.reset_requested = lambda: self._ask_for(Reset.SOFTWARE)
        core.fault = lambda what: outside.say(f"fault: {what}")
        core.uc.mem_map(0, rp2350_rom.SIZE, UC_PROT_READ | UC_PROT_EXEC)
        core.uc.mem_write(0, rp2350_rom.rom())
        core.breakpoints(*rp2350_rom.HOOKED, self._serve)
        core.uc.mem_map(FLASH, FLASH_SIZE, UC_PROT_READ | UC_PROT_EXEC)
        core.uc.mem_map(_RAM, _RAM_SIZE)
        core.uc.mem_map(MEMORY, MEMORY_SIZE)
        core.peripheral(_APB, _APB_SIZE, self._read_apb, self._write_apb)
        core.peripheral(0x50000000, 0x4000, self._read_dma, self._write_dma)
        core.peripheral(0x50110000, 0x4000, self._read_usb, self._write_usb)
        core.peripheral(0xD0000000, 0x1000, self._read_sio, self._write_sio)
        self._reads_flash = True
        self._flushed = False

        self._resets = Resets(self._held_in_reset)
        self.trng = Trng(self.clock, Source(settings.noise), outside.say)
        self._timer = Timer(self.clock, lambda high: core.line(_IRQ_TIMER, high))
        self._watchdog = Watchdog(self.clock, lambda: self._ask_for(Reset.WATCHDOG))
        self._powman = Powman({0x0C: 0xB0})
        self._kept = {
            0x00000: Kept(),  # SYSINFO
            0x08000: Kept(),  # SYSCFG
            0x10000: Clocks(),
            0x18000: Kept(),  # PSM
            0x28000: Kept(),  # IO_BANK0
            0x30000: FlashPins(outside.pressed, lambda floats: self._set_reading(not floats)),
            0x38000: Kept(default=0x116),  # PADS_BANK0
            0x40000: Kept(default=0x116),  # PADS_QSPI
            0x48000: Xosc(),
            0x50000: Pll(),
            0x58000: Pll(),
            0x60000: Kept(),  # ACCESSCTRL
            0xC8000: Kept(),  # XIP_CTRL
            0xD0000: Qmi(self._set_up_reading),
            0xE8000: Kept({0x1C: 0x80001000}),  # ROSC: it runs and is stable
            0x108000: Kept(),  # TICKS
        }
        self._blocks: dict[int, Block] = {
            **self._kept,
            0x20000: self._resets,
            0xB0000: self._timer,
            0xD8000: self._watchdog,
            0xF0000: self.trng,
            0x100000: self._powman,
        }
        self._output = self._output_enabled = 0
        self._lit = False
        self.controller = self.usb = UsbController(core, lambda high: core.line(_IRQ_USB, high))

    def install(self, image: Path) -> None:
        """Writes an image as the boot loader does: sectors that it does not mention stay as they are."""
        blocks = [(address - FLASH, payload) for address, payload in uf2.blocks(image, _FAMILY)]
        for sector in sorted({at - at % _SECTOR for at, _ in blocks}):
            self.flash.put(sector, b"\xff" * _SECTOR)
        for at, payload in blocks:
            if not 0 <= at <= FLASH_SIZE - uf2.PAYLOAD:
                raise Trap(f"{image} does not fit the flash")
            self.flash.put(at, payload)
        self.core.uc.mem_write(FLASH, bytes(self.flash.bytes))

    def reset(self, cause: Reset) -> None:
        """SYSRESETREQ resets the processor, and the boot ROM runs again; everything else goes on. The
        watchdog resets all but itself (7.3)."""
        self.controller.host = self.host
        self._set_reading(True)
        if cause is Reset.SOFTWARE:
            self._watchdog.reason = 0
        else:
            self._watchdog.reset()
            self._watchdog.reason = Watchdog.TIMED_OUT if cause is Reset.WATCHDOG else 0
            self._resets.value = _RESETS_ALL
            self._held_in_reset(_RESETS_ALL)
            for block in self._kept.values():
                block.reset()
            self._powman.values[Powman.CHIP_RESET] = Powman.HAD_POWER_ON if cause is Reset.POWER_ON else 0
        self.clock.spend(_BOOT_TIME)
        rp2350_rom.insist_on_image_definition(bytes(self.flash.bytes[:4096]))
        self._resets.value &= ~_RELEASED_BY_ROM
        self.trng.left_by_boot_rom()
        self.core.reset(FLASH, FLASH)
        self._timer.update()
        self.controller.update()

    def _ask_for(self, cause: Reset) -> None:
        self.resetting = cause

    def _held_in_reset(self, blocks: int) -> None:
        if blocks & _RESET_TIMER0:
            self._timer.reset()
        if blocks & _RESET_TRNG:
            self.trng.reset()
        if blocks & _RESET_USB:
            self.controller.reset_block()

    def uncleared(self) -> int:
        return nonzero_words(bytes(self.core.uc.mem_read(_RAM, _RAM_SIZE)))

    # The boot ROM's functions.

    def _serve(self, address: int) -> None:
        first, second, third, fourth = self.core.arguments()
        name = rp2350_rom.function(address)
        if name == rp2350_rom.LOOKUP_NAME:
            self.core.answer(rp2350_rom.look_up(first, second))
        elif name == "RB":
            self._restart(first)
        else:
            if self.core.caller < _RAM:
                raise Trap(f"boot ROM: {name} is called from flash, which it switches off")
            if not self.core.masked:
                raise Trap(f"boot ROM: {name} is called with interrupts on")
            if name == "IF":
                self._set_reading(False)
            elif name == "RE":
                self._erase(first, second)
            elif name == "RP":
                self._program(first, second, third)
            elif name == "FC":
                self._flushed = True
            elif name == "CX":
                self._set_reading(True)

    def _restart(self, flags: int) -> None:
        """Into the USB boot loader (5.4.8.24), which is all that anybody asks for."""
        if flags & 0xF != 2:
            raise Trap(f"boot ROM: RB with flags {flags:#x}")
        self.in_bootloader = True
        self.core.uc.emu_stop()

    def _erase(self, at: int, length: int) -> None:
        if at % _SECTOR or length % _SECTOR or at + length > FLASH_SIZE:
            raise Trap(f"flash: {length:#x} bytes are erased at {at:#x}")
        self._insist_on_commands()
        self.flash.erase(at, length)
        self._show(at, length, self._erase_time * length // _SECTOR)

    def _program(self, at: int, source: int, length: int) -> None:
        if at % _PAGE or length % _PAGE or at + length > FLASH_SIZE:
            raise Trap(f"flash: {length:#x} bytes are programmed at {at:#x}")
        if not _RAM <= source < _RAM + _RAM_SIZE:
            raise Trap(f"flash: what is programmed lies at {source:#010x}")
        self._insist_on_commands()
        self.flash.program(at, bytes(self.core.uc.mem_read(source, length)))
        self._show(at, length, _PROGRAM_TIME * length // _PAGE)

    def _insist_on_commands(self) -> None:
        if self._reads_flash:
            raise Trap("flash: it is changed while it is set up for reading")

    def _show(self, at: int, length: int, time: int) -> None:
        self.core.uc.mem_write(FLASH + at, bytes(self.flash.bytes[at : at + length]))
        self._flushed = False
        self.clock.spend(time)

    def _set_reading(self, on: bool) -> None:
        """Whether the flash can be read and executed."""
        if on == self._reads_flash:
            return
        self._reads_flash = on
        self.core.absent = None if on else (FLASH, FLASH + FLASH_SIZE, "the flash is disconnected")
        self.core.uc.mem_protect(FLASH, FLASH_SIZE, UC_PROT_READ | UC_PROT_EXEC if on else UC_PROT_NONE)

    def _set_up_reading(self) -> None:
        """What the boot ROM left in boot RAM, which the program copies to memory and calls there."""
        if self.core.pc < _RAM:
            raise Trap(f"the set-up of the flash is executed at {self.core.pc:#010x}")
        if not self._flushed:
            raise Trap("the cache was not flushed after the flash was changed")
        self._set_reading(True)

    # The buses.

    def _read_apb(self, offset: int, length: int) -> int:
        word = self._read_word(offset & ~3)
        return word >> 8 * (offset & 3) & ((1 << 8 * length) - 1)

    def _read_word(self, offset: int) -> int:
        place = offset // _BLOCK_SIZE * _BLOCK_SIZE
        if place != 0xB0000:
            self.clock.disregarded()
        if 0x130000 <= offset < 0x140000:
            row = offset - 0x130000
            return self._otp.pair(row // 2) if row < 0x4000 else self._otp.raw(row % 0x4000 // 4)
        if place == 0xE0000:
            return self._read_boot_ram(offset & 0x3FF)
        return self._block(place).read(offset & 0xFFF)

    def _read_boot_ram(self, at: int) -> int:
        (word,) = struct.unpack("<I", rp2350_rom.XIP_SET_UP.ljust(0x400, b"\0")[at : at + 4])
        return int(word)

    def _block(self, place: int) -> Block:
        block = self._blocks.get(place)
        if block is None:
            raise Trap(f"the peripheral at {_APB + place:#010x} is not modelled")
        return block

    def _write_apb(self, offset: int, length: int, value: int) -> None:
        place, register, alias = offset // _BLOCK_SIZE * _BLOCK_SIZE, offset & 0xFFF, offset & 0x3000
        self.clock.disregarded()
        if length != 4:
            raise Trap(f"write of {length} bytes at {_APB + offset:#010x}, which all four would take (2.1.5)")
        if place == 0xF0000 and self._resets.value & _RESET_TRNG:
            raise Trap("TRNG: it is used while it is held in reset")
        block = self._block(place)
        block.write(register, _through(alias, block.read(register) if alias else 0, value), value)

    def _read_usb(self, offset: int, length: int) -> int:
        self.clock.disregarded()
        return self.controller.read(offset & 0xFFF)

    def _write_usb(self, offset: int, length: int, value: int) -> None:
        register, alias = offset & 0xFFF, offset & 0x3000
        self.clock.disregarded()
        old = self.controller.read(register) if alias else 0
        self.controller.write(register, _through(alias, old, value), value)

    def _read_dma(self, offset: int, length: int) -> int:
        return 0  # idle

    def _write_dma(self, offset: int, length: int, value: int) -> None:
        if offset < 0x400:
            raise Trap(f"DMA: write of {value:#x} to {offset:#x}, which is not modelled")

    def _read_sio(self, offset: int, length: int) -> int:
        values = {
            0x10: self._output,
            0x30: self._output_enabled,
            0x50: 2,
        }  # FIFO_ST: ready, and nothing in it
        if offset in values:
            return values[offset]
        return 1 if 0x100 <= offset < 0x180 else 0  # a spinlock is free

    def _write_sio(self, offset: int, length: int, value: int) -> None:
        out, enabled = self._output, self._output_enabled
        changes = {0x10: value, 0x18: out | value, 0x20: out & ~value, 0x28: out ^ value}
        directions = {0x30: value, 0x38: enabled | value, 0x40: enabled & ~value, 0x48: enabled ^ value}
        self._output = changes.get(offset, out)
        self._output_enabled = directions.get(offset, enabled)
        lit = bool(self._output & self._output_enabled & 1 << _LIGHT)
        if lit != self._lit:
            self._lit = lit
            self.outside.light(lit)


def _through(alias: int, old: int, value: int) -> int:
    """What a write through one of the aliases makes of a register (2.1.3)."""
    if alias == _ALIAS_FLIPS:
        return old ^ value
    if alias == _ALIAS_SETS:
        return old | value
    if alias == _ALIAS_CLEARS:
        return old & ~value
    return value
