/**
 * A regex for exactly the `wanted` ones of a list's numbers, as short as it stays readable: `\d+` for all of them,
 * `\d*[13579]` for the odd ones of a long list, else digits by place, such as `[2-9]|1[01]`. Alternatives are grouped,
 * so the text can stand between dots.
 * @param available all numbers of the list; the regex accepts no others of them, and of numbers that are not there only
 *   what "all", "odd" and "even" mean.
 */
export function numberPattern(wanted: readonly number[], available: readonly number[]): string {
  const chosen = new Set(wanted);
  if (available.every((index) => chosen.has(index))) return available.length > 1 ? "\\d+" : String(wanted[0]);
  const parity = parityPattern(chosen, available);
  const exact = digitPattern([...chosen].map(String));
  return parity !== undefined && parity.length < exact.length ? parity : exact;
}

function parityPattern(wanted: ReadonlySet<number>, available: readonly number[]): string | undefined {
  if (wanted.size < 3) return undefined;
  for (const [rest, digits] of [
    [1, "[13579]"],
    [0, "[02468]"],
  ] as const)
    if (available.every((index) => (index % 2 === rest) === wanted.has(index))) return `\\d*${digits}`;
  return undefined;
}

/** Exactly these strings of digits. */
function digitPattern(texts: readonly string[]): string {
  const lengths = [...new Set(texts.map(({ length }) => length))].sort((a, b) => a - b);
  const byLength = lengths.flatMap((length) =>
    branches(
      texts.filter((text) => text.length === length),
      false,
    ),
  );
  const plain = group(byLength);
  const shared = [branches(texts, false), branches(texts, true)].map(group);
  const shortest = shared.reduce((best, next) => (next.length < best.length ? next : best));
  return shortest.length + worthMixingLengths < plain.length ? shortest : plain;
}

/** Numbers of different lengths in one alternative, `31?`, read badly: only where that saves more characters than this. */
const worthMixingLengths = 3;

/** Alternatives that share first digits (or last ones, `fromEnd`) where the rest is the same. */
function branches(texts: readonly string[], fromEnd: boolean): string[] {
  const rests = new Map<string, string[]>();
  for (const text of [...texts].sort()) {
    const digit = fromEnd ? text.slice(-1) : text.slice(0, 1);
    const rest = fromEnd ? text.slice(0, -1) : text.slice(1);
    const known = rests.get(digit);
    if (known === undefined) rests.set(digit, [rest]);
    else known.push(rest);
  }
  const digits = new Map<string, string[]>();
  for (const [digit, rest] of [...rests].sort(([a], [b]) => Number(a) - Number(b))) {
    const text = optionalGroup(rest, fromEnd);
    digits.set(text, [...(digits.get(text) ?? []), digit]);
  }
  return [...digits].map(([rest, same]) => (fromEnd ? rest + digitClass(same) : digitClass(same) + rest));
}

function optionalGroup(rests: readonly string[], fromEnd: boolean): string {
  const more = rests.filter((rest) => rest !== "");
  if (more.length === 0) return "";
  const text = group(branches(more, fromEnd));
  if (more.length === rests.length) return text;
  return /^(?:\d|\\d|\[[^\]]*\]|\(\?:[^()]*\))$/.test(text) ? `${text}?` : `(?:${text})?`;
}

const group = (alternatives: readonly string[]): string =>
  alternatives.length === 1 ? alternatives[0]! : `(?:${alternatives.join("|")})`;

/** `7`, `[45]`, `[2-9]`, `\d`. */
function digitClass(digits: readonly string[]): string {
  if (digits.length === 1) return digits[0]!;
  if (digits.length === 10) return "\\d";
  let text = "";
  for (let i = 0; i < digits.length; ) {
    let end = i;
    while (end + 1 < digits.length && Number(digits[end + 1]) === Number(digits[end]) + 1) end++;
    text += end - i >= 2 ? `${digits[i]}-${digits[end]}` : digits.slice(i, end + 1).join("");
    i = end + 1;
  }
  return `[${text}]`;
}
