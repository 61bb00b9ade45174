"""An Arm Cortex-M33 or Cortex-M4 on Unicorn, which executes instructions and no more.

What makes them an M-profile chip is here: exceptions, the interrupt controller, the system control block,
sleep and faults (Armv8-M Architecture Reference Manual, DDI 0553, B3 and D1.2; Armv7-M, DDI 0403, B1.5 and
B3). Not here: MPU and SAU, lazy stacking of the floating-point registers, the process stack, SysTick,
configurable fault handlers; what asks for one of them is a trap. An interrupt is taken at the end of a slice
of instructions, so up to some 100 µs late.
"""

from __future__ import annotations

import struct
from typing import Callable, Optional

from unicorn import (
    UC_ARCH_ARM,
    UC_HOOK_CODE,
    UC_HOOK_INTR,
    UC_HOOK_MEM_FETCH_PROT,
    UC_HOOK_MEM_FETCH_UNMAPPED,
    UC_HOOK_MEM_READ_PROT,
    UC_HOOK_MEM_READ_UNMAPPED,
    UC_HOOK_MEM_WRITE_PROT,
    UC_HOOK_MEM_WRITE_UNMAPPED,
    UC_MODE_MCLASS,
    UC_MODE_THUMB,
    Uc,
    UcError,
)
from unicorn.arm_const import (
    UC_ARM_REG_CONTROL,
    UC_ARM_REG_FPSCR,
    UC_ARM_REG_LR,
    UC_ARM_REG_PC,
    UC_ARM_REG_PRIMASK,
    UC_ARM_REG_R0,
    UC_ARM_REG_R1,
    UC_ARM_REG_R2,
    UC_ARM_REG_R3,
    UC_ARM_REG_R12,
    UC_ARM_REG_S0,
    UC_ARM_REG_SP,
    UC_ARM_REG_XPSR,
)

from clock import Clock
from trap import Trap

HARD_FAULT = 3
_FIRST_INTERRUPT = 16

_MASK = 0xFFFFFFFF
_ARGUMENTS = (UC_ARM_REG_R0, UC_ARM_REG_R1, UC_ARM_REG_R2, UC_ARM_REG_R3)
_STACKED = (*_ARGUMENTS, UC_ARM_REG_R12, UC_ARM_REG_LR, UC_ARM_REG_PC)
_THUMB = 1 << 24
_STACK_WAS_MISALIGNED = 1 << 9
_IPSR = 0x1FF
_FLOATING_POINT_ACTIVE = 1 << 2  # CONTROL.FPCA
_FRAME = 0x20
_FRAME_WITH_FLOATS = 0x68
_RETURN = 0xFFFFFFE1  # EXC_RETURN: main stack, floats stacked, to a handler
_RETURN_NO_FLOATS = 0x10
_RETURN_TO_THREAD = 0x08
_WAIT_FOR_INTERRUPT = b"\x30\xbf"

# Unicorn's numbers of what an instruction raised (target/arm/cpu.h).
_BREAKPOINT = 7
_EXCEPTION_RETURN = 8
_STACK_OVERFLOW = 19

# The private peripheral bus, and offsets in its system control space (DDI 0553, D1.1).
_PRIVATE = 0xE0000000
_PRIVATE_SIZE = 0x100000
_SYSTEM_CONTROL = 0xE000
_ISER, _ICER, _ISPR, _ICPR, _BITS_END = 0x100, 0x180, 0x200, 0x280, 0x300
_IPR, _IPR_END = 0x400, 0x5F0
_CPUID, _ICSR, _VTOR, _AIRCR, _SCR, _CCR, _SHCSR, _CFSR, _HFSR, _CPACR, _STIR = (
    0xD00, 0xD04, 0xD08, 0xD0C, 0xD10, 0xD14, 0xD24, 0xD28, 0xD2C, 0xD88, 0xF00,
)  # fmt: skip
_SHPR, _SHPR_END = 0xD18, 0xD24
_ACTLR = 0x008
_RESET_REQUEST = 0x05FA0004
_FAULT_HANDLERS = 7 << 16  # SHCSR: MemManage, BusFault and UsageFault have handlers of their own
_KEPT = (_ACTLR, _SCR, _CCR, _SHCSR, _CPACR, *range(_SHPR, _SHPR_END, 4))

