/** What docs/examples/florence2.md tells people to do, up to the real PEFT. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { graft, root, scratch } from "../cli/support.ts";
import { selectOnSkeleton } from "./select-on-skeleton.ts";

const page = readFileSync(join(root, "docs/examples/florence2.md"), "utf8");
const model = "test/vectors/skeletons/florence2-base.json.gz";

type Selected = { targets: { name: string; r: number; alpha: number }[]; config: Record<string, unknown> };

test.each([
  ["by flags", /graft select \S+ (--target-modules q_proj,v_proj --layers .*)/.exec(page)![1]!, 28],
  ["in a file", "--config docs/examples/florence2.yaml", 31],
])("PEFT selects what the page chooses %s", async (_, flags, count) => {
  const args = [...flags.matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain!);
  const { targets } = (await graft(["select", model, ...args, "--json"])).json<Selected>();
  expect(targets.length).toBe(count);

  const output = join(scratch(), "adapter");
  const { code } = await graft(["init", model, ...args, "--config-only", "--output", output]);
  expect(code).toBe(0);
  const config = JSON.parse(readFileSync(join(output, "adapter_config.json"), "utf8")) as Record<
    string,
    unknown
  >;
  const chosen = ["r", "lora_alpha", "target_modules", "rank_pattern", "alpha_pattern"];
  const [peft] = selectOnSkeleton("florence2-base", [
    Object.fromEntries(chosen.map((field) => [field, config[field]])),
  ]);
  expect(peft).toEqual({
    targets: Object.fromEntries(targets.map(({ name, r, alpha }) => [name, [r, alpha]])),
  });
});
