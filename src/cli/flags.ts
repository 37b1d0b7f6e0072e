import { type Command, Option } from "commander";

/** A flag with a value; what is typed is read into a `T`. */
type ValueFlag<T> = {
  readonly kind: "value";
  readonly placeholder: string;
  readonly help: string;
  /** Other names it goes by, without dashes. */
  readonly aliases?: readonly string[];
  /** @param texts what was typed, one per occurrence. @throws FlagProblem */
  readonly read: (texts: readonly string[]) => T;
};

/** A flag without a value: `--name`, and with `negatable` also `--no-name`. */
type SwitchFlag = { readonly kind: "switch"; readonly help: string; readonly negatable: boolean };

/** A flag whose value may be left out; true then. */
type OptionalFlag = { readonly kind: "optional"; readonly placeholder: string; readonly help: string };

export type Flag<T> = ValueFlag<T> | SwitchFlag | OptionalFlag;

/** Flags by the camelCase of their name, which is also the name of the option that they set. */
// biome-ignore lint/suspicious/noExplicitAny: each flag has its own type of value
export type FlagTable = Readonly<Record<string, Flag<any>>>;

export type FlagValues<F extends FlagTable> = {
  [K in keyof F]:
    | (F[K] extends SwitchFlag
        ? boolean
        : F[K] extends OptionalFlag
          ? string | true
          : F[K] extends ValueFlag<infer T>
            ? T
            : unknown)
    | undefined;
};

/** What is wrong with a flag's value; reported with the flag's name in front. */
export class FlagProblem extends Error {}

/** `maxSteps` as it is typed: `--max-steps`. */
export const flagName = (name: string): string =>
  `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;

/** Adds flags to a command, under a heading of its help. Values are kept as typed until `readFlags`. */
export function addFlags(command: Command, heading: string, table: FlagTable): void {
  const add = (flags: string, help: string, hide = false): Option => {
    const option = new Option(flags, help).helpGroup(`${heading}:`);
    // `--no-repeat-ngram-size <n>` has a value, and turns nothing off.
    if (option.required) option.negate = false;
    if (hide) option.hideHelp();
    command.addOption(option);
    return option;
  };
  const collect = (text: string, before: unknown): string[] => [
    ...(Array.isArray(before) ? before : []),
    text,
  ];
  for (const [key, flag] of Object.entries(table)) {
    const name = flagName(key);
    if (flag.kind === "switch") {
      const option = add(name, flag.help);
      if (!flag.negatable) continue;
      withNegative.add(option);
      add(name.replace("--", "--no-"), "", true);
    } else if (flag.kind === "optional") add(`${name} [${flag.placeholder}]`, flag.help);
    else {
      const aliases = flag.aliases ?? [];
      const also = aliases.length > 0 ? ` Also: ${aliases.map((alias) => `--${alias}`).join(", ")}.` : "";
      add(`${name} <${flag.placeholder}>`, flag.help + also).argParser(collect);
      for (const alias of aliases) add(`--${alias} <${flag.placeholder}>`, "", true).argParser(collect);
    }
  }
}

/** Switches that can be turned off too. */
const withNegative = new WeakSet<Option>();

/** How a flag is shown in the help. */
export const optionTerm = (option: Option): string =>
  withNegative.has(option) ? option.flags.replace("--", "--[no-]") : option.flags;

/** Values of flags; what is wrong with any of them is added to `problems`. */
export function readFlags<F extends FlagTable>(
  command: Command,
  table: F,
  problems: string[],
): FlagValues<F> {
  const options = command.opts<Record<string, unknown>>();
  const values: Record<string, unknown> = {};
  for (const [key, flag] of Object.entries(table)) {
    if (flag.kind !== "value") {
      values[key] = options[key];
      continue;
    }
    const texts = [key, ...(flag.aliases ?? []).map(camel)].flatMap(
      (name) => (options[name] as string[] | undefined) ?? [],
    );
    if (texts.length === 0) continue;
    try {
      values[key] = flag.read(texts);
    } catch (error) {
      if (!(error instanceof FlagProblem)) throw error;
      problems.push(`${flagName(key)} ${error.message}`);
    }
  }
  return values as FlagValues<F>;
}

const camel = (dashed: string): string =>
  dashed.replace(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());

/** The only value of a flag that cannot be repeated. */
export function single(texts: readonly string[]): string {
  if (texts.length > 1)
    throw new FlagProblem(`is given ${texts.length} times (${texts.join(", ")}); give it once`);
  return texts[0]!;
}

type Settings = { readonly placeholder?: string; readonly aliases?: readonly string[] };

const value = <T>(
  help: string,
  settings: Settings & { placeholder: string },
  read: (texts: readonly string[]) => T,
): ValueFlag<T> => ({ kind: "value", help, ...settings, read });

/** A text that can be given once. */
export const text = (help: string, settings: Settings = {}) =>
  value(help, { placeholder: "text", ...settings }, single);

/** Texts, one per occurrence. */
export const texts = (help: string, settings: Settings = {}) =>
  value(help, { placeholder: "text", ...settings }, (given) => [...given]);

/** Texts separated by commas; several occurrences add up. */
export const list = (help: string, settings: Settings = {}) =>
  value(help, { placeholder: "names", ...settings }, readList);

/** A number that can be given once; `check` says what is wrong with it. */
export const number = (
  help: string,
  settings: Settings = {},
  check: (n: number) => string | undefined = () => undefined,
) =>
  value(help, { placeholder: "n", ...settings }, (given) => {
    const typed = single(given);
    const parsed = parseNumber(typed);
    const problem = parsed === undefined ? "must be a number" : check(parsed);
    if (problem !== undefined) throw new FlagProblem(`${problem}, got ${JSON.stringify(typed)}`);
    return parsed!;
  });

/** Whole numbers separated by commas. */
export const integers = (help: string, settings: Settings = {}) =>
  value(help, { placeholder: "n,…", ...settings }, (given) =>
    readList(given).map((item) => {
      const parsed = parseNumber(item);
      if (parsed === undefined || !Number.isSafeInteger(parsed))
        throw new FlagProblem(`must be whole numbers separated by commas, got ${JSON.stringify(item)}`);
      return parsed;
    }),
  );

/** One of a few words. */
export const choice = <const T extends string>(help: string, words: readonly T[], settings: Settings = {}) =>
  value(`${help} One of ${words.join(", ")}.`, { placeholder: "word", ...settings }, (given) => {
    const typed = single(given);
    if (!(words as readonly string[]).includes(typed))
      throw new FlagProblem(`must be one of ${words.join(", ")}, got ${JSON.stringify(typed)}`);
    return typed as T;
  });

export const custom = <T>(
  help: string,
  settings: Settings & { placeholder: string },
  read: (texts: readonly string[]) => T,
) => value(help, settings, read);

export const toggle = (help: string): SwitchFlag => ({ kind: "switch", help, negatable: false });
export const negatable = (help: string): SwitchFlag => ({ kind: "switch", help, negatable: true });
export const optional = (help: string, placeholder: string): OptionalFlag => ({
  kind: "optional",
  help,
  placeholder,
});

export function readList(given: readonly string[]): string[] {
  const items = given.flatMap((typed) => typed.split(",")).map((item) => item.trim());
  if (items.some((item) => item === ""))
    throw new FlagProblem(
      `has an empty place in ${JSON.stringify(given.join(","))}; separate values by commas`,
    );
  return items;
}

/** A decimal number; undefined for anything else. */
export const parseNumber = (typed: string): number | undefined =>
  /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(typed.trim()) ? Number(typed) : undefined;
