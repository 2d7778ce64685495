/** What a file is by its first bytes: `custom`, `tar`, `script`, `gzip`, else words for people, to follow "it is". */
export function describeDump(head: Uint8Array): string {
  const bytes = Buffer.from(head.buffer, head.byteOffset, head.byteLength);
  const begins = (...magic: number[]): boolean => magic.every((byte, at) => bytes[at] === byte);
  const text = bytes.toString('latin1');
  if (bytes.length === 0) return 'an empty file: nothing was ever written to it';
  if (text.startsWith('PGDMP')) return 'custom';
  if (text.startsWith('age-encryption.org/v1')) return 'encrypted with age; decrypt it first: age -d -i key.txt';
  if (begins(0x1f, 0x8b)) return 'gzip';
  if (begins(0x28, 0xb5, 0x2f, 0xfd)) return 'a zstd file; decompress it first: zstd -d';
  if (begins(0x50, 0x4b, 3, 4)) return 'a zip file; unzip it first';
  if (text.slice(257, 262) === 'ustar') return 'tar';
  if (/^\s*<(?:!doctype|html|\?xml)/i.test(text))
    return 'a web page or an XML answer, an error message perhaps: no dump';
  if (/^(?:\s*--[^\n]*\n|\s)*(?:SET |SELECT |CREATE |\\)/i.test(text) || text.includes('PostgreSQL database dump'))
    return 'script';
  return 'no dump of PostgreSQL that is known here';
}
