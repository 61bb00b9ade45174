"""nRF52840's USB device (product specification 6.35): endpoints whose packets its own DMA takes from memory
and puts there."""

from __future__ import annotations

from typing import Callable

from clock import Clock
from cortex_m import CortexM
from trap import Trap
from usb_host import IN, UsbHost

_TASK_START_IN, _TASK_START_OUT = 0x004, 0x028  # 8 endpoints each
_TASK_EP0_RECEIVE, _TASK_EP0_STATUS, _TASK_EP0_STALL, _TASKS_END = 0x04C, 0x050, 0x054, 0x100
_EVENT_RESET, _EVENT_STARTED, _EVENT_END_IN, _EVENT_EP0_DATA = 0x100, 0x104, 0x108, 0x128
_EVENT_END_OUT, _EVENT_SOF, _EVENT_USB, _EVENT_EP0_SETUP, _EVENT_DATA, _EVENTS_END = (
    0x130,
    0x154,
    0x158,
    0x15C,
    0x160,
    0x200,
)
_SHORTS, _INTEN, _INTENSET, _INTENCLR, _EVENT_CAUSE = 0x200, 0x300, 0x304, 0x308, 0x400
_DATA_STATUS, _ADDRESS, _SETUP, _SETUP_END, _SIZE_OUT, _SIZE_OUT_END = (
    0x46C,
    0x470,
    0x480,
    0x4A0,
    0x4A0,
    0x4C0,
)
_ENABLE, _PULL_UP, _ENABLED_IN, _ENABLED_OUT = 0x500, 0x504, 0x510, 0x514
_DMA_IN, _DMA_OUT, _DMA_STRIDE, _DMA_LENGTH = 0x600, 0x700, 0x14, 4
_SHORT_EP0_DATA_TO_STATUS = 1 << 2
_CAUSE_READY = 1 << 11
_INTERRUPT_BITS = {
    _EVENT_RESET: 0,
    _EVENT_STARTED: 1,
    _EVENT_EP0_DATA: 10,
    _EVENT_SOF: 21,
    _EVENT_USB: 22,
    _EVENT_EP0_SETUP: 23,
    _EVENT_DATA: 24,
    **{_EVENT_END_IN + 4 * number: 2 + number for number in range(8)},
    **{_EVENT_END_OUT + 4 * number: 12 + number for number in range(8)},
}
_DEVICE_TO_HOST = 0x80
_SET_ADDRESS = bytes([0, 5])
_POWER_UP_TIME = 1_300_000  # nanoseconds


