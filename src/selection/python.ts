/** Small pieces of Python's behaviour that the configuration relies on. */

const escaped = /[()[\]{}?*+\-|^$\\.&~# \t\n\r\v\f]/g;

/** Python's `re.escape`. */
export const regexEscape = (text: string): string => text.replace(escaped, "\\$&");

/** The part of a dotted name after the last dot. */
export const leafOf = (name: string): string => name.slice(name.lastIndexOf(".") + 1);

/** The part before the last dot, `""` where there is none. */
export const parentOf = (name: string): string => name.slice(0, Math.max(0, name.lastIndexOf(".")));

/** Order of Python's `sorted` on strings: by code point. */
export function compareCodePoints(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    if (x !== y) {
      // a surrogate half belongs to a code point above U+FFFF, thus above every other unit
      const xHigh = x >= 0xd800 && x <= 0xdfff;
      const yHigh = y >= 0xd800 && y <= 0xdfff;
      return xHigh === yHigh ? x - y : xHigh ? 1 : -1;
    }
  }
  return a.length - b.length;
}
