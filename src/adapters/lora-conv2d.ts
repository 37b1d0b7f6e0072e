import { AdapterError } from "../errors.ts";
import { dimProduct, formatShape, op, type Value } from "../graph/index.ts";
import { Conv2d, Dropout, type ModuleDict, type Parameter } from "../nn/index.ts";
import { generatorFor, startOfA, startOfB } from "./lora-init.ts";
import { ADAPTER_NAME, adapterKey, LoraLayer, type LoraLayerOptions, named } from "./lora-layer.ts";

/**
 * Frozen convolution plus low-rank update: y = W ∗ x + b + s·(B ∗ (A ∗ dropout(x))), where B's kernel is 1×1.
 * A has the base layer's kernel, stride and padding, but neither its dilation nor its groups; B has its groups.
 * Shapes: x [batch, in, height, width], A [r, in, rows, columns], B [out, r / groups, 1, 1].
 * Source: PEFT tuners/lora/layer.py, _ConvNd.
 */
export class LoraConv2d extends LoraLayer<Conv2d> {
  override readonly className = "lora.Conv2d";
  readonly lora_dropout: ModuleDict<Dropout>;
  readonly lora_A: ModuleDict<Conv2d>;
  readonly lora_B: ModuleDict<Conv2d>;
  private readonly path: string;

  constructor(base: Conv2d, { path, r, scaling, dropout, init, seed }: LoraLayerOptions) {
    super(base, scaling);
    this.path = path;
    const { inChannels, outChannels, kernelSize, stride, padding, groups } = base;
    const a = new Conv2d(inChannels, r, { kernelSize, stride, padding, bias: false });
    const b = new Conv2d(r, outChannels, { kernelSize: 1, groups, bias: false });
    a.weight.name = adapterKey(path, "lora_A.weight");
    b.weight.name = adapterKey(path, "lora_B.weight");
    a.weight.data = startOfA(a.weight, init, seed);
    b.weight.data = startOfB(b.weight, init, seed);
    this.lora_dropout = named(new Dropout(dropout, generatorFor(0, path).next()));
    this.lora_A = named(a);
    this.lora_B = named(b);
    for (const weight of this.adapterParameters()) weight.trainable = true;
  }

  override adapterParameters(): Parameter[] {
    return [this.lora_A, this.lora_B].map((dict) => dict.items.get(ADAPTER_NAME)!.weight);
  }

  /** @throws AdapterError `shape-mismatch` where dilation makes the base layer's images smaller than the adapter's. */
  override forward(x: Value): Value {
    const [a, b] = [this.lora_A, this.lora_B].map((dict) => dict.items.get(ADAPTER_NAME)!) as [
      Conv2d,
      Conv2d,
    ];
    const base = this.base_layer.forward(x);
    const low = a.forward(this.drop(x));
    this.requireSameSize(base, low);
    // Scaling the kernel of 1×1 is less work than scaling an image.
    const kernel = op.mul(b.weight.value, this.scaling);
    return op.add(base, op.conv(low, kernel, { group: b.groups }));
  }

  /** Dropout of single values, which draw from the noise of their image. */
  private drop(x: Value): Value {
    const dropout = this.lora_dropout.items.get(ADAPTER_NAME)!;
    if (dropout.p === 0) return x;
    const rows = op.reshape(x, [x.shape[0]!, dimProduct(x.shape.slice(1))]);
    return op.reshape(dropout.forward(rows), x.shape);
  }

  /** PyTorch's addition, like ours, repeats what has size 1; everything else must be equal. */
  private requireSameSize(base: Value, low: Value): void {
    const [images, update] = [base.shape.slice(2), low.shape.slice(2)];
    const fits = images.every((size, axis) => {
      const other = update[axis]!;
      return (
        typeof size !== "number" || typeof other !== "number" || size === other || size === 1 || other === 1
      );
    });
    if (fits) return;
    const { path } = this;
    const { dilation } = this.base_layer;
    throw new AdapterError(
      `"${path}" makes images of ${formatShape(images)} and its adapter of ${formatShape(update)}, as in PEFT, whose adapter of a convolution leaves out the dilation (${dilation.join(" × ")}). Do not adapt this layer.`,
      { code: "shape-mismatch", details: { path, dilation, base: images, adapter: update } },
    );
  }
}
