import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import {
  type Florence2Input,
  Florence2Processor,
  type PaddingOptions,
} from "../../../src/processing/index.ts";
import type { Tensor } from "../../../src/tensor/index.ts";

const folder = new URL("../../vectors/processing/", import.meta.url);

type Case = {
  text: string | string[] | null;
  /** How many pictures; null for a call without any. */
  images: number | null;
  options: Record<string, unknown>;
  result?: { inputIds: number[][]; attentionMask: number[][] };
  error?: string;
};
const cases = JSON.parse(readFileSync(new URL("prompts.json", folder), "utf8")) as Case[];

const picture = { width: 20, height: 12, data: new Uint8Array(20 * 12 * 3).fill(90) };
const rows = ({ shape, data }: Tensor<"int64">): number[][] =>
  Array.from({ length: shape[0]! }, (_, i) =>
    Array.from(data.subarray(i * shape[1]!, (i + 1) * shape[1]!), Number),
  );

function inputOf({ text, images }: Case): Florence2Input {
  return {
    ...(text !== null && { text }),
    ...(images !== null && { images: new Array<typeof picture>(images).fill(picture) }),
  };
}

const optionsOf = ({ options }: Case): PaddingOptions =>
  Object.fromEntries(
    Object.entries(options).map(([key, value]) => [
      key.replace(/_(.)/g, (_, c: string) => c.toUpperCase()),
      value,
    ]),
  );

/** Which error stands for which of the reference's. */
const codes: [RegExp, string][] = [
  [/should be the only content/, "bad-prompt"],
  [/StopIteration/, "bad-prompt"],
  [/at least one input|list index out of range/, "no-input"],
  [/must match number of texts/, "image-count"],
  [/Mismatch in `image` token count/, "truncated-image"],
];

const label = ({ text, images, options }: Case): string =>
  `${JSON.stringify(text)?.slice(0, 60)}, ${images ?? "no"} pictures, ${JSON.stringify(options)}`;

describe.each(["current", "original"])("prompts with the %s checkpoint's processor", (name) => {
  let processor: Florence2Processor;
  beforeAll(async () => {
    processor = await Florence2Processor.fromPretrained(fileURLToPath(new URL(name, folder)));
  });

  it.each(cases.map((entry) => [label(entry), entry] as const))("%s", async (_, entry) => {
    const { result, error } = entry;
    const run = processor.process(inputOf(entry), optionsOf(entry));
    if (error !== undefined) {
      const code = codes.find(([pattern]) => pattern.test(error))?.[1];
      await expect(run).rejects.toMatchObject({ name: "DataError", code });
      return;
    }
    const ragged = new Set(result!.inputIds.map((ids) => ids.length)).size > 1;
    if (ragged) {
      // The reference gives lists here, and fails where tensors are asked for.
      await expect(run).rejects.toMatchObject({ code: "ragged-batch" });
      const texts = entry.text as string[];
      const { maxLength } = optionsOf(entry);
      const cut = entry.options["truncation"] === true && maxLength !== undefined ? { maxLength } : {};
      const image = entry.images !== null;
      expect(texts.map((text) => processor.encodePrompt(text, { image, ...cut }))).toEqual(result!.inputIds);
      return;
    }
    const { inputIds, attentionMask, pixelValues } = await run;
    expect(rows(inputIds)).toEqual(result!.inputIds);
    expect(rows(attentionMask)).toEqual(result!.attentionMask);
    expect(pixelValues?.shape).toEqual(entry.images === null ? undefined : [entry.images, 3, 16, 24]);
  });
});
