import { areCut, rowsAtOnce } from "../../keeping/label-chunks.ts";
import { parentOf } from "../python.ts";
import { type Account, newAccount, sumFlops } from "./account.ts";
import { runDavit } from "./davit.ts";
import type { AttentionShape, Flow } from "./flow.ts";
import { type Buffer, type Flowing, given } from "./flowing.ts";
import type { Layout, Stage, Tower } from "./layout.ts";
import { isSignal, type Positions } from "./positions.ts";
import { runProjector } from "./projector.ts";
import { isCrossAttention } from "./roles.ts";
import { type AttentionLayer, type MlpLayer, sublayersOf } from "./sublayers.ts";
import type { Unit } from "./units.ts";

/** What is fed to the model in one step. */
export type Feed = {
  readonly examples: number;
  /** Rows that the output head scores, of the whole batch. */
  readonly labels: number;
  positionsOf(tower: Tower): Positions;
  /** Heads of a tower's attention, of this width. */
  headsOf(tower: Tower, width: number): number;
  /** Cosines and sines by which a tower turns queries and keys, if it does. */
  anglesOf(tower: Tower): Buffer | undefined;
  /** Height and width of the windows of its attention; heads of a stage, and groups of its channels, which are so many. */
  windowOf(tower: Tower): number;
  stageHeadsOf(tower: Tower, stage: number, channels: number): number;
  stageGroupsOf(tower: Tower, stage: number, channels: number): number;
  /** Probabilities of a tower's own dropouts. */
  dropoutOf(tower: Tower): Dropouts;
  /** Whether DaViT leaves out paths at random, all but the first. */
  readonly dropsPaths: boolean;
  /** Attention and MLP of a layer read the same input. */
  readonly isParallel: boolean;
  /** Norms stand behind the sums, not before attention and MLP. */
  isPostNorm(tower: Tower): boolean;
  /** Something in the layer that is no product is trained: a norm, say. */
  isStageTrained(stage: Stage): boolean;
  /** What of a norm is trained. */
  trainedOf(name: string): "weight" | "bias" | undefined;
};

/** Probabilities of dropping hidden states, attention weights, activations. */
export type Dropouts = {
  readonly hidden: number;
  readonly attention: number;
  readonly activation: number;
};

/** What follows a tower. */
export type Result = {
  readonly output: Flowing;
  readonly lowest: string | undefined;
  readonly isCrossed: boolean;
};

/** What one tower costs. */
export type Pass = {
  readonly tower: Tower;
  readonly account: Account;
  /** The lowest layer that the backward pass reaches, or what stands outside of layers; undefined if it reaches none. */
  readonly lowest: string | undefined;
  /** Whether its input depends on something trained: the backward pass goes through all of it. */
  readonly isCrossed: boolean;
};

/** Where a tower's attention to another tower finds it. */
type Memory = { readonly output: Flowing; readonly count: number; readonly tower: Tower };

/** What a tower reads besides its own embeddings. */
type Sources = {
  readonly joins: readonly Flowing[];
  readonly memory: Memory | undefined;
  /** Embeds the input tokens. */
  readonly embedding: Unit | undefined;
  /** Whether of its output labelled rows alone are read. */
  readonly isScored: boolean;
};

/** Follows a batch through all towers: encoders before decoders, images before the text that speaks of them. */
export function passThrough(layout: Layout, flow: Flow, feed: Feed): Pass[] {
  const passes: Pass[] = [];
  let signals: Flowing[] = [];
  let memory: Memory | undefined;
  let last: Flowing | undefined;
  const order = inOrder(layout);
  for (const tower of order) {
    flow.account = newAccount();
    const joins = layout.head === undefined || crossAttends(tower) ? [] : signals;
    const { output, lowest, isCrossed } = run(tower);
    if (tower.kind === "projector") signals = [output];
    else if (isSignal(tower)) signals.push(output);
    memory = { output, tower, count: feed.positionsOf(tower).count ?? 1 };
    last = output;
    passes.push({ tower, account: flow.account, lowest, isCrossed });

    function run(one: Tower): Result {
      if (one.kind === "davit") return runDavit(one, flow, feed);
      if (one.kind === "layers")
        return runTower(
          one,
          {
            joins,
            memory,
            embedding: layout.embedding,
            isScored: layout.head !== undefined && one === order.at(-1),
          },
          flow,
          feed,
        );
      const map = feed.positionsOf(memory!.tower).map ?? [memory!.count, 1];
      return runProjector(one, { output: memory!.output, map }, flow, feed);
    }
  }
  if (layout.head !== undefined && last !== undefined) {
    const { head } = layout;
    flow.account = passes.at(-1)!.account;
    const normed = flow.norm(last);
    const rows = flow.labelled(normed, feed.labels * head.inputs, areCut(head.outputs));
    const logits = flow.linear(rows, head, feed.labels, "head", rowsAtOnce(feed.labels, head.outputs));
    if (logits.isNeeded) flow.keep(logits);
    flow.reads(logits);
    const final = passes.at(-1)!;
    if (logits.isNeeded && !last.isNeeded) passes[passes.length - 1] = { ...final, lowest: head.name };
  }
  return passes;
}

