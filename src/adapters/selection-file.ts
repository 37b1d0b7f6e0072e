import type { ByteSource, FileStore } from "../checkpoint/index.ts";
import { readJson } from "../checkpoint/index.ts";
import { missingFile } from "../checkpoint/json.ts";
import { type JsonObject, parseStrictJson } from "../checkpoint/strict-json.ts";
import { AdapterError, nearest } from "../errors.ts";
import type { GroupSpec } from "../selection/index.ts";
import { type ConfigWarning, LoraConfig } from "./config.ts";
import { camelCase, snakeCase } from "./config-options.ts";
import { type ConfigProblem, type Origin, refuse, show } from "./config-problems.ts";
import { isRecord } from "./config-values.ts";
import { groupFields, groupsSchema } from "./selection-file-schema.ts";

/** What a file says about an adapter. */
export type SelectionFile = {
  /** All options but the groups. */
  readonly config: LoraConfig;
  /** Undefined: the file is an adapter_config.json like any other, and `config` says what is adapted. */
  readonly groups?: readonly GroupSpec[];
  readonly warnings: readonly ConfigWarning[];
};

/** Tables whose first matching key counts, so that the order of their keys matters. */
const ordered = ["rank_pattern", "alpha_pattern"] as const;
/** What groups say in PEFT's place. */
const replaced = ["target_modules", "layers_to_transform", "layers_pattern", "layer_replication"] as const;

/**
 * Reads a selection from a file of YAML (`.yaml`, `.yml`) or JSON: PEFT's options in snake_case and `groups`, or an
 * adapter_config.json.
 * @param file what to call it in messages.
 * @throws CheckpointError if it cannot be read or is not JSON. @throws AdapterError if it is not YAML, or for everything
 * that is invalid in it.
 */
export async function readSelectionFile(
  store: FileStore,
  name: string,
  { file = `${store.name}/${name}` }: { file?: string } = {},
): Promise<SelectionFile> {
  const isYaml = /\.ya?ml$/i.test(name);
  const json = isYaml ? undefined : await readJson(store, name);
  const isOrderKnown = !(isRecord(json) && ordered.some((key) => hasNumbers(json[key])));
  if (!isYaml && isOrderKnown) return parseSelectionFile(json, { file });
  const source = await store.open(name);
  if (source === undefined) throw await missingFile(store, name);
  if (isYaml && source.size > maxYamlBytes)
    throw new AdapterError(
      `${file}: the file has ${source.size} bytes, too many for YAML (at most ${maxYamlBytes}). Write it as JSON.`,
      { code: "file-too-large", details: { file, size: source.size, limit: maxYamlBytes } },
    );
  if (isYaml) {
    const { parseYaml } = await import("./yaml.ts");
    return parseSelectionFile(parseYaml(await textOf(source, file), file), { file });
  }
  return parseSelectionFile(keepOrder(json as Members, await textOf(source, file)), { file });
}

/** People write such files by hand, and the parser takes a second for as much. */
const maxYamlBytes = 2 ** 20;

type Members = Record<string, unknown>;

/**
 * Checks the content of a selection file.
 * @param content as parsed: objects, or Maps, which keep the order of keys that look like integers.
 * @throws AdapterError for everything that is invalid in it.
 */
export function parseSelectionFile(content: unknown, { file }: { file: string }): SelectionFile {
  const data = plainOf(content, "");
  if (!isRecord(data) || (data["groups"] === undefined && data["layers"] === undefined)) {
    const config = LoraConfig.fromJSON(data, { file });
    return { config, warnings: config.warnings };
  }
  const { groups: given, layers, ...options } = data;
  const origin: Origin = { file, spell: snakeCase };
  const problems: ConfigProblem[] = [];
  const warnings: ConfigWarning[] = [];
  const isSingle = given === undefined;
  if (isSingle) {
    // one group, whose options stand at the top
    const { target_modules, exclude_modules, ...others } = options;
    const group = Object.fromEntries(
      Object.entries({ target_modules, exclude_modules, layers }).filter(([, value]) => value != null),
    );
    const groups = readGroups([group], "", problems, warnings, file);
    return finish(others, groups);
  }
  for (const field of replaced)
    if (options[field] != null)
      problems.push(conflict(field, options[field], "Say it in a group, or leave groups out."));
  if (layers !== undefined)
    problems.push(conflict("layers", layers, "Put it into the groups that it is for, or leave groups out."));
  const groups = readGroups(given, "groups", problems, warnings, file);
  return finish(options, groups);

  function finish(others: Members, groups: readonly GroupSpec[]): SelectionFile {
    let config: LoraConfig | undefined;
    try {
      config = LoraConfig.fromJSON({ peft_type: "LORA", ...others }, { file });
    } catch (error) {
      if (!(error instanceof AdapterError) || !Array.isArray(error.details["problems"])) throw error;
      problems.push(...(error.details["problems"] as ConfigProblem[]));
    }
    refuse(problems, origin);
    return { config: config!, groups, warnings: [...config!.warnings, ...warnings] };
  }
}

