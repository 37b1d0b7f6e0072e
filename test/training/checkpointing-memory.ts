/** Prints the peak resident memory, in MB, of a process that takes three training steps, with `all` blocks computed again or `none`. */
import { collate } from "../../src/data/index.ts";
import { createEngine } from "../../src/runtime/node.ts";
import { objectiveOf } from "../../src/training/objective.ts";
import { trainingProgram } from "../../src/training/program.ts";
import { randomExamples } from "./cut-case.ts";
import { llamaConfig, smallModel } from "./small-models.ts";

const model = smallModel(
  {
    ...llamaConfig,
    ...{ hidden_size: 64, intermediate_size: 256, num_hidden_layers: 16 },
    ...{ num_attention_heads: 8, num_key_value_heads: 8 },
  },
  { targetModules: ["q_proj", "up_proj"] },
);
const objective = objectiveOf(model);
const examples = randomExamples(Array<number>(4).fill(512), { vocabulary: 60 });
const batch = collate(examples, { padTokenId: 0, labels: "aligned" });
const engine = await createEngine({ threads: 1 });
const isRecomputed = (): boolean => process.argv[2] === "all";
const session = await engine.createSession(trainingProgram(model, { isRecomputed }).outputs);
const feeds = { ...(await model.parameterFeeds()), ...objective.feeds(batch, { lossScale: 1e-3 }) };
for (let step = 0; step < 3; step++) await session.run(feeds);
await engine.dispose();
process.stdout.write(String(process.resourceUsage().maxRSS / 1000));
