import { parentOf } from "../python.ts";
import type { ModuleInfo, ModuleTree } from "../tree.ts";
import { isWeight, pooling, stackedUnit, type Unit, unitFor } from "./units.ts";

/** One layer of a tower: an item of its numbered list. */
export type Stage = {
  readonly name: string;
  readonly units: Unit[];
  /** Queries and keys are normalised, head by head. */
  hasHeadNorms: boolean;
  /** Width of its first norm. */
  normWidth?: number;
};

/**
 * How a tower is executed: layers as most models have them, DaViT's convolutions and blocks, or the projector that makes
 * tokens of what comes out of them.
 */
export type TowerKind = "layers" | "davit" | "projector";

/** A stack of layers with what comes before and after it. */
export type Tower = {
  readonly kind: TowerKind;
  /** Parent of the lists: `model.encoder`. */
  readonly path: string;
  /** Place of its first layer among the modules. */
  readonly start: number;
  readonly front: Unit[];
  readonly stages: Stage[];
  readonly tail: Unit[];
  /** Positions that its learned position embedding has. */
  positions?: number;
  /** Norms of its embeddings, before the first layer. */
  readonly frontNorms: string[];
};

/** What a model executes, as far as its names and shapes tell. */
export type Layout = {
  readonly towers: readonly Tower[];
  /** Scores the output tokens. */
  readonly head: Unit | undefined;
  /** Embeds the input tokens. */
  readonly embedding: Unit | undefined;
  readonly units: readonly Unit[];
  /** Unit of each module of the tree, -1 where it has none. */
  readonly unitOf: Int32Array;
  /** Unit of a parameter that adapters can target, by full name. */
  readonly parameterUnits: ReadonlyMap<string, Unit>;
  /** Stage of each module, by place in `stages`; -1 outside. */
  readonly stageOf: Int32Array;
  readonly stages: readonly Stage[];
  /** Positions enter as rotations of queries and keys. */
  readonly isRotary: boolean;
};

type Outside = { readonly index: number; readonly unit: Unit };

