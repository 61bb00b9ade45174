/**
 * A Pico without a Pico: `node main.mjs IMAGE.uf2 DIRECTORY [--noise good|dead|dying] [--cut N]`.
 *
 * The directory is the device: `flash` is its flash, `serial` the flash chip's unique id, both made where they are
 * missing, its BOOTSEL button is held down while a file `button` is there, and `light` tells when its light went on and
 * off, in microseconds of its own time. The image is installed at the start, as a boot loader would. stdin and stdout are
 * the serial port. stderr tells what happens: `usb VVVV:PPPP MANUFACTURER / PRODUCT / SERIAL` when the device is enumerated,
 * `reset` or `watchdog` when it resets and how many words of memory were not zero then, `bootloader` when it asks for its
 * boot loader, which ends the program, and `power cut` when the power was cut in the middle of the flash operation after N.
 * A trap ends it with exit code 1 and the reason.
 */
import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { Chip, STOP } from './chip.mjs';
import { Flash, PowerCut } from './flash.mjs';
import { Trap } from './trap.mjs';
import { UsbHost } from './usb-host.mjs';

const SLICE = 50_000; // instructions between two looks at the outside
const BACKLOG = 65_536; // bytes for the serial port

const { values: options, positionals: [image, directory] } = parseArgs({
  allowPositionals: true,
  options: { noise: { type: 'string', default: 'good' }, cut: { type: 'string', default: 'Infinity' } },
});
if (!directory || !['good', 'dead', 'dying'].includes(options.noise) || Number.isNaN(Number(options.cut))) {
  console.error('usage: node main.mjs IMAGE.uf2 DIRECTORY [--noise good|dead|dying] [--cut N]');
  process.exit(2);
}
const file = (name) => path.join(directory, name);
if (!fs.existsSync(file('serial'))) fs.writeFileSync(file('serial'), crypto.randomBytes(8).toString('hex'));
const flash = new Flash(file('flash'), Number(options.cut));
const lights = fs.openSync(file('light'), 'a');
flash.install(image);
const parts = {
  flash,
  uniqueId: Buffer.from(fs.readFileSync(file('serial'), 'utf8').trim(), 'hex'),
  pressed: () => fs.existsSync(file('button')),
  light: (on) => fs.writeSync(lights, `${Math.floor(chip.clock.nanos / 1e3)} ${on ? 'on' : 'off'}\n`),
  noise: options.noise,
};

let chip;
let host;
let wake = () => {};

function boot(before) {
  chip = new Chip({ ...parts, before });
  host = new UsbHost(chip, {
    ready({ vendor, product, strings }) {
      const id = (number) => number.toString(16).padStart(4, '0');
      console.error(`usb ${id(vendor)}:${id(product)} ${strings.join(' / ')}`);
    },
    receive(bytes) {
      if (!process.stdout.write(bytes)) host.pause(true);
    },
  });
}

process.stdin.on('data', (bytes) => {
  host.write(bytes);
  if (host.outgoing.length > BACKLOG) process.stdin.pause();
  wake();
});
process.stdin.on('end', () => process.exit(0));
process.stdout.on('drain', () => { host.pause(false); wake(); });
process.on('unhandledRejection', fail);

function fail(error) {
  if (error instanceof PowerCut) {
    console.error('power cut');
    process.exit(0);
  }
  console.error(error instanceof Trap ? `trap: ${error.message}\n${chip.where()}` : error);
  process.exit(1);
}

/** Sleeps until the outside wants something, or for so many milliseconds. */
const sleep = (milliseconds) => new Promise((done) => {
  const timer = setTimeout(done, milliseconds);
  wake = () => { clearTimeout(timer); done(); };
});

async function run() {
  boot();
  for (;;) {
    // While it has nothing to do, the chip's time is the world's.
    const start = performance.now() - chip.clock.nanos / 1e6;
    const now = () => (performance.now() - start) * 1e6;
    while (!chip.stopped) {
      const awake = chip.run(SLICE, Math.max(now(), chip.clock.nanos));
      if (host.outgoing.length < BACKLOG) process.stdin.resume();
      if (awake) {
        await new Promise(setImmediate);
        continue;
      }
      const alarm = chip.clock.nextAlarm?.nanos ?? Infinity;
      if (alarm > now()) await sleep(Math.min((alarm - now()) / 1e6, 1000));
      chip.clock.nanosCounter = Math.max(chip.clock.nanosCounter, Math.min(now(), alarm));
    }
    if (chip.stopped === STOP.BOOTLOADER) {
      console.error(chip.stopped);
      process.exit(0);
    }
    console.error(`${chip.stopped}, ${chip.uncleared()} words of memory are not zero`);
    boot(chip);
  }
}

run().catch(fail);
