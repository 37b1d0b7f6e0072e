import { parentOf } from "../python.ts";
import type { Stage } from "./layout.ts";
import { isCrossAttention, type Role } from "./roles.ts";
import type { Unit } from "./units.ts";

type AttentionRole = Extract<Role, "q" | "k" | "v" | "qkv" | "qDown" | "kvDown" | "kv" | "o">;
type MlpRole = Extract<Role, "gate" | "up" | "gateUp" | "in" | "down" | "router">;

/** softmax(q kᵀ) v between projections. */
export type AttentionLayer = {
  readonly kind: "attention";
  readonly isCross: boolean;
  readonly parts: { [R in AttentionRole]?: Unit };
};

/** Two products with an activation between them, perhaps gated; experts or not. */
export type MlpLayer = {
  readonly kind: "mlp";
  readonly parts: { [R in MlpRole]?: Unit };
  /** Reads what the MLP before it reads, as shared experts do. */
  readonly isBeside: boolean;
};

/** One product. */
export type ChainLayer = { readonly kind: "chain"; readonly unit: Unit };

export type Sublayer = AttentionLayer | MlpLayer | ChainLayer;

const attentionRoles: ReadonlySet<Role> = new Set(["q", "k", "v", "qkv", "qDown", "kvDown", "kv"]);
const mlpRoles: ReadonlySet<Role> = new Set(["gate", "up", "gateUp", "in", "down", "router"]);

/** Groups the products of one layer, in the order of its modules, which is that of execution but inside a sublayer. */
export function sublayersOf({ units }: Stage): Sublayer[] {
  const found: Sublayer[] = [];
  for (const unit of units) {
    const { role } = unit;
    const last = found.at(-1);
    if (role === "o") {
      if (last?.kind === "attention" && last.parts.o === undefined) last.parts.o = unit;
      else found.push({ kind: "chain", unit });
    } else if (attentionRoles.has(role)) {
      const own = role as AttentionRole;
      if (last?.kind === "attention" && last.parts.o === undefined && last.parts[own] === undefined)
        last.parts[own] = unit;
      else found.push({ kind: "attention", isCross: isCrossAttention(unit.name), parts: { [own]: unit } });
    } else if (mlpRoles.has(role)) {
      const own = role as MlpRole;
      const isOpen = last?.kind === "mlp" && last.parts[own] === undefined && !isComplete(last, own, unit);
      if (isOpen) last.parts[own] = unit;
      else found.push({ kind: "mlp", isBeside: isBeside(last, unit), parts: { [own]: unit } });
    } else found.push({ kind: "chain", unit });
  }
  return found.flatMap((sublayer) =>
    sublayer.kind === "attention" && !isUsable(sublayer) ? asChain(sublayer) : [sublayer],
  );
}

/** A second layer of its kind begins behind `down`, unless they are stored in another order. */
function isComplete({ parts }: MlpLayer, role: MlpRole, unit: Unit): boolean {
  if (parts.down === undefined) return false;
  return role === "router" || parentOf(parts.down.name) !== parentOf(unit.name);
}

/** Experts of another kind in the same module: their input is the same. */
function isBeside(last: Sublayer | undefined, unit: Unit): boolean {
  const [first] = last?.kind === "mlp" ? Object.values(last.parts) : [];
  return first !== undefined && /expert/i.test(first.name + unit.name);
}

/** Whether the projections give queries, keys and values. */
const isUsable = ({ parts }: AttentionLayer): boolean =>
  parts.qkv !== undefined ||
  (parts.q !== undefined && (parts.kv !== undefined || (parts.k !== undefined && parts.v !== undefined)));

const asChain = ({ parts }: AttentionLayer): ChainLayer[] =>
  Object.values(parts).map((unit) => ({ kind: "chain", unit }));
