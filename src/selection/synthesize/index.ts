export type { Deeper } from "./deeper.ts";
export type { Form } from "./forms.ts";
export { Synthesis } from "./synthesis.ts";
export { type SynthesizeOptions, synthesize } from "./synthesize.ts";
export type { RankAndAlpha } from "./wanted.ts";
