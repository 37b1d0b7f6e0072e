import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { taskTypes } from "../../../src/selection/peft/config.ts";
import * as tables from "../../../src/selection/peft/defaults.ts";

/** Read from the installed PEFT by scripts/make_facts.py. */
const facts = JSON.parse(
  readFileSync(join(import.meta.dirname, "../../vectors/default-target-modules.json"), "utf8"),
);

test("default targets by model type are PEFT's", () => {
  expect(tables.defaultTargetModules).toEqual(facts.lora_default_target_modules);
});

test("expert renames are PEFT's, for the same model types", () => {
  const expected = Object.fromEntries(
    Object.entries(facts.moe_rename_model_types as Record<string, string>).map(([type, like]) => [
      type,
      facts.moe_renames[like],
    ]),
  );
  expect(tables.moeRenames).toEqual(expected);
  // the first old name that fits decides, so the order counts
  for (const [type, { map }] of Object.entries(tables.moeRenames))
    expect(Object.keys(map)).toEqual(Object.keys(facts.moe_renames[facts.moe_rename_model_types[type]].map));
});

test("the other constants are PEFT's", () => {
  expect(tables.seqClsHeadNames).toEqual(facts.seq_cls_head_names);
  expect(tables.embeddingLayerNames).toEqual(facts.embedding_layer_names);
  expect(tables.dummyTargetModules).toBe(facts.dummy_target_modules);
  expect(tables.minTargetModulesForShrinking).toBe(facts.min_target_modules_for_optimization);
  expect([...tables.mambaModelTypes].sort()).toEqual([...facts.mamba.model_types].sort());
  expect([...tables.mambaForbiddenLeaves]).toEqual(facts.mamba.forbidden_leaf_names);
  expect(taskTypes).toEqual(facts.task_types);
  const { note: _, ...heads } = facts.modules_to_save_added_by_task_type;
  expect(tables.headsByTaskType).toEqual(heads);
});
