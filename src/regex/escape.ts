/**
 * Python's `re.escape`: a pattern that matches `text` literally. Escapes also `-`, `&`, `~`, `#` and white space, which
 * mean something in sets or with the flag x.
 */
export const escapePattern = (text: string): string =>
  text.replace(/[()[\]{}?*+\-|^$\\.&~# \t\n\r\v\f]/g, "\\$&");
