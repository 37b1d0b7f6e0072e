import { AdapterError, nearest } from "../errors.ts";
import type { SelectionConfig } from "../selection/index.ts";
import { contradictions } from "./config-checks.ts";
import { fieldNames, isField, isFlag, parseFields, readVariant, unknownOption } from "./config-fields.ts";
import {
  camelCase,
  type LoraConfigChanges,
  type LoraConfigOptions,
  type LoraFields,
  snakeCase,
} from "./config-options.ts";
import { asJson, type Origin, refuse, show } from "./config-problems.ts";
import { toPlain, writePythonJson } from "./config-python-json.ts";
import { savedJson } from "./config-saved.ts";
import { type Unsupported, unsupportedForTraining } from "./config-training.ts";
import { isRecord } from "./config-values.ts";
import { isVariant } from "./config-variants.ts";

export type { InitLoraWeights, LoraBias, LoraConfigChanges, LoraConfigOptions } from "./config-options.ts";
export { autoMappingOf } from "./config-saved.ts";
export type { Unsupported } from "./config-training.ts";

/** Something in a file that was read, and that a person should know. */
export type ConfigWarning = { readonly code: string; readonly message: string };

type Unknown = Readonly<Record<string, unknown>>;

/** Fields that were checked already. */
class Checked {
  readonly fields: LoraFields;
  readonly unknown: Unknown;
  readonly warnings: readonly ConfigWarning[];

  constructor(fields: LoraFields, unknown: Unknown, warnings: readonly ConfigWarning[]) {
    this.fields = fields;
    this.unknown = unknown;
    this.warnings = warnings;
  }
}

/** An empty class that says it has the fields, which the constructor of LoraConfig assigns. */
const Fields = class {} as new () => Readonly<LoraFields>;

/**
 * What LoRA adapts and how: PEFT 0.21's LoraConfig, with its names in camelCase and its defaults. Cannot be changed; `with`
 * makes another one.
 *
 *     const config = new LoraConfig({ r: 8, loraAlpha: 16, targetModules: ["q_proj", "v_proj"] });
 *
 * It can hold settings that Graft selects by, or only keeps for PEFT, but does not train: see `unsupportedForTraining`.
 */
export class LoraConfig extends Fields {
  readonly peftType = "LORA";
  /** Of reading a file: members that PEFT 0.21 does not know. */
  readonly warnings: readonly ConfigWarning[];
  readonly #unknown: Unknown;

  /** @throws AdapterError listing every option that is unknown, invalid, or contradicts another. */
  constructor(options: LoraConfigOptions | Checked = {}) {
    super();
    const checked = options instanceof Checked ? options : fromOptions(options);
    Object.assign(this, checked.fields);
    this.warnings = checked.warnings;
    this.#unknown = checked.unknown;
    Object.freeze(this);
  }

  /**
   * What `compileSelection` or `synthesize` found, with everything else that the options say.
   * @throws AdapterError as the constructor.
   */
  static fromSelection(selection: SelectionConfig, options: LoraConfigOptions = {}): LoraConfig {
    // The two types name the same fields; the constructor checks what the selection's leaves open.
    return new LoraConfig({ ...(selection as LoraConfigOptions), ...options });
  }

  /**
   * Reads the content of an adapter_config.json, of any version of PEFT since 0.4. What is missing has PEFT's defaults;
   * members that PEFT 0.21 does not know are kept, and written again.
   * @param file what to call it in messages.
   * @throws AdapterError `not-lora` if it is of another method, else listing everything that is invalid in it.
   */
  static fromJSON(json: unknown, { file = "adapter_config.json" }: { file?: string } = {}): LoraConfig {
    const origin: Origin = { file, spell: snakeCase };
    const members = refuseOthers(json, file);
    const known: Record<string, unknown> = {};
    // without a prototype, so that __proto__ is a member like any other
    const unknown: Record<string, unknown> = Object.create(null);
    for (const [key, value] of Object.entries(members)) {
      const name = camelCase(key);
      if (key === "peft_type" || key === "runtime_config") continue;
      if (!isField(name) || snakeCase(name) !== key) unknown[key] = value;
      else if (!(value === null && (isFlag(name) || name === "peftVersion")))
        known[name] = isVariant(name) && isRecord(value) ? readVariant(name, value) : value;
    }
    const parsed = parseFields(known, origin, () => false);
    refuse([...parsed.problems, ...contradictions(parsed, origin)], origin);
    const warnings = Object.keys(unknown).map((key) => unknownMember(key, file));
    return new LoraConfig(new Checked(parsed.fields, unknown, warnings));
  }

