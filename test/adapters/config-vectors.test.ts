/** Configurations and files as PEFT 0.21 makes them, recorded by scripts/record_adapter_configs.py and scripts/make_facts.py. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { LoraConfig } from "../../src/adapters/config.ts";
import { isVariant } from "../../src/adapters/config-variants.ts";
import { AdapterError, isGraftError } from "../../src/errors.ts";
import { Warnings } from "../../src/selection/failure.ts";
import { resolveConfig } from "../../src/selection/peft/config.ts";
import { type SelectionVectorFile, toConfig } from "../conformance/selection-vectors.ts";

type Json = Record<string, unknown>;
const vectors = join(import.meta.dirname, "../vectors");
const read = <T>(name: string): T => JSON.parse(readFileSync(join(vectors, name), "utf8")) as T;

const camel = (name: string): string =>
  name.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
const recased = (members: Json): Json =>
  Object.fromEntries(Object.entries(members).map(([name, value]) => [camel(name), value]));
const isObject = (value: unknown): value is Json =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** PEFT's keyword arguments as options. */
const options = (kwargs: Json): Json =>
  Object.fromEntries(
    Object.entries(recased(kwargs)).map(([name, value]) => [
      name,
      isVariant(name) && isObject(value) ? recased(value) : value,
    ]),
  );

const attempt = <T>(action: () => T): T | Error => {
  try {
    return action();
  } catch (error) {
    if (isGraftError(error)) return error;
    throw error;
  }
};

type Vector = { config: Json; saved?: Json; saved_differs_from_default?: Json; error?: [string, string] };
const facts = read<{ vectors: Vector[] }>("adapter-config.json").vectors;
const defaults = facts[0]!.saved!;

describe("adapter-config.json: what PEFT saves, or refuses", () => {
  it.each(facts.map((vector) => [JSON.stringify(vector.config), vector] as const))("%s", (_, vector) => {
    const { config, error, saved = { ...defaults, ...vector.saved_differs_from_default } } = vector;
    // a keyword argument that does not exist fails in a call, but not in a file
    const isUnknown = error?.[1].includes("unexpected keyword") === true;
    const fromFile = attempt(() => LoraConfig.fromJSON(config));
    if (error === undefined) expect(fromFile).toMatchObject({ peftType: "LORA" });
    else if (!isUnknown) expect(fromFile).toBeInstanceOf(AdapterError);
    if (fromFile instanceof LoraConfig && !isUnknown) expect(fromFile.toJSON()).toStrictEqual(saved);

    // settings of PyTorch's run time are no options here
    if ("runtime_config" in config) return;
    const fromCall = attempt(() => new LoraConfig(options(config)));
    if (error === undefined) expect((fromCall as LoraConfig).toJSON()).toStrictEqual(saved);
    else expect(fromCall).toBeInstanceOf(AdapterError);
  });
});

describe("adapter-configs/: the text that PEFT writes, byte for byte", () => {
  const saved = read<{ kwargs: Json; text: string }[]>("adapter-configs/saved.json");
  it.each(saved.map(({ kwargs, text }) => [JSON.stringify(kwargs), kwargs, text] as const))(
    "%s",
    (_, kwargs, text) => {
      const config = new LoraConfig(options(kwargs));
      expect(config.stringify()).toBe(text);
      const again = LoraConfig.fromJSON(JSON.parse(text));
      expect(again.stringify()).toBe(text);
      expect(again.toJSON()).toStrictEqual(JSON.parse(text));
      expect(Object.keys(again.toJSON())).toEqual(Object.keys(again.toJSON()).sort());
    },
  );

  const reloaded = read<{ file: Json; text: string }[]>("adapter-configs/reloaded.json");
  it.each(reloaded.map(({ file, text }) => [file, text] as const))("reloads file %#", (file, text) => {
    const config = LoraConfig.fromJSON(file);
    // PEFT drops what it does not know
    const unknown = Object.keys(file).filter((key) => !(key in defaults) && key !== "runtime_config");
    expect(config.toJSON()).toMatchObject(Object.fromEntries(unknown.map((key) => [key, file[key]])));
    const known = Object.fromEntries(Object.entries(file).filter(([key]) => !unknown.includes(key)));
    expect(LoraConfig.fromJSON(known).stringify()).toBe(text);
    expect(config.warnings.map(({ code }) => code)).toEqual(unknown.map(() => "unknown-config-key"));
  });

  const models = read<{ kwargs: Json; text: string }[]>("adapter-configs/model.json");
  it.each(models.map(({ kwargs, text }) => [kwargs, text] as const))(
    "a saved model of %j",
    (kwargs, text) => {
      const file = LoraConfig.fromJSON(JSON.parse(text));
      expect(file.stringify()).toBe(text);
      const { autoMapping } = file;
      const config = new LoraConfig(options(kwargs));
      expect(config.with({ inferenceMode: true, autoMapping }).stringify()).toBe(text);
    },
  );

  const others = read<{ file: Json; outcome: string }[]>("adapter-configs/others.json");
  it.each(others.filter(({ file }) => "peft_type" in file))(
    "does not take $file for LoRA",
    ({ file, outcome }) => {
      const error = attempt(() => LoraConfig.fromJSON(file, { file: "a.json" })) as AdapterError;
      expect(error).toMatchObject({ name: "AdapterError", code: "not-lora" });
      // a method that PEFT loads is named; one that it does not know either is said to be unknown
      expect(error.message).toContain(
        outcome.includes("Error")
          ? "is no method of PEFT 0.21"
          : `PEFT's method ${String(file["peft_type"])}`,
      );
    },
  );
});

describe("every recorded selection", () => {
  const folder = join(vectors, "selection");
  const files = readdirSync(folder).filter((name) => name.endsWith(".json.gz"));
  it.each(files)("of %s has the same options after a file", (name) => {
    const document = JSON.parse(
      gunzipSync(readFileSync(join(folder, name))).toString(),
    ) as SelectionVectorFile;
    let compared = 0;
    for (const vector of document.vectors) {
      if (vector.as !== undefined) continue; // types that a file cannot hold
      const resolve = (config: () => Parameters<typeof resolveConfig>[0]): unknown => {
        const warnings = new Warnings();
        const result = attempt(() => resolveConfig(config(), warnings));
        if (result instanceof Error) return (result as AdapterError).code;
        const { other: _, ...fields } = result;
        return { fields, warnings: warnings.list };
      };
      const direct = resolve(() => toConfig(vector));
      const viaFile = resolve(() => LoraConfig.fromJSON(vector.config).toSelection());
      expect(viaFile, vector.id).toEqual(direct);
      compared++;
    }
    expect(compared).toBeGreaterThan(100);
  });
});
