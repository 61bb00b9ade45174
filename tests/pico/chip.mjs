/**
 * An RP2040 on a Pico: rp2040js's, with what it lacks or gets wrong made good (boot ROM, flash, USB, entropy, BOOTSEL
 * button, reset), and with traps where it would go on after what no real chip forgives.
 */
import crypto from 'node:crypto';
import { BasePeripheral, GPIOPinState, RP2040 } from 'rp2040js';
import { ROM_SIZE, bootRom, romFunction } from './boot-rom.mjs';
import { FLASH_SIZE, Ssi } from './flash.mjs';
import { interpreter } from './interpreter.mjs';
import { Trap, hex } from './trap.mjs';
import { UsbController } from './usb-controller.mjs';

const FLASH = 0x10000000;
const RAM = 0x20000000;
const RAM_SIZE = 264 << 10;
const USB_RAM = 0x50100000;
const SIO = 0xd;
const SYSTEM_CONTROL = 0xe000e;
const ADDRESS = {
  XIP_CONTROL: 0x14000, SSI: 0x18000, IO_QSPI: 0x40018, WATCHDOG: 0x40058, ROSC: 0x40060, VREG: 0x40064, USB: 0x50110,
};
const POWER_ON = [[0x08, 1 << 8]]; // CHIP_RESET: HAD_POR
const AIRCR = 0xd0c;
const AIRCR_RESET = 0x05fa0004;

/** Why a chip stopped. */
export const STOP = { RESET: 'reset', WATCHDOG: 'watchdog', BOOTLOADER: 'bootloader' };
const LIGHT = 25;
const LIFE = 8 * 12_000; // bits after which a source that dies late is dead

/** Registers that only have to keep what is written to them. */
class Plain extends BasePeripheral {
  constructor(chip, name, initial = []) {
    super(chip, name);
    this.values = new Map(initial);
  }
  readUint32(offset) { return this.values.get(offset) ?? 0; }
  writeUint32(offset, value) { this.values.set(offset, value); }
}

/** The ring oscillator: it runs, and its bits are the host's entropy, unless its noise is `dead` or `dying`. */
class RingOscillator extends Plain {
  constructor(chip, noise) {
    super(chip, 'ROSC');
    this.noise = noise;
    this.given = 0;
  }
  randomBit() {
    this.given += 1;
    const dead = this.noise === 'dead' || (this.noise === 'dying' && this.given > LIFE);
    return dead ? 0 : crypto.randomBytes(1)[0] & 1;
  }
  readUint32(offset) {
    switch (offset) {
      case 0x18: return 0x80001000; // STATUS: stable, enabled
      case 0x1c: return this.randomBit(); // RANDOMBIT
      default: return super.readUint32(offset);
    }
  }
}

/** The pins of the flash; its chip select is also the BOOTSEL button, which pulls it low. */
class FlashPins extends Plain {
  constructor(chip, pressed) {
    super(chip, 'IO_QSPI');
    this.pressed = pressed;
  }
  readUint32(offset) {
    const selectStatus = 0x08;
    if (offset === selectStatus) return this.pressed() ? 0 : 1 << 17; // INFROMPAD
    return super.readUint32(offset);
  }
}

export class Chip extends RP2040 {
  /**
   * A chip with this flash. `before` is the chip that was reset: its memory, and why, outlive it. `pressed` tells whether
   * BOOTSEL is held down, `light` is told when the board's own light goes on or off, `noise` is how the ring oscillator is.
   */
  constructor({ flash, uniqueId, pressed, light, noise, before }) {
    super();
    this.device = flash;
    this.stopped = null;
    const warn = (name, text) => { throw new Trap(`${name}: ${text}`); };
    this.logger = { debug() {}, info() {}, warn, error: warn };
    this.bootrom.set(bootRom());
    this.flash.set(flash.bytes);
    this.peripherals[ADDRESS.XIP_CONTROL] = new Plain(this, 'XIP_CTRL');
    this.peripherals[ADDRESS.SSI] = new Ssi(this, uniqueId);
    this.peripherals[ADDRESS.IO_QSPI] = new FlashPins(this, pressed);
    this.peripherals[ADDRESS.ROSC] = new RingOscillator(this, noise);
    this.gpio[LIGHT].addListener((state) => light(state === GPIOPinState.High));
    this.peripherals[ADDRESS.VREG] = new Plain(this, 'VREG_AND_CHIP_RESET', POWER_ON);
    this.usbCtrl = this.peripherals[ADDRESS.USB] = new UsbController(this);
    this.watchdog = this.peripherals[ADDRESS.WATCHDOG];
    this.watchdog.onWatchdogTrigger = () => this.stop(STOP.WATCHDOG);
    if (before) {
      this.sram.set(before.sram);
      this.watchdog.reason = before.watchdog.reason;
      this.watchdog.scratchData.set(before.watchdog.scratchData);
    }
    this.fixCore();
    this.run = interpreter(this, FLASH_SIZE);
    // The boot ROM would copy boot2 to memory; it is position independent and runs where it is.
    this.core.SP = this.bootrom[0];
    this.core.LR = 0;
    this.core.PC = FLASH;
  }

