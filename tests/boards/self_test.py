"""What the emulator promises of the parts that it makes up itself: `python self_test.py`."""

from __future__ import annotations

import struct
import tempfile
import unittest
from pathlib import Path

from unicorn.arm_const import (
    UC_ARM_REG_CONTROL,
    UC_ARM_REG_PC,
    UC_ARM_REG_PRIMASK,
    UC_ARM_REG_R2,
    UC_ARM_REG_S0,
    UC_ARM_REG_SP,
    UC_CPU_ARM_CORTEX_M4,
    UC_CPU_ARM_CORTEX_M33,
)

from clock import Clock
from cortex_m import HARD_FAULT, CortexM
from noise import Noise, Source
from nor_flash import NorFlash, PowerCut
from rp2350_otp import Otp, corrected, protected
from rp2350_trng import Trng
from trap import Trap

CODE, HANDLER, STACK, STACK_END = 0x10000200, 0x10000300, 0x20001000, 0x20000000
INTERRUPT = 5
LOOP = 0xE7FE  # b .
RETURN = 0x4770  # bx lr
PUSH = 0xB580  # push {r7, lr}


def halfwords(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}H", *values)


def processor(code: bytes, handler: bytes, model: int = UC_CPU_ARM_CORTEX_M33) -> CortexM:
    """A processor at the start of `code`; every exception has one handler."""
    core = CortexM(model, 0, 4, Clock(100))
    core.uc.mem_map(0x10000000, 0x1000)
    core.uc.mem_map(STACK_END, 0x1000)
    core.uc.mem_write(0x10000000, struct.pack("<64I", STACK, CODE | 1, *[HANDLER | 1] * 62))
    core.uc.mem_write(CODE, code)
    core.uc.mem_write(HANDLER, handler)
    core.reset(0x10000000, 0x10000000)
    return core


class Exceptions(unittest.TestCase):
    """Interrupts, faults and returns."""

    def test_an_interrupt_is_served_once_and_leaves_everything_as_it_was(self) -> None:
        for floats in (False, True):
            core = processor(halfwords(LOOP), halfwords(0x2207, RETURN))  # movs r2, #7
            core.set(UC_ARM_REG_R2, 1)
            core.set(UC_ARM_REG_SP, STACK - 4)
            if floats:
                core.set(UC_ARM_REG_CONTROL, 4)
                core.set(UC_ARM_REG_S0, 0x3F800000)
            core.enabled.add(INTERRUPT)
            core.line(INTERRUPT, True)
            core.line(INTERRUPT, False)
            core.run(1)
            self.assertEqual((core.active, core.get(UC_ARM_REG_R2)), ([16 + INTERRUPT], 7))
            core.run(5)
            self.assertEqual((core.active, core.get(UC_ARM_REG_R2)), ([], 1))
            self.assertEqual((core.pc, core.get(UC_ARM_REG_SP)), (CODE, STACK - 4))
            self.assertEqual(core.get(UC_ARM_REG_CONTROL), 4 * floats)
            core.run(5)
            self.assertEqual(core.active, [])

    def test_a_line_that_stays_high_interrupts_again(self) -> None:
        core = processor(halfwords(LOOP), halfwords(RETURN))
        core.enabled.add(INTERRUPT)
        core.line(INTERRUPT, True)
        core.run(5)
        core.run(5)
        self.assertEqual(core.active, [])
        self.assertIn(INTERRUPT, core.pending)

    def test_the_more_urgent_interrupt_preempts_and_the_less_urgent_waits(self) -> None:
        core = processor(halfwords(LOOP), halfwords(LOOP))
        core.enabled.update((1, 2, 3))
        core.priorities.update({1: 0x80, 2: 0x40, 3: 0x80})
        core.line(1, True)
        core.run(1)
        core.line(3, True)
        core.run(1)
        self.assertEqual(core.active, [17])
        core.line(2, True)
        core.run(1)
        self.assertEqual(core.active, [17, 18])

    def test_a_masked_interrupt_ends_sleep_and_is_taken_when_the_mask_is_gone(self) -> None:
        core = processor(halfwords(0xB672, 0xBF30, 0xB662, LOOP), halfwords(LOOP))  # cpsid i; wfi; cpsie i
        core.enabled.add(INTERRUPT)
        self.assertFalse(core.run(100))
        self.assertFalse(core.run(100))
        core.line(INTERRUPT, True)
        for _ in range(5):
            core.run(100)
        self.assertEqual((core.active, core.get(UC_ARM_REG_PRIMASK)), ([16 + INTERRUPT], 0))
        self.assertEqual(core.get(UC_ARM_REG_PC), HANDLER)

    def test_a_stack_without_room_is_a_fault_and_one_in_the_handler_a_lockup(self) -> None:
        for model in (UC_CPU_ARM_CORTEX_M33, UC_CPU_ARM_CORTEX_M4):
            for masked in (False, True):
                core = processor(halfwords(PUSH if masked else LOOP), halfwords(PUSH), model)
                core.set_stack_pointer(STACK_END)
                if not masked:  # the frame of an interrupt is what does not fit
                    core.enabled.add(INTERRUPT)
                    core.line(INTERRUPT, True)
                met: list[str] = []
                core.fault = met.append
                with self.assertRaisesRegex(Trap, "lockup"):
                    for _ in range(3):
                        core.run(1)
                self.assertEqual((core.active, len(met)), ([HARD_FAULT], 1))

    def test_a_stack_limit_is_kept(self) -> None:
        # ldr r0, limit; msr msplim, r0; push {r7, lr}
        code = halfwords(0x4802, 0xF380, 0x880A, PUSH, LOOP, 0) + struct.pack("<I", STACK)
        core = processor(code, halfwords(LOOP))
        met: list[str] = []
        core.fault = met.append
        core.run(10)
        self.assertEqual(core.active, [HARD_FAULT])
        self.assertIn("limit", met[0])
        core.uc.mem_write(CODE, halfwords(PUSH, LOOP))
        core.uc.ctl_remove_cache(CODE, CODE + 16)
        core.reset(0x10000000, 0x10000000)  # which takes the limit away
        core.run(10)
        self.assertEqual((core.active, core.get(UC_ARM_REG_SP)), ([], STACK - 8))

    def test_what_is_not_modelled_stops_the_emulator(self) -> None:
        code = halfwords(0x4801, 0x6800, LOOP, 0) + struct.pack("<I", 0xE0001000)  # ldr r0, [DWT]
        with self.assertRaises(Trap):
            processor(code, halfwords(LOOP)).run(10)
        with self.assertRaises(Trap):
            processor(halfwords(0xBE00), halfwords(LOOP)).run(10)  # bkpt


