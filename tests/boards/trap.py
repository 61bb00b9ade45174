"""What a real chip would answer with silence, a broken flash or a fault that no handler can serve, and what
this emulator does not know: it stops there, loudly, and a test that met it fails."""


class Trap(Exception):
    """Why the emulator stopped."""