class Usbd:
    """Its registers; `interrupt(high)` is its line, and `memory` what its DMA reaches."""

    def __init__(self, core: CortexM, clock: Clock, memory: range, interrupt: Callable[[bool], None]) -> None:
        self._core, self._clock, self._memory, self._interrupt = core, clock, memory, interrupt
        self.host: UsbHost
        self.attached = False
        self._forget()

    def _forget(self) -> None:
        self.address = 0
        self._values: dict[int, int] = {_ENABLED_IN: 1, _ENABLED_OUT: 1}
        self._events: dict[int, int] = {}
        self._enabled = self._cause = self._data_status = 0
        self._sizes: dict[int, int] = {}
        self._packet = bytes(8)
        self._forget_transfers()

    def _forget_transfers(self) -> None:
        self._sending: dict[int, bytes] = {}
        self._received: dict[int, bytes] = {}
        self._accepting: set[int] = set()
        self._receives = self._status = self._stalls = False

    def reset_block(self) -> None:
        """As a reset of the chip leaves it."""
        self._forget()
        if self.attached:
            self.attached = False
            self.host.detached()
        self._update()

    def read(self, register: int) -> int:
        if _EVENT_RESET <= register < _EVENTS_END:
            return self._events.get(register, 0)
        if register in (_INTEN, _INTENSET, _INTENCLR):
            return self._enabled
        if _SETUP <= register < _SETUP_END:
            return self._packet[(register - _SETUP) // 4]
        if _SIZE_OUT <= register < _SIZE_OUT_END:
            return self._sizes.get((register - _SIZE_OUT) // 4, 0)
        values = {_EVENT_CAUSE: self._cause, _DATA_STATUS: self._data_status, _ADDRESS: self.address}
        return values.get(register, self._values.get(register, 0))

    def write(self, register: int, value: int) -> None:
        if register < _TASKS_END:
            if value & 1:
                self._do(register)
        elif register < _EVENTS_END:
            self._events[register] = value
        elif register in (_INTEN, _INTENSET, _INTENCLR):
            old = self._enabled
            self._enabled = {_INTEN: value, _INTENSET: old | value, _INTENCLR: old & ~value}[register]
        elif register == _EVENT_CAUSE:
            self._cause &= ~value
        elif register == _DATA_STATUS:
            self._data_status &= ~value
        elif _SIZE_OUT <= register < _SIZE_OUT_END:
            self._accepting.add((register - _SIZE_OUT) // 4)
        else:
            self._values[register] = value
            if register == _ENABLE and value & 1:
                self._clock.after(_POWER_UP_TIME, self._power_up)
            if register in (_ENABLE, _PULL_UP):
                self._pull()
        self._update()
        self.host.wake()

    def _do(self, task: int) -> None:
        if _TASK_START_IN <= task < _TASK_START_IN + 32:
            self._start_in((task - _TASK_START_IN) // 4)
        elif _TASK_START_OUT <= task < _TASK_START_OUT + 32:
            self._start_out((task - _TASK_START_OUT) // 4)
        elif task == _TASK_EP0_RECEIVE:
            self._receives = True
        elif task == _TASK_EP0_STATUS:
            self._status = True
        elif task == _TASK_EP0_STALL:
            self._stalls = True

    def _power_up(self) -> None:
        if self._values.get(_ENABLE, 0) & 1:
            self._cause |= _CAUSE_READY
            self._happens(_EVENT_USB)

    def _pull(self) -> None:
        up = bool(self._values.get(_ENABLE, 0) & self._values.get(_PULL_UP, 0) & 1)
        if up == self.attached:
            return
        self.attached = up
        if up:
            self.host.attached()
        else:
            self.host.detached()

    def _happens(self, event: int) -> None:
        self._events[event] = 1
        self._update()

    def _update(self) -> None:
        self._interrupt(
            any(set_ and self._enabled >> _INTERRUPT_BITS[event] & 1 for event, set_ in self._events.items())
        )

    def _buffer(self, first: int, endpoint: int) -> tuple[int, int]:
        at = first + _DMA_STRIDE * endpoint
        pointer, length = self._values.get(at, 0), self._values.get(at + _DMA_LENGTH, 0) & 0x7F
        if pointer not in self._memory or length and pointer + length - 1 not in self._memory:
            raise Trap(f"USBD: DMA of {length} bytes at {pointer:#010x}")
        return pointer, length

    def _start_in(self, endpoint: int) -> None:
        pointer, length = self._buffer(_DMA_IN, endpoint)
        if endpoint in self._sending:
            raise Trap(f"USBD: endpoint {endpoint} starts over a packet that was not sent")
        self._sending[endpoint] = bytes(self._core.uc.mem_read(pointer, length))
        self._happens(_EVENT_END_IN + 4 * endpoint)

    def _start_out(self, endpoint: int) -> None:
        pointer, length = self._buffer(_DMA_OUT, endpoint)
        data = self._received.pop(endpoint, b"")
        if len(data) != length:
            raise Trap(f"USBD: endpoint {endpoint} has a packet of {len(data)} bytes and takes {length}")
        self._core.uc.mem_write(pointer, data)
        self._happens(_EVENT_END_OUT + 4 * endpoint)
        if endpoint:
            self._accepting.add(endpoint)

    # What a host does to it.

    def reset(self) -> None:
        self.address = 0
        self._forget_transfers()
        self._happens(_EVENT_RESET)

    def setup(self, packet: bytes) -> None:
        self._packet = packet
        self._sending.pop(0, None)
        self._received.pop(0, None)
        self._receives = self._status = self._stalls = False
        if packet[:2] == _SET_ADDRESS:
            self.address = packet[2]  # the hardware answers
        self._happens(_EVENT_EP0_SETUP)

    def _sends(self) -> bool:
        """Whether the control transfer's data go to the host."""
        return bool(self._packet[0] & _DEVICE_TO_HOST)

    def stalled(self, endpoint: int, direction: int) -> bool:
        return endpoint == 0 and self._stalls

    def ready(self, endpoint: int, direction: int) -> bool:
        if endpoint == 0:
            if direction == IN:
                return 0 in self._sending if self._sends() else self._status
            return self._status if self._sends() else self._receives
        if direction == IN:
            return endpoint in self._sending and bool(self._values[_ENABLED_IN] >> endpoint & 1)
        enabled = bool(self._values[_ENABLED_OUT] >> endpoint & 1)
        return enabled and endpoint in self._accepting and endpoint not in self._received

    def take(self, endpoint: int, toggle: int) -> bytes:
        """The hardware keeps the data toggles itself."""
        if endpoint == 0 and not self._sends():
            self._status = False
            return b""
        data = self._sending.pop(endpoint)
        if endpoint == 0:
            self._happens(_EVENT_EP0_DATA)
            if self._values.get(_SHORTS, 0) & _SHORT_EP0_DATA_TO_STATUS:
                self._status = True
        else:
            self._data_status |= 1 << endpoint
            self._happens(_EVENT_DATA)
        return data

    def give(self, endpoint: int, toggle: int, data: bytes) -> None:
        if endpoint == 0 and self._sends():
            self._status = False
            return
        self._received[endpoint] = data
        self._sizes[endpoint] = len(data)
        if endpoint == 0:
            self._receives = False
            self._happens(_EVENT_EP0_DATA)
        else:
            self._accepting.discard(endpoint)
            self._data_status |= 1 << (16 + endpoint)
            self._happens(_EVENT_DATA)
