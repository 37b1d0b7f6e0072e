import type { ModuleInfo } from "../tree.ts";
import { isHeadClass } from "./conversions.ts";
import { architectureOf, type InferWarning, isObject, type RawConfig, setting } from "./types.ts";

/** What is known of a model's vocabulary: where tokens come in and go out, and which weights are one. */
export type Vocabulary = {
  readonly modules: readonly ModuleInfo[];
  readonly inputEmbeddings: string | null;
  readonly outputEmbeddings: string | null;
  readonly tiedWeights: readonly (readonly [string, string])[];
  readonly tiedWithEmbedding: readonly string[];
};

/** Names of input embeddings, the likeliest first. */
const inputNames = (
  "shared embed_tokens wte word_embeddings embed_in tok_embeddings tokens_embed embeddings token_embedding " +
  "word_embedding token_embeddings"
).split(" ");

/** Names of output heads by the part of the path that says so; the last part of them scores tokens. */
const headPath =
  /(?:^|\.)(?:lm_head|embed_out|proj_out|output_projection|lm_head\.decoder|predictions\.decoder|generator_lm_head)$|^decoder$/;

/** How such names end: asked first, of the 100,000 names of a mixture of experts. */
const headEnd = ["head", "out", "output_projection", "decoder"];

const generates =
  /For(?:CausalLM|ConditionalGeneration|MaskedLM|CausalImageModeling|SpeechSeq2Seq|PreTraining)$|LMHeadModel$|MTModel$/;

/** Heads of masked language models, with the bias that their dense layer keeps beside it. */
const maskedHeads = ["cls.predictions", "lm_head", "predictions"] as const;

/** Finds embeddings and head, and adds what a checkpoint leaves out because it is tied to them. */
export function findVocabulary(
  found: readonly ModuleInfo[],
  config: RawConfig,
  warnings: InferWarning[],
): Vocabulary {
  const architecture = architectureOf(config);
  const embedding = inputEmbedding(found, config);
  const modules = [...found];
  const tied: [string, string][] = [];
  const tiedModules: string[] = [];
  if (embedding === undefined)
    return {
      modules,
      inputEmbeddings:
        modules.find(({ name, kind }) => kind === "module" && patches.test(name))?.name ?? null,
      outputEmbeddings: null,
      tiedWeights: [],
      tiedWithEmbedding: [],
    };
  const tie = (module: string) => {
    tied.push([`${module}.weight`, `${embedding.name}.weight`]);
    tiedModules.push(module);
  };
  // Encoder–decoder models read the shared embedding through modules of their own.
  if (leafOf(embedding.name) === "shared") addStackEmbeddings(modules, embedding, tie);
  const flag = tieFlag(config);
  let head = outputHead(modules, embedding);
  const scores =
    (generates.test(architecture) && !/^Electra/.test(architecture)) ||
    /^(?:Vision|Speech)?EncoderDecoderModel$/.test(architecture);
  if (head !== undefined && flag === true && sameShape(head, embedding) && scores) tie(head.name);
  if (head === undefined && scores && flag !== false) {
    head = missingHead(modules, embedding, config);
    insert(modules, head);
    tie(head.name);
    const owner = modules.find(({ name }) => name === parentOf(head!.name));
    if (owner?.parameters.some(([name]) => name === "bias"))
      tied.push([`${head.name}.bias`, `${owner.name}.bias`]);
    warnings.push({
      code: "tied-head-added",
      message:
        `the file has no output layer of its own: "${head.name}", which shares the weight of "${embedding.name}", ` +
        "is added.",
      details: { module: head.name, embedding: embedding.name },
    });
  } else if (head === undefined && scores)
    warnings.push({
      code: "missing-head",
      message: `${architecture} has an output layer, and config.json says that it is not tied to the embeddings, but the file has none.`,
    });
  const isHead = scores || !isHeadClass(architecture);
  return {
    modules,
    inputEmbeddings:
      config["model_type"] === "marian"
        ? embedding.name.replace(/shared$/, "encoder.embed_tokens")
        : embedding.name,
    outputEmbeddings: isHead ? (head?.name ?? null) : null,
    tiedWeights: tied,
    tiedWithEmbedding: tiedModules.sort(),
  };
}

/** Whether weights are tied, where config.json says so; for models with a text part, what that says. */
export function tieFlag(config: RawConfig): boolean | undefined {
  // A model made of two has the flag of its decoder.
  for (const part of [config["decoder"], config, config["text_config"]]) {
    const flag = isObject(part) ? part["tie_word_embeddings"] : undefined;
    if (typeof flag === "boolean") return flag;
  }
  return undefined;
}

/** Models of pictures and sound, and pairs of towers, have no input embedding that counts for both. */
const withoutEmbedding =
  /^(?:clip|altclip|clipseg|owlvit|owlv2|groupvit|align|xclip|metaclip_2|flava|clap|sam|detr|wav2vec2|hubert)$/;

