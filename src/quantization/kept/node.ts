import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { cpus } from "node:os";
import { dirname, join } from "node:path";
import { writeFileAtomic } from "../../checkpoint/node.ts";
import { emit, numberedPaths, reachable, readStorage, type WeightStorage } from "../../graph/index.ts";
import type { Tensor } from "../../tensor/index.ts";
import { ahead } from "../ahead.ts";
import type { CheckOptions, Verdicts } from "../check.ts";

/** Counted up when layers are judged otherwise. */
const VERSION = 1;

/**
 * The verdicts that were kept beside the codes of a file, or those of `judge`, which are kept then. What they depend on is part of
 * their name: the program, what it reads, what runs it, and the weights, of which the folder's name has those in codes.
 * @throws CheckpointError if weights cannot be read, and what `judge` throws.
 */
export async function keptVerdicts(
  codes: string,
  options: Required<CheckOptions>,
  judge: () => Promise<Verdicts>,
): Promise<Verdicts> {
  const folder = dirname(codes);
  const file = join(folder, `check-${await keyOf(folder, options)}.json`);
  const known = await readFile(file, "utf8")
    .then((text) => JSON.parse(text) as Verdicts)
    .catch(() => undefined);
  if (known) return known;
  const verdicts = await judge();
  await writeFileAtomic(file, JSON.stringify(verdicts)).catch(() => undefined); // then they are found anew
  return verdicts;
}

async function keyOf(
  folder: string,
  { engine, values, feeds, maxError }: Required<CheckOptions>,
): Promise<string> {
  const { model, inputs } = emit(Object.fromEntries(values.map((value, i) => [`value ${i}`, value])), {
    realPath: numberedPaths(),
  });
  // Kernels of other processors may saturate where these do not.
  const facts = [VERSION, engine.version, process.arch, cpus()[0]?.model, maxError];
  const hash = createHash("sha256").update(JSON.stringify(facts)).update(model);
  for (const { name } of inputs) {
    const { dtype, shape, data } = feeds[name] as Tensor;
    hash.update(JSON.stringify([name, dtype, shape]));
    hash.update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  }
  const others = new Set<WeightStorage>();
  for (const { source } of reachable(values))
    if (source.kind === "weight" && !source.storage.source.path?.startsWith(folder))
      others.add(source.storage);
  for await (const bytes of ahead([...others].map((storage) => () => readStorage(storage))))
    hash.update(bytes);
  return hash.digest("hex").slice(0, 32);
}
