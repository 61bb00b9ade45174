/**
 * The flash chip, 2 MiB of NOR: what is on it, what the boot ROM's functions do to it, and the few commands that
 * firmware sends to it itself over the SSI. Each change is in its file at once, so that killing the emulator is cutting
 * the power between two of them.
 */
import crypto from 'node:crypto';
import fs from 'node:fs';
import { BasePeripheral } from 'rp2040js';
import { Trap, hex } from './trap.mjs';

export const FLASH_SIZE = 2 << 20;
const BASE = 0x10000000;
const SECTOR = 4096;
const PAGE = 256;
const ERASE_TIME = 45e6; // nanoseconds a sector (W25Q16JV datasheet, typical)
const PROGRAM_TIME = 0.4e6; // a page
const UF2 = { block: 512, magic: [0x0a324655, 0x9e5d5157], end: 0x0ab16f30, family: 0xe48bff56 };

/** The power is gone. */
export class PowerCut extends Error {}

export class Flash {
  /** The flash in this file, made blank where there is none. The power is cut in the middle of the operation after `cut`. */
  constructor(path, cut = Infinity) {
    this.left = cut;
    this.bytes = new Uint8Array(FLASH_SIZE).fill(0xff);
    if (fs.existsSync(path)) this.bytes.set(fs.readFileSync(path));
    else fs.writeFileSync(path, this.bytes);
    this.file = fs.openSync(path, 'r+');
  }

  save(at, length) {
    fs.writeSync(this.file, this.bytes, at, length, at);
  }

  /** Writes an image as the boot loader does: sectors that it does not mention stay as they are. */
  install(path) {
    const file = fs.readFileSync(path);
    const blocks = [];
    for (let at = 0; at < file.length; at += UF2.block) {
      const word = (index) => file.readUInt32LE(at + 4 * index);
      const [address, length] = [word(3) - BASE, word(4)];
      const sound = word(0) === UF2.magic[0] && word(1) === UF2.magic[1] && word(127) === UF2.end;
      if (!sound || word(7) !== UF2.family || length !== PAGE) throw new Error(`${path} is no UF2 for an RP2040`);
      if (address < 0 || address + length > FLASH_SIZE) throw new Error(`${path} does not fit the flash`);
      blocks.push([address, file.subarray(at + 32, at + 32 + length)]);
    }
    for (const sector of new Set(blocks.map(([address]) => address - (address % SECTOR)))) {
      this.bytes.fill(0xff, sector, sector + SECTOR);
    }
    for (const [address, payload] of blocks) this.bytes.set(payload, address);
    this.save(0, FLASH_SIZE);
  }

  /** ROM function RE; returns how long it takes. */
  erase(at, length) {
    this.check('erase', at, length, SECTOR);
    this.change(at, new Uint8Array(length).fill(0xff));
    return (ERASE_TIME * length) / SECTOR;
  }

  /** ROM function RP: bits only fall. Returns how long it takes. */
  program(at, data) {
    this.check('program', at, data.length, PAGE);
    this.change(at, data.map((byte, i) => byte & this.bytes[at + i]));
    return (PROGRAM_TIME * data.length) / PAGE;
  }

  /** An operation that is not finished has changed any of the bits that it was to change. */
  change(at, after) {
    const torn = this.left-- <= 0;
    const some = torn ? crypto.randomBytes(after.length) : null;
    after.forEach((byte, i) => { this.bytes[at + i] ^= (byte ^ this.bytes[at + i]) & (torn ? some[i] : 0xff); });
    this.save(at, after.length);
    if (torn) throw new PowerCut();
  }

  check(what, at, length, unit) {
    if (at % unit || length % unit || at + length > FLASH_SIZE) {
      throw new Trap(`flash: ${what} ${hex(length)} bytes at ${hex(at)}`);
    }
  }
}

const REGISTER = { CTRLR0: 0x00, CTRLR1: 0x04, ENABLE: 0x08, RX_LEVEL: 0x24, STATUS: 0x28, DATA: 0x60 };
const STATUS = { TX_NOT_FULL: 2, TX_EMPTY: 4, RX_NOT_EMPTY: 8 };
const COMMAND = { WRITE_ENABLE: 0x06, STATUS_2: 0x35, UNIQUE_ID: 0x4b, IDENTIFY: 0x9f };
const QUAD_ENABLED = 2;
const EEPROM_READ = 3;

/** The SSI as boot2 and embassy-rp's flash driver use it, with a Winbond W25Q16 behind it. */
export class Ssi extends BasePeripheral {
  constructor(chip, uniqueId) {
    super(chip, 'SSI');
    this.registers = new Map();
    this.received = [];
    this.command = null;
    this.answers = {
      [COMMAND.UNIQUE_ID]: [0, 0, 0, 0, ...uniqueId],
      [COMMAND.IDENTIFY]: [0xef, 0x40, 0x15],
      [COMMAND.STATUS_2]: [QUAD_ENABLED],
    };
  }

  readUint32(offset) {
    switch (offset) {
      case REGISTER.STATUS:
        return STATUS.TX_NOT_FULL | STATUS.TX_EMPTY | (this.received.length ? STATUS.RX_NOT_EMPTY : 0);
      case REGISTER.RX_LEVEL: return this.received.length;
      case REGISTER.DATA: return this.received.shift() ?? 0;
      default: return this.registers.get(offset) ?? 0;
    }
  }

  writeUint32(offset, value) {
    if (offset === REGISTER.DATA) this.send(value & 0xff);
    else this.registers.set(offset, value);
    if (offset === REGISTER.ENABLE) { this.received = []; this.command = null; }
  }

  send(byte) {
    const first = this.command === null;
    if (first) this.command = byte;
    const answer = this.answers[this.command] ?? [];
    if (((this.readUint32(REGISTER.CTRLR0) >> 8) & 3) === EEPROM_READ) {
      // The answer comes by itself behind the command.
      const length = first ? this.readUint32(REGISTER.CTRLR1) + 1 : 0;
      for (let i = 0; i < length; i++) this.received.push(answer[i] ?? 0);
      return;
    }
    this.received.push(first ? 0 : answer[0] ?? 0);
    if (!first || byte === COMMAND.WRITE_ENABLE) this.command = null;
  }
}