const conflict = (field: string, value: unknown, remedy: string): ConfigProblem => ({
  field,
  code: "groups-conflict",
  value,
  message: `${field} cannot be used beside groups (given ${show(value)})`,
  remedy,
});

/** @param path of the list of groups; empty if the one group's fields stand at the top. */
function readGroups(
  given: unknown,
  path: string,
  problems: ConfigProblem[],
  warnings: ConfigWarning[],
  file: string,
): GroupSpec[] {
  const parsed = groupsSchema.safeParse(given);
  if (!parsed.success) {
    for (const issue of parsed.error.issues) {
      const [index, ...inside] = issue.path;
      const spot = path === "" ? "" : index === undefined ? path : `${path}[${String(index)}]`;
      const field = [spot, ...inside.map(String)].filter((part) => part !== "").join(".");
      const value = valueAt(given, issue.path);
      problems.push({
        field,
        code: "invalid-value",
        value,
        message: `${field} ${issue.message}, not ${show(value)}`,
        remedy: "See docs/groups.md.",
      });
    }
    return [];
  }
  return parsed.data.map((group, index) => {
    for (const key of Object.keys(group)) {
      if (groupFields.includes(key)) continue;
      const close = nearest(snakeCase(key), groupFields, 1)[0];
      warnings.push({
        code: "unknown-group-key",
        message: `${file}: groups[${index}] has a field ${key}, which has no effect.${close === undefined ? "" : ` Closest: ${close}.`}`,
      });
    }
    const known = Object.entries(group).filter(([key]) => groupFields.includes(key));
    return Object.fromEntries(known.map(([key, value]) => [camelCase(key), value])) as GroupSpec;
  });
}

function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>(
    (inner, key) => (inner as Record<PropertyKey, unknown> | undefined)?.[key],
    value,
  );
}

/** Maps as objects, but tables whose order matters. */
function plainOf(value: unknown, path: string): unknown {
  if (Array.isArray(value)) return value.map((item) => plainOf(item, `${path}[]`));
  if (!(value instanceof Map)) return value;
  if ((ordered as readonly string[]).includes(path)) return value;
  // entries define members, so that __proto__ is one like any other
  return Object.fromEntries(
    [...(value as Map<string, unknown>)].map(([key, item]) => [
      key,
      plainOf(item, path === "" ? key : `${path}.${key}`),
    ]),
  );
}

/** Whether an object has keys that JavaScript sorts. */
const hasNumbers = (table: unknown): boolean =>
  isRecord(table) && Object.keys(table).length > 1 && Object.keys(table).some((key) => /^\d+$/.test(key));

/** The tables whose order matters, with their keys in the order of the text. */
function keepOrder(json: Members, text: string): Members {
  const { keys, values } = parseStrictJson(text, {
    allowNonFinite: true,
    allowLoneSurrogates: true,
  }) as JsonObject;
  const tables = ordered
    .filter((name) => isRecord(json[name]))
    .map((name) => {
      const table = json[name] as Members;
      // the last of duplicate members counts, at the place of the first
      const order = (values[keys.lastIndexOf(name)] as JsonObject).keys;
      return [name, new Map([...new Set(order)].map((key) => [key, table[key]]))] as const;
    });
  return { ...json, ...Object.fromEntries(tables) };
}

async function textOf(source: ByteSource, file: string): Promise<string> {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(await source.read(0, source.size));
  } catch (cause) {
    if (!(cause instanceof TypeError)) throw cause;
    throw new AdapterError(`${file}: it is not valid UTF-8. Save it as UTF-8.`, {
      code: "invalid-yaml",
      details: { file },
      cause,
    });
  }
}
