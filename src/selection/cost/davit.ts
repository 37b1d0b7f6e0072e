import type { Flow } from "./flow.ts";
import { buffer, type Flowing, given } from "./flowing.ts";
import type { Stage, Tower } from "./layout.ts";
import type { Feed, Result } from "./passes.ts";
import { area, type Positions, type Size } from "./positions.ts";
import type { Unit } from "./units.ts";

/** Half of a block: two convolutions, an attention and an MLP. */
type Half = { readonly path: string; readonly isWindow: boolean; readonly part: (name: string) => Unit };

/**
 * Follows a batch of images through DaViT: convolutions that shrink the map, blocks of attention in windows and attention of
 * channels. Between rows of channels and maps of places the numbers are copied.
 * Source: Ding et al. 2022, "DaViT"; transformers Florence2VisionBackbone.
 */
export function runDavit(tower: Tower, flow: Flow, feed: Feed): Result {
  const positions = feed.positionsOf(tower);
  const pass = new DavitPass(tower, flow, feed, positions);
  let x = given;
  let lowest: string | undefined;
  for (const [i, stage] of tower.stages.entries()) {
    const before = x.isNeeded;
    const convolution = stage.units.length === 1 ? stage.units[0] : undefined;
    x = convolution ? pass.shrink(x, stage, convolution, i === 0) : pass.block(x, stage);
    if (x.isNeeded && !before) lowest = stage.name;
    if (!x.isNeeded) flow.markFrozen();
  }
  return { output: x, lowest, isCrossed: false };
}

class DavitPass {
  readonly #tower: Tower;
  readonly #flow: Flow;
  readonly #feed: Feed;
  readonly #positions: Positions;
  #stage = 0;
  #paths = 0;
  /** A norm's output in rows of channels, if what comes next is a norm again, behind a stage without blocks. */
  #rows: Flowing | undefined;

  constructor(tower: Tower, flow: Flow, feed: Feed, positions: Positions) {
    this.#tower = tower;
    this.#flow = flow;
    this.#feed = feed;
    this.#positions = positions;
  }