/** Where pictures come in, for models that know nothing else. */
const patches = /^(?:\w+\.)?embeddings\.patch_embeddings$|^vision_encoder\.patch_embed$/;

function inputEmbedding(modules: readonly ModuleInfo[], config: RawConfig): ModuleInfo | undefined {
  if (withoutEmbedding.test(String(config["model_type"]))) return undefined;
  const vocabulary = setting(config, "vocab_size");
  let best: ModuleInfo | undefined;
  let bestScore = -1;
  for (const module of modules) {
    if (module.kind !== "embedding") continue;
    const place = inputNames.indexOf(leafOf(module.name));
    // Vocabularies are padded, and grow after config.json was written.
    const fits = vocabulary !== undefined && module.in !== null && Math.abs(module.in - vocabulary) < 512;
    if (place === -1 && !(fits && module.in === vocabulary)) continue;
    const inText = /(?:^|\.)(?:language_model|text_model|llm)\./.test(module.name) ? 1 : 0;
    const score = (fits ? 1000 : 0) + inText * 100 + (place === -1 ? 0 : 50 - place);
    if (score <= bestScore) continue;
    best = module;
    bestScore = score;
  }
  return best;
}

function outputHead(modules: readonly ModuleInfo[], embedding: ModuleInfo): ModuleInfo | undefined {
  let best: ModuleInfo | undefined;
  for (const module of modules)
    if (
      module.kind === "linear" &&
      headEnd.some((end) => module.name.endsWith(end)) &&
      headPath.test(module.name) &&
      (module.out === embedding.in || best === undefined)
    )
      best = module;
  return best;
}

const sameShape = (head: ModuleInfo, embedding: ModuleInfo): boolean =>
  head.out === embedding.in && head.in === embedding.out;

/** Adds `embed_tokens` to the encoder and the decoder beside a shared embedding, where they are not in the file. */
function addStackEmbeddings(
  modules: ModuleInfo[],
  embedding: ModuleInfo,
  tie: (module: string) => void,
): void {
  const parent = parentOf(embedding.name);
  const prefix = parent === "" ? "" : `${parent}.`;
  for (const stack of ["encoder", "decoder"]) {
    const at = modules.findIndex(({ name }) => name === `${prefix}${stack}`);
    if (at === -1) continue;
    const name = `${prefix}${stack}.embed_tokens`;
    if (!modules.some((module) => module.name === name)) modules.splice(at + 1, 0, { ...embedding, name });
    tie(name);
  }
}

/** The head that the class has and the file has not, or of which it has only the bias. */
function missingHead(modules: readonly ModuleInfo[], embedding: ModuleInfo, config: RawConfig): ModuleInfo {
  const { in: rows, out: dim } = embedding;
  const linear = (name: string, hasBias: boolean): ModuleInfo => ({
    name,
    className: "Linear",
    kind: "linear",
    in: dim,
    out: rows,
    parameters: [["weight", [rows!, dim!]], ...(hasBias ? [["bias", [rows!]] as const] : [])],
  });
  const isBias = ({ parameters }: ModuleInfo) =>
    parameters.length === 1 && parameters[0]![0] === "bias" && parameters[0]![1][0] === rows;
  const partial = modules.find((module) => headPath.test(module.name) && isBias(module));
  if (partial !== undefined && leafOf(partial.name) === "decoder") return linear(partial.name, true);
  const masked = maskedHeads.find((path) =>
    modules.some(({ name, parameters }) => name === path && parameters.some(([own]) => own === "bias")),
  );
  if (masked !== undefined) return linear(`${masked}.decoder`, true);
  if (partial !== undefined) return linear(partial.name, true);
  // A language model inside another has its head with it.
  const [inner] = embedding.name.split(".", 1);
  if (inner === "language_model" || inner === "decoder") return linear(`${inner}.lm_head`, false);
  return linear(ownHeads[String(config["model_type"])] ?? "lm_head", false);
}

const ownHeads: Readonly<Record<string, string>> = {
  whisper: "proj_out",
  biogpt: "output_projection",
  modernbert: "decoder",
};

/** Puts a module behind what its parent has already, or in the place of the one of its name. */
function insert(modules: ModuleInfo[], module: ModuleInfo): void {
  const same = modules.findIndex(({ name }) => name === module.name);
  if (same !== -1) {
    modules[same] = module;
    return;
  }
  const parent = parentOf(module.name);
  let at = modules.length;
  while (at > 0 && parent !== "" && !`${modules[at - 1]!.name}.`.startsWith(`${parent}.`)) at--;
  modules.splice(at === 0 ? modules.length : at, 0, module);
}

const leafOf = (name: string): string => name.slice(name.lastIndexOf(".") + 1);
const parentOf = (name: string): string => name.slice(0, Math.max(0, name.lastIndexOf(".")));
