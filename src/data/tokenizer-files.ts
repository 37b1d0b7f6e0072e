import { DataError } from "../errors.ts";
import { readAll } from "./byte-source.ts";
import { parseJson } from "./json-text.ts";
import { dataError } from "./problem.ts";
import type { FileStore } from "./types.ts";
import { checkTextStart, decodeUtf8 } from "./utf8.ts";

export type JsonObject = Record<string, unknown>;

/** An entry of tokenizer.json's `added_tokens`. */
export type AddedTokenEntry = { id: number; content: string; special: boolean } & JsonObject;

/** The files of a tokenizer, merged as transformers merges them. */
export type TokenizerFiles = {
  /** The directory's name, for messages. */
  name: string;
  /** tokenizer.json, its `added_tokens` completed and its pipeline adjusted by the settings of tokenizer_config.json. */
  tokenizer: JsonObject;
  config: JsonObject;
  addedTokens: AddedTokenEntry[];
  /** Content of each named special token (`bos_token` …), including custom `…_token` keys. */
  specialTokens: Record<string, string>;
  /** Chat templates by name; the usual one is "default". */
  chatTemplates: Record<string, string>;
};

const regenerate =
  "Write it in Python: AutoTokenizer.from_pretrained(model).save_pretrained(directory), with transformers, sentencepiece and protobuf installed.";

/**
 * Read tokenizer.json and what stands beside it: tokenizer_config.json, special_tokens_map.json and the chat template
 * (chat_template.jinja, else tokenizer_config.json's `chat_template`, else chat_template.json).
 * @throws DataError that names the file, if one is missing or malformed.
 */
export async function readTokenizerFiles(store: FileStore): Promise<TokenizerFiles> {
  const [tokenizer, config = {}, specialMap, templateFile, templateJson] = await Promise.all([
    readJsonFile(store, "tokenizer.json"),
    readJsonFile(store, "tokenizer_config.json"),
    readJsonFile(store, "special_tokens_map.json"),
    readTextFile(store, "chat_template.jinja"),
    readJsonFile(store, "chat_template.json"),
  ]);
  if (tokenizer === undefined) throw await missingTokenizer(store);
  const place = { file: `${store.name}/tokenizer.json` };
  const model = tokenizer["model"];
  if (!isObject(model) || !(isObject(model["vocab"]) || Array.isArray(model["vocab"])))
    throw dataError(
      "bad-tokenizer",
      place,
      `"model.vocab" is missing, so this is no tokenizer file. ${regenerate}`,
    );
  if (!Array.isArray(tokenizer["added_tokens"] ?? []))
    throw dataError("bad-tokenizer", place, `"added_tokens" is not a list. ${regenerate}`);

  const merged: JsonObject = { ...config };
  // As transformers does: the map counts only where tokenizer_config.json has no added_tokens_decoder.
  if (specialMap !== undefined && !isObject(config["added_tokens_decoder"]))
    Object.assign(merged, specialMap);

  const specialTokens: Record<string, string> = {};
  for (const [key, value] of Object.entries(merged)) {
    const content = tokenContent(value);
    if (key.endsWith("_token") && content !== undefined) specialTokens[key] = content;
  }
  const addedTokens = completeAddedTokens(tokenizer, merged, specialTokens);
  const files: TokenizerFiles = {
    name: store.name,
    tokenizer: applyConfig({ ...tokenizer, added_tokens: addedTokens }, merged, specialTokens, addedTokens),
    config: merged,
    addedTokens,
    specialTokens,
    chatTemplates: chatTemplates(
      store.name,
      templateFile,
      config["chat_template"],
      templateJson?.["chat_template"],
    ),
  };
  return files;
}

/** Content of a token given as text or as an AddedToken object. */
function tokenContent(value: unknown): string | undefined {
  if (typeof value === "string") return value;
  if (isObject(value) && typeof value["content"] === "string") return value["content"];
  return undefined;
}

/** tokenizer.json's added tokens, plus those that only tokenizer_config.json names, which get the next free ids. */
function completeAddedTokens(
  tokenizer: JsonObject,
  config: JsonObject,
  specialTokens: Record<string, string>,
): AddedTokenEntry[] {
  const added = ((tokenizer["added_tokens"] ?? []) as AddedTokenEntry[]).map((token) => ({ ...token }));
  const model = tokenizer["model"] as JsonObject;
  const vocabulary: Map<string, number> = Array.isArray(model["vocab"])
    ? new Map((model["vocab"] as [string, number][]).map(([token], id) => [token, id]))
    : new Map(Object.entries(model["vocab"] as Record<string, number>));
  const known = new Map(added.map((token) => [token.content, token]));
  let next = 0;
  for (const id of vocabulary.values()) next = Math.max(next, id + 1);
  for (const { id } of added) next = Math.max(next, id + 1);
  const add = (content: string, properties: JsonObject): void => {
    if (known.has(content)) return;
    const token = {
      ...properties,
      content,
      id: vocabulary.get(content) ?? next,
      special: properties["special"] === true,
    };
    if (token.id === next) next++;
    known.set(content, token);
    added.push(token);
  };
  const decoder = isObject(config["added_tokens_decoder"]) ? config["added_tokens_decoder"] : {};
  for (const id of Object.keys(decoder).sort((a, b) => Number(a) - Number(b))) {
    const token = decoder[id];
    const content = tokenContent(token);
    if (content !== undefined) add(content, isObject(token) ? token : {});
  }
  for (const content of Object.values(specialTokens)) add(content, { special: true, normalized: false });
  const extra = config["additional_special_tokens"] ?? config["extra_special_tokens"];
  for (const token of Array.isArray(extra) ? extra : isObject(extra) ? Object.values(extra) : []) {
    const content = tokenContent(token);
    if (content !== undefined) add(content, { special: true, normalized: false });
  }
  return added.sort((a, b) => a.id - b.id);
}

