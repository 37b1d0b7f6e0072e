/**
 * Runs recorded selections (skeleton, LoRA configuration, what PEFT did) and compares everything in `expect`.
 */
import { createHash } from "node:crypto";
import { SelectionError } from "../../src/errors.ts";
import {
  type ModuleTree,
  type ResolvedConfig,
  type Selection,
  type SelectionConfig,
  type SelectionWarning,
  selectTargets,
  type Target,
  Tuple,
} from "../../src/selection/index.ts";

type Json = Record<string, unknown>;
export type SelectionVector = {
  id: string;
  cat: string;
  config: Json;
  as?: Record<string, "set" | "tuple">;
  expect: Json;
};
export type SelectionVectorFile = { skeleton: string; vectors: SelectionVector[] };
export type Mismatch = { expected: unknown; actual: unknown };

/** PEFT's field name to ours; only the field names are recased, never module names in values. */
const camelCase = (field: string): string =>
  field.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());

/** The recorded keyword arguments as our configuration. */
export function toConfig({
  config,
  as: types = {},
}: Pick<SelectionVector, "config" | "as">): SelectionConfig {
  return Object.fromEntries(
    Object.entries(config).map(([field, value]) => {
      const typed =
        types[field] === "set"
          ? new Set(value as string[])
          : types[field] === "tuple"
            ? new Tuple(value as string[])
            : value;
      return [camelCase(field), typed];
    }),
  ) as SelectionConfig;
}

/** Undefined if all that the vector expects came out, else both sides of what differs. */
export function runSelectionVector(tree: ModuleTree, vector: SelectionVector): Mismatch | undefined {
  const { expect } = vector;
  const actual = observe(tree, vector);
  const wanted: Json = {};
  const got: Json = {};
  const compare = (field: string, expected: unknown, found: unknown): void => {
    if (JSON.stringify(expected) === JSON.stringify(found)) return;
    wanted[field] = expected;
    got[field] = found;
  };
  if (expect["error"] !== undefined) compareFailure(expect, actual, compare);
  else if (actual instanceof Error) compare("error", undefined, describeError(actual));
  else compareSelection(tree, vector, actual, compare);
  return Object.keys(wanted).length + Object.keys(got).length === 0
    ? undefined
    : { expected: wanted, actual: got };
}

type Compare = (field: string, expected: unknown, found: unknown) => void;
type Failure = Error & { warnings?: readonly SelectionWarning[] };

function observe(tree: ModuleTree, vector: SelectionVector): Selection | Failure {
  try {
    return selectTargets(tree, toConfig(vector));
  } catch (error) {
    if (error instanceof SelectionError) return error;
    throw error;
  }
}

function compareFailure(expect: Json, actual: Selection | Failure, compare: Compare): void {
  const error = expect["error"] as [string, string, number?];
  if (!(actual instanceof Error)) {
    compare("error", error, `selected ${actual.targets.length} modules`);
    return;
  }
  // a failure inside Python's own code need only fail here too, in any way
  if (error[1] === "python-internal") return;
  const found = describeError(actual);
  compare("error", { stage: expect["stage"], error }, found);
  if (actual instanceof SelectionError)
    compare("warnings", expect["warnings"] ?? [], codes(actual.details["warnings"] as SelectionWarning[]));
}

function describeError(error: Error): unknown {
  if (!(error instanceof SelectionError)) return `${error.name}: ${error.message}`;
  const { stage, pythonType, position } = error.details;
  return { stage, error: [pythonType, error.code, ...(typeof position === "number" ? [position] : [])] };
}

function compareSelection(
  tree: ModuleTree,
  vector: SelectionVector,
  selection: Selection,
  compare: Compare,
): void {
  const { expect } = vector;
  const names = (expect["targets"] as (number | string)[]).map((target) =>
    typeof target === "number" ? tree.modules[target]!.name : target,
  );
  compare(
    "targets",
    names,
    selection.targets.map(({ name }) => name),
  );
  compare(
    "params",
    expect["params"] ?? [],
    selection.targetParameters.map(({ name }) => name),
  );
  const all = [...selection.targets, ...selection.targetParameters];
  for (const [field, key] of [
    ["r", "r"],
    ["alpha", "alpha"],
    ["scaling", "scaling"],
    ["layer", "layer"],
    ["fan_in_fan_out", "fanInFanOut"],
  ] as const)
    compare(
      field,
      expand(expect[field], all.length),
      all.map((target: Target) => target[key]),
    );
  compare("saved", expect["saved"] ?? [], selection.modulesToSave);
  compare("token_wrapped", expect["token_wrapped"] ?? [], selection.tokenModules);
  compare("trainable", expect["trainable"], selection.trainableParameters);
  compare("total", expect["total"], selection.totalParameters);
  compare("trainable_extra", expect["trainable_extra"] ?? [], selection.trainableExtra);
  compareTensors(expect, selection, compare);
  compare("config_after", sorted(expect["config_after"] as Json), sorted(changes(vector, selection.config)));
  compare("warnings", expect["warnings"] ?? [], codes(selection.warnings));
}

