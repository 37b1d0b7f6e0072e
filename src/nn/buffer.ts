import { op, type Value, type WeightStorage, weight } from "../graph/index.ts";

/** A tensor of a checkpoint that is no parameter: it is never trained, adapted or counted. */
export class ModuleBuffer {
  readonly shape: readonly number[];
  /** Where its values lie; undefined before loading, and where the checkpoint leaves it out. */
  storage: WeightStorage | undefined;

  constructor(shape: readonly number[]) {
    this.shape = shape;
  }

  /** Its values as float32; undefined where the checkpoint leaves it out. */
  get value(): Value | undefined {
    return this.storage && op.cast(weight(this.storage), "float32");
  }
}
