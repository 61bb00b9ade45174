"""A host that treats the device as Linux does: reset, descriptors, address, strings, configuration, then the
serial port is opened (SET_LINE_CODING, DTR) and bytes go both ways (USB 2.0, 8.5.3, 9.4; CDC PSTN 1.2, 6.3).
A bus transaction takes 50 µs.

A control transfer that is not finished in time has the port reset and everything begun anew, as Linux's hub
driver does.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Callable, Generator, Optional, Protocol, Union

from clock import Clock
from trap import Trap

IN, OUT = 0, 1
_TRANSACTION = 50_000  # nanoseconds
_AFTER_RESET = 10_000_000
_PACKET = 64
_DEVICE_TO_HOST = 0x80
_CLASS_INTERFACE = 0x21
_SET_ADDRESS, _GET_DESCRIPTOR, _SET_CONFIGURATION, _SET_LINE_CODING, _SET_LINE_STATE = 5, 6, 9, 0x20, 0x22
_DEVICE, _CONFIGURATION, _STRING, _INTERFACE, _ENDPOINT, _QUALIFIER = 1, 2, 3, 4, 5, 6
_COMMUNICATION, _DATA = 2, 10
_BULK = 2
_ENGLISH = 0x0409
_ADDRESS = 7
_DTR_RTS = 3
_LINE_CODING = bytes([0x00, 0xC2, 0x01, 0x00, 0, 0, 8])  # 115200 baud, 8N1


class Device(Protocol):
    """A chip's USB controller, as a host sees it."""

    address: int

    def reset(self) -> None:
        """The bus is reset."""

    def setup(self, packet: bytes) -> None:
        """A setup packet comes, which no device may refuse."""

    def stalled(self, endpoint: int, direction: int) -> bool:
        """Whether the device refuses to go on here."""

    def ready(self, endpoint: int, direction: int) -> bool:
        """Whether the device has, or takes, a packet; else it answers NAK."""

    def take(self, endpoint: int, toggle: int) -> bytes:
        """Takes a packet whose data toggle must be `toggle`."""

    def give(self, endpoint: int, toggle: int, data: bytes) -> None:
        """Gives a packet of this data toggle."""


@dataclass
class Identity:
    """What a device says of itself."""

    vendor: int
    product: int
    strings: list[str]


@dataclass
class Patience:
    """How long a host waits, in nanoseconds: before it resets the port of a device that appeared, after it
    gave the device its address, and for a control transfer; and how often it then tries again."""

    debounce: int = 10_000_000
    address: int = 2_000_000
    transfer: int = 5_000_000_000
    retries: int = 3


@dataclass
class Request:
    """A control transfer that is to be made."""

    kind: int
    request: int
    value: int
    index: int
    length: int
    data: bytes = b""

    @property
    def direction(self) -> int:
        return IN if self.kind & _DEVICE_TO_HOST else OUT

    @property
    def packet(self) -> bytes:
        return struct.pack("<BBHHH", self.kind, self.request, self.value, self.index, self.length)


@dataclass
class Pause:
    """Time in which the host does nothing."""

    nanoseconds: int


Steps = Generator[Union[Request, Pause], Optional[bytes], None]


@dataclass
class _Transfer:
    """A control transfer that is under way."""

    request: Request
    done: Callable[[Optional[bytes]], None]
    data: bytearray
    begun: bool = False
    toggle: int = 1
    status: bool = False


@dataclass
class _Port:
    """What is forgotten when the device goes away."""

    transfer: Optional[_Transfer] = None
    open: bool = False
    endpoints: dict[int, int] = field(default_factory=dict)
    toggles: list[int] = field(default_factory=lambda: [0, 0])
    outgoing: bytearray = field(default_factory=bytearray)
    max_packet: Optional[int] = None


