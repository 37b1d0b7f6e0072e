import { GraphError } from "../errors.ts";
import { input, op, type Value, type WeightStorage, weight } from "../graph/index.ts";
import { numel, type Tensor } from "../tensor/index.ts";

/**
 * A named tensor of a module. Frozen weights stay in their file and enter a graph by reference; a parameter with `data`
 * lives in JavaScript (adapters, biases that are trained) and is fed to every run under its name.
 */
export class Parameter {
  readonly shape: readonly number[];
  /** Name under which it is fed, saved and reported; the path in the module tree unless an adapter says otherwise. */
  name: string;
  /** True if training updates it; it then has `data`. */
  trainable = false;
  /** Where a frozen weight lies; undefined before loading. */
  storage: WeightStorage | undefined;
  /** Values that live in JavaScript; the optimizer changes them in place. */
  data: Tensor<"float32"> | undefined;
  private leaf: { readonly key: unknown; readonly value: Value } | undefined;

  constructor(shape: readonly number[], name = "") {
    this.shape = shape;
    this.name = name;
  }

  /** Number of elements. */
  get size(): number {
    return numel(this.shape);
  }

  /** The parameter as a float32 value of a graph. Every use within a graph gets the same value. */
  get value(): Value {
    const key = this.data ? this.name : this.storage;
    if (this.leaf === undefined || this.leaf.key !== key) this.leaf = { key, value: this.build() };
    return this.leaf.value;
  }

  private build(): Value {
    if (this.data) return input(this.name, "float32", this.shape);
    if (this.storage) return op.cast(weight(this.storage), "float32");
    throw new GraphError(`Parameter "${this.name}" has no values: load a checkpoint first.`, {
      code: "not-loaded",
    });
  }
}
