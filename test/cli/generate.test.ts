import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { AutoTokenizer } from "../../src/data/index.ts";
import { ReferenceCase } from "../support/reference-case.ts";
import { graft, scratch, tinyLlama, vectors } from "./support.ts";

const directory = scratch();
/** What transformers makes of tiny-llama; written by scripts/record_cli.py. */
const recorded = JSON.parse(readFileSync(join(vectors, "cli/tiny-llama.json"), "utf8")) as {
  generations: { prompt: string; settings: Record<string, number>; tokens: number[]; text: string }[];
  texts: string[];
  evaluation: { loss: number; perplexity: number; tokens: number };
};
type Generated = { text: string | null; tokens: number[]; reason: string };
const [first] = recorded.generations;

describe("greedy text equals transformers'", () => {
  test.each(recorded.generations.map((generation) => [generation.prompt, generation] as const))(
    "%j",
    async (prompt, { settings, tokens, text }) => {
      const flags = Object.entries(settings).flatMap(([name, value]) => [
        `--${name.replaceAll("_", "-")}`,
        String(value),
      ]);
      const { code, json, stderr } = await graft([
        ...["generate", tinyLlama, "--prompt", prompt, "--temperature", "0", ...flags, "--json"],
      ]);
      expect(code, stderr).toBe(0);
      expect(json<Generated>()).toMatchObject({
        text,
        tokens,
        reason: tokens.at(-1) === 2 ? "eos" : "length",
      });
    },
  );

  test.each(["llama-qv", "mistral-sliding-window", "qwen2-tied", "qwen3-head-dim"])(
    "tokens of %s, without and with the adapter",
    async (name) => {
      const { modelPath, adapterPath, expected } = new ReferenceCase(join(vectors, "models", name));
      const { prompt, maxNewTokens, newTokens, newTokensBase } = expected.generation;
      const args = [
        ...["generate", modelPath, "--prompt-tokens", prompt.join(","), "--temperature", "0"],
        ...["--max-new-tokens", String(maxNewTokens), "--json"],
      ];
      expect((await graft(args)).json<Generated>()).toMatchObject({ text: null, tokens: newTokensBase });
      const adapted = await graft([...args, "--adapter", adapterPath]);
      expect(adapted.json<Generated>().tokens).toEqual(newTokens);
    },
  );
});

describe("generate for people", () => {
  const greedy = ["--temperature", "0", "--max-new-tokens", "32"];

  test("writes the text and nothing else, from a flag, a file or standard input", async () => {
    const expected = { code: 0, stdout: `${first!.text}\n`, stderr: "" };
    expect(await graft(["generate", tinyLlama, "--prompt", first!.prompt, ...greedy])).toMatchObject(
      expected,
    );
    const file = join(directory, "prompt.txt");
    writeFileSync(file, `${first!.prompt}\n`);
    expect(await graft(["generate", tinyLlama, "--prompt-file", file, ...greedy])).toMatchObject(expected);
    const piped = await graft(["generate", tinyLlama, ...greedy], { input: `${first!.prompt}\r\n` });
    expect(piped).toMatchObject(expected);
  });

  test("stops at a text that is not part of the output", async () => {
    const args = ["generate", tinyLlama, "--prompt", first!.prompt, ...greedy];
    const { stdout } = await graft([...args, "--stop", "nowhere", "--stop", "ians,\nFor"]);
    expect(stdout).toBe(`${first!.text.split("ians,\nFor")[0]}\n`);
    const { json } = await graft([...args, "--stop", " Lord", "--json"]);
    expect(json<Generated>()).toMatchObject({ text: " of the", reason: "stop" });
  });

  test("--chat renders the text as the template has it, with another tokenizer's directory", async () => {
    const tokenizer = join(directory, "tokenizer");
    mkdirSync(tokenizer);
    for (const file of ["tokenizer.json", "tokenizer_config.json"])
      copyFileSync(join(tinyLlama, file), join(tokenizer, file));
    const template =
      "{% for m in messages %}{{ m.role }} said, {{ m.content }}. {% endfor %}{% if add_generation_prompt %}And he answered,{% endif %}";
    writeFileSync(join(tokenizer, "chat_template.jinja"), template);
    const { json } = await graft([
      ...[
        "generate",
        tinyLlama,
        "--tokenizer",
        tokenizer,
        "--chat",
        "--prompt",
        "Go up",
        ...greedy,
        "--json",
      ],
    ]);
    const ids = (await AutoTokenizer.fromPretrained(tinyLlama)).encode("user said, Go up. And he answered,", {
      addSpecialTokens: false,
    });
    const direct = await graft(["generate", tinyLlama, "--prompt-tokens", ids.join(), ...greedy, "--json"]);
    expect(json<Generated>().tokens).toEqual(direct.json<Generated>().tokens);
  });

  test("draws as generation_config.json says, and the same again with the same seed", async () => {
    const args = ["generate", tinyLlama, "--prompt", "Now it came to pass", "--json", "--seed"];
    const [once, again, other] = await Promise.all([
      graft([...args, "7"]),
      graft([...args, "7"]),
      graft([...args, "8"]),
    ]);
    const { tokens } = once.json<Generated>();
    expect(tokens.length).toBeLessThanOrEqual(80); // its max_new_tokens
    expect(again.json<Generated>().tokens).toEqual(tokens);
    expect(other.json<Generated>().tokens).not.toEqual(tokens);
  });
});

describe("eval", () => {
  test("of text equals the mean loss of its tokens", async () => {
    const file = join(directory, "texts.jsonl");
    writeFileSync(file, recorded.texts.map((text) => `${JSON.stringify({ text })}\n`).join(""));
    const { json } = await graft(["eval", tinyLlama, "--data", file, "--batch-size", "2", "--json"]);
    const { loss, perplexity, tokens, examples } = json<Record<string, number>>();
    const { evaluation } = recorded;
    expect(Math.abs(loss! / evaluation.loss - 1)).toBeLessThan(1e-5);
    expect(Math.abs(perplexity! / evaluation.perplexity - 1)).toBeLessThan(1e-4);
    expect([tokens, examples]).toEqual([evaluation.tokens, 3]);
  });

  test.each(["llama-qv", "qwen2-sliding-window"])(
    "of tokens, without and with an adapter: %s",
    async (name) => {
      const { modelPath, adapterPath, dataPath, expected } = new ReferenceCase(join(vectors, "models", name));
      for (const [flags, { loss, labelTokens }] of [
        [[], expected.evaluation.base],
        [["--adapter", adapterPath], expected.evaluation.adapter],
      ] as const) {
        const result = await graft(["eval", modelPath, ...flags, "--data", dataPath, "--json"]);
        const document = result.json<Record<string, number>>();
        expect(Math.abs(document["loss"]! / loss - 1)).toBeLessThan(1e-5);
        expect(document["tokens"]).toBe(labelTokens);
      }
    },
  );

  test("prints loss, perplexity and tokens for people", async () => {
    const { modelPath, dataPath } = new ReferenceCase(join(vectors, "models", "llama-qv"));
    const { stdout } = await graft(["eval", modelPath, "--data", dataPath, "--quiet"]);
    expect(stdout).toMatch(/^loss {8}5\.298\d+\nperplexity {2}200\.13\d\ntokens {6}57\n$/);
  });
});