class UsbHost:
    """A host for a chip's port. `ready(identity)` is called when the port is open, `receive(bytes)` for what
    comes, and `timed_out()` when a control transfer was given up."""

    def __init__(self, clock: Clock, device: Device, patience: Patience, ready: Callable[[Identity], None],
                 receive: Callable[[bytes], None], timed_out: Callable[[], None]) -> None:  # fmt: skip
        self.clock, self.device, self.patience = clock, device, patience
        self._ready, self._receive, self._timed_out = ready, receive, timed_out
        self._port = _Port()
        self._scheduled = False
        self._tries = 0
        self.paused = False

    def attached(self) -> None:
        """The device appeared."""
        self._tries = 0
        self._connect()

    def _connect(self) -> None:
        port = self._port = _Port()
        self._after(port, self.patience.debounce, lambda: self._reset(port))

    def _reset(self, port: _Port) -> None:
        self.device.reset()
        self._after(port, _AFTER_RESET, lambda: self._go_on(port, self._enumerate(port), None))

    def detached(self) -> None:
        """The device went away."""
        self._port = _Port()

    def _after(self, port: _Port, nanoseconds: int, action: Callable[[], None]) -> None:
        """Has something happen, unless the device goes away before."""
        self.clock.after(nanoseconds, lambda: action() if port is self._port else None)

    def wake(self) -> None:
        """There may be something to do."""
        if not self._scheduled:
            self._scheduled = True
            self.clock.after(_TRANSACTION, self._transact)

    def write(self, data: bytes) -> None:
        """Sends bytes to the serial port."""
        self._port.outgoing += data
        self.wake()

    @property
    def backlog(self) -> int:
        """Bytes that are still to be sent."""
        return len(self._port.outgoing)

    def pause(self, paused: bool) -> None:
        """Stops, or goes on with, taking bytes from the serial port."""
        self.paused = paused
        self.wake()

    def _transact(self) -> None:
        self._scheduled = False
        port = self._port
        progress = [
            self._control(port),
            port.open and self._bulk_out(port),
            port.open and self._bulk_in(port),
        ]
        if True in progress:
            self.wake()

    def _bulk_out(self, port: _Port) -> bool:
        endpoint = port.endpoints[OUT]
        if not port.outgoing or not self.device.ready(endpoint, OUT):
            return False
        self.device.give(endpoint, port.toggles[OUT], bytes(port.outgoing[:_PACKET]))
        del port.outgoing[:_PACKET]
        port.toggles[OUT] ^= 1
        return True

    def _bulk_in(self, port: _Port) -> bool:
        endpoint = port.endpoints[IN]
        if self.paused or not self.device.ready(endpoint, IN):
            return False
        data = self.device.take(endpoint, port.toggles[IN])
        port.toggles[IN] ^= 1
        if data:
            self._receive(data)
        return True

    def _control(self, port: _Port) -> bool:
        """One step of a control transfer: setup, data packets one way, an empty packet the other way."""
        transfer = port.transfer
        if transfer is None:
            return False
        request = transfer.request
        if not transfer.begun:
            transfer.begun = True
            self.device.setup(request.packet)
            return True
        direction = 1 - request.direction if transfer.status else request.direction
        if self.device.stalled(0, direction):
            return self._finish(port, None)
        if not self.device.ready(0, direction):
            return False
        toggle = 1 if transfer.status else transfer.toggle
        if direction == IN:
            packet = self.device.take(0, toggle)
        else:
            packet = b"" if transfer.status else bytes(transfer.data[: port.max_packet])
            self.device.give(0, toggle, packet)
        if transfer.status:
            if packet:
                raise Trap("USB: a status stage with data")
            return self._finish(port, bytes(transfer.data))
        transfer.toggle ^= 1
        if direction == IN:
            transfer.data += packet
            if port.max_packet is None:
                port.max_packet = transfer.data[7]  # in the first descriptor's first packet
            transfer.status = len(packet) < port.max_packet or len(transfer.data) >= request.length
        else:
            del transfer.data[: len(packet)]
            transfer.status = not transfer.data
        return True

    def _finish(self, port: _Port, answer: Optional[bytes]) -> bool:
        transfer, port.transfer = port.transfer, None
        if transfer:
            transfer.done(answer)
        return True

    def _go_on(self, port: _Port, steps: Steps, answer: Optional[bytes]) -> None:
        """Takes the next step of an enumeration; `answer` is what the last one brought, None where the device
        stalled."""
        try:
            step = steps.send(answer)
        except StopIteration:
            return
        if isinstance(step, Pause):
            self._after(port, step.nanoseconds, lambda: self._go_on(port, steps, None))
            return
        transfer = _Transfer(
            request=step,
            done=lambda data: self._go_on(port, steps, data),
            data=bytearray(step.data),
            status=step.length == 0,
        )
        port.transfer = transfer
        self._after(port, self.patience.transfer, lambda: self._give_up(port, transfer))
        self.wake()

    def _give_up(self, port: _Port, transfer: _Transfer) -> None:
        if port.transfer is not transfer:
            return
        self._timed_out()
        self._tries += 1
        if self._tries <= self.patience.retries:
            self._connect()
        else:
            self.detached()

    def _enumerate(self, port: _Port) -> Steps:
        yield _descriptor(_DEVICE, 0, 64)
        yield Request(0, _SET_ADDRESS, _ADDRESS, 0, 0)
        yield Pause(self.patience.address)
        if self.device.address != _ADDRESS:
            raise Trap("USB: the device has not taken its address")
        device = (yield _descriptor(_DEVICE, 0, 18)) or b""
        vendor, product = struct.unpack_from("<HH", device, 8)
        strings = []
        for index in device[14:17]:
            descriptor = (yield _descriptor(_STRING, index, 255)) if index else None
            strings.append((descriptor or b"")[2:].decode("utf-16le"))
        yield _descriptor(_QUALIFIER, 0, 10)  # whether it has one is its own affair
        head = (yield _descriptor(_CONFIGURATION, 0, 9)) or b""
        (length,) = struct.unpack_from("<H", head, 2)
        configuration = (yield _descriptor(_CONFIGURATION, 0, length)) or b""
        communication = _find_endpoints(configuration, port.endpoints)
        yield Request(0, _SET_CONFIGURATION, head[5], 0, 0)
        yield Request(_CLASS_INTERFACE, _SET_LINE_CODING, 0, communication, len(_LINE_CODING), _LINE_CODING)
        yield Request(_CLASS_INTERFACE, _SET_LINE_STATE, _DTR_RTS, communication, 0)
        port.open = True
        self._ready(Identity(vendor, product, strings))
        self.wake()


def _descriptor(kind: int, index: int, length: int) -> Request:
    language = _ENGLISH if kind == _STRING else 0
    return Request(_DEVICE_TO_HOST, _GET_DESCRIPTOR, kind << 8 | index, language, length)


def _find_endpoints(configuration: bytes, endpoints: dict[int, int]) -> int:
    """Notes the bulk endpoints of the data interface; returns the number of the communication interface."""
    at = current = communication = 0
    while at < len(configuration):
        length, kind, number, attributes = configuration[at : at + 4]
        if kind == _INTERFACE:
            current = configuration[at + 5]
            if current == _COMMUNICATION:
                communication = number
        elif kind == _ENDPOINT and current == _DATA and attributes & 3 == _BULK:
            endpoints[IN if number & _DEVICE_TO_HOST else OUT] = number & 0xF
        at += length
    return communication
