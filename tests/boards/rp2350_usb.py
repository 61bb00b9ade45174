"""RP2350's USB controller as a device, single-buffered (datasheet 12.7). What a real host would see as a
protocol error is a trap."""

from __future__ import annotations

import struct
from typing import Callable

from cortex_m import CortexM
from trap import Trap
from usb_host import IN, OUT, UsbHost

MEMORY, MEMORY_SIZE = 0x50100000, 0x1000

_ADDRESS, _MAIN_CTRL, _SIE_CTRL, _SIE_STATUS, _BUFF_STATUS, _STALL_ARM = 0x00, 0x40, 0x4C, 0x50, 0x58, 0x68
_INTR, _INTE, _INTF, _INTS = 0x8C, 0x90, 0x94, 0x98
_PULL_UP = 1 << 16  # SIE_CTRL
_ENABLED, _PHY_ISOLATED = 1, 1 << 2  # MAIN_CTRL
_CONNECTED, _SETUP_RECEIVED, _BUS_RESET, _ONES_CLEAR = 1 << 16, 1 << 17, 1 << 19, 0xFF0F0800  # SIE_STATUS
_IRQ_BUFFER, _IRQ_BUS_RESET, _IRQ_SETUP = 1 << 4, 1 << 12, 1 << 16
_LENGTH, _AVAILABLE, _STALL, _DATA1, _FULL = 0x3FF, 1 << 10, 1 << 11, 1 << 13, 1 << 15  # buffer control
_ENDPOINT_ENABLED = 1 << 31
_BUFFER_CONTROLS, _EP0_BUFFER = 0x80, 0x100


class UsbController:
    """Its registers and its memory; `interrupt(high)` is its line."""

    def __init__(self, core: CortexM, interrupt: Callable[[bool], None]) -> None:
        self._core = core
        self._interrupt = interrupt
        self.host: UsbHost
        self.attached = False
        self._forget()

    def _forget(self) -> None:
        self.address = 0
        self._values = {_MAIN_CTRL: _PHY_ISOLATED}
        self._status = self._buffers = self._enabled = self._forced = 0

    def reset_block(self) -> None:
        """As RESETS leaves it."""
        self._forget()
        self._pull()
        self.update()

    def _raw(self) -> int:
        return (
            (_IRQ_BUFFER if self._buffers else 0)
            | (_IRQ_SETUP if self._status & _SETUP_RECEIVED else 0)
            | (_IRQ_BUS_RESET if self._status & _BUS_RESET else 0)
        )

    def _interrupts(self) -> int:
        return self._raw() & self._enabled | self._forced

    def update(self) -> None:
        """Tells its interrupt's line."""
        self._interrupt(self._interrupts() != 0)

    def read(self, register: int) -> int:
        if register == _ADDRESS:
            return self.address
        if register == _SIE_STATUS:
            return self._status
        if register == _BUFF_STATUS:
            return self._buffers
        if register == _INTR:
            return self._raw()
        if register == _INTE:
            return self._enabled
        if register == _INTF:
            return self._forced
        if register == _INTS:
            return self._interrupts()
        return self._values.get(register, 0)

    def write(self, register: int, value: int, written: int) -> None:
        if register == _ADDRESS:
            self.address = value & 0x7F
        elif register == _SIE_STATUS:
            self._status &= ~(written & _ONES_CLEAR)
        elif register == _BUFF_STATUS:
            self._buffers &= ~written
        elif register == _INTE:
            self._enabled = value
        elif register == _INTF:
            self._forced = value
        else:
            self._values[register] = value
            self._pull()
        self.update()
        self.host.wake()

    def _pull(self) -> None:
        """A device shows itself by a resistor, and its pins are isolated until the program says otherwise."""
        main = self._values.get(_MAIN_CTRL, 0)
        up = bool(self._values.get(_SIE_CTRL, 0) & _PULL_UP and main & _ENABLED and not main & _PHY_ISOLATED)
        if up == self.attached:
            return
        self.attached = up
        if up:
            self.host.attached()
        else:
            self.host.detached()

    def _word(self, at: int) -> int:
        (word,) = struct.unpack("<I", bytes(self._core.uc.mem_read(MEMORY + at, 4)))
        return int(word)

    def _control(self, endpoint: int, direction: int) -> int:
        return self._word(_BUFFER_CONTROLS + 8 * endpoint + 4 * direction)

    def _set_control(self, endpoint: int, direction: int, value: int) -> None:
        at = MEMORY + _BUFFER_CONTROLS + 8 * endpoint + 4 * direction
        self._core.uc.mem_write(at, struct.pack("<I", value))

    def _buffer(self, endpoint: int, direction: int) -> int:
        return MEMORY + (self._word(8 * endpoint + 4 * direction) & 0xFFC0 if endpoint else _EP0_BUFFER)

    def _done(self, endpoint: int, direction: int) -> None:
        self._buffers |= 1 << (2 * endpoint + direction)
        self.update()

    # What a host does to it.

    def reset(self) -> None:
        self.address = 0
        self._status |= _BUS_RESET | _CONNECTED
        self.update()

    def setup(self, packet: bytes) -> None:
        self._core.uc.mem_write(MEMORY, packet)
        self._values[_STALL_ARM] = 0
        for direction in (IN, OUT):
            self._set_control(0, direction, self._control(0, direction) & ~(_STALL | _AVAILABLE))
        self._status |= _SETUP_RECEIVED
        self.update()

    def stalled(self, endpoint: int, direction: int) -> bool:
        armed = endpoint != 0 or self._values.get(_STALL_ARM, 0) >> direction & 1
        return bool(armed and self._control(endpoint, direction) & _STALL)

    def ready(self, endpoint: int, direction: int) -> bool:
        if endpoint and not self._word(8 * endpoint + 4 * direction) & _ENDPOINT_ENABLED:
            return False
        return bool(self._control(endpoint, direction) & _AVAILABLE)

    def take(self, endpoint: int, toggle: int) -> bytes:
        control = self._control(endpoint, IN)
        if not control & _FULL:
            raise Trap(f"USB: endpoint {endpoint} sends a buffer that is not full")
        if bool(control & _DATA1) != bool(toggle):
            raise Trap(f"USB: endpoint {endpoint} sends the wrong toggle")
        data = bytes(self._core.uc.mem_read(self._buffer(endpoint, IN), control & _LENGTH))
        self._set_control(endpoint, IN, control & ~(_AVAILABLE | _FULL))
        self._done(endpoint, IN)
        return data

    def give(self, endpoint: int, toggle: int, data: bytes) -> None:
        control = self._control(endpoint, OUT)
        if bool(control & _DATA1) != bool(toggle):
            raise Trap(f"USB: endpoint {endpoint} expects the wrong toggle")
        if len(data) > control & _LENGTH:
            raise Trap(f"USB: endpoint {endpoint} has too short a buffer")
        self._core.uc.mem_write(self._buffer(endpoint, OUT), data)
        self._set_control(endpoint, OUT, control & ~(_AVAILABLE | _LENGTH) | _FULL | len(data))
        self._done(endpoint, OUT)
