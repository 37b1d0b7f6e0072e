import { execFileSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { type ErrorDocument, graft, scratch, tinyLlama, vectors } from "./support.ts";

const directory = scratch();
const llama = join(vectors, "models/llama-qv");
const sharded = join(vectors, "models/llama-dynamic-rope-old-style");
const good = {
  model: join(llama, "model"),
  adapter: join(llama, "adapter"),
  data: join(llama, "tokens.jsonl"),
};
const adapterOf = (name: string): string => join(vectors, "models", name, "adapter");

let made = 0;

/** A copy of a directory to spoil. */
function spoiled(source: string, spoil: (copy: string) => void): string {
  const copy = join(directory, `copy-${made++}`);
  cpSync(source, copy, { recursive: true });
  spoil(copy);
  return copy;
}

/** A file with this text. */
function file(name: string, text: string | Uint8Array): string {
  const folder = join(directory, `file-${made++}`);
  mkdirSync(folder);
  writeFileSync(join(folder, name), text);
  return join(folder, name);
}

function editJson(path: string, edit: (json: Record<string, unknown>) => void): void {
  const json = JSON.parse(readFileSync(path, "utf8")) as Record<string, unknown>;
  edit(json);
  writeFileSync(path, JSON.stringify(json));
}

const weights = "model.safetensors";
const lines = readFileSync(good.data, "utf8").trim().split("\n");
const headerOf = (text: string): Uint8Array => {
  const length = new Uint8Array(8);
  new DataView(length.buffer).setBigUint64(0, BigInt(text.length), true);
  return Buffer.concat([length, Buffer.from(text)]);
};

type Bad = {
  model?: () => string;
  adapter?: () => string;
  data?: () => string;
  flags?: readonly string[];
  /** Parts of the message: what and where, and what to do. */
  says: readonly (string | RegExp)[];
  code: string;
  exit: 1 | 2;
};

const cases: Record<string, Bad> = {
  "truncated weights": {
    model: () => spoiled(good.model, (copy) => truncateSync(join(copy, weights), 40_000)),
    says: [/copy-\d+\/model\.safetensors/, /download/i],
    code: "incomplete-buffer",
    exit: 2,
  },
  "a header length that no file can have": {
    model: () =>
      spoiled(good.model, (copy) => writeFileSync(join(copy, weights), new Uint8Array(64).fill(255))),
    says: [weights, /header/],
    code: "header-too-large",
    exit: 2,
  },
  "overlapping tensors": {
    model: () =>
      spoiled(good.model, (copy) =>
        writeFileSync(
          join(copy, weights),
          Buffer.concat([
            headerOf(
              '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}',
            ),
            new Uint8Array(12),
          ]),
        ),
      ),
    says: [weights, '"b"'],
    code: "invalid-offset",
    exit: 2,
  },
  "pickled weights": {
    model: () =>
      spoiled(good.model, (copy) => {
        rmSync(join(copy, weights));
        writeFileSync(join(copy, "pytorch_model.bin"), "PK");
      }),
    says: ["pytorch_model.bin", /safetensors/],
    code: "pickle",
    exit: 2,
  },
  "a missing shard": {
    model: () =>
      spoiled(join(sharded, "model"), (copy) =>
        rmSync(join(copy, readdirSync(copy).find((name) => /-00002-of-/.test(name))!)),
      ),
    says: [/model-00002-of-\d+\.safetensors/, /download/i],
    code: "missing-shards",
    exit: 2,
  },
  "weights of another shape than config.json says": {
    model: () =>
      spoiled(good.model, (copy) =>
        editJson(join(copy, "config.json"), (config) => {
          config["intermediate_size"] = 52;
        }),
      ),
    says: [weights, /mlp\.\w+_proj\.weight" has shape \[\d+, \d+\], expected \[/, "config.json"],
    code: "weights-do-not-fit",
    exit: 2,
  },
  "a config.json that is cut short": {
    model: () => spoiled(good.model, (copy) => truncateSync(join(copy, "config.json"), 100)),
    says: ["config.json", /line \d+/],
    code: "invalid-json",
    exit: 2,
  },
  "an unknown model type": {
    model: () =>
      spoiled(good.model, (copy) =>
        editJson(join(copy, "config.json"), (config) => {
          config["model_type"] = "lama";
        }),
      ),
    says: ["config.json", 'model_type "lama"', 'Did you mean "llama"?'],
    code: "unknown-model-type",
    exit: 2,
  },
  "a setting that is not implemented": {
    model: () =>
      spoiled(good.model, (copy) =>
        editJson(join(copy, "config.json"), (config) => {
          config["quantization_config"] = { quant_method: "gptq" };
        }),
      ),
    says: ["config.json", "quantization_config"],
    code: "unsupported-config",
    exit: 2,
  },
  "a model that is not there": {
    model: () => join(vectors, "models/llama-qw/model"),
    says: ["llama-qw", "llama-qv"],
    code: "missing-file",
    exit: 2,
  },
  "an adapter for another model": {
    adapter: () => adapterOf("qwen3-head-dim"),
    says: ["adapter_model.safetensors", "llama", /shape|not part|missing/, /another model/],
    code: "adapter-does-not-fit",
    exit: 2,
  },
  "an adapter that is not LoRA's": {
    adapter: () =>
      spoiled(good.adapter, (copy) =>
        editJson(join(copy, "adapter_config.json"), (config) => {
          config["peft_type"] = "IA3";
        }),
      ),
    says: ["adapter_config.json", "IA3", "LORA"],
    code: "not-lora",
    exit: 2,
  },
  "a variant of LoRA that cannot be trained": {
    adapter: () =>
      spoiled(good.adapter, (copy) =>
        editJson(join(copy, "adapter_config.json"), (config) => {
          config["use_dora"] = true;
        }),
      ),
    says: [/dora/i],
    code: "unsupported-adapter",
    exit: 2,
  },
  "truncated adapter weights": {
    adapter: () =>
      spoiled(good.adapter, (copy) => truncateSync(join(copy, "adapter_model.safetensors"), 3000)),
    says: [/copy-\d+\/adapter_model\.safetensors/],
    code: "incomplete-buffer",
    exit: 2,
  },
  "a directory without an adapter": {
    adapter: () => good.model,
    says: ["adapter_config.json"],
    code: "missing-file",
    exit: 2,
  },
  "tokens outside the vocabulary": {
    data: () => file("tokens.jsonl", `${lines[0]}\n${lines[1]}\n{"input_ids": [3, 9999]}\n`),
    says: ["tokens.jsonl:3", "9999", "0 to 95", /tokenizer/],
    code: "token-out-of-range",
    exit: 2,
  },
  "labels of another length than the tokens": {
    data: () => file("tokens.jsonl", '{"input_ids": [3, 4], "labels": [3]}\n'),
    says: ["tokens.jsonl:1", '"labels" has 1'],
    code: "length-mismatch",
    exit: 2,
  },
  "a line that is not JSON": {
    data: () => file("tokens.jsonl", `${lines[0]}\n{"input_ids": [3,\n`),
    says: ["tokens.jsonl:2"],
    code: "bad-json",
    exit: 2,
  },
  "an empty data set": {
    data: () => file("tokens.jsonl", "\n\n"),
    says: ["tokens.jsonl", "no rows", /at least one/],
    code: "empty",
    exit: 2,
  },
  "data without a label": {
    data: () => file("tokens.jsonl", '{"input_ids": [3, 4], "labels": [-100, -100]}\n'),
    says: ["tokens.jsonl", /label/],
    code: "no-labels",
    exit: 2,
  },
  "data that is not there": {
    data: () => join(directory, "nothing.jsonl"),
    says: ["nothing.jsonl", "no such file"],
    code: "unreadable",
    exit: 2,
  },
  "text without a tokenizer": {
    data: () => file("text.jsonl", '{"text": "In the beginning"}\n'),
    says: ["text.jsonl", "tokenizer.json", '{"input_ids"}'],
    code: "no-tokenizer",
    exit: 2,
  },
  "a device that is not there": {
    flags: ["--device", "abacus"],
    says: ["abacus", "cpu"],
    code: "unknown-device",
    exit: 2,
  },
  "a loss that is not a number": {
    flags: ["--learning-rate", "1e30", "--max-steps", "20", "--save-strategy", "no"],
    says: [/step \d+/, /NaN|Infinity/, "--max-grad-norm", /learning rate/],
    code: "diverged",
    exit: 1,
  },
};

describe("train says what is wrong with its input, and leaves nothing behind", () => {
  test.each(Object.entries(cases))(
    "%s",
    async (name, { model, adapter, data, flags = [], says, code, exit }) => {
      const parent = join(directory, `out ${name}`);
      const args = [
        "train",
        model?.() ?? good.model,
        ...["--adapter", adapter?.() ?? good.adapter],
        ...["--data", data?.() ?? good.data],
        ...["--output", join(parent, "adapter"), "--json"],
        ...(flags.includes("--max-steps") ? [] : ["--max-steps", "2"]),
        ...flags,
      ];
      const { code: exitCode, stdout, stderr, json } = await graft(args);
      const { error } = json<ErrorDocument>();
      for (const part of says) expect(error.message).toMatch(part);
      expect(error.code).toBe(code);
      expect(exitCode).toBe(exit);
      expect(stderr).toContain(`error: ${error.message}`);
      expect(stdout + stderr).not.toMatch(/^\s+at .*:\d+:\d+/m);
      expect(existsSync(parent)).toBe(false);
    },
  );
});

const train = (output: string, ...flags: string[]): Parameters<typeof graft> => [
  [
    "train",
    good.model,
    "--adapter",
    good.adapter,
    "--data",
    good.data,
    "--max-steps",
    "4",
    "--output",
    output,
    ...flags,
  ],
];

describe("outputs that cannot be written", () => {
  test("below a file", async () => {
    const inTheWay = file("note.txt", "mine");
    const { code, stderr } = await graft(...train(join(inTheWay, "adapter")));
    expect(code).toBe(2);
    expect(stderr).toMatch(/error: .*note\.txt\/adapter.*(choose|check)/is);
    expect(readFileSync(inTheWay, "utf8")).toBe("mine");
  });

  const canMount = ((): boolean => {
    try {
      execFileSync("unshare", ["--mount", "true"], { stdio: "ignore" });
      execFileSync("sh", ["-c", 'd=$(mktemp -d) && mount -t tmpfs tmpfs "$d" && umount "$d" && rmdir "$d"'], {
        stdio: "ignore",
      });
      return true;
    } catch {
      return false;
    }
  })();

  describe.skipIf(!canMount)("file systems (needs the right to mount)", () => {
    const mounts: string[] = [];
    const mount = (options: string): string => {
      const path = join(directory, `mount-${made++}`);
      mkdirSync(path);
      execFileSync("mount", ["-t", "tmpfs", "-o", options, "tmpfs", path]);
      mounts.push(path);
      return path;
    };
    afterAll(() => {
      for (const path of mounts) execFileSync("umount", [path]);
    });

    test("a full disk is a failure, and keeps nothing", async () => {
      const disk = mount("size=24k");
      const { code, stderr } = await graft(...train(join(disk, "adapter")));
      expect(code).toBe(1);
      expect(stderr).toMatch(/error: .*adapter.*disk is full.*free/is);
      expect(readdirSync(disk)).toEqual([]);
    });

    test("a read-only file system is bad input", async () => {
      const disk = mount("ro,size=64k");
      const { code, stderr } = await graft(...train(join(disk, "adapter")));
      expect(code).toBe(2);
      expect(stderr).toMatch(/error: cannot write to .*adapter.*choose/is);
    });
  });
});

describe("generate and eval check their input too", () => {
  test("a prompt needs a tokenizer, and the message says what does without", async () => {
    const { code, stderr } = await graft(["generate", good.model, "--prompt", "In the beginning"]);
    expect(code).toBe(2);
    expect(stderr).toMatch(/error: .*tokenizer\.json.*--prompt-tokens/s);
  });

  test("prompt tokens outside the vocabulary", async () => {
    const { code, stderr } = await graft(["generate", good.model, "--prompt-tokens", "3,999"]);
    expect(code).toBe(2);
    expect(stderr).toMatch(/Token 999 .*vocabulary of 96/);
  });

  test("a chat without a template", async () => {
    const { code, stderr } = await graft(["generate", tinyLlama, "--chat", "--prompt", "Who art thou?"]);
    expect(code).toBe(2);
    expect(stderr).toMatch(/error: .*chat template.*chat_template\.jinja/s);
  });

  test("an empty prompt file, and one that is not there", async () => {
    const missing = await graft([
      "generate",
      tinyLlama,
      "--prompt-file",
      join(directory, "none.txt"),
      "--json",
    ]);
    expect([missing.code, missing.json<ErrorDocument>().error.code]).toEqual([2, "unreadable"]);
    expect(missing.stderr).toContain("none.txt");
  });

  test("eval of an adapter for another model", async () => {
    const { code, json } = await graft([
      ...["eval", good.model, "--adapter", adapterOf("qwen3-head-dim")],
      ...["--data", good.data, "--json"],
    ]);
    expect([code, json<ErrorDocument>().error.code]).toEqual([2, "adapter-does-not-fit"]);
  });
});
