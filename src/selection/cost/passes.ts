import {
  type Account,
  type AttentionShape,
  type Buffer,
  type Flow,
  type Flowing,
  fresh,
  newAccount,
  sumFlops,
} from "./flow.ts";
import type { Layout, Stage, Tower } from "./layout.ts";
import { isSignal, type Positions } from "./positions.ts";
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
  /** Attention and MLP of a layer read the same input. */
  readonly isParallel: boolean;
  /** Something in the layer that is no product is trained: a norm, say. */
  isStageTrained(stage: Stage): boolean;
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
type Memory = { readonly output: Flowing; readonly count: number };

/** Follows a batch through all towers: encoders before decoders, images before the text that speaks of them. */
export function passThrough(layout: Layout, flow: Flow, feed: Feed): Pass[] {
  const passes: Pass[] = [];
  const signals: Flowing[] = [];
  let memory: Memory | undefined;
  let last: Flowing | undefined;
  for (const tower of inOrder(layout)) {
    flow.account = newAccount();
    const joins = layout.head === undefined || crossAttends(tower) ? [] : signals;
    const { output, lowest, isCrossed } = runTower(tower, joins, memory, flow, feed);
    if (isSignal(tower)) signals.push(output);
    memory = { output, count: feed.positionsOf(tower).count ?? 1 };
    last = output;
    passes.push({ tower, account: flow.account, lowest, isCrossed });
  }
  if (layout.head !== undefined && last !== undefined) {
    const { head } = layout;
    flow.account = passes.at(-1)!.account;
    flow.norm(last);
    const rows = fresh(last.isNeeded, feed.labels * head.inputs);
    const logits = flow.linear(rows, head, feed.labels, "head");
    if (logits.isNeeded) flow.keep(logits);
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

function runTower(
  tower: Tower,
  joins: readonly Flowing[],
  memory: Memory | undefined,
  flow: Flow,
  feed: Feed,
): { output: Flowing; lowest: string | undefined; isCrossed: boolean } {
  const positions = feed.positionsOf(tower);
  const rowsOf = (unit: Unit): number => feed.examples * positions.of(unit);
  const hasOwnEmbedding = tower.front.some(({ name }) => name.startsWith(`${tower.path}.`));
  let x: Flowing = { isNeeded: joins.some(({ isNeeded }) => isNeeded), buffers: [] };
  const isCrossed = x.isNeeded || (crossAttends(tower) && memory?.output.isNeeded === true);
  for (const unit of tower.front) {
    // an embedding that towers share is executed under their own names for it
    if (unit.op === "lookup" && hasOwnEmbedding && !unit.name.startsWith(`${tower.path}.`)) continue;
    const made = unit.op === "lookup" ? flow.lookup(unit, rowsOf(unit)) : flow.linear(x, unit, rowsOf(unit));
    x = unit.op === "lookup" ? flow.add(x, made, rowsOf(unit) * unit.outputs) : made;
  }
  let lowest = x.isNeeded ? (tower.stages[0]?.name ?? tower.path) : undefined;
  const account = flow.account;
  const angles = feed.anglesOf(tower);
  let done = 0;
  for (const stage of tower.stages) {
    const before = x.isNeeded;
    x = runStage(tower, stage, x, memory, flow, feed, angles);
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

function runStage(
  tower: Tower,
  stage: Stage,
  input: Flowing,
  memory: Memory | undefined,
  flow: Flow,
  feed: Feed,
  angles: Buffer | undefined,
): Flowing {
  const positions = feed.positionsOf(tower);
  const rowsOf = (unit: Unit): number => feed.examples * positions.of(unit);
  let x: Flowing = feed.isStageTrained(stage) ? { ...input, isNeeded: true } : input;
  let beside = x;
  for (const sublayer of sublayersOf(stage)) {
    if (sublayer.kind === "chain") {
      const { unit } = sublayer;
      if (unit.op === "lookup") continue; // position biases
      x = flow.activation(flow.linear(x, unit, rowsOf(unit)));
      continue;
    }
    const isBeside = sublayer.kind === "mlp" && sublayer.isBeside;
    if (!isBeside && !(feed.isParallel && sublayer.kind === "mlp")) beside = x;
    const n = flow.norm(beside);
    const output =
      sublayer.kind === "attention"
        ? attend(tower, sublayer, n, memory, flow, feed, { hasHeadNorms: stage.hasHeadNorms, angles })
        : transform(sublayer, n, flow, rowsOf);
    const width = widthOf(sublayer);
    x = flow.add(x, output, feed.examples * positions.of(stage.units[0]!) * width);
  }
  return x;
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

function attend(
  tower: Tower,
  { parts, isCross }: AttentionLayer,
  n: Flowing,
  memory: Memory | undefined,
  flow: Flow,
  feed: Feed,
  heads: Pick<AttentionShape, "hasHeadNorms" | "angles">,
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
    keys: Math.min(sourceCount, reach(first.name)),
    heads: feed.headsOf(tower, width),
    ...heads,
  };
  const attended = flow.attention({ q: q!.isNeeded, k: k!.isNeeded, v: v!.isNeeded }, shape);
  return run(attended, parts.o, rows);
}

/** A narrow layer is followed by a norm, where there is one. */
const normed = (x: Flowing, unit: Unit | undefined, flow: Flow): Flowing =>
  unit === undefined ? x : flow.norm(x);

/** Keys that a query sees at most: the windows (12 × 12) and the groups of channels (32) of DaViT. */
function reach(name: string): number {
  if (/window/.test(name)) return 144;
  return /channel/.test(name) ? 32 : Number.POSITIVE_INFINITY;
}

function transform({ parts }: MlpLayer, n: Flowing, flow: Flow, rowsOf: (unit: Unit) => number): Flowing {
  const run = (x: Flowing, unit: Unit): Flowing => flow.linear(x, unit, rowsOf(unit));
  const routed = parts.router && run(n, parts.router);
  let inner = n;
  if (parts.gate !== undefined && parts.up !== undefined)
    inner = flow.gated(run(n, parts.gate), run(n, parts.up));
  else {
    const first = parts.gateUp ?? parts.in ?? parts.gate ?? parts.up;
    if (first !== undefined) inner = flow.activation(run(n, first));
  }
  const output = parts.down === undefined ? inner : run(inner, parts.down);
  return routed?.isNeeded ? { ...output, isNeeded: true } : output;
}
