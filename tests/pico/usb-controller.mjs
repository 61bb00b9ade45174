/**
 * The RP2040's USB controller as a device, single-buffered (datasheet 4.1): rp2040js's own completes transfers when
 * the firmware arms a buffer, before the host has sent anything. Whatever a real host would see as a protocol error is a
 * trap.
 */
import { BasePeripheral } from 'rp2040js';
import { Trap } from './trap.mjs';

const IRQ = 5;
const REGISTER = {
  ADDRESS: 0x00, SIE_CTRL: 0x4c, SIE_STATUS: 0x50, BUFF_STATUS: 0x58, EP_STALL_ARM: 0x68,
  INTR: 0x8c, INTE: 0x90, INTF: 0x94, INTS: 0x98,
};
const PULL_UP = 1 << 16; // SIE_CTRL
const STATUS = { CONNECTED: 1 << 16, SETUP_RECEIVED: 1 << 17, BUS_RESET: 1 << 19, CLEARED_BY_WRITING: 0xff0f0800 };
const INTERRUPT = { BUFFER: 1 << 4, BUS_RESET: 1 << 12, SETUP: 1 << 16 };
const BUFFER = { LENGTH: 0x3ff, AVAILABLE: 1 << 10, STALL: 1 << 11, DATA1: 1 << 13, FULL: 1 << 15 };
const BUFFER_CONTROLS = 0x80;
const EP0_BUFFER = 0x100;

export const IN = 0;
export const OUT = 1;

export class UsbController extends BasePeripheral {
  constructor(chip) {
    super(chip, 'USB');
    this.chip = chip;
    this.registers = new Map();
    this.address = 0;
    this.status = 0;
    this.buffers = 0;
    this.enabled = 0;
    this.forced = 0;
    this.attached = false;
    /** Told that the device appeared, went away, or has something for the host; the host puts itself here. */
    this.host = { attached() {}, detached() {}, wake() {} };
  }

  get raw() {
    return (this.buffers ? INTERRUPT.BUFFER : 0)
      | (this.status & STATUS.SETUP_RECEIVED ? INTERRUPT.SETUP : 0)
      | (this.status & STATUS.BUS_RESET ? INTERRUPT.BUS_RESET : 0);
  }

  get interrupts() {
    return (this.raw & this.enabled) | this.forced;
  }

  readUint32(offset) {
    switch (offset) {
      case REGISTER.ADDRESS: return this.address;
      case REGISTER.SIE_STATUS: return this.status;
      case REGISTER.BUFF_STATUS: return this.buffers;
      case REGISTER.INTR: return this.raw;
      case REGISTER.INTE: return this.enabled;
      case REGISTER.INTF: return this.forced;
      case REGISTER.INTS: return this.interrupts;
      default: return this.registers.get(offset) ?? 0;
    }
  }

  writeUint32(offset, value) {
    // Written ones clear, and the aliases that set and clear bits are undone before: the raw value counts.
    const raw = this.rawWriteValue;
    switch (offset) {
      case REGISTER.ADDRESS: this.address = value & 0x7f; break;
      case REGISTER.SIE_STATUS: this.status &= ~(raw & STATUS.CLEARED_BY_WRITING); break;
      case REGISTER.BUFF_STATUS: this.buffers &= ~raw; break;
      case REGISTER.INTE: this.enabled = value; break;
      case REGISTER.INTF: this.forced = value; break;
      case REGISTER.SIE_CTRL: this.pull((value & PULL_UP) !== 0); // falls through
      default: this.registers.set(offset, value);
    }
    this.update();
    this.host.wake();
  }

  pull(up) {
    if (up === this.attached) return;
    this.attached = up;
    if (up) this.host.attached();
    else this.host.detached();
  }

  update() {
    this.chip.setInterrupt(IRQ, this.interrupts !== 0);
  }

  /** rp2040js calls it when firmware wrote to the controller's memory. */
  DPRAMUpdated(offset) {
    if (offset >= BUFFER_CONTROLS && offset < EP0_BUFFER) this.host.wake();
  }

  control(endpoint, direction) {
    return this.chip.usbDPRAMView.getUint32(BUFFER_CONTROLS + 8 * endpoint + 4 * direction, true);
  }

  setControl(endpoint, direction, value) {
    this.chip.usbDPRAMView.setUint32(BUFFER_CONTROLS + 8 * endpoint + 4 * direction, value, true);
  }

  place(endpoint, direction) {
    if (endpoint === 0) return EP0_BUFFER;
    return this.chip.usbDPRAMView.getUint32(8 * endpoint + 4 * direction, true) & 0xffc0;
  }

  done(endpoint, direction) {
    this.buffers |= 1 << (2 * endpoint + direction);
    this.update();
  }

  // What a host does to it.

  /** Resets the bus. */
  reset() {
    this.address = 0;
    this.status |= STATUS.BUS_RESET | STATUS.CONNECTED;
    this.update();
  }

  /** Sends a setup packet of 8 bytes, which no device may refuse. */
  setup(packet) {
    this.chip.usbDPRAM.set(packet, 0);
    this.registers.set(REGISTER.EP_STALL_ARM, 0);
    for (const direction of [IN, OUT]) {
      this.setControl(0, direction, this.control(0, direction) & ~(BUFFER.STALL | BUFFER.AVAILABLE));
    }
    this.status |= STATUS.SETUP_RECEIVED;
    this.update();
  }

  /** Whether the device refuses to go on here. */
  stalled(endpoint, direction) {
    const armed = endpoint !== 0 || ((this.registers.get(REGISTER.EP_STALL_ARM) ?? 0) >> direction) & 1;
    return armed && (this.control(endpoint, direction) & BUFFER.STALL) !== 0;
  }

  /** Whether the device has, or takes, a packet; else it answers NAK. */
  ready(endpoint, direction) {
    return (this.control(endpoint, direction) & BUFFER.AVAILABLE) !== 0;
  }

  /** Takes a packet whose data toggle must be `toggle`. */
  take(endpoint, toggle) {
    const control = this.control(endpoint, IN);
    if (!(control & BUFFER.FULL)) throw new Trap(`USB: endpoint ${endpoint} sends a buffer that is not full`);
    if (!!(control & BUFFER.DATA1) !== !!toggle) throw new Trap(`USB: endpoint ${endpoint} sends the wrong toggle`);
    const start = this.place(endpoint, IN);
    const data = this.chip.usbDPRAM.slice(start, start + (control & BUFFER.LENGTH));
    this.setControl(endpoint, IN, control & ~(BUFFER.AVAILABLE | BUFFER.FULL));
    this.done(endpoint, IN);
    return data;
  }

  /** Gives a packet of this data toggle. */
  give(endpoint, toggle, data) {
    const control = this.control(endpoint, OUT);
    if (!!(control & BUFFER.DATA1) !== !!toggle) throw new Trap(`USB: endpoint ${endpoint} expects the wrong toggle`);
    if (data.length > (control & BUFFER.LENGTH)) throw new Trap(`USB: endpoint ${endpoint} has too short a buffer`);
    this.chip.usbDPRAM.set(data, this.place(endpoint, OUT));
    this.setControl(endpoint, OUT, (control & ~(BUFFER.AVAILABLE | BUFFER.LENGTH)) | BUFFER.FULL | data.length);
    this.done(endpoint, OUT);
  }
}
