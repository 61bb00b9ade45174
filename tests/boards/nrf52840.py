"""An Adafruit Feather nRF52840 Express: nRF52840 (product specification 1.7) as embassy-nrf uses it, with 1
MiB of flash, of which a boot loader would have the end.

The boot loader is not executed: its file system writes a UF2 file up to `USER_FLASH_END` (ghostfat.c and
uf2.h of adafruit/Adafruit_nRF52_Bootloader), and it starts the image without setting VTOR. Traps stand where
a real chip loses data or does nothing: flash that is written without permission, or more than twice (n_WRITE)
between two erasures, or outside the store; USB packets outside memory. Not modelled: SoftDevice, caches and
wait states, suspend and resume of USB.
"""

from __future__ import annotations

import secrets
import struct
from pathlib import Path
from typing import Callable, Optional, Protocol

from unicorn import UC_PROT_EXEC, UC_PROT_READ
from unicorn.arm_const import UC_CPU_ARM_CORTEX_M4

import uf2
from chip import Chip, Outside, Reset, Settings, nonzero_words
from clock import Alarm, Clock
from cortex_m import CortexM
from nor_flash import NorFlash
from noise import Noise, Source
from nrf52840_usbd import Usbd
from registers import Kept
from trap import Trap

MEGAHERTZ = 64
FLASH_SIZE = 1 << 20
_PAGE = 4096
_IMAGE, _BOOTLOADER = 0x26000, 0xF4000
# Where the boot loader's file system stops: since version 0.6.1, and before.
USER_FLASH_END, OLD_USER_FLASH_END = 0xEA000, 0xAD000
_FAMILY = 0xADA52840
_RAM, _RAM_SIZE = 0x20000000, 256 << 10
_FICR, _UICR = 0x10000000, 0x10001000
_CORTEX_M4 = 0x410FC241
_PRIORITY_BITS = 3
_IRQ_POWER, _IRQ_RTC1, _IRQ_USBD = 0, 17, 39
_LIGHT, _BUTTON = 15, 2  # of port 1
_WRITES = 2  # n_WRITE
_PROGRAM_TIME, _ERASE_TIME = 41_000, 85_000_000  # nanoseconds, of a word and of a page
_BOOT_TIME = 1_000_000
_VBUS_AFTER = 2_000_000
_SECOND = 1_000_000_000
_LOW_CLOCK = 32_768

_POWER_CLOCK, _RNG, _WDT, _RTC1, _NVMC, _USBD = 0x00000, 0x0D000, 0x10000, 0x11000, 0x1E000, 0x27000
_INTENSET, _INTENCLR = 0x304, 0x308


class Peripheral(Protocol):
    """A peripheral's registers: no alias sets or clears bits here."""

    def read(self, register: int) -> int:
        """The register at this offset."""

    def write(self, register: int, value: int) -> None:
        """Sets it."""


