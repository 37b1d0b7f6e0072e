import { type seededGenerator, uniform } from "../src/tensor/random.ts";

/** Independent N(0, deviation²), by Box and Muller's method. The length is even. */
export function fillNormal(
  values: Float32Array,
  deviation: number,
  random: ReturnType<typeof seededGenerator>,
): void {
  for (let i = 0; i < values.length; i += 2) {
    const radius = deviation * Math.sqrt(-2 * Math.log(1 - uniform(random)));
    const angle = 2 * Math.PI * uniform(random);
    values[i] = radius * Math.cos(angle);
    values[i + 1] = radius * Math.sin(angle);
  }
}
