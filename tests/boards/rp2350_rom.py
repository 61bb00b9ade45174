"""A boot ROM of our own, made from what RP2350's datasheet (5.4) says of its interface. Each of its functions
is a return that the chip serves when it is reached.

Like the real one it starts an image by its block loop (5.9), and leaves a function in boot RAM that sets up
the flash for reading.
"""

from __future__ import annotations

import struct

from trap import Trap

SIZE = 0x8000
_LOOKUP = 0x40
_FUNCTIONS_AT = 0x100
# IF and EX connect to the flash and leave reading, RE erases, RP programs, FC flushes the cache, CX goes back
# to reading, RB resets into something else.
_FUNCTIONS = ("IF", "EX", "RE", "RP", "FC", "CX", "RB")
_FOR_ARM_SECURE = 4
_RETURN = 0x4770  # BX LR
LOOKUP_NAME = "lookup"
HOOKED = (_LOOKUP, _FUNCTIONS_AT + 4 * len(_FUNCTIONS))

# ldr r0, 1f; str r0, [r0]; bx lr; 1: a register of the flash's interface, writing to which the chip notices.
XIP_SET_UP_NOTICED = 0xFF0
XIP_SET_UP = struct.pack("<4HI", 0x4801, 0x6000, _RETURN, 0xBF00, 0x400D0000 + XIP_SET_UP_NOTICED)

_BLOCK_BEGINS, _BLOCK_ENDS = 0xFFFFDED3, 0xAB123579
_IMAGE_DEF, _LAST = 0x42, 0xFF
_EXECUTABLE_SECURE_ARM = 0x1021


def rom() -> bytes:
    """Its bytes."""
    image = bytearray(SIZE)
    struct.pack_into("<I", image, 0x10, 0x02_02_75_4D)  # 'M', 'u', 2, version 2
    struct.pack_into("<HH", image, 0x14, 0x200, _LOOKUP | 1)
    struct.pack_into("<H", image, _LOOKUP, _RETURN)
    for number in range(len(_FUNCTIONS)):
        struct.pack_into("<H", image, _FUNCTIONS_AT + 4 * number, _RETURN)
    return bytes(image)


def function(address: int) -> str:
    """What is served at an address of the ROM."""
    if address == _LOOKUP:
        return LOOKUP_NAME
    return _FUNCTIONS[(address - _FUNCTIONS_AT) // 4]


def look_up(code: int, mask: int) -> int:
    """The address of a function by its two letters."""
    name = struct.pack("<H", code & 0xFFFF).decode("latin-1")
    if name not in _FUNCTIONS or mask != _FOR_ARM_SECURE:
        raise Trap(f"boot ROM: {name!r} is looked up with the mask {mask:#x}")
    return _FUNCTIONS_AT + 4 * _FUNCTIONS.index(name) | 1


def insist_on_image_definition(start: bytes) -> None:
    """The first 4 KiB must have a loop of one block, which says that this is a secure image for Arm
    (5.9.5)."""
    words = struct.unpack("<1024I", start)
    if _BLOCK_BEGINS not in words:
        raise Trap("boot ROM: there is no block in the first 4 KiB")
    first = at = words.index(_BLOCK_BEGINS) + 1
    definitions = []
    while words[at] & 0xFF != _LAST:
        if words[at] & 0xFF == _IMAGE_DEF:
            definitions.append(words[at] >> 16)
        at += words[at] >> 8 & 0xFF
    length, next_block, end = words[at] >> 8 & 0xFFFF, words[at + 1], words[at + 2]
    if (length, next_block, end, definitions) != (at - first, 0, _BLOCK_ENDS, [_EXECUTABLE_SECURE_ARM]):
        raise Trap("boot ROM: the first block does not define an image")
