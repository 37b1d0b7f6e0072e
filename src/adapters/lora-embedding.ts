import { op, type Value } from "../graph/index.ts";
import { type Embedding, fromRows, type Parameter, ScaledEmbedding, toRows } from "../nn/index.ts";
import { zeros } from "../tensor/index.ts";
import { generatorFor, normal } from "./lora-init.ts";
import { adapterKey, adapterParameter, LoraLayer, type LoraLayerOptions } from "./lora-layer.ts";

/**
 * Frozen embedding plus low-rank update: y = c·(W[ids] + s·(Aᵀ[ids]) Bᵀ), c the embedding's own scale where it has one.
 * Shapes: ids [...], A [r, rows], B [dimension, r], y [..., dimension]. A starts at zero, B at N(0, 1), unlike linear layers.
 * The padding token's column of A gets no gradient, as its row of W would get none.
 * Source: PEFT tuners/lora/layer.py, Embedding.
 */
export class LoraEmbedding extends LoraLayer<Embedding> {
  override readonly className = "lora.Embedding";
  readonly lora_embedding_A: Parameter;
  readonly lora_embedding_B: Parameter;

  constructor(base: Embedding, { path, r, scaling, init, seed }: LoraLayerOptions) {
    super(base, scaling);
    this.lora_embedding_A = adapterParameter(adapterKey(path, "lora_embedding_A"), [r, base.rows]);
    this.lora_embedding_B = adapterParameter(adapterKey(path, "lora_embedding_B"), [base.dimension, r]);
    const { lora_embedding_A: a, lora_embedding_B: b } = this;
    a.data = init === false ? normal(a.shape, 1, generatorFor(seed, a.name)) : zeros("float32", a.shape);
    b.data = normal(b.shape, 1, generatorFor(seed, b.name));
  }

  override adapterParameters(): Parameter[] {
    return [this.lora_embedding_A, this.lora_embedding_B];
  }

  override forward(ids: Value): Value {
    const { base_layer: embedding, scaling } = this;
    const base = embedding.forward(ids);
    const { paddingIndex } = embedding;
    const low = op.gather(op.transposeLast(this.lora_embedding_A.value), ids, 0, { paddingIndex });
    const alpha = embedding instanceof ScaledEmbedding ? scaling * embedding.scale : scaling;
    const update = op.gemm(toRows(low), this.lora_embedding_B.value, { alpha, transB: true });
    return op.add(base, fromRows(update, low));
  }
}
