/** What examples/florence2 does: train, evaluate, and hand the adapter to the real PEFT. */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { readCheckpoint } from "../../src/checkpoint/index.ts";
import { openStore } from "../../src/checkpoint/open-store.ts";
import { graft, root, scratch } from "../cli/support.ts";

const directory = scratch();
const model = join(root, "models/tiny-florence2");
const data = join(root, "data/emoji-captions");

const python = process.env["GRAFT_PYTHON"]!;
const hasPillow = spawnSync(python, ["-c", "import PIL"]).status === 0;

const digest = (file: string): string => createHash("sha256").update(readFileSync(file)).digest("hex");

test.skipIf(!hasPillow)(
  "an adapter trained on captions gives the same loss and captions in PEFT, and leaves the vision tower alone",
  async () => {
    const weights = digest(join(model, "model.safetensors"));
    const adapter = join(directory, "adapter");
    const trained = await graft([
      ...["train", model, "--config", join(root, "examples/florence2/graft.yaml")],
      ...[
        "--data",
        join(data, "train.jsonl"),
        "--learning-rate",
        "3e-3",
        "--batch-size",
        "16",
        "--max-steps",
        "60",
      ],
      ...["--output", adapter, "--json"],
    ]);
    expect(trained.code, trained.stderr).toBe(0);
    expect(digest(join(model, "model.safetensors"))).toBe(weights);
    const { tensors } = await readCheckpoint(await openStore(join(adapter, "adapter_model.safetensors")));
    for (const name of tensors.keys())
      expect(name).toMatch(
        /^base_model\.model\.model\.language_model\.(encoder\.layers\.[23]|decoder\.layers\.[0-3])\./,
      );

    const rows = readFileSync(join(data, "test.jsonl"), "utf8").trim().split("\n").slice(0, 40);
    const some = join(directory, "rows.jsonl");
    writeFileSync(some, `${rows.join("\n")}\n`);
    const predictions = join(directory, "written.jsonl");
    const evaluated = await graft([
      ...[
        "eval",
        model,
        "--adapter",
        adapter,
        "--data",
        some,
        "--generate",
        "--predictions",
        predictions,
        "--json",
      ],
    ]);
    expect(evaluated.code, evaluated.stderr).toBe(0);
    const { loss } = evaluated.json<{ loss: number }>();
    const checked = spawnSync(
      python,
      [
        ...[join(root, "examples/florence2/check_in_peft.py"), model, adapter, some],
        ...["--predictions", predictions, "--loss", String(loss)],
      ],
      { encoding: "utf8" },
    );
    expect(checked.stdout + checked.stderr).toContain("40 of 40 captions are the same");
    expect(checked.status, checked.stderr).toBe(0);
  },
);
