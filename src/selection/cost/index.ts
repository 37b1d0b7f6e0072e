export type { AllLinear, Cost, CostOptions, Figures, FlopsByPart, Share, TowerCost } from "./cost.ts";
export { estimateCost } from "./estimate.ts";
