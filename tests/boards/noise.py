"""What a chip's source of noise gives: good bytes, or what a broken one would."""

from __future__ import annotations

import secrets
from enum import Enum

# Bytes after which a source that dies late is dead: it has passed the tests of the start by then.
_LIFE = 1500


class Noise(Enum):
    """How a source behaves."""

    GOOD = "good"
    # The hardware's own tests find a defect in one block of eight, and a reset of the source mends it.
    AUTOCORRELATION = "autocorrelation"
    REPETITION = "repetition"
    # After the first blocks the hardware's own test fails for every block.
    FAILING = "failing"
    # It never has anything.
    SILENT = "silent"
    # It gives one value, and the hardware does not notice; from the start, or later.
    DEAD = "dead"
    DYING = "dying"


class Source:
    """A source, and how many bytes it has given."""

    def __init__(self, noise: Noise) -> None:
        self.noise = noise
        self.given = 0

    def bytes(self, length: int) -> bytes:
        """Its next bytes."""
        self.given += length
        dead = self.noise is Noise.DEAD or self.noise is Noise.DYING and self.given > _LIFE
        return bytes(length) if dead else secrets.token_bytes(length)
