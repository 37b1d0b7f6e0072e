/**
 * Remainders under the Castagnoli polynomial 0x1EDC6F41, reflected: `table[256 k + b]` is that of byte b with k zeros
 * after it, so that eight bytes at once take eight look-ups which do not wait for each other.
 * Source: Kounavis and Berry 2005, "A Systematic Approach to Building High Performance Software-based CRC Generators".
 */
const table = new Uint32Array(8 * 256);
for (let byte = 0; byte < 256; byte++) {
  let remainder = byte;
  for (let bit = 0; bit < 8; bit++)
    remainder = remainder & 1 ? (remainder >>> 1) ^ 0x82f63b78 : remainder >>> 1;
  table[byte] = remainder;
}
for (let i = 256; i < table.length; i++) table[i] = (table[i - 256]! >>> 8) ^ table[table[i - 256]! & 0xff]!;

/** CRC-32C of bytes, as an unsigned 32-bit number. Source: RFC 3720, §12.1 and appendix B.4. */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  const eights = bytes.length & ~7;
  for (let i = 0; i < eights; i += 8)
    crc =
      table[1792 + ((bytes[i]! ^ crc) & 0xff)]! ^
      table[1536 + ((bytes[i + 1]! ^ (crc >>> 8)) & 0xff)]! ^
      table[1280 + ((bytes[i + 2]! ^ (crc >>> 16)) & 0xff)]! ^
      table[1024 + ((bytes[i + 3]! ^ (crc >>> 24)) & 0xff)]! ^
      table[768 + bytes[i + 4]!]! ^
      table[512 + bytes[i + 5]!]! ^
      table[256 + bytes[i + 6]!]! ^
      table[bytes[i + 7]!]!;
  for (let i = eights; i < bytes.length; i++) crc = (crc >>> 8) ^ table[(crc ^ bytes[i]!) & 0xff]!;
  return (crc ^ 0xffffffff) >>> 0;
}

/**
 * The checksum TFRecord files store: ((crc rotated right by 15) + 0xa282ead8) mod 2³², so that the checksum of
 * data which holds checksums is no special value. Source: tensorflow/tsl/lib/hash/crc32c.h, `Mask`.
 */
export function maskedCrc32c(bytes: Uint8Array): number {
  const crc = crc32c(bytes);
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}
