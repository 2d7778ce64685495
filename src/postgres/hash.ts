/**
 * PostgreSQL's `hashtextextended(text, seed)` with the previous result as the next seed, starting at 0: Bob Jenkins'
 * lookup3 as in `hash_bytes_extended` of PostgreSQL's hashfn.c, reading words as little-endian servers do.
 */
export class HashChain {
  /** The 64-bit result in two halves, both signed; zeros start another chain. */
  high = 0;
  low = 0;

  /** Replaces the result by the hash of the first `length` bytes, seeded with it. */
  add(bytes: Uint8Array, length: number): void {
    let a = (initial + length) | 0;
    let b = a;
    let c = a;
    // A seed counts as a block of 12 bytes in front, padded with zeros; seed 0 as none.
    let at = this.high === 0 && this.low === 0 ? 0 : -12;
    for (; length - at >= 12; at += 12) {
      if (at < 0) {
        a = (a + this.high) | 0;
        b = (b + this.low) | 0;
      } else {
        a = (a + word(bytes, at)) | 0;
        b = (b + word(bytes, at + 4)) | 0;
        c = (c + word(bytes, at + 8)) | 0;
      }
      a = (a - c) ^ ((c << 4) | (c >>> 28));
      c = (c + b) | 0;
      b = (b - a) ^ ((a << 6) | (a >>> 26));
      a = (a + c) | 0;
      c = (c - b) ^ ((b << 8) | (b >>> 24));
      b = (b + a) | 0;
      a = (a - c) ^ ((c << 16) | (c >>> 16));
      c = (c + b) | 0;
      b = (b - a) ^ ((a << 19) | (a >>> 13));
      a = (a + c) | 0;
      c = (c - b) ^ ((b << 4) | (b >>> 28));
      b = (b + a) | 0;
    }
    // The last 11 bytes or fewer; c's lowest byte is left to the length.
    for (let place = 0; at < length; at += 1, place += 1) {
      const byte = bytes[at] ?? 0;
      if (place < 4) a = (a + (byte << (8 * place))) | 0;
      else if (place < 8) b = (b + (byte << (8 * (place - 4)))) | 0;
      else c = (c + (byte << (8 * (place - 7)))) | 0;
    }
    c = ((c ^ b) - ((b << 14) | (b >>> 18))) | 0;
    a = ((a ^ c) - ((c << 11) | (c >>> 21))) | 0;
    b = ((b ^ a) - ((a << 25) | (a >>> 7))) | 0;
    c = ((c ^ b) - ((b << 16) | (b >>> 16))) | 0;
    a = ((a ^ c) - ((c << 4) | (c >>> 28))) | 0;
    b = ((b ^ a) - ((a << 14) | (a >>> 18))) | 0;
    c = ((c ^ b) - ((b << 24) | (b >>> 8))) | 0;
    this.high = b;
    this.low = c;
  }

  /** The result as PostgreSQL shows it, a signed bigint. */
  get value(): bigint {
    return (BigInt(this.high) << 32n) | BigInt(this.low >>> 0);
  }
}

const initial = 0x9e3779b9 + 3923095;

function word(bytes: Uint8Array, at: number): number {
  return (bytes[at] ?? 0) | ((bytes[at + 1] ?? 0) << 8) | ((bytes[at + 2] ?? 0) << 16) | ((bytes[at + 3] ?? 0) << 24);
}