/** Finds out what a model executes, in one pass over its modules. */
export function layOut(tree: ModuleTree): Layout {
  const { modules } = tree;
  const count = modules.length;
  const parent = new Int32Array(count).fill(-1);
  const stageOf = new Int32Array(count).fill(-1);
  const unitOf = new Int32Array(count).fill(-1);
  const units: Unit[] = [];
  const stages: Stage[] = [];
  const towers = new Map<string, Tower>();
  const parameterUnits = new Map<string, Unit>();
  const outside: Outside[] = [];
  const frontNorms: number[] = [];
  const positions: { readonly index: number; readonly rows: number }[] = [];
  let head: Unit | undefined;
  let embedding: Unit | undefined;
  let isRotary = false;

  const add = (unit: Omit<Unit, "id">): Unit => {
    const made = { ...unit, id: units.length };
    units.push(made);
    return made;
  };
  const place = (index: number, unit: Unit): void => {
    const stage = stageOf[index]!;
    if (stage === -1) outside.push({ index, unit });
    else stages[stage]!.units.push(unit);
  };

  for (let index = 0, holder = 0; index < count; index++) {
    const module = modules[index]!;
    const { name } = module;
    if (index > 0) {
      while (holder > 0 && !isInside(name, modules[holder]!.name)) holder = parent[holder]!;
      parent[index] = holder;
      stageOf[index] = stageOf[holder]!;
      const start = modules[holder]!.name === "" ? 0 : modules[holder]!.name.length + 1;
      if (isNumber(name, start)) {
        const list = modules[holder]!.name;
        if (stageOf[index] === -1) {
          // a list in a list: its items are the layers
          if (isParent(modules, index) && module.kind !== "modulelist")
            stageOf[index] = openStage(name, list, index);
        } else if (/expert[^.]*$/i.test(list)) {
          index = foldExperts(index, holder) - 1;
          continue;
        }
      }
      holder = index;
    }
    addUnits(module, index);
  }

  function openStage(name: string, list: string, index: number): number {
    const path = parentOf(list.replace(/(?:\.\d+)+$/, ""));
    let tower = towers.get(path);
    if (tower === undefined) {
      tower = { kind: "layers", path, start: index, front: [], stages: [], tail: [], frontNorms: [] };
      towers.set(path, tower);
    }
    const stage: Stage = { name, units: [], hasHeadNorms: false };
    tower.stages.push(stage);
    return stages.push(stage) - 1;
  }

  function addUnits(module: ModuleInfo, index: number): void {
    const { name, parameters } = module;
    if (stageOf[index] === -1) {
      isRotary ||= module.className.includes("Rotary");
      if (module.kind === "norm" && /embed/i.test(name)) frontNorms.push(index);
    } else if (module.kind === "norm") stages[stageOf[index]!]!.normWidth ??= parameters[0]?.[1][0] ?? 0;
    if (
      stageOf[index] !== -1 &&
      module.kind === "norm" &&
      /\.(?:q|k)(?:uery|ey)?_(?:layer_?)?norm$/.test(name)
    )
      stages[stageOf[index]!]!.hasHeadNorms = true;
    if (module.className === "MaxPool2d" && stageOf[index] === -1) place(index, add(pooling(name)));
    const unit = module.in === null ? undefined : unitFor(module);
    if (unit !== undefined) {
      const made = add(unit);
      unitOf[index] = made.id;
      if (name === tree.outputEmbeddings) head = made;
      else place(index, made);
      if (name === tree.inputEmbeddings) embedding = made;
      if (unit.op === "lookup" && /position/i.test(name)) positions.push({ index, rows: unit.inputs });
      return;
    }
    for (const [own, shape] of parameters) {
      if (/^pos(ition)?_emb/.test(own)) positions.push({ index, rows: shape.at(-2) ?? 0 });
      else if (stageOf[index] !== -1 && isWeight(own, shape, module)) {
        const made = add(stackedUnit(name, own, shape, module));
        parameterUnits.set(`${name}.${own}`, made);
        place(index, made);
      }
    }
  }

  /** Takes the experts from `start` on: those that are like the first are counted with it. Returns where they end. */
  function foldExperts(start: number, holder: number): number {
    const list = modules[holder]!.name;
    const first = modules[start]!.name;
    let size = 1;
    while (start + size < count && isInside(modules[start + size]!.name, first)) size++;
    const tails: string[] = [];
    const kinds: (Unit | undefined)[] = [];
    for (let i = 0; i < size; i++) {
      const module = modules[start + i]!;
      const made = unitFor(module);
      tails.push(module.name.slice(first.length));
      kinds.push(made === undefined ? undefined : add(made));
      if (kinds[i] !== undefined) place(holder, kinds[i]!);
    }
    let index = start;
    let lengths = 0;
    let experts = 0;
    for (; index < count; index += size) {
      const { name } = modules[index]!;
      if (!isInside(name, list) || !isLike(index, name.length)) break;
      for (let i = 0; i < size; i++) {
        stageOf[index + i] = stageOf[holder]!;
        const kind = kinds[i];
        if (kind !== undefined) unitOf[index + i] = kind.id;
      }
      experts++;
      lengths += name.length;
    }
    kinds.forEach((kind, i) => {
      if (kind === undefined) return;
      kind.experts = experts;
      kind.nameLength = lengths + experts * tails[i]!.length;
    });
    return index;

    function isLike(at: number, length: number): boolean {
      for (let i = 0; i < size; i++) {
        const module = modules[at + i];
        const tail = tails[i]!;
        if (module === undefined || module.name.length !== length + tail.length) return false;
        if (!module.name.endsWith(tail)) return false;
        if (module.in !== modules[start + i]!.in || module.out !== modules[start + i]!.out) return false;
      }
      return true;
    }
  }

  const ordered = withProjector([...towers.values()].map(interleave), outside);
  // a model without layers is one layer of what it has
  if (ordered.length === 0)
    return {
      ...{ head, embedding, units, unitOf, parameterUnits, stageOf, stages, isRotary },
      towers: [
        {
          kind: "layers",
          path: "",
          start: 0,
          front: [],
          stages: [{ name: "", units: outside.map(({ unit }) => unit), hasHeadNorms: false }],
          tail: [],
          frontNorms: [],
        },
      ],
    };
  for (const { index, unit } of outside) placeOutside(ordered, modules[index]!.name, index, unit);
  for (const index of frontNorms) {
    const { name } = modules[index]!;
    towerFor(ordered, name, index, true)?.frontNorms.push(name);
  }
  for (const { index, rows } of positions) {
    const tower = towerFor(ordered, modules[index]!.name, index, true);
    if (tower !== undefined && rows > 0) tower.positions ??= rows;
  }
  return { towers: ordered, head, embedding, units, unitOf, parameterUnits, stageOf, stages, isRotary };
}