const crossAttends = ({ stages }: Tower): boolean =>
  stages[0]?.units.some(({ name }) => isCrossAttention(name)) ?? false;

function inOrder({ towers, head }: Layout): Tower[] {
  if (head === undefined && !towers.some(crossAttends)) return [...towers];
  const rank = (tower: Tower): number => (crossAttends(tower) ? 2 : isSignal(tower) ? 0 : 1);
  return towers.toSorted((a, b) => rank(a) - rank(b));
}

function runTower(tower: Tower, sources: Sources, flow: Flow, feed: Feed): Result {
  const { joins, memory } = sources;
  const positions = feed.positionsOf(tower);
  const rowsOf = (unit: Unit): number => feed.examples * positions.of(unit);
  const isJoined = joins.some(({ isNeeded }) => isNeeded);
  const isCrossed = isJoined || (crossAttends(tower) && memory?.output.isNeeded === true);
  let x = embed(tower, sources, flow, feed);
  let lowest = x.isNeeded ? (tower.stages[0]?.name ?? tower.path) : undefined;
  const account = flow.account;
  const angles = feed.anglesOf(tower);
  let done = 0;
  const isScored = sources.isScored && tower.tail.length === 0;
  for (const stage of tower.stages) {
    const before = x.isNeeded;
    const end = isScored && stage === tower.stages.at(-1) ? feed.labels / rowsOf(stage.units[0]!) : undefined;
    x = runStage(tower, stage, x, { memory, angles, share: end }, flow, feed);
    if (x.isNeeded && !before) lowest ??= stage.name;
    const total = sumFlops(account.forward);
    if (!x.isNeeded) account.frozenForward = total;
    done = total;
  }
  const isOnce = (unit: Unit): boolean => /pooler|classifier|_projection/.test(unit.name);
  if (tower.tail.length > 0) x = flow.norm(x);
  let width = tower.stages.at(-1)?.units.at(-1)?.outputs ?? 0;
  let merged = 1;
  for (const unit of tower.tail) {
    // several positions side by side, as Qwen2-VL merges patches
    if (unit.inputs > width && unit.inputs % width === 0) merged *= unit.inputs / width;
    width = unit.outputs;
    const rows = isOnce(unit) ? feed.examples : rowsOf(unit) / merged;
    const before = x.isNeeded;
    x = flow.linear(x, unit, rows);
    if (x.isNeeded && !before) lowest ??= unit.name;
  }
  if (!x.isNeeded) account.frozenForward = Math.max(done, sumFlops(account.forward));
  return { output: x, lowest, isCrossed };
}

