import type { ModuleInfo, NamedShape } from "../tree.ts";
import { contextOf, groupsOf, guess } from "./kinds.ts";
import { compareNumbers, compareUsual, isAlphabetical, sortNumbered } from "./order.ts";
import { isQuantizationState, OwnTensors, quantizationNames, quantizedLinear } from "./quantized.ts";
import type { RawConfig, TensorInfo } from "./types.ts";

/** A module while the tree is being built. */
type Node = {
  readonly path: string;
  readonly leaf: string;
  readonly own: OwnTensors;
  children: Node[];
  byLeaf: Map<string, Node> | undefined;
  hasQuantizationState: boolean;
  isRouter: boolean;
};

export type Grown = {
  readonly modules: ModuleInfo[];
  /** Methods of quantisation found, and modules whose shape could not be found out. */
  readonly quantization: ReadonlyMap<string, number>;
  readonly unknownShapes: readonly string[];
};

/** The modules that hold these tensors, with their parents, in an order that a model could have. */
export function growModules(tensors: readonly TensorInfo[], config: RawConfig, rootClass: string): Grown {
  const nodes = plant(tensors);
  const context = contextOf(nodes, config);
  const compare = isAlphabetical(tensors) ? compareUsual : compareNumbers;
  const modules: ModuleInfo[] = [];
  const quantization = new Map<string, number>();
  const unknownShapes: string[] = [];
  const visit = (node: Node): void => {
    const { path, own, children, hasQuantizationState } = node;
    const at = modules.length;
    modules.push(undefined as unknown as ModuleInfo); // replaced below: its kind depends on its children
    if (children.length > 1 && !sortNumbered(children)) children.sort((a, b) => compare(a.leaf, b.leaf));
    if (children.length > 1 && children.some(hasStackedExperts)) markRouter(children, config);
    for (const child of children) visit(child);
    if (path === "") {
      modules[at] = {
        ...guess(path, node.leaf, own, context),
        name: path,
        className: rootClass,
        kind: "module",
        in: null,
        out: null,
      };
      return;
    }
    const packed = mayBeQuantized(own, hasQuantizationState)
      ? quantizedLinear(path, own, hasQuantizationState, config)
      : undefined;
    if (node.isRouter) {
      const parameters = shapesOf(own);
      modules[at] = {
        ...empty(path, "TopKRouter"),
        parameters: parameters.filter(([leaf]) => isRouted.test(leaf)),
      };
      return;
    }
    if (packed !== undefined) {
      const [out, inputs] = packed.shape ?? [null, null];
      const { parameters, method, shape } = packed;
      modules[at] = { name: path, className: "Linear", kind: "linear", in: inputs, out, parameters };
      quantization.set(method, (quantization.get(method) ?? 0) + 1);
      if (shape === undefined) unknownShapes.push(path);
      return;
    }
    modules[at] = own.size > 0 ? guess(path, node.leaf, own, context) : container(node);
    const parametrized = children.length > 0 ? parametrization(node, config) : undefined;
    if (parametrized !== undefined) modules[at] = parametrized;
    if (node.leaf === "weight" && own.has("original0")) {
      // The list of parametrizations of one tensor, and the weight norm that is its only item.
      modules[at] = { ...modules[at]!, className: "ParametrizationList", kind: "modulelist" };
      modules.push({ ...empty(`${path}.0`, "_WeightNorm"), kind: "norm" });
    } else if (node.leaf === "parametrizations")
      modules[at] = { ...empty(path, "ModuleDict"), kind: "moduledict" };
  };
  visit(nodes[0]!);
  return { modules, quantization, unknownShapes };
}

