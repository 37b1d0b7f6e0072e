import { op, Value } from "../graph/index.ts";
import {
  Activation,
  dropAttention,
  dropFeatures,
  groupedAttention,
  type KeyValue,
  type Layer,
  LayerNorm,
  Linear,
  Module,
  mergeHeads,
  splitHeads,
} from "../nn/index.ts";
import { hashText } from "../tensor/random.ts";
import type { BartSettings, TowerSettings } from "./bart-config.ts";
import type { DecoderKeyValues } from "./seq2seq-lm.ts";

/** Attention of several heads with biases, to the sequence itself or to another. Source: transformers BartAttention. */
class BartAttention extends Module {
  override readonly className = "BartAttention";
  readonly k_proj: Layer;
  readonly v_proj: Layer;
  readonly q_proj: Layer;
  readonly out_proj: Layer;
  private readonly heads: number;
  private readonly scale: number;
  private readonly drop: (weights: Value) => Value;

  constructor({ hiddenSize, attentionDropout }: BartSettings, heads: number, path: string) {
    super();
    this.heads = heads;
    this.scale = (hiddenSize / heads) ** -0.5;
    const projection = (): Linear => new Linear(hiddenSize, hiddenSize, { bias: true });
    this.k_proj = projection();
    this.v_proj = projection();
    this.q_proj = projection();
    this.out_proj = projection();
    const seed = hashText(path);
    this.drop = (weights) => dropAttention(weights, attentionDropout, seed);
  }

  /** Keys and values of a sequence [batch, tokens, hidden]. */
  keyValue(x: Value): KeyValue {
    return {
      key: splitHeads(this.k_proj.forward(x), this.heads),
      value: splitHeads(this.v_proj.forward(x), this.heads),
    };
  }

  /** Shapes: x [batch, queries, hidden], mask [batch, 1, 1, queries or 1, past + keys], result as x. */
  forward(x: Value, { key, value }: KeyValue, mask: Value, past?: KeyValue): Value {
    const q = splitHeads(this.q_proj.forward(x), this.heads);
    const attended = groupedAttention(q, key, value, { mask, scale: this.scale, past, dropout: this.drop });
    return this.out_proj.forward(mergeHeads(attended));
  }
}

/** fc2(act(fc1 x)), with dropout after each. The layers stay fields of the layer that they belong to. */
function feedForward(
  x: Value,
  { fc1, fc2, activation_fn }: { fc1: Layer; fc2: Layer; activation_fn: Activation },
  { activationDropout, dropout }: BartSettings,
  path: string,
): Value {
  const activated = activation_fn.forward(fc1.forward(x));
  const dropped = dropFeatures(activated, activationDropout, hashText(`${path}.activation_fn`));
  return dropFeatures(fc2.forward(dropped), dropout, hashText(`${path}.fc2`));
}

/** x ← norm(x + attention x), then x ← norm(x + fc2(act(fc1 x))). Source: transformers BartEncoderLayer. */
export class BartEncoderLayer extends Module {
  override readonly className = "BartEncoderLayer";
  readonly self_attn: BartAttention;
  readonly self_attn_layer_norm: Layer;
  readonly activation_fn: Activation;
  readonly fc1: Layer;
  readonly fc2: Layer;
  readonly final_layer_norm: Layer;
  private readonly settings: BartSettings;
  private readonly path: string;

  /** `path` tells the layer's dropouts from others. */
  constructor(settings: BartSettings, { heads, ffn }: TowerSettings, path: string) {
    super();
    const { hiddenSize, activation } = settings;
    this.settings = settings;
    this.path = path;
    this.self_attn = new BartAttention(settings, heads, `${path}.self_attn`);
    this.self_attn_layer_norm = new LayerNorm(hiddenSize);
    this.activation_fn = new Activation(activation);
    this.fc1 = new Linear(hiddenSize, ffn, { bias: true });
    this.fc2 = new Linear(ffn, hiddenSize, { bias: true });
    this.final_layer_norm = new LayerNorm(hiddenSize);
  }

  forward(x: Value, mask: Value): Value {
    const { settings, path } = this;
    const output = this.self_attn.forward(x, this.self_attn.keyValue(x), mask);
    const dropped = dropFeatures(output, settings.dropout, hashText(`${path}.self_attn.out_proj`));
    const attended = this.self_attn_layer_norm.forward(op.add(x, dropped));
    return this.final_layer_norm.forward(op.add(attended, feedForward(attended, this, settings, path)));
  }
}

/** As the encoder's layer, with attention to the encoder's output in between. Source: transformers BartDecoderLayer. */
export class BartDecoderLayer extends Module {
  override readonly className = "BartDecoderLayer";
  readonly self_attn: BartAttention;
  readonly activation_fn: Activation;
  readonly self_attn_layer_norm: Layer;
  readonly encoder_attn: BartAttention;
  readonly encoder_attn_layer_norm: Layer;
  readonly fc1: Layer;
  readonly fc2: Layer;
  readonly final_layer_norm: Layer;
  private readonly settings: BartSettings;
  private readonly path: string;

  /** `path` tells the layer's dropouts from others. */
  constructor(settings: BartSettings, { heads, ffn }: TowerSettings, path: string) {
    super();
    const { hiddenSize, activation } = settings;
    this.settings = settings;
    this.path = path;
    this.self_attn = new BartAttention(settings, heads, `${path}.self_attn`);
    this.activation_fn = new Activation(activation);
    this.self_attn_layer_norm = new LayerNorm(hiddenSize);
    this.encoder_attn = new BartAttention(settings, heads, `${path}.encoder_attn`);
    this.encoder_attn_layer_norm = new LayerNorm(hiddenSize);
    this.fc1 = new Linear(hiddenSize, ffn, { bias: true });
    this.fc2 = new Linear(ffn, hiddenSize, { bias: true });
    this.final_layer_norm = new LayerNorm(hiddenSize);
  }

  /** `source` is the encoder's output [batch, source, hidden], or what is cached of it and of the tokens so far. */
  forward(
    x: Value,
    { mask, encoderMask }: { mask: Value; encoderMask: Value },
    source: Value | DecoderKeyValues,
  ): { output: Value; present: DecoderKeyValues } {
    const { settings, path } = this;
    const drop = (value: Value, place: string): Value =>
      dropFeatures(value, settings.dropout, hashText(`${path}.${place}.out_proj`));
    const past = source instanceof Value ? undefined : source;
    const self = this.self_attn.keyValue(x);
    const output = this.self_attn.forward(x, self, mask, past?.self);
    const attended = this.self_attn_layer_norm.forward(op.add(x, drop(output, "self_attn")));
    const cross = source instanceof Value ? this.encoder_attn.keyValue(source) : source.cross;
    const looked = this.encoder_attn.forward(attended, cross, encoderMask);
    const seen = this.encoder_attn_layer_norm.forward(op.add(attended, drop(looked, "encoder_attn")));
    return {
      output: this.final_layer_norm.forward(op.add(seen, feedForward(seen, this, settings, path))),
      present: { self, cross },
    };
  }
}
