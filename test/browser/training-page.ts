import {
  AutoModelForCausalLM,
  getPeftModel,
  LoraConfig,
  memoryDataset,
  Trainer,
  type TrainerOptions,
} from "../../src/index.ts";
import { type Bridge, remoteEngine } from "./remote-engine.ts";

export type Trained = {
  losses: number[];
  prefixCache: { mode: string; reason: string } | undefined;
  /** Runs of the frozen part. */
  prefixRuns: number;
};

/** Trains the last layer of a model for two epochs in a page. */
export async function train(
  bridge: Bridge,
  model: string,
  options: Pick<TrainerOptions, "prefixCache">,
): Promise<Trained> {
  const config = new LoraConfig({
    r: 2,
    targetModules: ["q_proj"],
    layersToTransform: [1],
    layersPattern: "layers",
  });
  const examples = [6, 9, 4, 12, 7].map((length, row) => {
    const inputIds = Array.from({ length }, (_, i) => (7 * row + 3 * i) % 80);
    return { inputIds, labels: inputIds };
  });
  let prefixRuns = 0;
  let prefixCache: Trained["prefixCache"];
  const { steps } = await new Trainer({
    model: getPeftModel(await AutoModelForCausalLM.fromPretrained(model), config, { seed: 11 }),
    trainDataset: memoryDataset(examples),
    engine: remoteEngine(bridge, (outputs) => {
      if (outputs.every((name) => name.startsWith("kept."))) prefixRuns++;
    }),
    batchSize: 2,
    numTrainEpochs: 2,
    learningRate: 1e-2,
    callbacks: [
      {
        onTrainBegin: (event) => {
          prefixCache = event.prefixCache;
        },
      },
    ],
    ...options,
  }).train();
  return { losses: steps.map(({ loss }) => loss), prefixCache, prefixRuns };
}
