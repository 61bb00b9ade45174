/**
 * A host that treats the device as Linux does: reset, descriptors, address, strings, configuration, then the serial port
 * is opened (SET_LINE_CODING, DTR) and bytes go both ways. A bus transaction takes 50 µs of the chip's time.
 */
import { IN, OUT } from './usb-controller.mjs';
import { Trap } from './trap.mjs';

const TRANSACTION = 50e3; // nanoseconds
const PACKET = 64;
const DEVICE_TO_HOST = 0x80;
const CLASS_INTERFACE = 0x21;
const REQUEST = { SET_ADDRESS: 5, GET_DESCRIPTOR: 6, SET_CONFIGURATION: 9, SET_LINE_CODING: 0x20, SET_LINE_STATE: 0x22 };
const DESCRIPTOR = { DEVICE: 1, CONFIGURATION: 2, STRING: 3, INTERFACE: 4, ENDPOINT: 5, QUALIFIER: 6 };
const CLASS = { COMMUNICATION: 2, DATA: 10 };
const BULK = 2;
const ENGLISH = 0x0409;
const DTR_RTS = 3;
const LINE_CODING = [0x00, 0xc2, 0x01, 0x00, 0, 0, 8]; // 115200 baud, 8N1

export class UsbHost {
  /** A host for this chip's port. `ready(identity)` is called when the port is open, `receive(bytes)` for what comes. */
  constructor(chip, { ready, receive }) {
    this.device = chip.usbCtrl;
    this.clock = chip.clock;
    this.ready = ready;
    this.receive = receive;
    this.transaction = this.clock.createAlarm(() => this.transact());
    this.detached();
    this.device.host = this;
  }

  attached() {
    const wait = 10e6;
    this.after(wait, () => {
      this.device.reset();
      this.after(wait, () => this.enumerate());
    });
  }

  detached() {
    this.transfer = null; // the control transfer that is under way
    this.open = false;
    this.paused = false;
    this.endpoints = {};
    this.toggles = [0, 0];
    this.outgoing = Buffer.alloc(0);
  }

  after(nanoseconds, action) {
    this.clock.createAlarm(action).schedule(nanoseconds);
  }

  /** There may be something to do. */
  wake() {
    if (!this.transaction.scheduled) this.transaction.schedule(TRANSACTION);
  }

  /** Sends bytes to the serial port. */
  write(bytes) {
    this.outgoing = Buffer.concat([this.outgoing, bytes]);
    this.wake();
  }

  /** Stops, or goes on with, taking bytes from the serial port. */
  pause(paused) {
    this.paused = paused;
    this.wake();
  }

  transact() {
    this.transaction.scheduled = false;
    const progress = [this.controlTransaction(), this.open && this.bulkOut(), this.open && this.bulkIn()];
    if (progress.includes(true)) this.wake();
  }

  bulkOut() {
    const { bulkOut } = this.endpoints;
    if (!this.outgoing.length || !this.device.ready(bulkOut, OUT)) return false;
    this.device.give(bulkOut, this.toggles[OUT], this.outgoing.subarray(0, PACKET));
    this.outgoing = this.outgoing.subarray(PACKET);
    this.toggles[OUT] ^= 1;
    return true;
  }

  bulkIn() {
    const { bulkIn } = this.endpoints;
    if (this.paused || !this.device.ready(bulkIn, IN)) return false;
    const data = this.device.take(bulkIn, this.toggles[IN]);
    this.toggles[IN] ^= 1;
    if (data.length) this.receive(Buffer.from(data));
    return true;
  }

