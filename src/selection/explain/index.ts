export { explain } from "./explain.ts";
export { Explainer } from "./explainer.ts";
export type { Explanation, NearMiss, Rule } from "./explanation.ts";
