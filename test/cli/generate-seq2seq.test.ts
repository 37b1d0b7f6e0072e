import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { Tensor } from "../../src/tensor/index.ts";
import { answeringModel, pictureFile, recordedAnswers, shownText } from "../generation/answers.ts";
import { linePictures, recordedCases } from "../generation/recorded-case.ts";
import { type ErrorDocument, graft, scratch, tinyLlama, vectors } from "./support.ts";

type Generated = {
  text: string | null;
  tokens: number[];
  reason: string;
  promptTokens: number;
  seconds: number;
  score?: number;
  parsed?: unknown;
  image?: { width: number; height: number };
  sequences?: { tokens: number[]; score: number }[];
};

const florence = answeringModel();
const bart = join(vectors, "seq2seq/bart-tied-gelu/model");
const flags = (settings: Record<string, unknown>): string[] =>
  Object.entries(settings).flatMap(([name, value]) => [`--${name.replaceAll("_", "-")}`, String(value)]);
/** A NumPy file of float32. */
function npy({ shape, data }: Tensor<"float32">): Buffer {
  const header = `{'descr': '<f4', 'fortran_order': False, 'shape': (${shape.join(", ")}), }`;
  const padded = `${header.padEnd(117)}\n`;
  return Buffer.concat([
    Buffer.from("\x93NUMPY\x01\x00\x76\x00", "latin1"),
    Buffer.from(padded, "latin1"),
    Buffer.from(data.buffer, data.byteOffset, data.byteLength),
  ]);
}
const failure = async (args: readonly string[]) => {
  const { code, json, stderr } = await graft(["generate", ...args, "--json"]);
  expect(code, stderr).toBe(2);
  return json<ErrorDocument>().error;
};

describe("a picture's answer", () => {
  const [boxes, , caption] = recordedAnswers();

  test("has text, tokens, what they say in pixels, and the picture's size in JSON", async () => {
    const args = ["--image", pictureFile(boxes!.image), "--prompt", boxes!.prompt, ...flags(boxes!.settings)];
    const document = (await graft(["generate", florence, ...args, "--json"])).json<Generated>();
    expect(document).toEqual({
      text: shownText(boxes!),
      tokens: boxes!.tokens,
      reason: "eos", // the end is forced where the text comes to its limit
      score: expect.any(Number), // the model's own settings say two beams
      parsed: boxes!.parsed,
      promptTokens: boxes!.inputIds.length,
      seconds: expect.any(Number),
      image: { width: boxes!.size[0], height: boxes!.size[1] },
    });
  });

  test("is text alone for people, from a data URL too", async () => {
    const bytes = readFileSync(pictureFile(caption!.image)).toString("base64");
    for (const image of [pictureFile(caption!.image), `data:image/jpeg;base64,${bytes}`]) {
      const args = ["--image", image, "--prompt", caption!.prompt, ...flags(caption!.settings)];
      expect(await graft(["generate", florence, ...args])).toMatchObject({
        code: 0,
        stdout: `${shownText(caption!)}\n`,
        stderr: "",
      });
    }
  });

  test("may be asked for with token ids", async () => {
    const args = ["--image", pictureFile(boxes!.image), "--prompt-tokens", boxes!.inputIds.join()];
    const { json } = await graft(["generate", florence, ...args, ...flags(boxes!.settings), "--json"]);
    const document = json<Generated>();
    expect(document.tokens).toEqual(boxes!.tokens);
    expect(document).not.toHaveProperty("parsed");
  });

  test("may be asked for with prepared pixels, of any size", async () => {
    const recorded = recordedCases().find(
      ({ kind, prompts, settings }) =>
        kind === "florence2" && prompts.length === 1 && Object.keys(settings).length === 1,
    )!;
    const folder = join(vectors, "florence2", recorded.checkpoint);
    const picture = (await linePictures(folder))[recorded.lines[0]!]!;
    const file = join(scratch(), "picture.npy");
    writeFileSync(file, npy(picture));
    const args = ["--pixel-values-file", file, "--prompt-tokens", recorded.prompts[0]!.join()];
    if (recorded.adapter) args.push("--adapter", join(folder, "adapter"));
    const model = join(folder, "model");
    const { json } = await graft(["generate", model, ...args, ...flags(recorded.settings), "--json"]);
    expect(json<Generated>()).toMatchObject({ text: null, tokens: recorded.sequences[0] });
  });

  test("to a task that there is not comes with a hint", async () => {
    const args = ["--image", pictureFile(boxes!.image), "--max-new-tokens", "2", "--prompt"];
    const { code, stderr } = await graft(["generate", florence, ...args, "<ODD>"]);
    expect(code).toBe(0);
    expect(stderr).toBe(
      "note: <ODD> is no task of florence2, and is put to the model as it stands. Did you mean <OD>?\n",
    );
    expect((await graft(["generate", florence, ...args, "What is this?"])).stderr).toBe("");
  });
});

