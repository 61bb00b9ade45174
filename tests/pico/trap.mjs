/**
 * What a real chip would answer with a fault, silence or a broken flash, and what this emulator does not know: it
 * stops here, loudly, and a test that met it fails.
 */
export class Trap extends Error {}

/** A number as the listings of a debugger have it. */
export const hex = (number) => `0x${(number >>> 0).toString(16).padStart(8, '0')}`;
