import type { Flow } from "./flow.ts";
import type { Flowing } from "./flowing.ts";
import type { Tower } from "./layout.ts";
import type { Feed, Result } from "./passes.ts";
import type { Size } from "./positions.ts";

/**
 * From DaViT's map to tokens: vectors of rows and columns are added, the mean of all places comes first, then a product and
 * a norm. Source: transformers Florence2MultiModalProjector.
 */
export function runProjector(
  { path, front, tail }: Tower,
  { output: x, map }: { output: Flowing; map: Size },
  flow: Flow,
  { examples, trainedOf }: Feed,
): Result {
  const [height, width] = map;
  const [projection] = tail;
  // one vector for each row and column, whatever the number of images
  const placed = front.map((unit) => flow.lookup(unit, /row/.test(unit.name) ? height : width));
  const isNeeded = x.isNeeded || placed.some((vectors) => vectors.isNeeded);
  const rows = examples * (1 + height * width);
  const tokens = flow.made([x, ...placed], rows * (projection?.inputs ?? 0));
  const projected = projection === undefined ? tokens : flow.linear(tokens, projection, rows);
  const output = flow.norm(projected, trainedOf(`${path}.image_proj_norm`));
  if (!output.isNeeded) flow.markFrozen();
  const lowest = isNeeded && !x.isNeeded ? path : output.isNeeded && !isNeeded ? path : undefined;
  return { output, lowest: x.isNeeded ? path : lowest, isCrossed: x.isNeeded };
}