  /**
   * The same configuration with some fields changed. Also takes what a selection ends with (`Selection.config`).
   * @throws AdapterError as the constructor.
   */
  with(changes: LoraConfigChanges): LoraConfig {
    const { modulesToTie: _, targetModulesToTie: __, other: ___, ...options } = changes;
    const given = defined(options);
    const current = fieldsOf(this);
    const isChanged = (name: string): boolean =>
      name in given && isField(name) && asJson(given[name]) !== asJson(current[name]);
    const parsed = check({ ...current, ...given }, isChanged);
    return new LoraConfig(new Checked(parsed, this.#unknown, this.warnings));
  }

  /** Options of `selectTargets`. */
  toSelection(): SelectionConfig {
    // variants that selection refuses have a narrower type there, so that they are refused by the compiler too
    return fieldsOf(this) as SelectionConfig;
  }

  /** Settings that Graft's trainer does not implement; empty if the adapter can be trained. */
  unsupportedForTraining(): Unsupported[] {
    return unsupportedForTraining(this);
  }

  /** The content of adapter_config.json, as PEFT 0.21 writes it. */
  toJSON(): Record<string, unknown> {
    return toPlain(savedJson(this, this.#unknown)) as Record<string, unknown>;
  }

  /** The text of adapter_config.json, as PEFT 0.21 writes it, byte for byte. */
  stringify(): string {
    return writePythonJson(savedJson(this, this.#unknown));
  }
}

/** PEFT also reads on where a file has members that it does not know, and warns. */
function unknownMember(key: string, file: string): ConfigWarning {
  const close = nearest(snakeCase(key), fieldNames.map(snakeCase), 1)[0];
  return {
    code: "unknown-config-key",
    message:
      `${file}: PEFT 0.21 has no ${key}; it is kept, and has no effect.` +
      (close === undefined ? "" : ` Closest: ${close}.`),
  };
}

const fieldsOf = (config: Readonly<LoraFields>): LoraFields =>
  Object.fromEntries(fieldNames.map((name) => [name, config[name]])) as LoraFields;

const defined = (options: object): Record<string, unknown> =>
  Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));

const fromOptions = (options: LoraConfigOptions): Checked =>
  new Checked(
    check(options, () => true),
    {},
    [],
  );

function check(options: object, strict: (field: string) => boolean): LoraFields {
  const origin: Origin = { spell: (field) => field };
  if (!isRecord(options))
    throw new AdapterError(
      `LoraConfig takes an object of options, not ${show(options)}. For example { r: 8 }.`,
      {
        code: "invalid-value",
        details: { value: options },
      },
    );
  const given = defined(options);
  const parsed = parseFields(given, origin, strict);
  const unknown = Object.entries(given)
    .filter(([name]) => !isField(name))
    .map(([name, value]) => unknownOption(name, value));
  refuse([...parsed.problems, ...unknown, ...contradictions(parsed, origin)], origin);
  return parsed.fields;
}

/** PEFT's methods, as `peft_type` names them. Source: PEFT 0.21 utils/peft_types.py. */
const peftTypes =
  "PROMPT_TUNING MULTITASK_PROMPT_TUNING P_TUNING PREFIX_TUNING LORA ADALORA ADAMSS BOFT ADAPTION_PROMPT IA3 BEFT LILY LOHA LOKR OFT POLY LN_TUNING VERA FROD PVERA FOURIERFT GLORA XLORA HRA VBLORA UNILORA CPT MISS RANDLORA ROAD TRAINABLE_TOKENS HIRA SHIRA C3A WAVEFT OSF DELORA GRALORA CARTRIDGE TINYLORA PSOFT PEANUT SHADOW SUPERTUNING DEFT".split(
    " ",
  );

/** @returns the members of a LoRA configuration. @throws AdapterError if it is anything else. */
function refuseOthers(json: unknown, file: string): Record<string, unknown> {
  const fail = (code: string, message: string, details: Record<string, unknown> = {}): never => {
    throw new AdapterError(`${file}: ${message}`, { code, details: { file, ...details } });
  };
  if (!isRecord(json))
    return fail("invalid-value", `a LoRA configuration is a JSON object, not ${show(json)}. Check the file.`);
  const { peft_type: peftType = null } = json;
  if (peftType === "LORA") return json;
  if (peftType === null) {
    const keys = Object.keys(json);
    if (keys.length === 0 || keys.some((key) => isField(camelCase(key)))) return json;
    return fail(
      "not-lora",
      `this is not an adapter's configuration: it has no peft_type and no field of LoRA. It has ${show(keys)}.`,
      { keys },
    );
  }
  if (typeof peftType === "string" && peftTypes.includes(peftType))
    return fail(
      "not-lora",
      `this is an adapter of PEFT's method ${peftType}; Graft reads LORA only. Use PEFT for it, or train a LoRA adapter.`,
      { peftType },
    );
  const close = typeof peftType === "string" ? nearest(peftType.toUpperCase(), peftTypes, 1)[0] : undefined;
  return fail(
    "not-lora",
    `peft_type ${show(peftType)} is no method of PEFT 0.21. ${close ? `Closest: "${close}".` : 'Graft reads "LORA".'}`,
    { peftType },
  );
}