/** All modules, parents before children. */
function plant(tensors: readonly TensorInfo[]): Node[] {
  const nodes: Node[] = [];
  const root = newNode("", "");
  nodes.push(root);
  // Where the last tensor was, from the root: the next one is nearly always near.
  const open = [root];
  const nodeAt = (name: string, length: number): Node => {
    let top = open.at(-1)!;
    while (top !== root && !isBelow(name, length, top.path)) {
      open.pop();
      top = open.at(-1)!;
    }
    for (let start = top === root ? 0 : top.path.length + 1; start <= length; ) {
      const dot = name.indexOf(".", start);
      const end = dot === -1 || dot > length ? length : dot;
      const leaf = name.slice(start, end);
      start = end + 1;
      if (end === 0) continue; // a name that begins with a dot belongs to the root
      let child = childOf(top, leaf);
      if (child === undefined) {
        child = newNode(name.slice(0, end), leaf);
        nodes.push(child);
        if (top.children === none) top.children = [child];
        else top.children.push(child);
        top.byLeaf?.set(leaf, child);
      }
      open.push(child);
      top = child;
    }
    return top;
  };
  for (const tensor of tensors) {
    const { name } = tensor;
    if (name.endsWith(".weight")) {
      // nearly all
      const length = name.length - ".weight".length;
      (length === 0 ? root : nodeAt(name, length)).own.add("weight", tensor);
      continue;
    }
    if (name.includes(".weight.") && isQuantizationState(name)) {
      nodeAt(name, name.lastIndexOf(".weight.")).hasQuantizationState = true;
      continue;
    }
    const dot = name.lastIndexOf(".");
    (dot <= 0 ? root : nodeAt(name, dot)).own.add(name.slice(dot + 1), tensor);
  }
  return nodes;
}

/** Whether `path` is the first `length` characters of the name, or part of them up to a dot. */
const isBelow = (name: string, length: number, path: string): boolean =>
  path.length <= length && name.charCodeAt(path.length) === 0x2e && name.startsWith(path);

/** Most modules have no children; they share this. */
const none: Node[] = [];

const newNode = (path: string, leaf: string): Node => ({
  path,
  leaf,
  own: new OwnTensors(),
  children: none,
  byLeaf: undefined,
  hasQuantizationState: false,
  isRouter: false,
});

/** More children than this are looked up in a map. */
const few = 8;

function childOf(node: Node, leaf: string): Node | undefined {
  const { children } = node;
  if (children.length <= few) return children.find((child) => child.leaf === leaf);
  node.byLeaf ??= new Map(children.map((child) => [child.leaf, child]));
  return node.byLeaf.get(leaf);
}

function mayBeQuantized(own: OwnTensors, hasState: boolean): boolean {
  if (hasState) return true;
  for (let i = 0; i < own.size; i++) {
    const name = own.name(i);
    if (name === "weight" ? own.tensor(i).dtype === "uint8" : quantizationNames.has(name)) return true;
  }
  return false;
}

const hasStackedExperts = ({ leaf, own }: Node): boolean =>
  leaf === "experts" && (own.has("gate_up_proj") || own.has("up_proj"));

const isRouted = /^(?:weight|bias)$/;

/** Beside stacked experts, transformers' router is a class of its own, not a linear layer; Jamba's is one. */
function markRouter(siblings: readonly Node[], config: RawConfig): void {
  if (config["model_type"] === "jamba") return;
  for (const node of siblings)
    if ((node.leaf === "gate" || node.leaf === "router") && node.own.get("weight")?.shape.length === 2)
      node.isRouter = true;
}

const shapesOf = (own: OwnTensors): NamedShape[] =>
  Array.from({ length: own.size }, (_, i) => [own.name(i), own.tensor(i).shape]);

const digits = /^(?:0|[1-9]\d*)$/;

/** A module without tensors of its own: a list if all that it has is numbered. */
function container({ path, children }: Node): ModuleInfo {
  const isList = children.length > 0 && children.every(({ leaf }) => digits.test(leaf));
  return isList ? { ...empty(path, "ModuleList"), kind: "modulelist" } : empty(path, "Module");
}

/** A convolution or linear layer whose weight is computed from parts, as weight norm does. */
function parametrization(node: Node, config: RawConfig): ModuleInfo | undefined {
  const list = node.children
    .find(({ leaf }) => leaf === "parametrizations")
    ?.children.find(({ leaf }) => leaf === "weight");
  const shape = list?.own.get("original1")?.shape;
  if (shape === undefined || shape.length < 2 || shape.length > 5) return undefined;
  const [out, width, ...kernel] = shape as [number, number, ...number[]];
  const parameters = shapesOf(node.own);
  if (kernel.length === 0)
    return { ...empty(node.path, "ParametrizedLinear"), kind: "linear", in: width, out, parameters };
  const groups = groupsOf(node.path, shape, config);
  return {
    name: node.path,
    className: `ParametrizedConv${kernel.length}d`,
    kind: `conv${kernel.length as 1 | 2 | 3}d`,
    in: width * groups,
    out,
    parameters,
    extra: { kernelSize: kernel, groups },
  };
}

const empty = (name: string, className: string): ModuleInfo => ({
  name,
  className,
  kind: "module",
  in: null,
  out: null,
  parameters: [],
});
