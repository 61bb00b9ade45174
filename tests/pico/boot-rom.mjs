/**
 * A boot ROM of our own, made from what the RP2040 datasheet (2.8) says of its interface: Raspberry Pi's may only run
 * on their chips. Each of its functions is a breakpoint that the chip serves, and a return.
 */

/** The functions that firmware may look up, by their two-letter codes. */
const FUNCTIONS = ['IF', 'EX', 'RE', 'RP', 'FC', 'CX', 'C4', 'UB'];

export const ROM_SIZE = 0x4000;

const INITIAL_STACK = 0x20041f00;
const LOOKUP = 0x40;
const STUBS = 0x100;
const TABLE = 0x200;
const DATA_TABLE = 0x300; // empty
const BREAKPOINT = 0xbe00;
const RETURN = 0x4770; // BX LR

/** The function that a breakpoint with this number in the ROM stands for. */
export const romFunction = (number) => FUNCTIONS[number];

/** The ROM's words. */
export function bootRom() {
  const rom = new DataView(new ArrayBuffer(ROM_SIZE));
  const halfwords = (at, values) => values.forEach((value, i) => rom.setUint16(at + 2 * i, value, true));
  rom.setUint32(0x00, INITIAL_STACK, true);
  rom.setUint32(0x10, 0x02_01_75_4d, true); // 'M', 'u', 1, version 2
  halfwords(0x14, [TABLE, DATA_TABLE, LOOKUP | 1]);
  halfwords(LOOKUP, [ // (table, code) -> function or 0
    0x8802, 0x2a00, 0xd004, //  ldrh r2, [r0]; cmp r2, #0; beq 2f
    0x8843, 0x3004, //       1: ldrh r3, [r0, #2]; adds r0, #4
    0x428a, 0xd1f8, //          cmp r2, r1; bne LOOKUP
    0x4618, RETURN, //          mov r0, r3; bx lr
    0x2000, RETURN, //       2: movs r0, #0; bx lr
  ]);
  FUNCTIONS.forEach((code, number) => {
    const stub = STUBS + 4 * number;
    halfwords(stub, [BREAKPOINT | number, RETURN]);
    halfwords(TABLE + 4 * number, [code.charCodeAt(0) | (code.charCodeAt(1) << 8), stub | 1]);
  });
  return new Uint32Array(rom.buffer);
}
