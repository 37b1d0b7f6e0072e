/** Syntax tree of a pattern, with the operators of CPython's `re._parser`, before flags are applied. */

/** Bits of the flags that a pattern can set on itself. */
export const Flag = {
  IGNORECASE: 1,
  MULTILINE: 2,
  DOTALL: 4,
  VERBOSE: 8,
  ASCII: 16,
  UNICODE: 32,
  LOCALE: 64,
  TEMPLATE: 128,
} as const;

/** Flags that choose the alphabet; at most one holds at a time. */
export const TYPE_FLAGS = Flag.ASCII | Flag.LOCALE | Flag.UNICODE;

/** Least and greatest number of code points that something matches. */
export type Width = readonly [least: number, most: number];

export type Category = "digit" | "space" | "word";

export type SetItem =
  | { readonly op: "literal"; readonly code: number }
  | { readonly op: "range"; readonly low: number; readonly high: number }
  | { readonly op: "category"; readonly category: Category; readonly negate: boolean };

export type Anchor = "string-start" | "string-end" | "start" | "end" | "boundary" | "not-boundary";

export type RepeatMode = "greedy" | "lazy" | "possessive";

export type Ast =
  | { readonly op: "literal"; readonly code: number; readonly negate: boolean }
  | { readonly op: "any" }
  | { readonly op: "in"; readonly items: readonly SetItem[]; readonly negate: boolean }
  | { readonly op: "at"; readonly anchor: Anchor }
  | {
      readonly op: "repeat";
      readonly min: number;
      readonly max: number;
      readonly mode: RepeatMode;
      readonly body: Sequence;
    }
  | { readonly op: "branch"; readonly branches: readonly Sequence[] }
  | {
      readonly op: "group";
      /** Number of the capture group, undefined for `(?:...)` and `(?i:...)`. */
      readonly index: number | undefined;
      readonly addFlags: number;
      readonly deleteFlags: number;
      readonly body: Sequence;
    }
  | { readonly op: "atomic"; readonly body: Sequence }
  | { readonly op: "look"; readonly behind: boolean; readonly negate: boolean; readonly body: Sequence }
  | { readonly op: "backreference"; readonly group: number }
  | {
      readonly op: "conditional";
      readonly group: number;
      readonly yes: Sequence;
      readonly no: Sequence | undefined;
    };

/** What follows one another. Mutable: the parser hoists common prefixes and unwraps plain groups. */
export type Sequence = Ast[];

/** A warning of Python's parser, which would be emitted through `warnings.warn`. */
export type PatternWarning = {
  readonly category: "FutureWarning" | "DeprecationWarning";
  readonly message: string;
};

export type ParsedPattern = {
  readonly root: Sequence;
  readonly flags: number;
  /** Capture groups, not counting the whole match. */
  readonly groupCount: number;
  /** Name to number, in order of appearance. */
  readonly groupNames: ReadonlyMap<string, number>;
  /** Width of each capture group; entry 0 is not used. */
  readonly groupWidths: readonly (Width | undefined)[];
  readonly warnings: readonly PatternWarning[];
};

/** Python's MAXREPEAT: a repeat without upper bound; explicit counts must stay below it. */
export const UNBOUNDED = 4294967295;

/** Drops repeated members, keeping the order. */
export const uniqueItems = (items: readonly SetItem[]): SetItem[] => [
  ...new Map(items.map((item) => [itemKey(item), item])).values(),
];

/** A text that is the same for equal members only. */
export function itemKey(item: SetItem): string {
  switch (item.op) {
    case "literal":
      return `${item.code}`;
    case "range":
      return `${item.low}-${item.high}`;
    case "category":
      return `${item.negate ? "not " : ""}${item.category}`;
  }
}
