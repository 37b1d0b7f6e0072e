import { styleText } from "node:util";

/** Colours and weights that a line may have. */
export type Ink = Parameters<typeof styleText>[0];

/** A text as it is shown: with colours only where stdout is a terminal and NO_COLOR is not set. */
export const styled = (ink: Ink, text: string): string =>
  text === "" || !coloured() ? text : styleText(ink, text, { stream: process.stdout });

let answer: boolean | undefined;

/** Asked once: styleText looks at the stream and the environment on every call. */
function coloured(): boolean {
  answer ??= styleText("bold", "x", { stream: process.stdout }) !== "x";
  return answer;
}

/** Longer names are cut in the middle where people read them. */
const longest = 160;

const unprintable = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Surrogate}]/gu;

/** A name from a file, safe to print: control and direction characters are escaped, and an enormous one is cut. */
export function printable(name: string): string {
  const cut =
    name.length <= longest ? name : `${name.slice(0, longest / 2)}…${name.slice(name.length - longest / 2)}`;
  return cut.replace(unprintable, (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`);
}

const wide =
  /\p{Emoji_Presentation}|[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{20000}-\u{3fffd}]/u;
const narrowest = /^[\x20-\x7e\u00a0-\u02ff\u2010-\u25ff]*$/;

/** Columns that a text takes in a terminal: two for East Asian characters and emoji, none for combining marks. */
export function textWidth(text: string): number {
  if (narrowest.test(text)) return text.length;
  let width = 0;
  for (const character of text) if (!/\p{Mark}/u.test(character)) width += wide.test(character) ? 2 : 1;
  return width;
}
