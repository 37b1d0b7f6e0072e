export type {
  AllLinear,
  Cost,
  CostOptions,
  Figures,
  FlopsByPart,
  LaterEpochs,
  MemoryCost,
  SavedTower,
  Share,
  TowerCost,
} from "./cost.ts";
export { estimateCost } from "./estimate.ts";
