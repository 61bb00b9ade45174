"""A board without a board: `python main.py BOARD IMAGE.uf2 DIRECTORY [OPTIONS]`.

The directory is the device. `flash` is its flash, and what the factory draws for each chip is beside it
(`otp`, or `ficr` and `uicr`); all are made where they are missing. Its button is held down while a file
`button` is there, its stack is at its end as soon as a file `overflow` is there (which is taken away), and
`light` tells when its light went on and off, in microseconds of its own time. The image is installed at the
start, as a boot loader would.

stdin and stdout are the serial port. stderr tells what happens, a line each: `usb VVVV:PPPP MANUFACTURER /
PRODUCT / SERIAL` when the device is enumerated, `usb timeout` when a control transfer was given up, `reset`
or `watchdog` when the device resets and how many words of memory were not zero then, `fault` when it meets
one, `noise` when it takes what the boot ROM left for its own, `bootloader` when it asks for its boot loader,
which ends the program, and `power cut` when that was asked for. A trap ends it with exit code 1 and the
reason.
"""

from __future__ import annotations

import argparse
import os
import select
import sys
import time
from pathlib import Path
from typing import Optional

from chip import Chip, Outside, Settings
from nor_flash import PowerCut
from noise import Noise
from nrf52840 import OLD_USER_FLASH_END, USER_FLASH_END, Nrf52840
from rp2350 import Rp2350
from trap import Trap
from usb_host import Identity, Patience, UsbHost

SLICE = 12_000  # instructions between two looks at the outside
BACKLOG = 65_536  # bytes for the serial port
MILLISECOND = 1_000_000  # nanoseconds
BOARDS: dict[str, type[Chip]] = {"pico2": Rp2350, "nrf52840": Nrf52840}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Runs a board's image.")
    parser.add_argument("board", choices=list(BOARDS))
    parser.add_argument("image", type=Path)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--noise", type=Noise, default=Noise.GOOD, choices=list(Noise), metavar="HOW",
                        help=", ".join(noise.value for noise in Noise))  # fmt: skip
    parser.add_argument("--cut", type=int, metavar="N", help="cut the power in the flash operation after N")
    parser.add_argument(
        "--debounce", type=int, default=10, metavar="MS", help="before the host resets the port"
    )
    parser.add_argument("--retries", type=int, default=3, help="how often the host enumerates again")
    parser.add_argument(
        "--erase-time", type=int, default=45, metavar="MS", help="pico2: of a sector of flash"
    )
    parser.add_argument("--old-bootloader", action="store_true", help="nrf52840: one before version 0.6.1")
    parser.add_argument("--build-code", default="F", help="nrf52840: the chip's, a letter")
    return parser.parse_args()


def say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


class SerialPort:
    """stdin and stdout, neither of which is ever waited for."""

    def __init__(self) -> None:
        self._unwritten = bytearray()
        self.ended = False
        for descriptor in (0, 1):
            os.set_blocking(descriptor, False)

    def write(self, data: bytes) -> None:
        self._unwritten += data
        self._flush()

    def _flush(self) -> None:
        try:
            del self._unwritten[: os.write(1, self._unwritten)]
        except BlockingIOError:
            pass

    @property
    def full(self) -> bool:
        """Whether the other end has to read first."""
        return bool(self._unwritten)

    def wait(self, seconds: float, wants: bool) -> bytes:
        """What comes within this time; nothing is read unless it is wanted."""
        reads, writes, _ = select.select([0] if wants else [], [1] if self._unwritten else [], [], seconds)
        if writes:
            self._flush()
        if not reads:
            return b""
        data = os.read(0, 4096)
        self.ended = not data
        return data


class World:
    """What is around the chip: its light and button, its serial port, and the world's time."""

    def __init__(self, options: argparse.Namespace) -> None:
        directory: Path = options.directory
        directory.mkdir(parents=True, exist_ok=True)
        self._button, self._overflow = directory / "button", directory / "overflow"
        self._lights = (directory / "light").open("a", buffering=1)
        outside = Outside(pressed=self._button.exists, light=self._light, say=say)
        settings = Settings(
            noise=options.noise,
            cut=options.cut,
            erase_time=options.erase_time * MILLISECOND,
            user_flash_end=OLD_USER_FLASH_END if options.old_bootloader else USER_FLASH_END,
            build_code=options.build_code,
        )
        self.chip = BOARDS[options.board](outside, directory, settings)
        self.chip.install(options.image)
        self._port = SerialPort()
        patience = Patience(debounce=options.debounce * MILLISECOND, retries=options.retries)
        host = UsbHost(
            self.chip.clock, self.chip.usb, patience, self._ready, self._port.write, self._timed_out
        )
        self.chip.plug_in(host)
        self._start = time.monotonic_ns()

    def _light(self, on: bool) -> None:
        self._lights.write(f"{self.chip.clock.now // 1000} {'on' if on else 'off'}\n")

    def _ready(self, identity: Identity) -> None:
        say(f"usb {identity.vendor:04x}:{identity.product:04x} {' / '.join(identity.strings)}")

    def _timed_out(self) -> None:
        say("usb timeout")

    def _now(self) -> int:
        return time.monotonic_ns() - self._start

    def run(self) -> None:
        """Until nobody is at the other end of the serial port, or the boot loader takes over."""
        chip = self.chip
        while not self._port.ended and not chip.in_bootloader:
            if self._overflow.exists():
                self._overflow.unlink()
                chip.overflow_stack()
            awake = chip.run(SLICE)
            if chip.host.paused != self._port.full:
                chip.host.pause(self._port.full)
            self._look(0 if awake else self._until_alarm())
            if not awake:
                # A chip that has nothing to do waits for the world.
                chip.clock.pass_until(self._now())
            elif chip.clock.now > self._now():
                # One that computes is not held up.
                self._start -= chip.clock.now - self._now()
        if chip.in_bootloader:
            say("bootloader")

    def _until_alarm(self) -> float:
        """Seconds of the world's time until the chip's next alarm, one at most."""
        due: Optional[int] = self.chip.clock.next()
        return 1.0 if due is None else max(0.0, min((due - self._now()) / 1e9, 1.0))

    def _look(self, seconds: float) -> None:
        data = self._port.wait(seconds, self.chip.host.backlog < BACKLOG)
        if data:
            self.chip.host.write(data)


def main() -> int:
    world = None
    try:
        world = World(arguments())
        world.run()
    except PowerCut:
        say("power cut")
    except Trap as trap:
        say(f"trap: {trap}")
        if world:
            say(world.chip.core.where())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