class Memories(unittest.TestCase):
    """Flash and OTP."""

    def setUp(self) -> None:
        self._directory = tempfile.TemporaryDirectory()
        self.path = Path(self._directory.name) / "memory"
        self.addCleanup(self._directory.cleanup)

    def test_programming_clears_bits_and_is_in_the_file_at_once(self) -> None:
        flash = NorFlash(self.path, 64)
        flash.program(8, b"\x0f\xf0")
        flash.program(8, b"\x3c\x3c")
        self.assertEqual(self.path.read_bytes()[7:11], b"\xff\x0c\x30\xff")
        flash.erase(0, 32)
        self.assertEqual(self.path.read_bytes(), b"\xff" * 64)

    def test_a_power_cut_leaves_one_operation_half_done(self) -> None:
        flash = NorFlash(self.path, 1024, cut=1)
        flash.program(0, bytes(512))
        with self.assertRaises(PowerCut):
            flash.program(512, b"\xf0" * 512)
        after = self.path.read_bytes()
        self.assertEqual(after[:512], bytes(512))
        self.assertTrue(all(byte & 0xF0 == 0xF0 for byte in after[512:]))
        self.assertNotIn(after[512:], (b"\xf0" * 512, b"\xff" * 512))

    def test_otp_rows_have_a_code_that_puts_one_bit_right(self) -> None:
        for data in (0, 1, 0xFFFF, 0x5052, 0xA5A5):
            row = protected(data)
            self.assertEqual(corrected(row), data)
            self.assertEqual(corrected(row ^ 0xFFFFFF), data)
            for bit in range(21):
                self.assertEqual(corrected(row ^ 1 << bit), data, f"bit {bit}")

    def test_a_chip_has_its_own_identity_and_keeps_it(self) -> None:
        first = Otp(self.path)
        again, other = Otp(self.path), Otp(self.path.with_name("other"))
        identity = [first.pair(row) for row in range(0, 12, 2)]
        self.assertEqual(identity, [again.pair(row) for row in range(0, 12, 2)])
        self.assertNotEqual(identity, [other.pair(row) for row in range(0, 12, 2)])
        self.assertEqual(first.raw(100), 0)


class Generator(unittest.TestCase):
    """RP2350's TRNG."""

    ISR, VALID, EHR, ENABLE, COUNT, SW_RESET = 0x104, 0x110, 0x114, 0x12C, 0x130, 0x140

    def started(self, noise: Noise) -> Trng:
        self.said: list[str] = []
        trng = Trng(Clock(150), Source(noise), self.said.append)
        trng.write(self.COUNT, 100, 100)
        trng.write(self.ENABLE, 1, 1)
        return trng

    def block(self, trng: Trng) -> list[int]:
        return [trng.read(self.EHR + 4 * word) for word in range(6)]

    def test_the_boot_roms_block_is_valid_and_told_of(self) -> None:
        trng = self.started(Noise.GOOD)
        trng.left_by_boot_rom()
        self.assertEqual(trng.read(self.VALID), 1)
        self.assertEqual((len(set(self.block(trng))), len(self.said)), (2, 1))
        trng.left_by_boot_rom()
        trng.write(self.SW_RESET, 1, 1)
        self.assertEqual((trng.read(self.VALID), self.block(trng), len(self.said)), (0, [0] * 6, 1))

    def test_good_noise_comes_and_differs(self) -> None:
        trng = self.started(Noise.GOOD)
        blocks = []
        for _ in range(3):
            self.assertEqual(trng.read(self.VALID), 1)
            blocks.append(self.block(trng))
        self.assertEqual(len({tuple(block) for block in blocks}), 3)

    def test_a_failing_source_sets_its_flag_and_gives_nothing_until_it_is_reset(self) -> None:
        trng = self.started(Noise.FAILING)
        for _ in range(3):
            trng.read(self.VALID)
            self.block(trng)
        for _ in range(100):
            self.assertEqual(trng.read(self.VALID), 0)
        self.assertEqual(trng.read(self.ISR), 4)
        silent = self.started(Noise.SILENT)
        self.assertEqual([silent.read(self.VALID) + silent.read(self.ISR) for _ in range(100)], [0] * 100)


if __name__ == "__main__":
    unittest.main()
