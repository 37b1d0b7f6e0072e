/** Who is measured, in the order of a round. */
export const contestants = [
  "graft",
  "graft-int8",
  "torch-float32",
  "torch-bfloat16",
  "torch-compile",
] as const;
export type Contestant = (typeof contestants)[number];

export const isTorch = (contestant: Contestant): boolean => contestant.startsWith("torch-");

/** How a contestant is called in tables. */
export const titles: Readonly<Record<Contestant, string>> = {
  graft: "Graft",
  "graft-int8": "Graft int8",
  "torch-float32": "PyTorch float32",
  "torch-bfloat16": "PyTorch bfloat16",
  "torch-compile": "torch.compile float32",
};

/** What it is called with in either language's training and generation program. */
export const flags: Readonly<Record<Contestant, readonly string[]>> = {
  graft: [],
  "graft-int8": ["--base-dtype", "int8"],
  "torch-float32": ["--dtype", "float32"],
  "torch-bfloat16": ["--dtype", "bfloat16"],
  "torch-compile": ["--dtype", "float32", "--compile"],
};

/** How far from Graft's float32 the loss of any step may be, relative: the same sums in another order, or coarser numbers. */
export const lossTolerance: Readonly<Record<Contestant, number>> = {
  graft: 0,
  "graft-int8": 2e-2,
  "torch-float32": 1e-3,
  "torch-bfloat16": 2e-2,
  "torch-compile": 1e-3,
};

/** Without these two there is no comparison; what else cannot run here is left out, and the tables say why. */
export const isNeeded = (contestant: Contestant): boolean =>
  contestant === "graft" || contestant === "torch-float32";
