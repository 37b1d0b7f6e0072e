import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { finish, graft, root, scratch, start } from "./support.ts";

const directory = scratch();
const model = join(root, "models/tiny-florence2");
const rows = join(directory, "rows.jsonl");

type Trained = { reason: string; steps: { step: number; loss: number }[] };

/** Twelve pictures in files, each asked about twice. */
beforeAll(() => {
  mkdirSync(join(directory, "pictures"));
  const lines = readFileSync(join(root, "data/emoji-captions/train.jsonl"), "utf8").split("\n").slice(0, 12);
  const asked = lines.flatMap((line, i) => {
    const row = JSON.parse(line) as { image: string; prompt: string; completion: string };
    const image = `pictures/${i}.png`;
    writeFileSync(join(directory, image), Buffer.from(row.image.split(",")[1]!, "base64"));
    return [
      { image, prompt: "<DETAILED_CAPTION>", completion: row.completion },
      { image, prompt: "<CAPTION>", completion: row.completion.split(": ").at(-1) },
    ];
  });
  writeFileSync(rows, asked.map((row) => JSON.stringify(row)).join("\n"));
});

const commandOf = (output: string, ...more: string[]): string[] => [
  ...common(output),
  "--epochs",
  "3",
  ...more,
];

const common = (output: string): string[] => [
  ...["train", model, "--data", rows, "--output", join(directory, output), "--json"],
  ...["--target-modules", ".*(decoder.*(q_proj|v_proj)|encoder\\.layers\\.3.*fc1)", "--seed", "3"],
  ...["--batch-size", "4", "--learning-rate", "1e-3", "--save-strategy", "no"],
];

async function lossesOf(command: readonly string[]): Promise<{ losses: number[]; stderr: string }> {
  const { code, stderr, json } = await graft(command);
  expect(code, stderr).toBe(0);
  const { steps } = json<Trained>();
  return { losses: steps.map(({ loss }) => loss), stderr };
}

function expectSame(losses: readonly number[], expected: readonly number[]): void {
  expect(losses).toHaveLength(expected.length);
  for (const [i, loss] of expected.entries())
    expect(Math.abs(losses[i]! / loss - 1), `step ${i + 1}`).toBeLessThan(1e-5);
}

describe("train --prefix-cache with pictures", () => {
  test("memory and disk give the losses of a run without, and say what they keep", async () => {
    const off = await lossesOf(commandOf("off", "--prefix-cache", "off"));
    expect(off.losses).toHaveLength(18);
    for (const mode of ["memory", "disk"]) {
      const { losses, stderr } = await lossesOf(commandOf(mode, "--prefix-cache", mode));
      expectSame(losses, off.losses);
      expect(stderr).toMatch(
        mode === "disk" ? /prefix cache: .* kept on disk/ : /prefix cache: .* kept in memory/,
      );
      expect(existsSync(join(directory, mode, "prefix-cache"))).toBe(false);
    }
  });

  test.each(["memory", "disk"])("%s: interrupted and resumed, it ends as it would have", async (mode) => {
    const [output, cache] = [`interrupted-${mode}`, join(directory, `interrupted-${mode}`, "prefix-cache")];
    const more = ["--prefix-cache", mode, "--epochs", "40"];
    const child = start([...common(output), ...more]);
    let seen = "";
    child.stderr!.on("data", (chunk: Buffer) => {
      const isNew = !seen.includes("training: ");
      seen += chunk.toString();
      if (isNew && seen.includes("training: ")) setTimeout(() => child.kill("SIGINT"), 700);
    });
    const interrupted = await finish(child);
    expect(interrupted.code, interrupted.stderr).toBe(130);
    const before = interrupted.json<Trained>();
    expect(before.reason).toBe("aborted");
    expect(before.steps.length).toBeGreaterThan(0);
    expect(existsSync(cache)).toBe(mode === "disk");
    const { losses } = await lossesOf([...common(output), ...more, "--resume"]);
    const straight = await lossesOf([
      ...common(`straight-${mode}`),
      "--prefix-cache",
      "off",
      "--epochs",
      "40",
    ]);
    expectSame([...before.steps.map(({ loss }) => loss), ...losses], straight.losses);
    expect(existsSync(cache)).toBe(false);
  });

  test("two runs share a folder; pictures that are preprocessed otherwise are others", async () => {
    const shared = join(directory, "shared");
    const more = ["--prefix-cache", "disk", "--prefix-cache-dir", shared];
    const sizeOf = (): number =>
      readdirSync(shared, { recursive: true }).filter((name) => String(name).endsWith(".data")).length;
    const [off, first, second] = await Promise.all([
      lossesOf(commandOf("shared-off", "--prefix-cache", "off")),
      lossesOf(commandOf("shared-1", ...more)),
      lossesOf(commandOf("shared-2", ...more)),
    ]);
    expectSame(first.losses, off.losses);
    expectSame(second.losses, off.losses);
    const files = sizeOf();
    expect(files).toBeGreaterThan(0);
    expectSame((await lossesOf(commandOf("shared-3", ...more))).losses, off.losses);
    expect(sizeOf()).toBe(files); // it had nothing to add

    const other = join(directory, "other-mean");
    cpSync(model, other, { recursive: true });
    const file = join(other, "processor_config.json");
    const config = JSON.parse(readFileSync(file, "utf8"));
    config.image_processor.image_mean = [0.1, 0.2, 0.3];
    writeFileSync(file, JSON.stringify(config));
    const command = (output: string, ...rest: string[]): string[] =>
      commandOf(output, ...rest).map((word) => (word === model ? other : word));
    const own = await lossesOf(command("other-off", "--prefix-cache", "off"));
    expect(Math.abs(own.losses[0]! / off.losses[0]! - 1)).toBeGreaterThan(1e-4);
    expectSame((await lossesOf(command("other-disk", ...more))).losses, own.losses);
    expect(sizeOf()).toBe(files + 1);
  });
});
