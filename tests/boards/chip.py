"""What the emulator asks of a chip, whichever it is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Callable, Optional

from clock import Clock
from cortex_m import CortexM
from noise import Noise
from usb_host import Device, UsbHost


class Reset(Enum):
    """Why a chip starts."""

    POWER_ON = "power on"
    SOFTWARE = "reset"
    WATCHDOG = "watchdog"


@dataclass
class Settings:
    """How a chip and what is beside it are; times in nanoseconds."""

    noise: Noise = Noise.GOOD
    # Operations of the flash before the power is cut in the middle of one.
    cut: Optional[int] = None
    erase_time: int = 45_000_000
    # nRF52840: where the boot loader's file system stops, and the last letter but one of FICR.INFO.VARIANT.
    user_flash_end: int = 0xEA000
    build_code: str = "F"


@dataclass
class Outside:
    """What a chip sees and shows of the world."""

    pressed: Callable[[], bool]
    light: Callable[[bool], None]
    say: Callable[[str], None]


class Chip:
    """A processor and what is around it. Its memory, clock and USB host outlive its resets."""

    # The end of memory that the stack grows towards.
    stack_end = 0x20000000

    core: CortexM
    clock: Clock
    usb: Device
    host: UsbHost

    def __init__(self, outside: Outside, directory: Path, settings: Settings) -> None:
        self.outside = outside
        # A reset that was asked for; the next slice begins with it.
        self.resetting: Optional[Reset] = None
        # Set when the program asked for the boot loader.
        self.in_bootloader = False

    def install(self, image: Path) -> None:
        """Writes a UF2 file to its flash, as its boot loader does."""
        raise NotImplementedError

    def plug_in(self, host: UsbHost) -> None:
        """Connects a host and the power."""
        self.host = host
        self.reset(Reset.POWER_ON)

    def reset(self, cause: Reset) -> None:
        """Starts the chip."""
        raise NotImplementedError

    def uncleared(self) -> int:
        """How many words of memory are not zero."""
        raise NotImplementedError

    def run(self, instructions: int) -> bool:
        """Carries out so many instructions at most; false when the processor sleeps."""
        if self.resetting:
            cause, self.resetting = self.resetting, None
            self.outside.say(f"{cause.value}, {self.uncleared()} words of memory are not zero")
            self.reset(cause)
        before = self.clock.cycles
        awake = self.core.run(instructions)
        if self.clock.cycles != before:
            self.host.wake()  # the program may have something for it
        return awake or self.resetting is not None

    def overflow_stack(self) -> None:
        """Moves the stack pointer to the end of the stack, as calls that nest too deep would."""
        self.core.set_stack_pointer(self.stack_end + 8)


def nonzero_words(memory: bytes) -> int:
    """How many words are not zero."""
    return sum(1 for at in range(0, len(memory), 4) if memory[at : at + 4] != b"\0\0\0\0")
