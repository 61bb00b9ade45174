/**
 * Runs instructions: the frequent ones here, on the memory itself, the others by rp2040js, which takes twice as long
 * for everything. Registers, flags and cycle counts are rp2040js's own (ARMv6-M Architecture Reference Manual, A6.7).
 */

const CYCLE = 8; // nanoseconds, at 125 MHz
const FLASH = 0x10000000;
const RAM = 0x20000000;

/** Makes `run(count, until)` for a chip. */
export function interpreter(chip, flashSize) {
  const { core, clock } = chip;
  const R = core.registers;
  const ram8 = chip.sram;
  const ram16 = new Uint16Array(ram8.buffer);
  const ram32 = new Uint32Array(ram8.buffer);
  const flash8 = chip.flash;
  const flash16 = new Uint16Array(flash8.buffer);
  const flash32 = new Uint32Array(flash8.buffer);
  const ramSize = ram8.length;

  // Whatever is not aligned or elsewhere goes to the chip, which knows its peripherals and traps the rest.
  const load32 = (address) => {
    const at = (address >>> 0) - RAM;
    if (at >= 0 && at < ramSize && !(at & 3)) return ram32[at >>> 2];
    const place = (address >>> 0) - FLASH;
    if (place >= 0 && place < flashSize && !(place & 3)) return flash32[place >>> 2];
    return chip.readUint32(address >>> 0);
  };
  const load16 = (address) => {
    const at = (address >>> 0) - RAM;
    return at >= 0 && at < ramSize && !(at & 1) ? ram16[at >>> 1] : chip.readUint16(address >>> 0);
  };
  const load8 = (address) => {
    const at = (address >>> 0) - RAM;
    return at >= 0 && at < ramSize ? ram8[at] : chip.readUint8(address >>> 0);
  };
  const store32 = (address, value) => {
    const at = (address >>> 0) - RAM;
    if (at >= 0 && at < ramSize && !(at & 3)) ram32[at >>> 2] = value;
    else chip.writeUint32(address >>> 0, value >>> 0);
  };
  const store16 = (address, value) => {
    const at = (address >>> 0) - RAM;
    if (at >= 0 && at < ramSize && !(at & 1)) ram16[at >>> 1] = value;
    else chip.writeUint16(address >>> 0, value & 0xffff);
  };
  const store8 = (address, value) => {
    const at = (address >>> 0) - RAM;
    if (at >= 0 && at < ramSize) ram8[at] = value;
    else chip.writeUint8(address >>> 0, value & 0xff);
  };
  /** Cycles that an access adds: none for SIO, a bus bridge for the peripherals. */
  const wait = (address, bridge) => {
    const region = address >>> 28;
    return region === 0xd ? 0 : region === 4 ? bridge : 1;
  };

  const nz = (result) => {
    core.N = (result & 0x80000000) !== 0;
    core.Z = (result | 0) === 0;
    return result;
  };
  const add = (a, b, carry) => {
    const sum = nz(a + b + carry);
    core.C = sum > 0xffffffff;
    core.V = (~(a ^ b) & (a ^ sum) & 0x80000000) !== 0;
    return sum;
  };
  const subtract = (a, b, borrow) => {
    const difference = nz(a - b - borrow);
    core.C = difference >= 0;
    core.V = ((a ^ b) & (a ^ difference) & 0x80000000) !== 0;
    return difference;
  };
  const holds = (condition) => {
    switch (condition >> 1) {
      case 0: return core.Z;
      case 1: return core.C;
      case 2: return core.N;
      case 3: return core.V;
      case 4: return core.C && !core.Z;
      case 5: return core.N === core.V;
      default: return core.N === core.V && !core.Z;
    }
  };

  /** Carries out one instruction; returns its cycles. */
  function step() {
    if (core.interruptsUpdated) core.checkForInterrupts();
    const pc = R[15] & ~1;
    const inFlash = pc - FLASH;
    const inRam = pc - RAM;
    let op;
    if (inFlash >= 0 && inFlash < flashSize) op = flash16[inFlash >>> 1];
    else if (inRam >= 0 && inRam < ramSize) op = ram16[inRam >>> 1];
    else return core.executeInstruction();

    const d = op & 7, n = (op >>> 3) & 7, m = (op >>> 6) & 7;
    const x = (op >>> 8) & 7, imm8 = op & 0xff, imm5 = (op >>> 6) & 31;
    let cycles = 1;
    let next = pc + 2;
    switch (op >>> 11) {
      case 0: { // LSLS immediate, MOVS register
        const value = R[n];
        R[d] = nz(value << imm5);
        if (imm5) core.C = ((value >>> (32 - imm5)) & 1) !== 0;
        break;
      }
      case 1: { // LSRS immediate
        const value = R[n];
        R[d] = nz(imm5 ? value >>> imm5 : 0);
        core.C = ((value >>> (imm5 ? imm5 - 1 : 31)) & 1) !== 0;
        break;
      }
      case 2: { // ASRS immediate
        const value = R[n];
        R[d] = nz(value >> (imm5 || 31));
        core.C = ((value >>> (imm5 ? imm5 - 1 : 31)) & 1) !== 0;
        break;
      }
      case 3: { // ADDS, SUBS of a register or three bits
        const b = op & 0x400 ? m : R[m];
        R[d] = op & 0x200 ? subtract(R[n], b, 0) : add(R[n], b, 0);
        break;
      }
      case 4: R[x] = nz(imm8); break; // MOVS
      case 5: subtract(R[x], imm8, 0); break; // CMP
      case 6: R[x] = add(R[x], imm8, 0); break; // ADDS
      case 7: R[x] = subtract(R[x], imm8, 0); break; // SUBS
      case 8: {
        if (op & 0x400) { // ADD, CMP, MOV of any registers; BX and BLX
          const high = (op & 7) | ((op >>> 4) & 8), other = (op >>> 3) & 15, kind = (op >>> 8) & 3;
          if (high === 15 || other === 15 || kind === 3) return core.executeInstruction();
          if (kind === 1) subtract(R[high], R[other], 0);
          else {
            const value = kind === 0 ? R[high] + R[other] : R[other];
            R[high] = high === 13 ? value & ~3 : value;
          }
          break;
        }
        switch ((op >>> 6) & 15) {
          case 0: R[d] = nz(R[d] & R[n]); break; // ANDS
          case 1: R[d] = nz(R[d] ^ R[n]); break; // EORS
          case 5: R[d] = add(R[d], R[n], core.C ? 1 : 0); break; // ADCS
          case 6: R[d] = subtract(R[d], R[n], core.C ? 0 : 1); break; // SBCS
          case 8: nz(R[d] & R[n]); break; // TST
          case 9: R[d] = subtract(0, R[n], 0); break; // RSBS
          case 10: subtract(R[d], R[n], 0); break; // CMP
          case 11: add(R[d], R[n], 0); break; // CMN
          case 12: R[d] = nz(R[d] | R[n]); break; // ORRS
          case 13: R[d] = nz(Math.imul(R[d], R[n])); break; // MULS
          case 14: R[d] = nz(R[d] & ~R[n]); break; // BICS
          case 15: R[d] = nz(~R[n]); break; // MVNS
          default: return core.executeInstruction(); // shifts by a register
        }
        break;
      }
      case 9: R[x] = load32(((pc + 4) & ~3) + (imm8 << 2)); cycles = 2; break; // LDR literal
      case 10: case 11: { // loads and stores, register offset
        const address = (R[n] + R[m]) >>> 0;
        const kind = (op >>> 9) & 7;
        cycles += wait(address, kind < 3 ? 4 : 3);
        switch (kind) {
          case 0: store32(address, R[d]); break;
          case 1: store16(address, R[d]); break;
          case 2: store8(address, R[d]); break;
          case 3: R[d] = (load8(address) << 24) >> 24; break;
          case 4: R[d] = load32(address); break;
          case 5: R[d] = load16(address); break;
          case 6: R[d] = load8(address); break;
          default: R[d] = (load16(address) << 16) >> 16;
        }
        break;
      }
      case 12: { const a = (R[n] + (imm5 << 2)) >>> 0; cycles += wait(a, 4); store32(a, R[d]); break; }
      case 13: { const a = (R[n] + (imm5 << 2)) >>> 0; cycles += wait(a, 3); R[d] = load32(a); break; }
      case 14: { const a = (R[n] + imm5) >>> 0; cycles += wait(a, 4); store8(a, R[d]); break; }
      case 15: { const a = (R[n] + imm5) >>> 0; cycles += wait(a, 3); R[d] = load8(a); break; }
      case 16: { const a = (R[n] + (imm5 << 1)) >>> 0; cycles += wait(a, 4); store16(a, R[d]); break; }
      case 17: { const a = (R[n] + (imm5 << 1)) >>> 0; cycles += wait(a, 3); R[d] = load16(a); break; }
      case 18: store32(R[13] + (imm8 << 2), R[x]); cycles = 2; break;
      case 19: R[x] = load32(R[13] + (imm8 << 2)); cycles = 2; break;
      case 20: R[x] = ((pc + 4) & ~3) + (imm8 << 2); break; // ADR
      case 21: R[x] = R[13] + (imm8 << 2); break; // ADD of SP
      case 24: { // STM
        let address = R[x];
        for (let i = 0; i < 8; i++) if (op & (1 << i)) { store32(address, R[i]); address += 4; cycles++; }
        R[x] = address;
        break;
      }
      case 25: { // LDM
        let address = R[x];
        for (let i = 0; i < 8; i++) if (op & (1 << i)) { R[i] = load32(address); address += 4; cycles++; }
        if (!(op & (1 << x))) R[x] = address;
        break;
      }
      case 26: case 27: { // B conditional; UDF and SVC
        const condition = (op >>> 8) & 15;
        if (condition >= 14) return core.executeInstruction();
        if (holds(condition) !== ((condition & 1) !== 0)) { next = pc + 4 + ((op << 24) >> 23); cycles = 2; }
        break;
      }
      case 28: next = pc + 4 + ((op << 21) >> 20); cycles = 2; break; // B
      default: return core.executeInstruction();
    }
    R[15] = next;
    core.cycles += cycles;
    return cycles;
  }

  /**
   * Runs up to `count` instructions. Returns false when the processor sleeps and nothing wakes it before the virtual
   * time `until`, in nanoseconds.
   */
  return function run(count, until) {
    for (let i = 0; i < count && !chip.stopped; i++) {
      if (core.waiting) {
        if (core.checkForInterrupts()) { core.waiting = false; continue; }
        const alarm = clock.nextAlarm;
        if (!alarm || alarm.nanos > until) return false;
        clock.tick(alarm.nanos - clock.nanosCounter);
        continue;
      }
      const cycles = step();
      const now = clock.nanosCounter + cycles * CYCLE;
      const alarm = clock.nextAlarm;
      if (alarm && alarm.nanos <= now) clock.tick(now - clock.nanosCounter);
      else clock.nanosCounter = now;
    }
    return true;
  };
}