/** DaViT lists the convolutions between its stages by themselves: each is executed before the blocks of its number. */
function interleave(tower: Tower): Tower {
  const { stages, path } = tower;
  if (stages.length === 0 || !stages.every(isDavitStage)) return inTurn(tower);
  const start = path === "" ? 0 : path.length + 1;
  const place = ({ name }: Stage): number => Number.parseInt(name.slice(start).split(".")[1]!, 10);
  const isBlock = ({ units }: Stage): number => Number(units.length > 1);
  // in its place among others of its number each stays
  return {
    ...tower,
    kind: "davit",
    stages: stages.toSorted((a, b) => place(a) - place(b) || isBlock(a) - isBlock(b)),
  };
}

/** Names of what is in half of a block of DaViT, behind those of the block and its half. */
const davitHalf =
  /^(?:spatial|channel)_block\.(?:conv[12]|(?:window|channel)_attn\.(?:qkv|proj)|ffn\.fc[12])$/;

/** A convolution between DaViT's stages, or a block with two halves as transformers names what is in them. */
const isDavitStage = ({ name, units }: Stage): boolean =>
  /^convs\.\d+$/.test(name.split(".").slice(-2).join("."))
    ? units.length === 1 && units[0]!.convolution?.kernel.length === 2
    : units.length === 12 && units.every((unit) => davitHalf.test(unit.name.slice(name.length + 1)));

/** Convolutions listed by themselves, in other names, each before the layers of its number. */
function inTurn(tower: Tower): Tower {
  const { stages } = tower;
  const list = parentOf(stages[0]!.name);
  const first = stages.filter(({ name }) => parentOf(name) === list);
  const second = stages.filter(({ name }) => parentOf(name) !== list);
  const isInterleaved =
    first.length === second.length && first.every(({ units }) => units[0]?.convolution !== undefined);
  return isInterleaved ? { ...tower, stages: first.flatMap((stage, i) => [stage, second[i]!]) } : tower;
}

/** DaViT's maps become tokens in a module of its own, which is executed after it. */
function withProjector(towers: Tower[], outside: readonly Outside[]): Tower[] {
  const davit = towers.findIndex(({ kind }) => kind === "davit");
  const first = outside.find(({ unit }) => /(?:^|\.)multi_modal_projector\./.test(unit.name));
  if (davit === -1 || first === undefined) return towers;
  const path = first.unit.name.replace(/(multi_modal_projector)\..*$/, "$1");
  const projector: Tower = {
    ...{ kind: "projector", path, start: first.index, front: [], stages: [], tail: [], frontNorms: [] },
  };
  return towers.toSpliced(davit + 1, 0, projector);
}

const isInside = (name: string, container: string): boolean =>
  container === "" ||
  (name.length > container.length && name.charCodeAt(container.length) === 46 && name.startsWith(container));

function isNumber(name: string, start: number): boolean {
  for (let i = start; i < name.length; i++) {
    const code = name.charCodeAt(i);
    if (code < 48 || code > 57) return false;
  }
  return name.length > start;
}

const isParent = (modules: readonly ModuleInfo[], index: number): boolean =>
  index + 1 < modules.length && isInside(modules[index + 1]!.name, modules[index]!.name);

/** The tower that something outside the layers belongs to: the one around it, else the one before it, else the one after. */
function towerFor(
  towers: readonly Tower[],
  name: string,
  index: number,
  isFront: boolean,
): Tower | undefined {
  let around: Tower | undefined;
  let before: Tower | undefined;
  let after: Tower | undefined;
  for (const tower of towers) {
    const { path, start } = tower;
    if (path !== "" && name.startsWith(`${path}.`) && path.length > (around?.path.length ?? -1))
      around = tower;
    if (start < index) before = tower;
    else after ??= tower;
  }
  return around ?? (isFront ? (after ?? before) : (before ?? after));
}

function placeOutside(towers: readonly Tower[], name: string, index: number, unit: Unit): void {
  // what tells two towers apart is also in the name of their projections, which stand behind both
  const named = towers.length > 1 ? /^(text|visual|vision|image)_/.exec(name)?.[1] : undefined;
  const kin = named && towers.find(({ path }) => path.startsWith(named === "text" ? "text" : "vi"));
  const tower = kin || towerFor(towers, name, index, unit.op === "lookup");
  if (tower === undefined) return;
  (index < tower.start || unit.op === "lookup" ? tower.front : tower.tail).push(unit);
}