  /** The convolution before the blocks of a stage, with a norm over channels before or behind. */
  shrink(x: Flowing, { name, normWidth }: Stage, unit: Unit, isFirst: boolean): Flowing {
    const flow = this.#flow;
    const { before, after } = this.#maps(unit);
    const isBefore = unit.inputs === unit.outputs ? !isFirst : normWidth === unit.inputs;
    this.#stage = Number.parseInt(name.slice(name.lastIndexOf(".") + 1), 10);
    const normalise = (map: Flowing, size: Size, width: number): Flowing => {
      const elements = this.#elements(size, width);
      const rows = isBefore ? this.#rows : undefined;
      this.#rows = flow.norm(rows ?? copy(flow, map, elements), this.#feed.trainedOf(`${name}.norm`));
      return copy(flow, this.#rows, elements);
    };
    const convolve = (map: Flowing): Flowing =>
      flow.convolution(map, unit, this.#feed.examples, { before, after });
    if (!isBefore) return normalise(convolve(x), after, unit.outputs);
    const made = convolve(normalise(x, before, unit.inputs));
    this.#rows = undefined;
    return made;
  }

  block(x: Flowing, stage: Stage): Flowing {
    this.#rows = undefined;
    return halvesOf(stage).reduce((map, half) => this.#half(map, half), x);
  }

  #half(x: Flowing, { path, isWindow, part }: Half): Flowing {
    const flow = this.#flow;
    const { examples } = this.#feed;
    const maps = this.#maps(part("conv1"));
    const width = part("conv1").outputs;
    const rows = examples * area(maps.after);
    const elements = rows * width;
    const norm = (tokens: Flowing, name: string): Flowing =>
      flow.norm(tokens, this.#feed.trainedOf(`${path}.${name}`));

    const mixed = copy(
      flow,
      flow.add(x, flow.convolution(x, part("conv1"), examples, maps), elements),
      elements,
    );
    const attended = isWindow
      ? this.#windows(norm(mixed, "norm1"), part, maps.after)
      : this.#channels(norm(mixed, "norm1"), part, maps.after);
    const isDropped = this.#feed.dropsPaths && this.#paths++ > 0;
    const added = (made: Flowing): Flowing => (isDropped ? flow.dropPath(made) : made);
    const map = copy(flow, flow.add(mixed, added(attended), elements), elements);
    const again = copy(
      flow,
      flow.add(map, flow.convolution(map, part("conv2"), examples, maps), elements),
      elements,
    );
    const inner = flow.activation(flow.linear(norm(again, "norm2"), part("fc1"), rows));
    return copy(flow, flow.add(again, added(flow.linear(inner, part("fc2"), rows)), elements), elements);
  }

  /** Every place attends to those of its window; a map that windows do not divide is filled up. */
  #windows(x: Flowing, part: Half["part"], [height, width]: Size): Flowing {
    const flow = this.#flow;
    const { examples } = this.#feed;
    const channels = part("proj").outputs;
    const side = this.#feed.windowOf(this.#tower);
    const count = Math.ceil(height / side) * Math.ceil(width / side);
    const rows = examples * count * side * side;
    const qkv = flow.linear(copy(flow, x, rows * channels), part("qkv"), rows);
    const attended = flow.attention(all(qkv), {
      ...{ examples: examples * count, queries: side * side, keys: side * side, width: channels },
      ...{ keyWidth: channels, valueWidth: channels, hasHeadNorms: false, isFixed: true, angles: undefined },
      heads: this.#feed.stageHeadsOf(this.#tower, this.#stage, channels),
    });
    return flow.linear(attended, part("proj"), rows);
  }

  /** Every channel attends to those of its group, over all places. */
  #channels(x: Flowing, part: Half["part"], map: Size): Flowing {
    const flow = this.#flow;
    const { examples } = this.#feed;
    const channels = part("proj").outputs;
    const places = area(map);
    const groups = this.#feed.stageGroupsOf(this.#tower, this.#stage, channels);
    const qkv = flow.linear(x, part("qkv"), examples * places);
    const size = channels / groups;
    const attended = flow.attention(all(qkv), {
      ...{ examples, queries: size, keys: size, width: groups * places, keyWidth: groups * places },
      ...{
        valueWidth: groups * places,
        heads: groups,
        hasHeadNorms: false,
        isFixed: true,
        angles: undefined,
      },
    });
    // the values are multiplied with the weights' transpose
    if (qkv.isNeeded) flow.keep({ buffers: [buffer(examples * groups * size * size)] });
    return flow.linear(attended, part("proj"), examples * places);
  }

  #maps(unit: Unit): { before: Size; after: Size } {
    const places = this.#positions.of(unit);
    return this.#positions.mapsOf?.(unit) ?? { before: [places, 1], after: [places, 1] };
  }

  #elements(size: Size, width: number): number {
    return this.#feed.examples * area(size) * width;
  }
}

/** The same numbers in another order, in memory of their own. */
const copy = (flow: Flow, x: Flowing, elements: number): Flowing => flow.made([x], elements);

const all = (x: Flowing) => ({ q: x, k: x, v: x });

function halvesOf({ units }: Stage): Half[] {
  const halves = new Map<string, { isWindow: boolean; parts: Map<string, Unit> }>();
  for (const unit of units) {
    const [, path, inner, leaf] = /^(.*?)\.((?:window_attn|channel_attn|ffn)\.)?([^.]+)$/.exec(unit.name)!;
    const half = halves.get(path!) ?? { isWindow: false, parts: new Map<string, Unit>() };
    half.isWindow ||= inner === "window_attn.";
    half.parts.set(leaf!, unit);
    halves.set(path!, half);
  }
  return [...halves].map(([path, { isWindow, parts }]) => ({
    path,
    isWindow,
    part: (name) => parts.get(name)!,
  }));
}
