import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { BatchSampler } from "../../src/data/batch-sampler.ts";
import { memoryDataset } from "../../src/data/combine.ts";
import {
  type BatchIndices,
  exampleLengths,
  type LoadedBatch,
  loadBatches,
  prefetch,
} from "../../src/data/prefetch.ts";
import type { Dataset } from "../../src/data/types.ts";
import { tensor, zeros } from "../../src/tensor/index.ts";

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

describe("prefetch", () => {
  test("keeps the order and the bound for any delays", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.nat(3), { maxLength: 12 }),
        fc.integer({ min: 1, max: 5 }),
        async (delays, depth) => {
          let [underWay, most] = [0, 0];
          const prepare = async (index: number): Promise<number> => {
            most = Math.max(most, ++underWay);
            await sleep(delays[index]!);
            underWay--;
            return index;
          };
          const results: number[] = [];
          for await (const result of prefetch(delays.keys(), prepare, { depth })) results.push(result);
          expect(results).toEqual([...delays.keys()]);
          expect(most).toBe(Math.min(depth, delays.length));
        },
      ),
      { numRuns: 30 },
    );
  });

  test("works ahead while the consumer is busy", async () => {
    const started: number[] = [];
    const iterator = prefetch([0, 1, 2, 3, 4], async (i) => started.push(i), { depth: 2 });
    await iterator.next();
    await sleep(5);
    expect(started).toEqual([0, 1, 2]);
    await iterator.return();
    expect(started).toEqual([0, 1, 2]);
  });

  test("begins the next ones only when the consumer waits for something: until then it does not hold it up", async () => {
    const started: number[] = [];
    const iterator = prefetch([0, 1, 2, 3], async (i) => started.push(i), { depth: 1 });
    await iterator.next();
    for (let i = 0; i < 50; i++) await undefined; // what a consumer does before it has asked the engine for something
    expect(started).toEqual([0]);
    await sleep(5);
    expect(started).toEqual([0, 1]);
  });

  test("left early, it does not begin what it has taken", async () => {
    const started: number[] = [];
    const iterator = prefetch([0, 1, 2, 3], async (i) => started.push(i), { depth: 1 });
    await iterator.next();
    await iterator.return();
    await sleep(5);
    expect(started).toEqual([0]);
  });

  test("an error comes out in its turn and ends it", async () => {
    const results: number[] = [];
    const run = async () => {
      for await (const result of prefetch(
        [0, 1, 2, 3],
        async (i) => {
          if (i === 2) throw new Error("two");
          return i;
        },
        { depth: 4 },
      )) {
        results.push(result);
        await sleep(2);
      }
    };
    await expect(run()).rejects.toThrow("two");
    expect(results).toEqual([0, 1]);
  });

  test("an aborted signal stops it", async () => {
    const controller = new AbortController();
    const run = async () => {
      for await (const result of prefetch([0, 1, 2], async (i) => i, { signal: controller.signal }))
        if (result === 0) controller.abort();
    };
    await expect(run()).rejects.toThrow(/abort/i);
  });

  test("refuses a depth of 0", async () => {
    await expect(prefetch([1], async (i) => i, { depth: 0 }).next()).rejects.toThrow(/depth/);
  });
});

test("loadBatches reads what the sampler chose, in its order", async () => {
  const examples = Array.from({ length: 7 }, (_, i) => ({
    inputIds: new Array<number>(i + 1).fill(i),
    labels: new Array<number>(i + 1).fill(i),
  }));
  const dataset = memoryDataset(examples);
  const lengths = await exampleLengths(dataset);
  expect([...lengths]).toEqual([1, 2, 3, 4, 5, 6, 7]);
  const sampler = new BatchSampler({ length: 7, batchSize: 2, seed: 5, lengths });
  const indices: number[][] = [];
  for await (const batch of loadBatches(dataset, sampler, { padTokenId: 99 })) {
    indices.push(batch.indices);
    const { inputIds } = batch.parts[0]!;
    expect(batch.parts.length).toBe(1);
    expect(inputIds.shape).toEqual([batch.indices.length, Math.max(...batch.indices) + 1]);
    expect(Number(inputIds.data[0])).toBe(batch.indices[0]);
  }
  expect(indices).toEqual([...sampler]);
});

