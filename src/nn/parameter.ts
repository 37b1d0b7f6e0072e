import { GraphError } from "../errors.ts";
import { input, op, readStorage, type Value, type WeightStorage, weight } from "../graph/index.ts";
import { numel, type Tensor, toFloat32, typedArrays } from "../tensor/index.ts";

/**
 * A named tensor of a module. Frozen weights stay in their file and enter a graph by reference; what is trained, or was
 * made here, lives in JavaScript and is fed to every run under its name.
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

  /** True if it is fed to every run rather than referred to in its file. */
  get fed(): boolean {
    return this.trainable || this.data !== undefined;
  }

  /** The parameter as a float32 value of a graph. Every use within a graph gets the same value. */
  get value(): Value {
    const key = this.fed ? this.name : this.storage;
    if (this.leaf === undefined || this.leaf.key !== key) this.leaf = { key, value: this.build() };
    return this.leaf.value;
  }

  /**
   * Its values in JavaScript, read from the checkpoint if they are not there yet.
   * @throws GraphError if nothing has been loaded.
   */
  async materialize(): Promise<Tensor<"float32">> {
    if (this.data) return this.data;
    const { storage } = this;
    if (!storage) throw this.notLoaded();
    const bytes = await readStorage(storage);
    const stored = new typedArrays[storage.dtype](bytes.buffer, bytes.byteOffset, numel(storage.shape));
    this.data = toFloat32({ dtype: storage.dtype, shape: storage.shape, data: stored });
    return this.data;
  }

  private build(): Value {
    if (this.fed) return input(this.name, "float32", this.shape);
    if (this.storage) return op.cast(weight(this.storage), "float32");
    throw this.notLoaded();
  }

  private notLoaded(): GraphError {
    return new GraphError(`Parameter "${this.name}" has no values: load a checkpoint first.`, {
      code: "not-loaded",
    });
  }
}
