import { failure } from "../failure.ts";
import type { ModuleTree } from "../tree.ts";
import { baseLayer, LiveModule, LiveParameter, SavedWrapper, TokenWrapper } from "./live.ts";
import type { ResolvedConfig } from "./options.ts";
import { nameOfModule, setRequiresGrad } from "./traverse.ts";
import { inputEmbedding, namesTiedWithEmbedding } from "./tying.ts";
import { refuseContainers, type WrapContext, type Wrapping, wrapModules } from "./wrap.ts";

/** Kinds whose in and out features PEFT knows. */
const sized = ["linear", "conv1d_hf", "conv1d", "conv2d", "conv3d", "embedding", "mha"];

/** The rows to train, or the wrapper to follow. */
type TokenRows = { readonly rows: number; readonly tiedTo?: TokenWrapper };

function tokenWrapping(rows: TokenRows, context: WrapContext): Wrapping<TokenWrapper> {
  return {
    isWrapper: (module) => module instanceof TokenWrapper,
    refresh: (wrapper) =>
      setRequiresGrad(wrapper.layer.children.get("trainable_tokens_delta")!, !context.isInference),
    make: (target, name) => makeTokenWrapper(target, name, rows, context),
  };
}

/**
 * Wraps a module to train some rows of its weight, or to follow a wrapper that does.
 * Shape: the weight's, with `rows` rows.
 * @throws SelectionError where the module has no such weight or is an adapter layer.
 * Source: PEFT 0.21 `TrainableTokensWrapper`, `TrainableTokensLayer`.
 */
function makeTokenWrapper(
  target: LiveModule,
  name: string,
  { rows, tiedTo: tied }: TokenRows,
  { isInference, warnings }: WrapContext,
): TokenWrapper {
  const base = baseLayer(target);
  if (!sized.includes(base.kind))
    warnings.add(
      "size-of-layer-unknown",
      `trainableTokenIndices reaches a ${base.className}, whose size is not known. Name an embedding.`,
    );
  const layer = new LiveModule("TrainableTokensLayer", "token-layer");
  layer.setChild("base_layer", target);
  if (tied === undefined) {
    const delta = new LiveModule("ParameterDict", "parameterdict");
    delta.setParameter("default", new LiveParameter(rowShape(base, name, rows), !isInference));
    layer.setChild("trainable_tokens_delta", delta);
    layer.setChild("trainable_tokens_original", new LiveModule("BufferDict", "module"));
  } else
    for (const part of ["trainable_tokens_delta", "trainable_tokens_original"])
      layer.setChild(part, tied.layer.children.get(part)!);
  refuseContainers(target, name, "trainableTokenIndices", "tokens-on-unsupported-module");
  const wrapper = new TokenWrapper(tied !== undefined);
  wrapper.setChild("token_adapter", layer);
  return wrapper;
}

function rowShape(base: LiveModule, name: string, rows: number): number[] {
  const weight = base.attribute("weight");
  const inner = base instanceof SavedWrapper ? base.copy : base;
  const hasFeatures = inner.kind === "embedding" || inner.kind === "linear";
  if (!(weight instanceof LiveParameter) || !hasFeatures)
    throw failure(
      "inject",
      "AttributeError",
      "python-internal",
      `trainableTokenIndices reaches "${name}", a ${base.className} without rows of tokens. Name an embedding.`,
      { module: name, className: base.className },
    );
  return [rows, ...weight.shape.slice(1)];
}

/**
 * Wraps what `trainableTokenIndices` names: a list means the input embedding, a table names modules by the end of
 * their path. Modules tied to the input embedding follow it.
 * Source: PEFT 0.21 `set_additional_trainable_modules`.
 */
export function wrapTokens(
  config: ResolvedConfig,
  tree: ModuleTree,
  root: LiveModule,
  context: WrapContext,
): void {
  const given = config.trainableTokenIndices;
  if (given === null) return;
  const layers: Record<string, readonly number[]> = Array.isArray(given)
    ? { [nameOfModule(root, inputEmbedding(tree, root)) ?? "embed_tokens"]: given }
    : { ...(given as Readonly<Record<string, readonly number[]>>) };
  refuseSaved(config, Object.keys(layers));
  const areTied = tree.config.tieWordEmbeddings === true;
  const { skipped, differ } = compareTied(config, tree, root, layers, areTied);
  for (const [name, indices] of Object.entries(layers))
    if (!skipped.has(name)) wrapModules(root, [name], tokenWrapping({ rows: indices.length }, context), true);
  if (!areTied && config.ensureWeightTying)
    context.warnings.add(
      "tying-requested-model-not-tied",
      "ensureWeightTying is set, but the model does not tie its embeddings: trained tokens are not tied either.",
    );
  if (!areTied) return;
  const source = inputEmbedding(tree, root);
  if (!(source instanceof TokenWrapper) || !(config.ensureWeightTying || !differ)) return;
  const delta = source.layer.children.get("trainable_tokens_delta")!.parameters.get("default")!;
  const wrapping = tokenWrapping({ rows: delta.shape[0]!, tiedTo: source }, context);
  wrapModules(root, namesTiedWithEmbedding(tree, root), wrapping, true);
}

function refuseSaved(config: ResolvedConfig, names: readonly string[]): void {
  const saved = config.modulesToSave;
  if (saved === null) return;
  const both = names.find((name) =>
    typeof saved === "string" ? saved.includes(name) : [...saved].includes(name),
  );
  if (both === undefined) return;
  throw failure(
    "inject",
    "ValueError",
    "embedding-saved-and-token-trained",
    `"${both}" is in modulesToSave, which trains all of it, and in trainableTokenIndices. Remove it from one of them.`,
    { module: both },
  );
}

/** Several modules with tied weights: equal indices are trained once; different ones cannot be tied. */
function compareTied(
  config: ResolvedConfig,
  tree: ModuleTree,
  root: LiveModule,
  layers: Readonly<Record<string, readonly number[]>>,
  areTied: boolean,
): { skipped: ReadonlySet<string>; differ: boolean } {
  const names = Object.keys(layers);
  if (names.length < 2 || !areTied) return { skipped: new Set(), differ: false };
  const tied = namesTiedWithEmbedding(tree, root);
  const embedding = nameOfModule(root, inputEmbedding(tree, root)) ?? "";
  const affected = names.filter(
    (name) =>
      embedding.endsWith(name) ||
      tied.some((other) => other.endsWith(name) || other.split(".").includes(name)),
  );
  if (affected.length < 2) return { skipped: new Set(), differ: false };
  const [first, ...others] = affected.map((name) => JSON.stringify(layers[name]));
  const differ = others.some((indices) => indices !== first);
  if (differ && config.ensureWeightTying)
    throw failure(
      "inject",
      "ValueError",
      "weight-tying-conflict",
      `trainableTokenIndices differ between ${affected.join(", ")}, whose weights are tied. Use the same indices for ` +
        "all, or set ensureWeightTying to false.",
      { modules: affected },
    );
  return { skipped: new Set(differ ? [] : affected.filter((name) => tied.includes(name))), differ };
}
