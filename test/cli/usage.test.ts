import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { type ErrorDocument, finish, graft, root, start, tinyLlama } from "./support.ts";

describe("help", () => {
  test("--version prints the package's version", async () => {
    const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { version: string };
    expect(await graft(["--version"])).toMatchObject({ code: 0, stdout: `${version}\n`, stderr: "" });
  });

  test.each(["inspect", "select", "explain", "synthesize", "init", "train", "eval", "generate", "devices"])(
    "help %s has flags and examples",
    async (command) => {
      const { code, stdout, stderr } = await graft(["help", command]);
      expect([code, stderr]).toEqual([0, ""]);
      expect(stdout).toContain("--json");
      expect(stdout).toMatch(new RegExp(`Examples:\\n  .*graft ${command}`));
      expect((await graft([command, "--help"])).stdout).toBe(stdout);
    },
  );

  test("speaks of flags, never of options of the library", async () => {
    const { stdout } = await graft(["help", "train"]);
    expect(stdout.replace(/in LoraConfig|transformers/g, "")).not.toMatch(/\b[a-z]+[A-Z]\w+/);
    expect(stdout).toContain("--[no-]shuffle");
  });

  test("without a command it lists the commands, as bad usage", async () => {
    const { code, stdout, stderr } = await graft([]);
    expect([code, stdout]).toEqual([2, ""]);
    expect(stderr).toMatch(/Usage: graft[\s\S]*generate[\s\S]*Examples:/);
  });
});

describe("bad usage exits with 2 and says what to type instead", () => {
  test.each([
    [["trian"], "unknown command 'trian'. Did you mean train? Commands: inspect, select,"],
    [["help", "evil"], 'there is no command "evil". Did you mean "eval"?'],
    [["train", tinyLlama, "--dta", "x"], "unknown option '--dta'. Did you mean --data? For all flags"],
    [["eval"], "missing required argument 'model'. For all flags and examples: graft help eval."],
    [["eval", tinyLlama, "--data"], "option '--data <file>' argument missing."],
    [["eval", tinyLlama, "a.txt"], "Repeat a flag for each of its values"],
    [["eval", tinyLlama], "--data is missing: name the data to evaluate on."],
    [
      ["eval", tinyLlama, "--data", "x", "--batch-size", "2.5"],
      '--batch-size must be a whole number of at least 1, got "2.5".',
    ],
    [["select", tinyLlama, "--r", "4", "--r", "8"], "--r is given 2 times (4, 8); give it once."],
    [
      ["generate", tinyLlama, "--prompt", "a", "--prompt-tokens", "4"],
      "--prompt, --prompt-tokens each say what to continue",
    ],
    [
      ["generate", tinyLlama, "--prompt", "a", "--top-p", "2"],
      '--top-p must be greater than 0 and at most 1, got "2".',
    ],
  ])("%j", async (args, message) => {
    const { code, stdout, stderr } = await graft(args);
    expect([code, stdout]).toEqual([2, ""]);
    expect(stderr).toMatch(/^error: /);
    expect(stderr).toContain(message);
  });

  test("everything that is wrong is said at once, in flags", async () => {
    const { code, stderr, json } = await graft([
      ...["train", tinyLlama, "--json", "--max-steps", "many", "--epochs", "2", "--warmup-steps", "3"],
      ...["--warmup-ratio", "0.1", "--r", "-1", "--bias", "some", "--eval-steps", "5"],
    ]);
    expect(code).toBe(2);
    const { code: name, message, details } = json<ErrorDocument>().error;
    expect(name).toBe("bad-usage");
    expect(stderr).toBe(`error: ${message}\n`);
    expect(details["problems"]).toEqual([
      '--bias must be one of none, all, lora_only, got "some"',
      '--max-steps must be a whole number of at least 1, got "many"',
      "--data is missing: name the data to train on",
      "--output is missing: name a folder for the adapter",
      "--r must be a whole number of at least 0, not -1; leave it out for the default, 8",
      "--warmup-steps and --warmup-ratio say the same thing twice; give one of them",
      "--eval-steps needs evaluation data; pass --eval-data or --eval-split",
    ]);
  });

  test("an adapter and settings for a new one exclude each other", async () => {
    const { code, stderr } = await graft([
      ...["train", tinyLlama, "--data", "d", "--output", "o", "--adapter", "a", "--r", "8", "--config", "c"],
    ]);
    expect(code).toBe(2);
    expect(stderr).toContain("--adapter brings its own configuration; leave out --r, --config, or --adapter");
  });
});

describe("streams", () => {
  test("a reader that goes away is no error", async () => {
    const child = start(["select", tinyLlama, "--target-modules", "all-linear"]);
    child.stdout!.destroy();
    const [code, stderr] = await new Promise<[number | null, string]>((resolve) => {
      let text = "";
      child.stderr!.on("data", (chunk: Buffer) => {
        text += chunk;
      });
      child.on("close", (code) => resolve([code, text]));
      child.stdin!.end();
    });
    expect([code, stderr]).toEqual([0, ""]);
  });

  test("devices lists the CPU, and --device list does the same", async () => {
    const { code, stdout } = await graft(["devices"]);
    expect(code).toBe(0);
    expect(stdout.split("\n")).toContain("cpu");
    const listed = await finish(start(["train", tinyLlama, "--device", "list", "--json"]));
    expect(listed.json()).toEqual({ devices: stdout.trim().split("\n") });
  });
});
