import type { z } from "zod";
import { type Flag, FlagProblem, flagName, negatable, parseNumber, single } from "./flags.ts";

type Shape = Readonly<Record<string, z.ZodType>>;
/** zod's own account of a schema, as far as it is needed here. */
type Inner = z.ZodType & { def: { type: string; defaultValue?: unknown; innerType?: Inner } };

/** Flags of a schema's fields: names, help texts and checks are the schema's own. */
export type SchemaFlags<S extends Shape> = { [K in keyof S]: Flag<Exclude<z.input<S[K]>, undefined>> };

export type SchemaFlagOptions<S extends Shape> = {
  /** Flags that are not numbers, words or switches, or that the command gives itself. */
  readonly except?: { readonly [K in keyof S]?: Flag<Exclude<z.input<S[K]>, undefined>> };
  readonly aliases?: { readonly [K in keyof S]?: readonly string[] };
  /** Rewrites names of fields in help texts. */
  readonly spell: (text: string) => string;
};

/** One flag per field: `learningRate` becomes `--learning-rate <n>`, checked as the schema checks it. */
export function schemaFlags<S extends Shape>(
  shape: S,
  { except = {}, aliases = {}, spell }: SchemaFlagOptions<S>,
): SchemaFlags<S> {
  const flags: Record<string, Flag<unknown>> = {};
  for (const [name, field] of Object.entries(shape)) {
    const own = (except as Record<string, Flag<unknown> | undefined>)[name];
    flags[name] = own ?? fieldFlag(field, (aliases as Record<string, readonly string[]>)[name], spell);
  }
  return flags as SchemaFlags<S>;
}

function fieldFlag(
  field: z.ZodType,
  aliases: readonly string[] = [],
  spell: (text: string) => string,
): Flag<unknown> {
  let inner = field as Inner;
  let fallback: unknown;
  while (inner.def.innerType) {
    fallback ??= inner.def.defaultValue;
    inner = inner.def.innerType;
  }
  const description = spell(field.description ?? "");
  if (inner.def.type === "boolean")
    return negatable(
      fallback === undefined ? description : `${description} Default: ${fallback ? "yes" : "no"}.`,
    );
  const words = inner.def.type === "enum" ? (inner as unknown as { options: string[] }).options : undefined;
  const sentences = [
    description,
    ...(words ? [`One of ${words.join(", ")}.`] : []),
    ...(fallback === undefined ? [] : [`Default: ${String(fallback)}.`]),
  ];
  return {
    kind: "value",
    placeholder: words ? "word" : inner.def.type === "string" ? "text" : "n",
    help: sentences.join(" "),
    aliases,
    read: (texts) => {
      const typed = single(texts);
      const value = words || inner.def.type === "string" ? typed : (parseNumber(typed) ?? Number.NaN);
      const result = field.safeParse(value);
      if (!result.success)
        throw new FlagProblem(`${result.error.issues[0]!.message}, got ${JSON.stringify(typed)}`);
      return value;
    },
  };
}

/**
 * Puts flags in the place of option names in a message: "maxSteps" becomes "--max-steps". Names of one word are left as
 * they are, for they are words of the language too.
 */
export function spelling(
  names: Iterable<string>,
  others: Readonly<Record<string, string>> = {},
): (text: string) => string {
  const known = new Set([...names, ...Object.keys(others)].filter((name) => /[A-Z]/.test(name)));
  return (text) =>
    text.replace(/(?<![\w.-])[a-z]+(?:[A-Z][a-z0-9]*)+(?![\w(])/g, (word) =>
      known.has(word) ? (others[word] ?? flagName(word)) : word,
    );
}