describe("an encoder–decoder", () => {
  const cases = recordedCases().filter(
    ({ kind, checkpoint, adapter, prompts, settings }) =>
      kind === "seq2seq" &&
      checkpoint === "bart-tied-gelu" &&
      !adapter &&
      prompts.length === 1 &&
      Object.keys(settings).every(
        (name) => settings[name] !== null && name !== "max_length" && name !== "min_length",
      ),
  );
  // Of generate's settings those that are lists have flags of another name.
  const asFlags = ({ eos_token_id: eos, ...settings }: Record<string, unknown>): string[] => [
    ...flags(settings),
    ...(eos === undefined ? [] : ["--eos-token-ids", String(eos)]),
  ];

  test.each(cases.slice(0, 5).map((recorded) => [JSON.stringify(recorded.settings), recorded] as const))(
    "writes with the flags of %s what transformers writes",
    async (_, { settings, prompts, sequences, scores }) => {
      const args = ["--prompt-tokens", prompts[0]!.join(), ...asFlags(settings)];
      const { code, json, stderr } = await graft(["generate", bart, ...args, "--json"]);
      expect(code, stderr).toBe(0);
      const document = json<Generated>();
      expect(document).toMatchObject({ text: null, tokens: sequences[0] });
      if (sequences.length > 1) expect(document.sequences!.map(({ tokens }) => tokens)).toEqual(sequences);
      else expect(document).not.toHaveProperty("sequences");
      if (scores) expect(document.score).toBeCloseTo(scores[0]!, 4);
      else expect(document).not.toHaveProperty("score");
    },
  );

  test("prints every text that is asked for", async () => {
    const args = ["--prompt-tokens", "0,5,49,2", "--num-beams", "3", "--num-return-sequences", "2"];
    const { stdout } = await graft(["generate", bart, ...args, "--max-new-tokens", "4"]);
    expect(stdout).toMatch(/^(\d+ ){4}\n(\d+ ){4}\n$/);
  });
});

describe("beams of a causal model", () => {
  test("write another text than greedy search, and say what has no effect without them", async () => {
    const args = ["generate", tinyLlama, "--prompt", "In the beginning", "--temperature", "0"];
    const short = ["--max-new-tokens", "12"];
    const greedy = await graft([...args, ...short]);
    const beams = await graft([...args, ...short, "--num-beams", "4", "--early-stopping", "true"]);
    expect(beams).toMatchObject({ code: 0, stderr: "" });
    expect(beams.stdout).not.toBe(greedy.stdout);
    const unused = await graft([...args, ...short, "--length-penalty", "2"]);
    expect(unused.stdout).toBe(greedy.stdout);
    expect(unused.stderr).toBe(
      "warning: --length-penalty has no effect without beam search. Set --num-beams above 1.\n",
    );
  });
});

describe("what does not go together", () => {
  const image = pictureFile("rgb.png");

  test("two pictures, or prepared pixels for a model of text", async () => {
    const both = ["--image", image, "--pixel-values-file", "p.npy", "--prompt", "<OD>"];
    expect((await failure([florence, ...both])).message).toContain("give one of them");
    const text = ["--pixel-values-file", "p.npy", "--prompt-tokens", "5"];
    expect((await failure([bart, ...text])).message).toMatch(/^--pixel-values-file: .* reads text alone/);
    expect((await failure([florence, ...text])).code).toBe("unreadable");
  });

  test.each([
    [
      [tinyLlama, "--prompt", "a", "--image", image],
      "bad-usage",
      /^--image: .* is of type llama, which reads text alone\.$/,
    ],
    [
      [bart, "--prompt-tokens", "5", "--image", image],
      "bad-usage",
      /is of type bart, which reads text alone/,
    ],
    [
      [bart, "--prompt", "a", "--chat"],
      "bad-usage",
      /an encoder–decoder, which has no conversations; leave it out\.$/,
    ],
    [[florence, "--prompt", "<OD>"], "bad-usage", /is asked about a picture; give one with --image\.$/],
    [
      [florence, "--prompt", "<OD>cats", "--image", image],
      "bad-prompt",
      /this task takes none\. Give "<OD>" alone\.$/,
    ],
    [
      [florence, "--prompt", "", "--image", image],
      "empty-prompt",
      /Give a text with --prompt, such as <CAPTION>\.$/,
    ],
    [[florence, "--prompt", "<OD>", "--image", "nowhere.png"], "unreadable", /nowhere\.png/],
    [[florence, "--prompt", "<OD>", "--image", pictureFile("empty.png")], "empty-image", /empty\.png/],
    [[florence, "--prompt", "word ".repeat(99), "--image", image], "prompt-too-long", /has positions for 96/],
    [
      [bart, "--prompt-tokens", "5", "--early-stopping", "soon"],
      "bad-usage",
      /^--early-stopping must be one of true, false, never, got "soon"\.$/,
    ],
    [
      [bart, "--prompt-tokens", "5", "--num-beams", "2", "--num-return-sequences", "3"],
      "invalid-generation-config",
      /--num-return-sequences 3 is more than --num-beams 2; raise --num-beams\.$/,
    ],
    [[bart, "--prompt-tokens", Array(25).fill(5).join()], "prompt-too-long", /has positions for 24/],
    [[bart, "--prompt", "a"], "no-tokenizer", /--prompt-tokens/],
  ] satisfies [string[], string, RegExp][])("%j", async (args, code, message) => {
    const error = await failure(args);
    expect(error.message).toMatch(message);
    expect(error.code).toBe(code);
  });

  test("a picture and a model that comes without its processor", async () => {
    const bare = answeringModel({ processor: false });
    const error = await failure([bare, "--prompt-tokens", "5", "--image", image]);
    expect(error.message).toMatch(/Pictures need the model's processor\.$/);
  });

  test("several things are said at once", async () => {
    const error = await failure([bart, "--prompt-tokens", "5", "--image", image, "--num-beams", "0"]);
    expect(error.message).toMatch(/^--num-beams must be a whole number of at least 1/);
  });

  test("settings of the model's file that are wrong are its fault", async () => {
    const directory = scratch();
    for (const file of ["config.json", "model.safetensors"])
      writeFileSync(join(directory, file), readFileSync(join(bart, file)));
    writeFileSync(join(directory, "generation_config.json"), '{"num_beams": 0, "early_stopping": "soon"}');
    const error = await failure([directory, "--prompt-tokens", "5"]);
    expect(error.message).toContain(
      'generation_config.json: num_beams must be a whole number of at least 1, got 0; early_stopping must be true, false or "never", got "soon"',
    );
  });
});
