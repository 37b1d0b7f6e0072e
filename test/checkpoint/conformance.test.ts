import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { readTensor, safetensorsChunks, serializeSafetensors } from "../../src/checkpoint/index.ts";
import { CheckpointError } from "../../src/errors.ts";
import type { DType, Tensor } from "../../src/tensor/index.ts";
import { readBytes, tensorOf } from "./helpers.ts";

/** Recorded from the Python library by scripts/safetensors_vectors.py. */
const vector = (file: string) => readFileSync(new URL(`../vectors/checkpoint/${file}`, import.meta.url));
const json = (file: string) => JSON.parse(vector(file).toString());

type Written = {
  metadata: Record<string, string> | null;
  tensors: { name: string; dtype: DType; shape: number[]; data: string }[];
};
type Verdict = { name: string; file: string; tensors?: string[]; error?: string };

const written: [string, Written][] = Object.entries(json("written.json"));

describe("the Python library's files", () => {
  const contents = ({ tensors }: Written): Map<string, Tensor> =>
    new Map(
      tensors.map(({ name, dtype, shape, data }) => [
        name,
        tensorOf(dtype, shape, Buffer.from(data, "base64")),
      ]),
    );

  test.each(written)("%s: written byte for byte", async (name, file) => {
    const expected = new Uint8Array(vector(`${name}.safetensors`));
    const metadata = file.metadata ?? undefined;
    expect(serializeSafetensors(contents(file), metadata)).toEqual(expected);
    const chunks: Uint8Array[] = [];
    for await (const chunk of safetensorsChunks(contents(file), metadata)) chunks.push(chunk);
    expect(new Uint8Array(Buffer.concat(chunks))).toEqual(expected);
  });

  test.each(written)("%s: read", async (name, file) => {
    const { tensors, metadata } = await readBytes(vector(`${name}.safetensors`));
    expect(metadata).toEqual(file.metadata ?? {});
    const expected = contents(file);
    expect([...tensors.keys()].sort()).toEqual([...expected.keys()].sort());
    for (const [key, entry] of tensors) expect(await readTensor(entry)).toEqual(expected.get(key));
  });
});

/** Where the header is legal in Rust and still refused here, and why. */
const stricter: Record<string, string> = {
  "duplicate-key": "readers disagree about which of them counts",
  "unsupported-dtype": "there is no such element type here",
  "invalid-tensor-info": "serde also takes a tensor written as an array; the format says object",
};

test("verdicts are those of the Rust crate, but for the documented stricter ones", async () => {
  const verdicts: Verdict[] = json("verdicts.json");
  const differing: string[] = [];
  const refusedHereOnly: Record<string, string[]> = {};
  for (const { name, file, tensors, error } of verdicts) {
    const bytes = new Uint8Array(Buffer.from(file, "base64"));
    const ours = await readBytes(bytes).catch((e: unknown) => e);
    if (ours instanceof CheckpointError) {
      if (tensors === undefined) continue;
      if (!(ours.code in stricter)) differing.push(`${name}: accepted by Rust, here ${ours.message}`);
      refusedHereOnly[ours.code] = [...(refusedHereOnly[ours.code] ?? []), name];
    } else if (ours instanceof Error) differing.push(`${name}: not a CheckpointError: ${ours.stack}`);
    else {
      const names = [...(ours as Awaited<ReturnType<typeof readBytes>>).tensors.keys()];
      if (tensors === undefined) differing.push(`${name}: accepted here, in Rust ${error}`);
      else if (JSON.stringify(names.sort()) !== JSON.stringify(tensors.sort()))
        differing.push(`${name}: ${JSON.stringify(names)} here, in Rust ${JSON.stringify(tensors)}`);
    }
  }
  expect(differing).toEqual([]);
  const handwritten = (names: string[]) => names.filter((name) => !name.startsWith("mutation"));
  expect(Object.fromEntries(Object.entries(refusedHereOnly).map(([c, n]) => [c, handwritten(n)]))).toEqual({
    "duplicate-key": ["tensor twice", "tensor twice, differently spelled", "metadata key twice"],
    "unsupported-dtype": ["F4", "C64", "F8_E8M0"],
    "invalid-tensor-info": ["tensor as an array"],
  });
});