test("loadBatches tells where each example of the dataset is: in rows of their own, in shared ones, by size of picture", async () => {
  const picture = (size: number) => zeros("float32", [1, size, size]);
  const examples = [3, 1, 2, 5].map((length, i) => ({
    inputIds: new Array<number>(length).fill(i),
    labels: new Array<number>(length).fill(i),
  }));
  const placesOf = async (rows: typeof examples, batch: BatchIndices, side: "left" | "right" = "right") => {
    const { value } = await loadBatches(memoryDataset(rows), [batch], { padTokenId: 9, side }).next();
    return (value as LoadedBatch).parts.map(({ places }) =>
      places.map(({ index, row, start, length }) => [index, row, start, length]),
    );
  };
  expect(await placesOf(examples, [3, 0, 2], "left")).toEqual([
    [
      [3, 0, 0, 5],
      [0, 1, 2, 3],
      [2, 2, 3, 2],
    ],
  ]);
  expect(await placesOf(examples, [[3], [0, 2], [1]])).toEqual([
    [
      [3, 0, 0, 5],
      [0, 1, 0, 3],
      [2, 1, 3, 2],
      [1, 2, 0, 1],
    ],
  ]);
  const pictured = examples.map((example, i) => ({ ...example, pixelValues: picture(1 + (i % 2)) }));
  expect(await placesOf(pictured, [3, 0, 2])).toEqual([
    [[3, 0, 0, 5]],
    [
      [0, 0, 0, 3],
      [2, 1, 0, 2],
    ],
  ]);
});

describe("pictures that are known", () => {
  const picture = (value: number) => tensor("float32", [1, 1, 2], Float32Array.of(value, value));
  const examples = [0, 1, 2].map((i) => ({ inputIds: [i], labels: [i], pixelValues: picture(i) }));
  const load = async (dataset: Dataset, known: readonly number[]) => {
    const { value } = await loadBatches(dataset, [[0, 1, 2]], {
      padTokenId: 9,
      knownPicture: (index) => (known.includes(index) ? [1, 1, 2] : undefined),
    }).next();
    return (value as LoadedBatch).parts[0]!;
  };

  test("are not read, unless they are asked for", async () => {
    const asked: number[] = [];
    const dataset: Dataset = {
      ...memoryDataset(examples),
      async get(index) {
        asked.push(index);
        return examples[index]!;
      },
      getText: async (index) => ({ inputIds: [index], labels: [index] }),
    };
    const { pixelValues, unreadPictures, inputIds } = await load(dataset, [0, 2]);
    expect(asked).toEqual([1]);
    expect(pixelValues).toBeUndefined();
    expect([...inputIds.data].map(Number)).toEqual([0, 1, 2]);
    expect(unreadPictures!.shape).toEqual([3, 1, 1, 2]);
    expect([...(await unreadPictures!.read([2, 1])).data]).toEqual([2, 2, 1, 1]);
    expect(asked).toEqual([1, 2]);
    expect((await load(dataset, [])).unreadPictures).toBeUndefined();
  });

  test("that have another shape by then are an error that names the row", async () => {
    const changed = { ...examples[2]!, pixelValues: zeros("float32", [1, 2, 2]), file: "a.jsonl", line: 3 };
    const dataset = memoryDataset([examples[0]!, examples[1]!, changed]);
    const { unreadPictures } = await load(dataset, [2]);
    await expect(unreadPictures!.read([2])).rejects.toThrow(
      "a.jsonl:3: the picture had the shape [1, 1, 2] before, now [1, 2, 2]",
    );
  });
});
