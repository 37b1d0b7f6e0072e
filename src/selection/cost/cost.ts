/** The shape of a batch, and what a tree does not say of the model. */
export type CostOptions = {
  /** Examples per step. Default 1. */
  batchSize?: number;
  /** Tokens per example; of the encoder, where there are two. Default 512. */
  sequenceLength?: number;
  /** Tokens per example of the decoder of an encoder–decoder model. Default: sequenceLength. */
  targetLength?: number;
  /** Share of the tokens that carry a label, so that the vocabulary is scored there. Default 1. */
  labelFraction?: number;
  /** Positions per image (or sound), where the model's names and shapes don't tell. */
  imageTokens?: number;
  /** Height and width of the images, for models of convolutions. Default: config.json's. */
  imageSize?: number;
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

/** One stack of layers. Figures are null where nobody knows how many positions it has. */
export type TowerCost = {
  /** Parent of its layers: `model.encoder`. */
  readonly path: string;
  readonly layers: number;
  /** Positions per example. */
  readonly positions: number | null;
  /** Per position of its own. */
  readonly forwardFlops: FlopsByPart | null;
  readonly backwardFlops: FlopsByPart | null;
  readonly activationBytes: number | null;
  /** The first layer that the backward pass reaches. */
  readonly lowestLayer: string | null;
  /** Gradients go through it to adapters in another tower. */
  readonly isCrossed: boolean;
};

/** What training a selection costs. */
export type Cost = Figures & {
  readonly trainableFraction: number;
  /** What operations are counted for: a token of text (of the encoder, where there are two), or a whole image or sound. */
  readonly per: "token" | "example";
  /** Of all parameters that are not trained, as stored. */
  readonly frozenWeightBytes: number;
  /** Where the backward pass ends: the first layer in the order of execution that depends on something trained. */
  readonly lowestLayer: string | null;
  readonly saved: {
    /** Per token: gradients of activations that the backward pass does not compute, as nothing below needs them. */
    readonly activationGradientFlops: number;
    /** The same as a share of a backward pass that goes down to the embeddings. */
    readonly backwardShare: number;
    /** Per token: gradients of frozen weights, which full fine-tuning would compute too. */
    readonly weightGradientFlops: number;
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
  };
  /** What had to be taken for granted. */
  readonly assumptions: readonly string[];
};
