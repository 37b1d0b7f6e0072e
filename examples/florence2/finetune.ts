/**
 * Fine-tune Florence-2 on pictures with captions, in the layers of graft.yaml, and see what it learnt.
 *
 *     node --import tsx examples/florence2/finetune.ts [MODEL] [OUTPUT]
 */

import { readFile } from "node:fs/promises";
import {
  AutoModelForImageTextToText,
  createRowProcessor,
  Florence2Processor,
  getPeftModel,
  LoraConfig,
  moduleTreeOf,
  openDataset,
  TextGenerator,
  Trainer,
} from "graftjs";
import { compileSelection } from "graftjs/selection";

const [location = "models/tiny-florence2", output = "out/florence2-ts"] = process.argv.slice(2);
const data = "data/emoji-captions";

const model = await AutoModelForImageTextToText.fromPretrained(location);
const processor = await Florence2Processor.fromPretrained(location);

// What graft.yaml says, in TypeScript.
const { config } = compileSelection(moduleTreeOf(model), {
  r: 16,
  loraAlpha: 32,
  groups: [
    {
      targetModules: ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"],
      layers: { "encoder.layers": "-2:", "decoder.layers": "all" },
    },
  ],
});
const peft = getPeftModel(model, LoraConfig.fromSelection(config));
const { trainable, total } = peft.parameterCounts();
console.log(`${peft.selection.targets.length} modules, ${trainable} of ${total} parameters are trained`);

const rows = createRowProcessor(processor);
const options = { architecture: "encoder-decoder", processor: rows } as const;
const trainDataset = await openDataset(`${data}/train.jsonl`, options);
const evalDataset = await openDataset(`${data}/test.jsonl`, options);

const [held] = (await readFile(`${data}/test.jsonl`, "utf8"))
  .split("\n")
  .map((line) => line && JSON.parse(line));
const describe = async () => {
  const generator = await TextGenerator.create(model, { processor });
  const { text } = await generator.generate({ prompt: held.prompt, image: held.image });
  await generator.dispose();
  return text;
};

console.log(`it is:  ${held.completion}`);
await peft.materialize();
console.log(`before: ${await describe()}`);
const result = await new Trainer({
  model: peft,
  trainDataset,
  evalDataset,
  outputDir: output,
  overwrite: true,
  learningRate: 3e-3,
  batchSize: 16,
  numTrainEpochs: 8,
}).train();
console.log(`after:  ${await describe()}`);
console.log(`${result.steps.length} steps, the adapter is in ${result.adapter}`);
await Promise.all([rows.close(), trainDataset.close?.(), evalDataset.close?.()]);
