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