/** What the first layer reads: tokens, positions, what other towers made, a norm of their sum. */
function embed(tower: Tower, { joins, embedding }: Sources, flow: Flow, feed: Feed): Flowing {
  const positions = feed.positionsOf(tower);
  const rowsOf = (unit: Unit): number => (isPositions(unit) ? 1 : feed.examples) * positions.of(unit);
  const isMerged = joins.length > 0 && embedding !== undefined && tower.front.includes(embedding);
  const hasOwnEmbedding = tower.front.some(({ name }) => name.startsWith(`${tower.path}.`));
  const isLeftOut = (unit: Unit): boolean => {
    if (unit.op !== "lookup") return false;
    // what is merged with images is embedded before the tower sees it
    if (isMerged) return unit !== embedding && unit.inputs === embedding.inputs && !isPositions(unit);
    // an embedding that towers share is executed under their own names for it
    return hasOwnEmbedding && !unit.name.startsWith(`${tower.path}.`);
  };
  let x = joins.length === 0 ? given : flow.made(joins, 0);
  for (const unit of tower.front) {
    if (isLeftOut(unit)) continue;
    if (unit.op === "lookup") {
      const made = flow.lookup(unit, rowsOf(unit));
      x = flow.add(x, made, feed.examples * positions.of(unit) * unit.outputs);
    } else {
      const maps = positions.mapsOf?.(unit);
      x = maps ? flow.convolution(x, unit, feed.examples, maps) : flow.linear(x, unit, rowsOf(unit));
    }
  }
  const places = feed.examples * (positions.count ?? 0);
  // which token is an image's, and which of its features
  if (isMerged && x.isNeeded) flow.keep({ buffers: [{ bytes: 9 * places, isKept: false }] });
  const [norm] = tower.frontNorms;
  if (norm !== undefined) {
    x = flow.norm(x, feed.trainedOf(norm));
    x = flow.drop(x, feed.dropoutOf(tower).hidden, places * widthOfTower(tower));
  }
  return x;
}

const isPositions = ({ op, name }: Unit): boolean => op === "lookup" && /position/i.test(name);

const widthOfTower = ({ stages }: Tower): number => stages[0]?.units[0]?.inputs ?? 0;

type StageContext = {
  readonly memory: Memory | undefined;
  readonly angles: Buffer | undefined;
  /** Of the rows of its output, those that are read, where that is not all. */
  readonly share: number | undefined;
};

function runStage(
  tower: Tower,
  stage: Stage,
  input: Flowing,
  { memory, angles, share }: StageContext,
  flow: Flow,
  feed: Feed,
): Flowing {
  const positions = feed.positionsOf(tower);
  const rowsOf = (unit: Unit): number => feed.examples * positions.of(unit);
  let x = input;
  if (feed.isStageTrained(stage) && !feed.isPostNorm(tower)) {
    flow.reads(input);
    x = { ...input, isNeeded: true, frozen: undefined };
  }
  let beside = x;
  const sublayers = sublayersOf(stage);
  const mixing = sublayers.findLast(({ kind }) => kind !== "mlp");
  const heads = { hasHeadNorms: stage.hasHeadNorms, angles };
  const attended = (layer: AttentionLayer, read: Flowing): Flowing =>
    attend(tower, layer, read, { memory, heads, share: layer === mixing ? share : undefined }, flow, feed);
  for (const sublayer of sublayers) {
    if (sublayer.kind === "chain") {
      const { unit } = sublayer;
      if (unit.op === "lookup") continue; // position biases
      const maps = positions.mapsOf?.(unit);
      const made = maps ? flow.convolution(x, unit, feed.examples, maps) : flow.linear(x, unit, rowsOf(unit));
      x = flow.activation(made);
      continue;
    }
    if (feed.isPostNorm(tower)) {
      x = behind(sublayer, x);
      continue;
    }
    const isBeside = sublayer.kind === "mlp" && sublayer.isBeside;
    if (!isBeside && !(feed.isParallel && sublayer.kind === "mlp")) beside = x;
    const n = flow.norm(beside);
    const output =
      sublayer.kind === "attention" ? attended(sublayer, n) : transform(sublayer, n, flow, rowsOf);
    const width = widthOf(sublayer);
    x = flow.add(x, output, feed.examples * positions.of(stage.units[0]!) * width);
  }
  return x;

  /** norm(x + f x) */
  function behind(sublayer: AttentionLayer | MlpLayer, read: Flowing): Flowing {
    const { hidden, activation } = feed.dropoutOf(tower);
    const elements = feed.examples * positions.of(stage.units[0]!) * widthOf(sublayer);
    const made =
      sublayer.kind === "attention"
        ? attended(sublayer, read)
        : transform(sublayer, read, flow, rowsOf, activation);
    const sum = flow.add(read, flow.drop(made, hidden, elements), elements);
    return flow.norm(sum, feed.trainedOf(normBehind(sublayer)));
  }
}