  /** What rp2040js's core and system control block do otherwise than Arm's. */
  fixCore() {
    const { core, ppb } = this;
    const checkForInterrupts = core.checkForInterrupts.bind(core);
    core.checkForInterrupts = () => {
      // With PRIMASK set an interrupt ends WFI but is not taken.
      if (core.waiting && core.PM) return (core.pendingInterrupts & core.enabledInterrupts) !== 0 || core.pendingSystick;
      return checkForInterrupts();
    };
    const writeUint32 = ppb.writeUint32.bind(ppb);
    ppb.writeUint32 = (offset, value) => {
      if (offset !== AIRCR) writeUint32(offset, value);
      else if (value >>> 0 === AIRCR_RESET) this.stop(STOP.RESET);
    };
    this.onBreak = (number) => this.serve(number);
  }

  stop(reason) {
    this.stopped = reason;
  }

  /** How many words of memory are not zero. */
  uncleared() {
    return new Uint32Array(this.sram.buffer).reduce((count, word) => count + (word !== 0), 0);
  }

  /** A function of the boot ROM. */
  serve(number) {
    const { core } = this;
    const name = romFunction(number);
    if (core.PC >= ROM_SIZE || !name) throw new Trap(`the program stopped itself (UDF or BKPT ${number})`);
    const [r0, r1, r2] = core.registers;
    if (name === 'UB') return this.stop(STOP.BOOTLOADER);
    if (name === 'C4') {
      for (let i = 0; i < r2; i += 4) this.writeUint32(r0 + i, this.readUint32(r1 + i));
      return;
    }
    if (core.LR < RAM) throw new Trap(`ROM function ${name} is called from flash, which it switches off`);
    if (name === 'RE') this.clock.tick(this.change(r0, r1, () => this.device.erase(r0, r1)));
    if (name === 'RP') {
      const data = Uint8Array.from({ length: r2 }, (_, i) => this.readUint8(r1 + i));
      this.clock.tick(this.change(r0, r2, () => this.device.program(r0, data)));
    }
  }

  change(at, length, operation) {
    const time = operation();
    this.flash.set(this.device.bytes.subarray(at, at + length), at);
    return time;
  }

  check(address, length, write) {
    const within = (start, size) => address >= start && address + length <= start + size;
    const region = address >>> 28;
    const known = within(RAM, RAM_SIZE) || within(USB_RAM, 0x1000) || region === SIO || this.findPeripheral(address)
      || address >>> 12 === SYSTEM_CONTROL || (!write && (within(0, ROM_SIZE) || within(FLASH, FLASH_SIZE)));
    if (!known) throw new Trap(`${write ? 'write' : 'read'} of ${length} bytes at ${hex(address)}`);
    if (address % length) throw new Trap(`access of ${length} bytes at ${hex(address)} is not aligned`);
  }

  readUint32(address) { this.check(address, 4, false); return super.readUint32(address); }
  readUint16(address) { this.check(address, 2, false); return super.readUint16(address); }
  readUint8(address) { this.check(address, 1, false); return super.readUint8(address); }
  writeUint32(address, value) { this.check(address, 4, true); super.writeUint32(address, value); }
  writeUint16(address, value) { this.check(address, 2, true); super.writeUint16(address, value); }
  writeUint8(address, value) { this.check(address, 1, true); super.writeUint8(address, value); }

  /** Where it is, for a report. */
  where() {
    const names = ['r0', 'r1', 'r2', 'r3', 'r4', 'r5', 'r6', 'r7', 'r8', 'r9', 'r10', 'r11', 'r12', 'sp', 'lr', 'pc'];
    return names.map((name, i) => `${name}=${hex(this.core.registers[i])}`).join(' ');
  }
}
