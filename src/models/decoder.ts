import { constant, type Dim, input, op, type Value } from "../graph/index.ts";
import {
  Activation,
  blockedAttention,
  causalMask,
  Embedding,
  groupedAttention,
  inBlock,
  type KeyValue,
  Layer,
  Linear,
  Module,
  ModuleList,
  maskBlocks,
  mergeHeads,
  RMSNorm,
  RotaryEmbedding,
  type RotaryTable,
  splitHeads,
} from "../nn/index.ts";
import { type Tensor, tensor } from "../tensor/index.ts";
import { type CacheLayout, type CausalInputs, CausalLM } from "./causal-lm.ts";
import type { DecoderSettings } from "./decoder-config.ts";
import { attentionScaling, DynamicFrequencies, inverseFrequencies } from "./rope.ts";

/** What every layer of one forward pass shares. */
type Pass = {
  readonly rotary: RotaryTable;
  /** By blocks of queries. */
  readonly masksOf: (window: number | undefined) => readonly Value[];
};

/** Causal self-attention with grouped keys and values and rotary positions. Source: transformers LlamaAttention. */
class Attention extends Module {
  override readonly className: string;
  readonly q_proj: Layer;
  readonly k_proj: Layer;
  readonly v_proj: Layer;
  readonly o_proj: Layer;
  readonly q_norm: RMSNorm | undefined;
  readonly k_norm: RMSNorm | undefined;
  private readonly settings: DecoderSettings;
  private readonly window: number | undefined;

  constructor(settings: DecoderSettings, window: number | undefined) {
    super();
    const { classPrefix, hiddenSize, heads, kvHeads, headDim, qkvBias, outputBias, qkNorm, normEpsilon } =
      settings;
    this.className = `${classPrefix}Attention`;
    this.settings = settings;
    this.window = window;
    this.q_proj = new Linear(hiddenSize, heads * headDim, { bias: qkvBias });
    this.k_proj = new Linear(hiddenSize, kvHeads * headDim, { bias: qkvBias });
    this.v_proj = new Linear(hiddenSize, kvHeads * headDim, { bias: qkvBias });
    this.o_proj = new Linear(heads * headDim, hiddenSize, { bias: outputBias });
    const norm = { epsilon: normEpsilon, className: `${classPrefix}RMSNorm` };
    this.q_norm = qkNorm ? new RMSNorm(headDim, norm) : undefined;
    this.k_norm = qkNorm ? new RMSNorm(headDim, norm) : undefined;
  }

  forward(
    x: Value,
    { rotary, masksOf }: Pass,
    past: KeyValue | undefined,
  ): { output: Value; present: KeyValue } {
    const { heads, kvHeads, headDim } = this.settings;
    const turned = (projected: Value, count: number, norm: RMSNorm | undefined): Value => {
      const split = splitHeads(projected, count);
      return RotaryEmbedding.rotate(norm ? norm.forward(split) : split, rotary);
    };
    const q = turned(this.q_proj.forward(x), heads, this.q_norm);
    const k = turned(this.k_proj.forward(x), kvHeads, this.k_norm);
    const v = splitHeads(this.v_proj.forward(x), kvHeads);
    const [masks, scale] = [masksOf(this.window), headDim ** -0.5];
    const attended =
      masks.length > 1
        ? blockedAttention(q, k, v, { masks, scale })
        : groupedAttention(q, k, v, { mask: masks[0]!, scale, past });
    return { output: this.o_proj.forward(mergeHeads(attended)), present: { key: k, value: v } };
  }
}

/** down(act(gate x) · up x). Source: Shazeer 2020; transformers LlamaMLP. */
class GatedMlp extends Layer {
  override readonly className: string;
  readonly gate_proj: Layer;
  readonly up_proj: Layer;
  readonly down_proj: Layer;
  readonly act_fn: Activation;

  constructor({ classPrefix, hiddenSize, intermediateSize, mlpBias, activation }: DecoderSettings) {
    super();
    this.className = `${classPrefix}MLP`;
    this.gate_proj = new Linear(hiddenSize, intermediateSize, { bias: mlpBias });
    this.up_proj = new Linear(hiddenSize, intermediateSize, { bias: mlpBias });
    this.down_proj = new Linear(intermediateSize, hiddenSize, { bias: mlpBias });
    this.act_fn = new Activation(activation);
  }

  override forward(x: Value): Value {
    return this.down_proj.forward(
      op.mul(this.act_fn.forward(this.gate_proj.forward(x)), this.up_proj.forward(x)),
    );
  }
}

/** x + attention(norm x), then x + mlp(norm x). */
class DecoderLayer extends Module {
  override readonly className: string;
  readonly self_attn: Attention;
  readonly mlp: Layer;
  readonly input_layernorm: Layer;
  readonly post_attention_layernorm: Layer;

  constructor(settings: DecoderSettings, window: number | undefined) {
    super();
    this.className = `${settings.classPrefix}DecoderLayer`;
    this.self_attn = new Attention(settings, window);
    this.mlp = new GatedMlp(settings);
    this.input_layernorm = decoderNorm(settings);
    this.post_attention_layernorm = decoderNorm(settings);
  }