/** The norm behind a sublayer, by the names of BART's. */
function normBehind(sublayer: AttentionLayer | MlpLayer): string {
  const { name } = Object.values(sublayer.parts)[0]!;
  return sublayer.kind === "attention"
    ? `${parentOf(name)}_layer_norm`
    : `${parentOf(name)}.final_layer_norm`;
}

/** Of what a sublayer adds to the residual. */
function widthOf(sublayer: AttentionLayer | MlpLayer): number {
  if (sublayer.kind === "mlp") {
    const { down, gate, in: first, gateUp, router } = sublayer.parts;
    return down?.outputs ?? (gate ?? first ?? gateUp ?? router)?.inputs ?? 0;
  }
  const { o, q, qkv, qDown } = sublayer.parts;
  return o?.outputs ?? (qDown ?? q ?? qkv)?.inputs ?? 0;
}

type AttentionContext = {
  readonly memory: Memory | undefined;
  readonly heads: Pick<AttentionShape, "hasHeadNorms" | "angles">;
  /** Of the rows of its output, those that are read, where that is not all. */
  readonly share: number | undefined;
};

function attend(
  tower: Tower,
  { parts, isCross }: AttentionLayer,
  n: Flowing,
  { memory, heads, share }: AttentionContext,
  flow: Flow,
  feed: Feed,
): Flowing {
  const { examples } = feed;
  const first = (parts.q ?? parts.qkv)!;
  const queries = feed.positionsOf(tower).of(first);
  const source = isCross && memory !== undefined ? memory.output : n;
  const sourceCount = isCross && memory !== undefined ? memory.count : queries;
  const rows = examples * queries;
  const sourceRows = examples * sourceCount;
  const run = (x: Flowing, unit: Unit | undefined, count: number): Flowing =>
    unit === undefined ? x : flow.linear(x, unit, count);
  let [q, k, v]: Flowing[] = [];
  if (parts.qkv !== undefined) q = k = v = flow.linear(n, parts.qkv, rows);
  else {
    q = run(normed(run(n, parts.qDown, rows), parts.qDown, flow), parts.q, rows);
    const narrow = normed(run(source, parts.kvDown, sourceRows), parts.kvDown, flow);
    if (parts.kv !== undefined) k = v = flow.linear(narrow, parts.kv, sourceRows);
    else {
      k = flow.linear(narrow, parts.k!, sourceRows);
      v = flow.linear(narrow, parts.v!, sourceRows);
    }
  }
  const valueWidth = parts.o?.inputs ?? parts.v?.outputs ?? first.outputs;
  const width = parts.q?.outputs ?? valueWidth;
  const keyWidth =
    parts.k?.outputs ?? Math.min(width, parts.qkv === undefined ? width : (parts.qkv.outputs - width) / 2);
  const shape: AttentionShape = {
    ...{ examples, queries, width, valueWidth, keyWidth },
    keys: sourceCount,
    heads: feed.headsOf(tower, width),
    dropout: feed.dropoutOf(tower).attention,
    ...heads,
  };
  const attended = flow.attention({ q: q!, k: k!, v: v! }, shape);
  if (share !== undefined) flow.chooseRows(share);
  return run(attended, parts.o, rows);
}

/** A narrow layer is followed by a norm, where there is one. */
const normed = (x: Flowing, unit: Unit | undefined, flow: Flow): Flowing =>
  unit === undefined ? x : flow.norm(x);

function transform(
  { parts }: MlpLayer,
  n: Flowing,
  flow: Flow,
  rowsOf: (unit: Unit) => number,
  dropout = 0,
): Flowing {
  const run = (x: Flowing, unit: Unit): Flowing => flow.linear(x, unit, rowsOf(unit));
  const routed = parts.router && run(n, parts.router);
  let inner = n;
  if (parts.gate !== undefined && parts.up !== undefined)
    inner = flow.gated(run(n, parts.gate), run(n, parts.up));
  else {
    const first = parts.gateUp ?? parts.in ?? parts.gate ?? parts.up;
    if (first !== undefined) {
      const activated = flow.activation(run(n, first));
      inner = flow.drop(activated, dropout, rowsOf(first) * first.outputs);
    }
  }
  const output = parts.down === undefined ? inner : run(inner, parts.down);
  if (!routed?.isNeeded) return output;
  flow.reads(output);
  return { ...output, isNeeded: true, frozen: undefined };
}