  /** One step of a control transfer: setup, data packets one way, an empty packet the other way (USB 2.0, 8.5.3). */
  controlTransaction() {
    const { transfer, device } = this;
    if (!transfer) return false;
    if (!transfer.begun) {
      transfer.begun = true;
      device.setup(Uint8Array.from(transfer.setup));
      return true;
    }
    const direction = transfer.status ? 1 - transfer.direction : transfer.direction;
    if (device.stalled(0, direction)) return this.finish(null);
    if (!device.ready(0, direction)) return false;
    const toggle = transfer.status ? 1 : transfer.toggle;
    let packet;
    if (direction === IN) packet = device.take(0, toggle);
    else {
      packet = transfer.status ? [] : transfer.data.slice(0, this.maxPacket);
      device.give(0, toggle, Uint8Array.from(packet));
    }
    if (transfer.status) {
      if (packet.length) throw new Trap('USB: a status stage with data');
      return this.finish(transfer.data);
    }
    transfer.toggle ^= 1;
    if (direction === IN) {
      transfer.data.push(...packet);
      // The longest packet is in the first descriptor's first packet.
      this.maxPacket ??= transfer.data[7];
      transfer.status = packet.length < this.maxPacket || transfer.data.length >= transfer.length;
    } else {
      transfer.data = transfer.data.slice(packet.length);
      transfer.status = transfer.data.length === 0;
    }
    return true;
  }

  finish(result) {
    const { done } = this.transfer;
    this.transfer = null;
    done(result);
    return true;
  }

  /** A control transfer; resolves to the data, or to null where the device stalls. */
  control(type, request, value, index, length, data = []) {
    const setup = [type, request, value & 0xff, value >> 8, index & 0xff, index >> 8, length & 0xff, length >> 8];
    const direction = type & DEVICE_TO_HOST ? IN : OUT;
    return new Promise((done) => {
      // Without data the device sends the empty packet.
      this.transfer = { setup, direction, length, data, toggle: 1, status: length === 0, begun: false, done };
      this.wake();
    });
  }

  descriptor(kind, index, length) {
    const language = kind === DESCRIPTOR.STRING ? ENGLISH : 0;
    return this.control(DEVICE_TO_HOST, REQUEST.GET_DESCRIPTOR, (kind << 8) | index, language, length);
  }

  async string(index) {
    if (!index) return '';
    const descriptor = await this.descriptor(DESCRIPTOR.STRING, index, 255);
    return Buffer.from(descriptor?.slice(2) ?? []).toString('utf16le');
  }

  async enumerate() {
    this.maxPacket = undefined;
    await this.descriptor(DESCRIPTOR.DEVICE, 0, 64);
    const address = 7;
    await this.control(0, REQUEST.SET_ADDRESS, address, 0, 0);
    await new Promise((done) => this.after(2e6, done));
    if (this.device.address !== address) throw new Trap('USB: the device has not taken its address');
    const device = Buffer.from(await this.descriptor(DESCRIPTOR.DEVICE, 0, 18));
    const identity = {
      vendor: device.readUInt16LE(8),
      product: device.readUInt16LE(10),
      strings: [await this.string(device[14]), await this.string(device[15]), await this.string(device[16])],
    };
    await this.descriptor(DESCRIPTOR.QUALIFIER, 0, 10); // whether it has one is its own affair
    const head = Buffer.from(await this.descriptor(DESCRIPTOR.CONFIGURATION, 0, 9));
    const configuration = await this.descriptor(DESCRIPTOR.CONFIGURATION, 0, head.readUInt16LE(2));
    const communication = this.findEndpoints(configuration);
    await this.control(0, REQUEST.SET_CONFIGURATION, head[5], 0, 0);
    await this.control(CLASS_INTERFACE, REQUEST.SET_LINE_CODING, 0, communication, LINE_CODING.length, [...LINE_CODING]);
    await this.control(CLASS_INTERFACE, REQUEST.SET_LINE_STATE, DTR_RTS, communication, 0);
    this.open = true;
    this.ready(identity);
    this.wake();
  }

  /** Notes the bulk endpoints of the data interface; returns the number of the communication interface. */
  findEndpoints(configuration) {
    let current = 0;
    let communication = 0;
    for (let at = 0; at < configuration.length; at += configuration[at]) {
      const [, kind, number, attributes, , interfaceClass] = configuration.slice(at);
      if (kind === DESCRIPTOR.INTERFACE) {
        current = interfaceClass;
        if (current === CLASS.COMMUNICATION) communication = number;
      }
      if (kind === DESCRIPTOR.ENDPOINT && current === CLASS.DATA && (attributes & 3) === BULK) {
        this.endpoints[number & DEVICE_TO_HOST ? 'bulkIn' : 'bulkOut'] = number & 0xf;
      }
    }
    return communication;
  }
}