  forward(x: Value, pass: Pass, past: KeyValue | undefined): { output: Value; present: KeyValue } {
    const { output, present } = this.self_attn.forward(this.input_layernorm.forward(x), pass, past);
    const attended = op.add(x, output);
    return {
      output: op.add(attended, this.mlp.forward(this.post_attention_layernorm.forward(attended))),
      present,
    };
  }
}

const decoderNorm = ({ classPrefix, hiddenSize, normEpsilon }: DecoderSettings): RMSNorm =>
  new RMSNorm(hiddenSize, { epsilon: normEpsilon, className: `${classPrefix}RMSNorm` });

/** Embedding, layers, final norm. */
class Decoder extends Module {
  override readonly className: string;
  readonly embed_tokens: Layer;
  readonly layers: ModuleList<DecoderLayer>;
  readonly norm: Layer;
  readonly rotary_emb: RotaryEmbedding;

  constructor(settings: DecoderSettings) {
    super();
    const { classPrefix, vocabSize, hiddenSize, padTokenId, windows, rope } = settings;
    this.className = `${classPrefix}Model`;
    this.embed_tokens = new Embedding(vocabSize, hiddenSize, { paddingIndex: padTokenId });
    this.layers = new ModuleList(windows.map((window) => new DecoderLayer(settings, window)));
    this.norm = decoderNorm(settings);
    this.rotary_emb = new RotaryEmbedding({
      className: `${classPrefix}RotaryEmbedding`,
      attentionScaling: attentionScaling(rope),
    });
  }

  forward(
    { inputIds, attentionMask, positions, segments, places, past, attentionBlocks = 1 }: CausalInputs,
    frequencies: Value,
  ): { hidden: Value; present: KeyValue[] } {
    const queries = inputIds.shape[1]!;
    const pastLength: Dim = past[0]?.key.shape[2] ?? 0;
    const known = new Map<number | undefined, readonly Value[]>();
    const masksOf = (window: number | undefined): readonly Value[] => {
      const mask = (): Value =>
        causalMask(attentionMask, {
          queries,
          past: pastLength,
          ...(window !== undefined && { window }),
          ...(segments && { segments }),
          ...(places && { places }),
        });
      const masks = known.get(window) ?? maskBlocks(mask(), attentionBlocks);
      known.set(window, masks);
      return masks;
    };
    const pass: Pass = { rotary: this.rotary_emb.table(positions, frequencies), masksOf };
    let hidden = this.embed_tokens.forward(inputIds);
    const present = this.layers.items.map((layer, i) => {
      const result = inBlock([hidden], (x) => layer.forward(x, pass, past[i]));
      hidden = result.output;
      return result.present;
    });
    return { hidden: this.norm.forward(hidden), present };
  }
}

/** A decoder with a vocabulary head: Llama, Mistral, Qwen2, Qwen3. */
export class DecoderForCausalLM extends CausalLM {
  override readonly className: string;
  readonly model: Decoder;
  readonly lm_head: Layer;
  override readonly inputEmbeddingPath = "model.embed_tokens";
  override readonly outputEmbeddingPath = "lm_head";
  private readonly settings: DecoderSettings;
  private readonly dynamic: DynamicFrequencies | undefined;

  constructor(settings: DecoderSettings) {
    super();
    const { classPrefix, hiddenSize, vocabSize, tiedEmbeddings, rope } = settings;
    this.className = `${classPrefix}ForCausalLM`;
    this.settings = settings;
    this.model = new Decoder(settings);
    const { weight } = this.model.embed_tokens as Embedding;
    this.lm_head = new Linear(hiddenSize, vocabSize, tiedEmbeddings ? { weight } : {});
    this.dynamic = rope.type === "dynamic" ? new DynamicFrequencies(rope) : undefined;
  }

  override get modelType(): string {
    return this.settings.modelType;
  }
  override get vocabSize(): number {
    return this.settings.vocabSize;
  }
  override get maxPositions(): number {
    return this.settings.rope.maxPositionEmbeddings;
  }
  override get tiedEmbeddings(): boolean {
    return this.settings.tiedEmbeddings;
  }
  override get cacheLayout(): CacheLayout {
    const { layers, kvHeads, headDim } = this.settings;
    return { layers, kvHeads, headDim };
  }

  override get positionsDependOnBatch(): boolean {
    return this.dynamic !== undefined;
  }

  override hiddenStates(inputs: CausalInputs): { hidden: Value; present: KeyValue[] } {
    const half = this.settings.headDim / 2;
    const frequencies = this.dynamic
      ? input("rope_frequencies", "float32", [half])
      : constant(tensor("float32", [half], inverseFrequencies(this.settings.rope)));
    return this.model.forward(inputs, frequencies);
  }

  override logits(hidden: Value): Value {
    return this.lm_head.forward(hidden);
  }

  override positionFeeds(sequenceLength: number): Record<string, Tensor> {
    if (!this.dynamic) return {};
    const frequencies = this.dynamic.at(sequenceLength).slice();
    return { rope_frequencies: tensor("float32", [frequencies.length], frequencies) };
  }
}
