"""The chip's time and what is to happen in it. It is counted in cycles, one an instruction, and outlives
resets."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Callable, Optional

# Reads of a timer, and of nothing else, after which whoever reads is taken to be waiting for it.
_PATIENCE = 12
# What then passes at a time, in nanoseconds.
_STRIDE = 50_000


@dataclass(order=True)
class Alarm:
    """Something that is to happen at a time in nanoseconds."""

    time: int
    number: int
    action: Callable[[], None] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        self.cancelled = True


class Clock:
    """Time in cycles of the processor, and the alarms that are set."""

    def __init__(self, megahertz: int) -> None:
        self.megahertz = megahertz
        self.cycles = 0
        self._alarms: list[Alarm] = []
        self._number = 0
        self._looks = 0
        self._ringing: Optional[int] = None

    @property
    def now(self) -> int:
        """Nanoseconds since the power came. What an alarm does happens at the alarm's time, also when the
        processor stood still then and the alarm rings late."""
        return self.cycles * 1000 // self.megahertz if self._ringing is None else self._ringing

    def at(self, time: int, action: Callable[[], None]) -> Alarm:
        """Has something happen at a time, in nanoseconds."""
        self._number += 1
        alarm = Alarm(time, self._number, action)
        heapq.heappush(self._alarms, alarm)
        return alarm

    def after(self, nanoseconds: int, action: Callable[[], None]) -> Alarm:
        """Has something happen after so many nanoseconds."""
        return self.at(self.now + nanoseconds, action)

    def next(self) -> Optional[int]:
        """When the next alarm rings."""
        while self._alarms and self._alarms[0].cancelled:
            heapq.heappop(self._alarms)
        return self._alarms[0].time if self._alarms else None

    def ring(self) -> None:
        """Does everything that is due."""
        now = self.now
        while (due := self.next()) is not None and due <= now:
            self._ringing = due
            try:
                heapq.heappop(self._alarms).action()
            finally:
                self._ringing = None

    def instructions_until_alarm(self, at_most: int) -> int:
        """How many instructions may run before an alarm rings; one at the least."""
        due = self.next()
        if due is None:
            return at_most
        return max(1, min(at_most, (due - self.now) * self.megahertz // 1000 + 1))

    def spend(self, nanoseconds: int) -> None:
        """The processor stands still for a while, and rings no alarm meanwhile."""
        self.cycles += nanoseconds * self.megahertz // 1000

    def pass_until(self, time: int) -> None:
        """Lets time pass, but not beyond the next alarm."""
        due = self.next()
        if due is not None:
            time = min(time, max(due, self.now))
        self.cycles = max(self.cycles, time * self.megahertz // 1000 + 1)

    def looked_at(self) -> None:
        """The program reads a timer. One that does nothing else waits for it: then time passes faster."""
        self._looks += 1
        if self._looks > _PATIENCE:
            self.pass_until(self.now + _STRIDE)

    def disregarded(self) -> None:
        """The program does something else than to read a timer."""
        self._looks = 0
