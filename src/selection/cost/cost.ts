import type { BaseDtype } from "./base-weights.ts";

/** The shape of a batch, and what a tree does not say of the model. */
export type CostOptions = {
  /** Examples per step. Default 1. */
  batchSize?: number;
  /**
   * Tokens per example; of the encoder, where there are two, those that stand for a picture included. Default 512; for
   * Florence-2 the picture's and 16 of a prompt.
   */
  sequenceLength?: number;
  /** Tokens per example of the decoder of an encoder–decoder model. Default: sequenceLength; for Florence-2 64. */
  targetLength?: number;
  /** Share of the (decoder's) tokens that carry a label: the end of the last layer and the vocabulary are computed there alone. Default 1. */
  labelFraction?: number;
  /** Positions per image (or sound), where the model's names and shapes don't tell. */
  imageTokens?: number;
  /** Height and width of the images (a number: of both), for models of convolutions. Default: config.json's; 768 for Florence-2. */
  imageSize?: number | readonly [height: number, width: number];
  /** The model's own dropout is on in training, as with the training option of this name. Default false. */
  modelDropout?: boolean;
  /** What keeping a byte of an example for later epochs costs, in operations that could be computed instead. Default 1000, as training has it. */
  flopsPerByte?: number;
  /** What training holds the frozen weights of linear layers in, as its option of this name says. Default "fp32". */
  baseDtype?: BaseDtype;
  /** Bytes of one stored base parameter. Default: by config.json's dtype, else 4. */
  bytesPerWeight?: number;
};

/** Operations per token, or per example where there are no tokens (a multiplication and an addition are two) by what they are for. */
export type FlopsByPart = {
  readonly total: number;
  /** Products with frozen weights. */
  readonly frozen: number;
  /** LoRA's products and those for gradients of what is trained. */
  readonly trained: number;
  /** Products inside attention. */
  readonly attention: number;
  /** Products with the weight that scores the vocabulary. */
  readonly head: number;
};

/**
 * A step once what no adapter changes is kept for each example, as the training option `prefixCache` does. The backward pass is
 * that of the first epoch.
 */
export type LaterEpochs = {
  readonly forwardFlops: FlopsByPart;
  /** Operations of a step, forward and backward, as a share of those in the first epoch; 1 where nothing is worth keeping. */
  readonly share: number;
  /** What is kept of an example, in float32. */
  readonly keptBytes: number;
};

/** What can be compared between two selections. */
export type Figures = {
  readonly trainableParameters: number;
  /** In the adapter's file. */
  readonly adapterParameters: number;
  /** Of adapter_model.safetensors, header included. */
  readonly adapterBytes: number;
  readonly gradientBytes: number;
  /** AdamW's: mean and mean square of every gradient. */
  readonly optimizerBytes: number;
  readonly forwardFlops: FlopsByPart;
  readonly backwardFlops: FlopsByPart;
  readonly laterEpochs: LaterEpochs;
  /** Kept from the forward to the backward pass for the batch. */
  readonly activationBytes: number;
};

/** A selection's figures as shares of all-linear's. NaN where that is 0. */
export type Share = {
  readonly trainableParameters: number;
  readonly adapterBytes: number;
  readonly forwardFlops: number;
  readonly backwardFlops: number;
  readonly activationBytes: number;
};

/** The figures of `targetModules: "all-linear"` with the same rank, and the selection's as shares of them. */
export type AllLinear = Figures & { readonly share: Share };

/**
 * One stack of layers, or the projector between two. Operations are per example. Figures are null where nobody knows how many
 * positions it has.
 */
export type TowerCost = {
  /** Parent of its layers: `model.encoder`. */
  readonly path: string;
  readonly layers: number;
  /** Of the base model, below `path`; shared ones are counted where they are first. */
  readonly parameters: number;
  readonly trainableParameters: number;
  /** Positions per example, of its output. */
  readonly positions: number | null;
  readonly forwardFlops: FlopsByPart | null;
  readonly backwardFlops: FlopsByPart | null;
  /** For the batch. */
  readonly activationBytes: number | null;
  /** The first layer that the backward pass reaches. */
  readonly lowestLayer: string | null;
  /** Gradients go through it to adapters in another tower. */
  readonly isCrossed: boolean;
};

/** What it saves that no gradient goes into a tower, against adapters on every linear layer of the model. */
export type SavedTower = {
  readonly path: string;
  /** Per example. */
  readonly backwardFlops: number;
  /** Of the whole backward pass with all-linear. */
  readonly backwardShare: number;
  /** For the batch. */
  readonly activationBytes: number;
  readonly activationShare: number;
};

/** Memory that a training step is expected to need, in bytes. */
export type MemoryCost = {
  /** Frozen weights as they are held: float32, but those of linear layers in `baseDtype`. */
  readonly frozenBytes: number;
  /** What is trained, its gradient, and the optimizer's two moments. */
  readonly trainedBytes: number;
  readonly activationBytes: number;
  /** The process, the runtime, and what single operators need while they run. */
  readonly overheadBytes: number;
  readonly totalBytes: number;
};

/** What training a selection costs. */
export type Cost = Figures & {
  readonly trainableFraction: number;
  /** What operations are counted for: a token of text (of the encoder, where there are two); an example where there are images or sound. */
  readonly per: "token" | "example";
  /** Of all parameters that are not trained, as stored. */
  readonly frozenWeightBytes: number;
  readonly memory: MemoryCost;
  /** Where the backward pass ends: the first layer in the order of execution that depends on something trained. */
  readonly lowestLayer: string | null;
  readonly saved: {
    /** Per token: gradients of activations that the backward pass does not compute, as nothing below needs them. */
    readonly activationGradientFlops: number;
    /** The same as a share of a backward pass that goes down to the embeddings. */
    readonly backwardShare: number;
    /** Per token: gradients of frozen weights, which full fine-tuning would compute too. */
    readonly weightGradientFlops: number;
    /** Towers that no gradient goes into. Computed when first read. */
    readonly towers: readonly SavedTower[];
    /** Share of the base model's forward pass below the lowest adapted layer: spared in later epochs where its outputs are kept. */
    readonly frozenForwardShare: number;
  };
  readonly towers: readonly TowerCost[];
  /** Against adapters on every linear layer. Computed when first read. */
  readonly allLinear: AllLinear;
  readonly batch: {
    readonly batchSize: number;
    readonly sequenceLength: number;
    readonly targetLength: number;
    readonly labelFraction: number;
    /** Of the pictures, where their size counts. */
    readonly imageSize: readonly [height: number, width: number] | null;
  };
  /** What the model cannot read of such a batch: pictures too large or too small, more tokens than it has positions. */
  readonly problems: readonly string[];
  /** What had to be taken for granted. */
  readonly assumptions: readonly string[];
};