class PowerClock:
    """CLOCK and POWER (5.3, 5.4), which share their registers."""

    _START_HIGH, _START_LOW = 0x000, 0x008
    _HIGH_STARTED, _LOW_STARTED, _USB_DETECTED, _USB_REMOVED, _USB_READY = 0x100, 0x104, 0x11C, 0x120, 0x124
    _BITS = {_HIGH_STARTED: 0, _LOW_STARTED: 1, _USB_DETECTED: 7, _USB_REMOVED: 8, _USB_READY: 9}
    _RESET_REASON, _HIGH_STATUS, _LOW_STATUS, _USB_STATUS = 0x400, 0x40C, 0x418, 0x438
    _RETAINED, _APPROTECT_DISABLE = 0x51C, 0x558
    WATCHDOG, SOFTWARE = 1 << 1, 1 << 2
    ENTER_BOOTLOADER = 0x57

    def __init__(self, clock: Clock, interrupt: Callable[[bool], None], say: Callable[[str], None]) -> None:
        self._clock, self._interrupt, self._say = clock, interrupt, say
        self.reason = 0
        self.retained = 0
        self.forget()

    def forget(self) -> None:
        """All but what resets leave alone."""
        self._events: dict[int, int] = {}
        self._enabled = 0
        self._high = self._low = self._vbus = False
        self._kept = Kept()

    def attach(self) -> None:
        """USB gives power."""
        self._vbus = True
        self._happens(self._USB_DETECTED)
        self._happens(self._USB_READY)

    def _happens(self, event: int) -> None:
        self._events[event] = 1
        self._update()

    def _update(self) -> None:
        self._interrupt(
            any(self._events.get(event) and self._enabled >> bit & 1 for event, bit in self._BITS.items())
        )

    def read(self, register: int) -> int:
        if 0x100 <= register < 0x200:
            return self._events.get(register, 0)
        values = {
            self._RESET_REASON: self.reason,
            self._HIGH_STATUS: 0x10001 if self._high else 0,
            self._LOW_STATUS: 0x10000 if self._low else 0,
            self._USB_STATUS: 3 if self._vbus else 0,
            self._RETAINED: self.retained,
            _INTENSET: self._enabled,
            _INTENCLR: self._enabled,
        }
        return values[register] if register in values else self._kept.read(register)

    def write(self, register: int, value: int) -> None:
        if register == self._START_HIGH:
            self._high = True
            self._clock.after(360_000, lambda: self._happens(self._HIGH_STARTED))
        elif register == self._START_LOW:
            self._low = True
            self._clock.after(600_000, lambda: self._happens(self._LOW_STARTED))
        elif 0x100 <= register < 0x200:
            self._events[register] = value
        elif register == _INTENSET:
            self._enabled |= value
        elif register == _INTENCLR:
            self._enabled &= ~value
        elif register == self._RESET_REASON:
            self.reason &= ~value
        elif register == self._RETAINED:
            self.retained = value & 0xFF
        elif register == self._APPROTECT_DISABLE:
            self._say(f"debug port: APPROTECT.DISABLE is set to {value:#x}")
        else:
            self._kept.write(register, value, value)
        self._update()


class Rtc:
    """RTC1 (6.22): 24 bits at 32768 Hz, four compare registers."""

    _START, _CLEAR = 0x000, 0x008
    _OVERFLOW, _COMPARE, _COMPARES = 0x104, 0x140, 4
    _COUNTER, _CC = 0x504, 0x540
    _PERIOD = 1 << 24

    def __init__(self, clock: Clock, interrupt: Callable[[bool], None]) -> None:
        self._clock, self._interrupt = clock, interrupt
        self._alarms: dict[int, Alarm] = {}
        self.reset()

    def reset(self) -> None:
        for alarm in self._alarms.values():
            alarm.cancel()
        self._alarms = {}
        self._events: dict[int, int] = {}
        self._enabled = 0
        self._start = 0
        self._runs = False
        self._kept = Kept()

    def _ticks(self) -> int:
        return (self._clock.now - self._start) * _LOW_CLOCK // _SECOND

    def _bit(self, event: int) -> int:
        return 1 if event == self._OVERFLOW else 16 + (event - self._COMPARE) // 4

    def read(self, register: int) -> int:
        if register == self._COUNTER:
            self._clock.looked_at()
            return self._ticks() % self._PERIOD if self._runs else 0
        if 0x100 <= register < 0x200:
            return self._events.get(register, 0)
        if register in (_INTENSET, _INTENCLR):
            return self._enabled
        return self._kept.read(register)

    def write(self, register: int, value: int) -> None:
        if register == self._START:
            self._runs = True
        elif register == self._CLEAR:
            self._start = self._clock.now
        elif 0x100 <= register < 0x200:
            self._events[register] = value
        elif register == _INTENSET:
            self._enabled |= value
        elif register == _INTENCLR:
            self._enabled &= ~value
        else:
            self._kept.write(register, value, value)
        if register < 0x100 or register >= self._CC:
            self._arm()
        self._update()

    def _arm(self) -> None:
        if self._runs:
            self._set_alarm(self._OVERFLOW, 0)
            for number in range(self._COMPARES):
                self._set_alarm(self._COMPARE + 4 * number, self._kept.read(self._CC + 4 * number))

    def _set_alarm(self, event: int, count: int) -> None:
        if event in self._alarms:
            self._alarms[event].cancel()
        wait = (count - self._ticks()) % self._PERIOD
        if wait == 0 or wait == 1 and event != self._OVERFLOW:  # the hardware misses the next tick (6.22.7)
            wait += self._PERIOD
        time = self._start + (self._ticks() + wait) * _SECOND // _LOW_CLOCK + 1
        self._alarms[event] = self._clock.at(time, lambda: self._ring(event, count))

    def _ring(self, event: int, count: int) -> None:
        if self._enabled >> self._bit(event) & 1:
            self._events[event] = 1
        self._set_alarm(event, count)
        self._update()

    def _update(self) -> None:
        self._interrupt(
            any(set_ and self._enabled >> self._bit(event) & 1 for event, set_ in self._events.items())
        )