/** Settings of tokenizer_config.json that change the pipeline of tokenizer.json, as in transformers 5. */
function applyConfig(
  tokenizer: JsonObject,
  config: JsonObject,
  specialTokens: Record<string, string>,
  addedTokens: AddedTokenEntry[],
): JsonObject {
  const result = { ...tokenizer };
  for (const part of ["normalizer", "pre_tokenizer", "post_processor", "decoder"]) result[part] ??= null;
  const idOf = (content: string): number => addedTokens.find((token) => token.content === content)!.id;

  // add_bos_token and add_eos_token, where given, replace the post-processor.
  if ("add_bos_token" in config || "add_eos_token" in config) {
    const bos = config["add_bos_token"] === true ? specialTokens["bos_token"] : undefined;
    const eos = config["add_eos_token"] === true ? specialTokens["eos_token"] : undefined;
    const special = (content: string | undefined): JsonObject[] =>
      content === undefined ? [] : [{ SpecialToken: { id: content, type_id: 0 } }];
    const sequence = (id: "A" | "B"): JsonObject => ({ Sequence: { id, type_id: 0 } });
    const single = [...special(bos), sequence("A"), ...special(eos)];
    result["post_processor"] = {
      type: "TemplateProcessing",
      single,
      pair: [...single, ...special(bos), sequence("B"), ...special(eos)],
      special_tokens: Object.fromEntries(
        [bos, eos].flatMap((content) =>
          content === undefined ? [] : [[content, { id: content, ids: [idOf(content)], tokens: [content] }]],
        ),
      ),
    };
  }

  // LlamaTokenizer rebuilds its pipeline from the vocabulary, so the prefix space comes only at the text's start.
  const className = String(config["tokenizer_class"] ?? "");
  const model = tokenizer["model"] as JsonObject;
  if (/^LlamaTokenizer(Fast)?$/.test(className) && model["byte_fallback"] === true) {
    const prefix = config["add_prefix_space"] !== false;
    result["normalizer"] = null;
    result["pre_tokenizer"] = {
      type: "Metaspace",
      replacement: "▁",
      prepend_scheme: !prefix ? "never" : config["legacy"] === true ? "always" : "first",
      split: false,
    };
    result["decoder"] = {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: "▁" }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
        ...(prefix ? [{ type: "Strip", content: " ", start: 1, stop: 0 }] : []),
      ],
    };
  }
  return result;
}

function chatTemplates(
  name: string,
  file: string | undefined,
  inConfig: unknown,
  inJson: unknown,
): Record<string, string> {
  if (file !== undefined) return { ...namedTemplates(name, inConfig), default: file };
  const named = namedTemplates(name, inConfig);
  return Object.keys(named).length > 0 ? named : namedTemplates(name, inJson);
}

/** A template, or a list of `{name, template}`. */
function namedTemplates(store: string, value: unknown): Record<string, string> {
  if (value === undefined || value === null) return {};
  if (typeof value === "string") return { default: value };
  if (
    Array.isArray(value) &&
    value.every((t) => isObject(t) && typeof t["name"] === "string" && typeof t["template"] === "string")
  )
    return Object.fromEntries(value.map((t) => [t.name as string, t.template as string]));
  throw dataError(
    "bad-tokenizer",
    { file: `${store}/tokenizer_config.json` },
    '"chat_template" must be text or a list of {"name", "template"}. Correct it, or put the template into chat_template.jinja.',
  );
}

/** tokenizer.json is not there: say what is, and how to get it. */
async function missingTokenizer(store: FileStore): Promise<DataError> {
  for (const file of ["tokenizer.model", "spiece.model", "sentencepiece.bpe.model"]) {
    const source = await store.open(file);
    await source?.close?.();
    if (source !== undefined)
      return new DataError(
        `${store.name}: has only a sentencepiece model (${file}), and Graft reads tokenizer.json. ${regenerate}`,
        { code: "sentencepiece-only", details: { store: store.name, file } },
      );
  }
  for (const file of ["vocab.json", "merges.txt", "tekken.json", "tiktoken.model"]) {
    const source = await store.open(file);
    await source?.close?.();
    if (source !== undefined)
      return new DataError(
        `${store.name}: tokenizer.json is missing (there is ${file}, an older form). ${regenerate}`,
        { code: "no-tokenizer", details: { store: store.name, file } },
      );
  }
  return new DataError(
    `${store.name}: tokenizer.json is missing. Copy it from the model's page, or name the directory that has it.`,
    { code: "no-tokenizer", details: { store: store.name, file: "tokenizer.json" } },
  );
}

async function readTextFile(store: FileStore, file: string): Promise<string | undefined> {
  const source = await store.open(file);
  if (source === undefined) return undefined;
  try {
    const bytes = await readAll(source);
    const place = { file: `${store.name}/${file}` };
    return decodeUtf8(bytes.subarray(checkTextStart(bytes, place)), place);
  } finally {
    await source.close?.();
  }
}

async function readJsonFile(store: FileStore, file: string): Promise<JsonObject | undefined> {
  const text = await readTextFile(store, file);
  if (text === undefined) return undefined;
  const place = { file: `${store.name}/${file}` };
  const value = parseJson(text, place, "Copy the file again; it may be an interrupted download.");
  if (!isObject(value))
    throw dataError("bad-tokenizer", place, "expected a JSON object. Copy the file again.");
  return value;
}

export const isObject = (value: unknown): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value);