# With an interrupt pending and PRIMASK set it is taken as soon as PRIMASK is cleared: the processor goes step
# by step. A mask that lasts longer is not stepped through.
_STEPS = ((300, 1), (600, 37))

Read = Callable[[int], int]
Write = Callable[[int, int], None]


class CortexM:
    """A processor with memory that its chip maps. `reset_requested` is called when the program asks for a
    reset, and `fault` is told of every fault that the program meets."""

    def __init__(self, model: int, identity: int, priority_bits: int, clock: Clock) -> None:
        self.uc = Uc(UC_ARCH_ARM, UC_MODE_THUMB | UC_MODE_MCLASS)
        self.uc.ctl_set_cpu_model(model)
        self.clock = clock
        self.identity = identity
        self.priority_mask = (0xFF << (8 - priority_bits)) & 0xFF
        self.reset_requested: Callable[[], None] = lambda: None
        self.fault: Callable[[str], None] = lambda what: None
        # Memory that answers to nobody, now: (start, end, why).
        self.absent: Optional[tuple[int, int, str]] = None
        self._bad_access: Optional[str] = None
        self._error: Optional[Exception] = None
        self._raised: Optional[int] = None
        self.uc.hook_add(UC_HOOK_INTR, self._on_exception)
        self.uc.hook_add(
            UC_HOOK_MEM_READ_UNMAPPED
            | UC_HOOK_MEM_WRITE_UNMAPPED
            | UC_HOOK_MEM_FETCH_UNMAPPED
            | UC_HOOK_MEM_READ_PROT
            | UC_HOOK_MEM_WRITE_PROT
            | UC_HOOK_MEM_FETCH_PROT,
            self._on_bad_access,
        )
        self.peripheral(_PRIVATE, _PRIVATE_SIZE, self._read_private, self._write_private)
        self._forget()
        self._fresh = self.uc.context_save()

    def _forget(self) -> None:
        self.pending: set[int] = set()
        self.enabled: set[int] = set()
        self.lines: set[int] = set()
        self.priorities: dict[int, int] = {}
        self.active: list[int] = []  # exceptions, the innermost last
        self.vectors = 0
        self._kept: dict[int, int] = {_CCR: 0x200}
        self._masked = 0
        self._asleep = False

    # Memory and registers.

    def peripheral(self, base: int, size: int, read: Callable[[int, int], int],
                   write: Callable[[int, int, int], None]) -> None:  # fmt: skip
        """Maps registers: `read(offset, bytes)` and `write(offset, bytes, value)`."""

        def on_read(_uc: Uc, offset: int, length: int, _data: object) -> int:
            try:
                return read(offset, length)
            except Exception as error:
                return self._stop(error)

        def on_write(_uc: Uc, offset: int, length: int, value: int, _data: object) -> None:
            try:
                write(offset, length, value & ((1 << 8 * length) - 1))
            except Exception as error:
                self._stop(error)

        self.uc.mmio_map(base, size, on_read, None, on_write, None)

    def _stop(self, error: Exception) -> int:
        """Ends the slice; `run` raises the error. Unicorn cannot be left by an exception."""
        self._error = self._error or error
        self.uc.emu_stop()
        return 0

    def breakpoints(self, begin: int, end: int, serve: Callable[[int], None]) -> None:
        """Has `serve(address)` called before an instruction of this range is executed."""

        def on_code(_uc: Uc, address: int, _size: int, _data: object) -> None:
            try:
                serve(address)
            except Exception as error:
                self._stop(error)

        self.uc.hook_add(UC_HOOK_CODE, on_code, begin=begin, end=end)

    def get(self, register: int) -> int:
        value: int = self.uc.reg_read(register)
        return value

    def set(self, register: int, value: int) -> None:
        self.uc.reg_write(register, value & _MASK)

    def arguments(self) -> list[int]:
        """What a function was called with."""
        return [self.get(register) for register in _ARGUMENTS]

    def answer(self, value: int) -> None:
        """What a function returns."""
        self.set(UC_ARM_REG_R0, value)

    @property
    def caller(self) -> int:
        return self.get(UC_ARM_REG_LR)

    @property
    def pc(self) -> int:
        return self.get(UC_ARM_REG_PC)

    @property
    def masked(self) -> bool:
        return bool(self.get(UC_ARM_REG_PRIMASK) & 1)

    def set_stack_pointer(self, address: int) -> None:
        self.set(UC_ARM_REG_SP, address)

    def where(self) -> str:
        """Registers, for a report."""
        names = [f"r{number}" for number in range(13)] + ["sp", "lr", "pc"]
        numbers = [UC_ARM_REG_R0 + number for number in range(13)] + [
            UC_ARM_REG_SP,
            UC_ARM_REG_LR,
            UC_ARM_REG_PC,
        ]
        registers = " ".join(f"{name}={self.get(number):08x}" for name, number in zip(names, numbers))
        return f"{registers} exceptions={self.active} primask={int(self.masked)}"

    # Reset.

    def reset(self, vectors: int, vtor: int) -> None:
        """Starts the program of this vector table; VTOR may be elsewhere, where a boot loader leaves it to
        the program."""
        self._forget()
        self.uc.context_restore(self._fresh)
        self.vectors = vtor
        stack, entry = struct.unpack("<2I", bytes(self.uc.mem_read(vectors, 8)))
        self.set(UC_ARM_REG_XPSR, _THUMB)
        self.set(UC_ARM_REG_PRIMASK, 0)
        self.set(UC_ARM_REG_CONTROL, 0)
        self.set(UC_ARM_REG_SP, stack)
        self.set(UC_ARM_REG_LR, _MASK)
        self.set(UC_ARM_REG_PC, entry)

    # Interrupts.

    def line(self, number: int, high: bool) -> None:
        """Sets an interrupt's line."""
        if not high:
            self.lines.discard(number)
        elif number not in self.lines:
            self.lines.add(number)
            self.pending.add(number)

    def _interrupt(self) -> Optional[int]:
        """The interrupt that would be taken but for PRIMASK."""
        ready = self.pending & self.enabled
        if not ready:
            return None
        number = min(ready, key=lambda number: (self._priority(number), number))
        return number if self._priority(number) < self._running_priority() else None

    def _priority(self, number: int) -> int:
        return self.priorities.get(number, 0)

    def _running_priority(self) -> int:
        if HARD_FAULT in self.active:
            return -1
        return min([self._priority(number - _FIRST_INTERRUPT) for number in self.active], default=256)

    def _enter(self, number: int) -> None:
        """Enters an exception's handler."""
        if not self._stack_frame() and number != HARD_FAULT:
            # A derived exception (B3.24). On HardFault's own entry it is not: the frame is lost and the
            # handler runs.
            if number >= _FIRST_INTERRUPT:
                self.pending.add(number - _FIRST_INTERRUPT)
            self.fault("the stack has no room for an exception's frame")
            number = HARD_FAULT
        self.active.append(number)
        self.set(UC_ARM_REG_XPSR, _THUMB | number)
        (vector,) = struct.unpack("<I", bytes(self.uc.mem_read(self.vectors + 4 * number, 4)))
        if not vector & 1:
            raise Trap(f"the vector of exception {number} is {vector:#010x}")
        self.set(UC_ARM_REG_PC, vector)

    def _stack_frame(self) -> bool:
        """Pushes the registers; false where there is no memory."""
        control = self.get(UC_ARM_REG_CONTROL)
        floats = bool(control & _FLOATING_POINT_ACTIVE)
        stack = self.get(UC_ARM_REG_SP)
        status = self.get(UC_ARM_REG_XPSR) & ~(_IPSR | _STACK_WAS_MISALIGNED) | self._running() | _THUMB
        if stack & 4:
            status |= _STACK_WAS_MISALIGNED
        frame = struct.pack("<8I", *(self.get(register) for register in _STACKED), status & _MASK)
        if floats:
            singles = [self.get(UC_ARM_REG_S0 + number) & _MASK for number in range(16)]
            frame += struct.pack("<18I", *singles, self.get(UC_ARM_REG_FPSCR), 0)
        stack = (stack - len(frame)) & ~7
        self.set(UC_ARM_REG_SP, stack)
        self.set(UC_ARM_REG_CONTROL, control & ~_FLOATING_POINT_ACTIVE)
        returns = _RETURN | (0 if floats else _RETURN_NO_FLOATS) | (0 if self.active else _RETURN_TO_THREAD)
        self.set(UC_ARM_REG_LR, returns)
        try:
            self.uc.mem_write(stack, frame)
        except UcError:
            return False
        return True

    def _running(self) -> int:
        return self.active[-1] if self.active else 0

    def _leave(self, returns: int) -> None:
        """Returns from a handler."""
        if not self.active:
            raise Trap(f"an exception's return, {returns:#010x}, in thread mode")
        number = self.active.pop() - _FIRST_INTERRUPT
        if number in self.lines:
            self.pending.add(number)
        stack = self.get(UC_ARM_REG_SP)
        floats = not returns & _RETURN_NO_FLOATS
        size = _FRAME_WITH_FLOATS if floats else _FRAME
        words = struct.unpack(f"<{size // 4}I", bytes(self.uc.mem_read(stack, size)))
        status = words[7]
        if status & _IPSR != self._running():
            raise Trap(f"exception {number + _FIRST_INTERRUPT} returns to exception {status & _IPSR}")
        for register, value in zip(_STACKED[:-1], words):
            self.set(register, value)
        control = self.get(UC_ARM_REG_CONTROL)
        if floats:
            for single in range(16):
                self.set(UC_ARM_REG_S0 + single, words[8 + single])
            self.set(UC_ARM_REG_FPSCR, words[24])
            control |= _FLOATING_POINT_ACTIVE
        else:
            control &= ~_FLOATING_POINT_ACTIVE
        self.set(UC_ARM_REG_SP, stack + size + (4 if status & _STACK_WAS_MISALIGNED else 0))
        self.set(UC_ARM_REG_CONTROL, control)
        self.set(UC_ARM_REG_XPSR, status & ~_STACK_WAS_MISALIGNED)
        self.set(UC_ARM_REG_PC, words[6] | 1)

    # Execution.

    def run(self, instructions: int) -> bool:
        """Carries out so many instructions at most; false when the processor sleeps."""
        self.clock.ring()
        interrupt = self._interrupt()
        if interrupt is None:
            if self._asleep:
                return False
            self._masked = 0
        elif not self.masked:
            self._masked = 0
            self.pending.discard(interrupt)
            self._enter(interrupt + _FIRST_INTERRUPT)
        else:
            self._masked += 1
            instructions = next((step for limit, step in _STEPS if self._masked < limit), instructions)
        self._asleep = False
        instructions = self.clock.instructions_until_alarm(instructions)
        try:
            self.uc.emu_start(self.pc | 1, 0xFFFFFFFE, count=instructions)
        except UcError as error:
            self._failed(error)
            return True
        finally:
            self.clock.cycles += instructions  # more than there were, where the slice ended early
        if self._error:
            raise self._error
        if self._raised is not None:
            self._serve(self._raised)
            return True
        self._asleep = self._waits() and self._interrupt() is None
        return not self._asleep

    def _waits(self) -> bool:
        try:
            return bytes(self.uc.mem_read(self.pc - 2, 2)) == _WAIT_FOR_INTERRUPT
        except UcError:
            return False

    def _serve(self, raised: int) -> None:
        self._raised = None
        if raised == _EXCEPTION_RETURN:
            self._leave(self.pc | 1)
        elif raised == _BREAKPOINT:
            raise Trap("the program stopped itself (BKPT)")
        elif raised == _STACK_OVERFLOW:
            self._hard_fault("the stack pointer passes its limit")
        else:
            self._hard_fault(f"exception {raised} of Unicorn's")

    def _failed(self, error: UcError) -> None:
        """Unicorn did not go on."""
        if self._error:
            raise self._error
        if self._raised is not None:
            self._serve(self._raised)
            return
        what, self._bad_access = self._bad_access, None
        self._hard_fault(what or str(error))

    def _hard_fault(self, what: str) -> None:
        """No fault has a handler of its own: each escalates, and in HardFault's handler it is a lockup
        (B3.32)."""
        if HARD_FAULT in self.active:
            raise Trap(f"lockup: {what}")
        self.fault(f"{what}, {self.where()}")
        self._enter(HARD_FAULT)

    def _on_exception(self, uc: Uc, number: int, _data: object) -> None:
        self._raised = number
        uc.emu_stop()

    def _on_bad_access(
        self, _uc: Uc, access: int, address: int, size: int, _value: int, _data: object
    ) -> bool:
        if self.absent and self.absent[0] <= address < self.absent[1]:
            self._stop(Trap(f"access to {address:#010x}: {self.absent[2]}"))
        self._bad_access = f"access to {size} bytes at {address:#010x}"
        return False

    # The private peripheral bus.

    def _read_private(self, offset: int, length: int) -> int:
        word = self._read_system_control(self._system_control(offset) & ~3)
        return (word >> 8 * (offset & 3)) & ((1 << 8 * length) - 1)

    def _system_control(self, offset: int) -> int:
        if offset & 0xFF000 != _SYSTEM_CONTROL:
            raise Trap(f"access to {_PRIVATE + offset:#010x}, which is not modelled")
        return offset & 0xFFF

    def _read_system_control(self, register: int) -> int:
        if _ISER <= register < _BITS_END:
            of = self.enabled if register < _ISPR else self.pending
            first = 8 * (register & 0x7F)
            return sum(1 << (number - first) for number in of if first <= number < first + 32)
        if _IPR <= register < _IPR_END:
            first = register - _IPR
            return sum(self._priority(first + byte) << (8 * byte) for byte in range(4))
        if register in _KEPT:
            return self._kept.get(register, 0)
        values = {_CPUID: self.identity, _ICSR: self._running(), _VTOR: self.vectors, _AIRCR: 0xFA050000,
                  _CFSR: 0, _HFSR: 0}  # fmt: skip
        if register not in values:
            raise Trap(f"read of {_PRIVATE + _SYSTEM_CONTROL + register:#010x}, which is not modelled")
        return values[register]

    def _write_private(self, offset: int, length: int, value: int) -> None:
        register = self._system_control(offset)
        if _ISER <= register < _BITS_END:
            first = 8 * (register & 0x7C)
            numbers = {first + bit for bit in range(32) if value >> bit & 1}
            if register < _ICER:
                self.enabled |= numbers
            elif register < _ISPR:
                self.enabled -= numbers
            elif register < _ICPR:
                self.pending |= numbers
            else:
                self.pending -= numbers - self.lines
        elif _IPR <= register < _IPR_END:
            for byte in range(length):
                self.priorities[register - _IPR + byte] = value >> (8 * byte) & self.priority_mask
        elif register == _VTOR:
            self.vectors = value
        elif register == _STIR:
            self.pending.add(value & 0x1FF)
        elif register == _AIRCR:
            if value != _RESET_REQUEST:
                raise Trap(f"AIRCR is set to {value:#010x}")
            self.reset_requested()
        elif register == _SHCSR and value & _FAULT_HANDLERS:
            raise Trap("fault handlers other than HardFault's are not modelled")
        elif register & ~3 in _KEPT:
            old, shift = self._kept.get(register & ~3, 0), 8 * (register & 3)
            mask = ((1 << 8 * length) - 1) << shift
            self._kept[register & ~3] = old & ~mask | value << shift
        else:
            raise Trap(f"write of {value:#x} to {_PRIVATE + offset:#010x}, which is not modelled")