/** A single value stands for all targets. */
const expand = (value: unknown, count: number): unknown =>
  Array.isArray(value) ? value : Array<unknown>(count).fill(value);

function compareTensors(expect: Json, selection: Selection, compare: Compare): void {
  if (expect["state_dict_error"] !== undefined) return;
  const { stateDict } = selection;
  compare("state_dict_n", expect["state_dict_n"], stateDict.length);
  if (expect["state_dict"] !== undefined) compare("state_dict", expect["state_dict"], stateDict);
  const lines = stateDict.map(([key, shape]) => `${key} ${shape.join("x")}`);
  compare("state_dict_sha256", expect["state_dict_sha256"], digest(lines));
  compare("state_dict_warnings", expect["state_dict_warnings"] ?? [], codes(selection.stateDictWarnings));
}

/** SHA-256 over the sorted lines, each ended by a newline. */
const digest = (lines: readonly string[]): string =>
  createHash("sha256")
    .update(
      [...lines]
        .sort(byCodePoint)
        .map((line) => `${line}\n`)
        .join(""),
    )
    .digest("hex");

const byCodePoint = (a: string, b: string): number => Buffer.compare(Buffer.from(a), Buffer.from(b));

const after = [
  "target_modules",
  "exclude_modules",
  "modules_to_save",
  "target_parameters",
  "rank_pattern",
  "alpha_pattern",
  "fan_in_fan_out",
  "layers_to_transform",
  "layers_pattern",
  "modules_to_tie",
  "target_modules_to_tie",
  "r",
  "lora_alpha",
];

const listLimit = 40;

/** The fields of the configuration that differ after injection, written as the recording writes them. */
function changes(vector: SelectionVector, config: ResolvedConfig): Json {
  const out: Json = {};
  const given = toConfig(vector) as Record<string, unknown>;
  for (const field of after) {
    const now = plain((config as unknown as Json)[camelCase(field)], field);
    const before = plain(initial(field, given[camelCase(field)]), field);
    if (JSON.stringify(now) === JSON.stringify(before)) continue;
    out[field] =
      Array.isArray(now) && now.length > listLimit ? { n: now.length, sha256: digest(now as string[]) } : now;
  }
  return out;
}

const tables = ["rank_pattern", "alpha_pattern"];

/** What the field holds right after construction. */
function initial(field: string, value: unknown): unknown {
  if (value === undefined)
    return field === "r" || field === "lora_alpha"
      ? 8
      : field === "fan_in_fan_out"
        ? false
        : tables.includes(field)
          ? {}
          : null;
  return (field === "target_modules" || field === "exclude_modules") && Array.isArray(value)
    ? new Set(value)
    : value;
}

function plain(value: unknown, field: string): unknown {
  if (value instanceof Set) return [...(value as Set<string>)].sort(byCodePoint);
  if (value instanceof Tuple) return value.items;
  if (value instanceof Map) return Object.fromEntries(value);
  // ties are sets in PEFT
  if (field.endsWith("_to_tie") && Array.isArray(value)) return [...(value as string[])].sort(byCodePoint);
  return value;
}

const sorted = (fields: Json = {}): Json =>
  Object.fromEntries(Object.entries(fields).sort(([a], [b]) => byCodePoint(a, b)));

/** `[category, code, n?]`; n is always there for unmatched patterns, else only above 1. */
const codes = (warnings: readonly SelectionWarning[] = []): unknown[] =>
  warnings.map(({ category, code, count }) => [
    category,
    code,
    ...(count > 1 || code.endsWith("pattern-unmatched") ? [count] : []),
  ]);
