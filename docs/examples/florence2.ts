/** The same selection as florence2.yaml, in TypeScript: node --import tsx docs/examples/florence2.ts */

import { readModuleTree } from "graftjs";
import { compileSelection, explain } from "graftjs/selection";

const { tree } = await readModuleTree("test/vectors/skeletons/florence2-base.json.gz");

const { config, groups, selection } = compileSelection(tree, {
  r: 8,
  loraAlpha: 16,
  groups: [
    { targetModules: ["q_proj", "v_proj"], layers: { "encoder.layers": "-2:", "decoder.layers": "all" } },
    { targetModules: ["window_attn.qkv"], layers: { "blocks.2": "last 3" }, r: 4 },
  ],
});

console.log(config.targetModules);
for (const { modules } of groups) console.log(modules.length, "modules, the last:", modules.at(-1));
console.log(selection.trainableParameters, "trainable parameters");

const [why] = explain(tree, config, ["model.language_model.encoder.layers.3.self_attn.q_proj"]);
console.log(why?.selected, why?.reason);