class Watchdog:
    """WDT (6.36): once started it stops for nothing but a reset that is not the program's own."""

    _START, _RUNS, _STATUS, _COUNT, _CHANNELS, _CONFIG, _FEED = (
        0x000,
        0x400,
        0x404,
        0x504,
        0x508,
        0x50C,
        0x600,
    )
    _PASSWORD = 0x6E524635

    def __init__(self, clock: Clock, bite: Callable[[], None]) -> None:
        self._clock, self._bite = clock, bite
        self._alarm: Optional[Alarm] = None
        self.reset()

    def reset(self) -> None:
        if self._alarm:
            self._alarm.cancel()
            self._alarm = None
        self._values = {self._RUNS: 0, self._COUNT: 0xFFFFFFFF, self._CHANNELS: 1, self._CONFIG: 1}

    def read(self, register: int) -> int:
        return self._values.get(self._CHANNELS if register == self._STATUS else register, 0)

    def write(self, register: int, value: int) -> None:
        if register == self._START:
            self._values[self._RUNS] = 1
            self._feed()
        elif register >= self._FEED:
            if value == self._PASSWORD:
                self._feed()
        elif not self._values[self._RUNS]:
            self._values[register] = value

    def _feed(self) -> None:
        if self._alarm:
            self._alarm.cancel()
        self._alarm = self._clock.after((self._values[self._COUNT] + 1) * _SECOND // _LOW_CLOCK, self._bite)


class Rng:
    """RNG (6.19), 120 µs a byte with bias correction."""

    _START, _STOP, _READY, _VALUE = 0x000, 0x004, 0x100, 0x508
    _TIME = 120_000

    def __init__(self, clock: Clock, source: Source) -> None:
        self._clock, self._source = clock, source
        self.reset()

    def reset(self) -> None:
        self._ready: Optional[int] = None
        self._kept = Kept()

    def read(self, register: int) -> int:
        if register == self._READY:
            if self._ready is None or self._source.noise is Noise.SILENT:
                self._clock.pass_until(self._clock.now + self._TIME)
                return 0
            if self._clock.now < self._ready:
                self._clock.pass_until(self._ready)  # whoever asks does nothing else meanwhile
            return int(self._clock.now >= self._ready)
        if register == self._VALUE:
            return self._source.bytes(1)[0]
        return self._kept.read(register)

    def write(self, register: int, value: int) -> None:
        if register == self._START or register == self._READY and not value and self._ready is not None:
            self._ready = self._clock.now + self._TIME
        elif register == self._STOP:
            self._ready = None
        else:
            self._kept.write(register, value, value)


class Nvmc:
    """NVMC (4.3), the flash behind the image and UICR, which it writes alike."""

    _READY, _READY_NEXT, _CONFIG, _ERASE_PAGE = 0x400, 0x408, 0x504, 0x508
    _READ_ONLY, _WRITES, _ERASES = 0, 1, 2

    def __init__(self, clock: Clock, flash: NorFlash, uicr: NorFlash, say: Callable[[str], None]) -> None:
        self._clock, self._flash, self._uicr, self._say = clock, flash, uicr, say
        self._written: dict[int, int] = {}
        self.store = range(0)
        self.reset()

    def reset(self) -> None:
        self._mode = self._READ_ONLY

    def read(self, register: int) -> int:
        return {self._READY: 1, self._READY_NEXT: 1, self._CONFIG: self._mode}.get(register, 0)

    def write(self, register: int, value: int) -> None:
        if register == self._CONFIG:
            self._mode = value & 3
        elif register == self._ERASE_PAGE:
            if self._mode != self._ERASES or value % _PAGE or value not in self.store:
                raise Trap(f"flash: {value:#010x} is erased with NVMC.CONFIG {self._mode}")
            self._clock.spend(_ERASE_TIME)
            self._flash.erase(value, _PAGE)
            for address in range(value, value + _PAGE, 4):
                self._written.pop(address, None)
        else:
            raise Trap(f"NVMC: write to {register:#x}, which is not modelled")

    def _insist_on_writing(self, address: int, length: int) -> None:
        if self._mode != self._WRITES or length != 4 or address % 4:
            raise Trap(f"flash: {length} bytes are written at {address:#010x} with NVMC.CONFIG {self._mode}")

    def program(self, address: int, length: int, value: int) -> None:
        """A store to flash."""
        self._insist_on_writing(address, length)
        count = self._written[address] = self._written.get(address, 0) + 1
        if count > _WRITES:
            raise Trap(f"flash: the word at {address:#010x} is programmed {count} times between two erasures")
        self._clock.spend(_PROGRAM_TIME)
        self._flash.program(address, struct.pack("<I", value))

    def program_uicr(self, offset: int, length: int, value: int) -> None:
        """A store to UICR, which nothing but a mass erasure undoes."""
        self._insist_on_writing(_UICR + offset, length)
        self._say(f"UICR: {value:#x} is written at {offset:#x}")
        self._uicr.program(offset, struct.pack("<I", value))


class Nrf52840(Chip):
    """The chip and the image in its flash. `build_code` is the last of FICR.INFO.VARIANT's letters: with F
    began the chips whose debug port is closed unless UICR and the program both open it."""

    def __init__(self, outside: Outside, directory: Path, settings: Settings) -> None:
        super().__init__(outside, directory, settings)
        self.clock = Clock(MEGAHERTZ)
        self._user_flash_end = settings.user_flash_end
        self.flash = NorFlash(directory / "flash", FLASH_SIZE, settings.cut)
        self._uicr = NorFlash(directory / "uicr", _PAGE)
        core = self.core = CortexM(UC_CPU_ARM_CORTEX_M4, _CORTEX_M4, _PRIORITY_BITS, self.clock)
        core.reset_requested = lambda: self._ask_for(Reset.SOFTWARE)
        core.fault = lambda what: outside.say(f"fault: {what}")
        core.uc.mem_map(_FICR, _PAGE, UC_PROT_READ)
        core.uc.mem_write(_FICR, _factory_information(directory / "ficr", settings.build_code))
        core.peripheral(_UICR, _PAGE, self._read_uicr, self._write_uicr)
        core.uc.mem_map(_RAM, _RAM_SIZE)
        core.peripheral(0x40000000, 0x70000, self._read_peripheral, self._write_peripheral)
        core.peripheral(0x50000000, 0x1000, self._read_gpio, self._write_gpio)
        self._power = PowerClock(self.clock, lambda high: core.line(_IRQ_POWER, high), outside.say)
        self._rtc = Rtc(self.clock, lambda high: core.line(_IRQ_RTC1, high))
        self._watchdog = Watchdog(self.clock, lambda: self._ask_for(Reset.WATCHDOG))
        self._rng = Rng(self.clock, Source(settings.noise))
        self._nvmc = Nvmc(self.clock, self.flash, self._uicr, outside.say)
        memory = range(_RAM, _RAM + _RAM_SIZE)
        self.usbd = self.usb = Usbd(core, self.clock, memory, lambda high: core.line(_IRQ_USBD, high))
        self._blocks: dict[int, Peripheral] = {
            _POWER_CLOCK: self._power,
            _RNG: self._rng,
            _WDT: self._watchdog,
            _RTC1: self._rtc,
            _NVMC: self._nvmc,
            _USBD: self.usbd,
        }
        self._kept: dict[int, Kept] = {}
        self._pins = Kept()
        self._output = 0
        self._vbus: Optional[Alarm] = None

    def install(self, image: Path) -> None:
        """Writes an image as the boot loader does, which before version 0.6.1 skips what lies beyond its
        limit. What lies behind the image is its store."""
        end = _IMAGE
        for address, payload in uf2.blocks(image, _FAMILY):
            end = max(end, address + uf2.PAYLOAD)
            if address + uf2.PAYLOAD <= self._user_flash_end:
                self.flash.put(address, payload)
            if not _IMAGE <= address < USER_FLASH_END:
                raise Trap(f"{image} has a block at {address:#010x}")
        end += -end % _PAGE
        self._nvmc.store = range(end, _BOOTLOADER)
        uc = self.core.uc
        for start, stop in ((0, end), (_BOOTLOADER, FLASH_SIZE)):
            uc.mem_map(start, stop - start, UC_PROT_READ | UC_PROT_EXEC)
            uc.mem_write(start, bytes(self.flash.bytes[start:stop]))
        self.core.peripheral(
            end,
            _BOOTLOADER - end,
            lambda offset, length: int.from_bytes(
                self.flash.bytes[end + offset : end + offset + length], "little"
            ),
            lambda offset, length, value: self._nvmc.program(end + offset, length, value),
        )

    def reset(self, cause: Reset) -> None:
        """The watchdog lives through a reset that the program asked for (5.3.6.6), and so do GPREGRET and
        RESETREAS."""
        self.usbd.host = self.host
        self._power.forget()
        self._power.reason |= {Reset.SOFTWARE: PowerClock.SOFTWARE, Reset.WATCHDOG: PowerClock.WATCHDOG}.get(
            cause, 0
        )
        if cause is not Reset.SOFTWARE:
            self._watchdog.reset()
        for block in (self._rtc, self._rng, self._nvmc):
            block.reset()
        for kept in (*self._kept.values(), self._pins):
            kept.reset()
        self._output = 0
        self.usbd.reset_block()
        self.clock.spend(_BOOT_TIME)
        if self._power.retained == PowerClock.ENTER_BOOTLOADER:
            self.in_bootloader = True
            return
        self.core.reset(_IMAGE, 0)
        if self._vbus:
            self._vbus.cancel()
        self._vbus = self.clock.after(_VBUS_AFTER, self._power.attach)

    def _ask_for(self, cause: Reset) -> None:
        self.resetting = cause

    def uncleared(self) -> int:
        return nonzero_words(bytes(self.core.uc.mem_read(_RAM, _RAM_SIZE)))

    def _read_uicr(self, offset: int, length: int) -> int:
        return int.from_bytes(self._uicr.bytes[offset : offset + length], "little")

    def _write_uicr(self, offset: int, length: int, value: int) -> None:
        self._nvmc.program_uicr(offset, length, value)

    def _read_peripheral(self, offset: int, length: int) -> int:
        place, register = offset & ~0xFFF, offset & 0xFFF
        if place != _RTC1:
            self.clock.disregarded()
        if place in self._blocks:
            return self._blocks[place].read(register)
        return self._other(place).read(register)

    def _write_peripheral(self, offset: int, length: int, value: int) -> None:
        place, register = offset & ~0xFFF, offset & 0xFFF
        self.clock.disregarded()
        if place in self._blocks:
            self._blocks[place].write(register, value)
        else:
            self._other(place).write(register, value, value)

    def _other(self, place: int) -> Kept:
        """A peripheral that is set up and does nothing here."""
        return self._kept.setdefault(place, Kept())

    _PORT_1 = 0x300
    _OUT, _OUTSET, _OUTCLR, _IN = 0x504, 0x508, 0x50C, 0x510

    def _read_gpio(self, offset: int, length: int) -> int:
        register = offset - self._PORT_1
        if register == self._IN:
            return 0 if self.outside.pressed() else 1 << _BUTTON
        return self._output if register == self._OUT else self._pins.read(offset)

    def _write_gpio(self, offset: int, length: int, value: int) -> None:
        register, old = offset - self._PORT_1, self._output
        changes = {self._OUT: value, self._OUTSET: old | value, self._OUTCLR: old & ~value}
        if register not in changes:
            self._pins.write(offset, value, value)
            return
        self._output = changes[register]
        if (old ^ self._output) >> _LIGHT & 1:
            self.outside.light(bool(self._output >> _LIGHT & 1))


def _factory_information(path: Path, build_code: str) -> bytes:
    """FICR (4.4): device identity and the two root keys, drawn for each chip."""
    if not path.exists():
        path.write_bytes(secrets.token_bytes(_PAGE - 0x60))
    page = bytearray(b"\xff" * 0x60 + path.read_bytes())
    struct.pack_into("<I", page, 0x100, 0x52840)
    page[0x104:0x108] = f"AA{build_code}0".encode()[::-1]
    return bytes(page)
