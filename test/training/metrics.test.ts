import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fromBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { crc32c, maskedCrc32c } from "../../src/training/crc32c.ts";
import { keepMetricsLines, metricsLine } from "../../src/training/metrics.ts";
import { openJsonlMetrics, openTensorBoardMetrics } from "../../src/training/node.ts";
import { encodeFileStart, encodeScalars, frameRecord } from "../../src/training/tensorboard.ts";
import { EventSchema } from "../../src/training/tensorboard_pb.ts";
import { readVectors } from "./vectors.ts";

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "graft-metrics-"));
});
afterEach(() => rm(directory, { recursive: true }));

const bytes = (text: string) => new TextEncoder().encode(text);

/** Splits a TFRecord file, checking every length and checksum. */
function* records(file: Uint8Array): Generator<Uint8Array> {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  for (let at = 0; at < file.length; ) {
    const length = Number(view.getBigUint64(at, true));
    expect(view.getUint32(at + 8, true)).toBe(maskedCrc32c(file.subarray(at, at + 8)));
    const data = file.subarray(at + 12, at + 12 + length);
    expect(data.length).toBe(length);
    expect(view.getUint32(at + 12 + length, true)).toBe(maskedCrc32c(data));
    yield data;
    at += length + 16;
  }
}

describe("crc32c", () => {
  it.each([
    ["123456789", bytes("123456789"), 0xe3069283],
    ["32 zeros", new Uint8Array(32), 0x8a9136aa],
    ["32 times 0xff", new Uint8Array(32).fill(0xff), 0x62a8ab43],
    ["0 to 31", Uint8Array.from({ length: 32 }, (_, i) => i), 0x46dd794e],
    ["31 to 0", Uint8Array.from({ length: 32 }, (_, i) => 31 - i), 0x113fdb5c],
    ["nothing", new Uint8Array(), 0],
  ])("is RFC 3720's for %s", (_, data, expected) => {
    expect(crc32c(data)).toBe(expected);
  });

  it("is the remainder of the polynomial division, at every length and alignment", () => {
    const byBits = (data: Uint8Array) => {
      let crc = 0xffffffff;
      for (const byte of data) {
        crc ^= byte;
        for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
      }
      return ~crc >>> 0;
    };
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), fc.nat(9), (data, skipped) => {
        const part = data.subarray(skipped);
        expect(crc32c(part)).toBe(byBits(part));
      }),
    );
  });
});

describe("TensorBoard records", () => {
  const recorded = readVectors<{ fileStart: string; resume: string; scalars: string }>("tensorboard.json");
  const hex = (data: Uint8Array) => Buffer.from(data).toString("hex");

  it("equal those of Python's protobuf with TensorFlow's field numbers", () => {
    expect(hex(encodeFileStart(1700000000.25))).toBe(recorded.fileStart);
    expect(hex(encodeFileStart(1700000000.25, 41))).toBe(recorded.resume);
    expect(
      hex(encodeScalars(300, { "train/loss": 2.5, "train/learning_rate": 1e-4, "ä/ß": -0.5 }, 1700000001.5)),
    ).toBe(recorded.scalars);
  });

  it("can be read back whatever they hold", () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 5 }), (parts) => {
        const file = Buffer.concat(parts.map(frameRecord));
        expect([...records(file)].map((part) => [...part])).toEqual(parts.map((part) => [...part]));
      }),
    );
  });
});

describe("metricsLine", () => {
  it("writes what JSON cannot hold as strings", () => {
    expect(metricsLine(3, { a: 0.5, b: Number.NaN, c: Infinity, d: -Infinity }, 12.5)).toBe(
      '{"step":3,"time":12.5,"a":0.5,"b":"NaN","c":"Infinity","d":"-Infinity"}',
    );
  });
  it("refuses names that the line itself has", () => {
    expect(() => metricsLine(3, { time: 1 }, 12.5)).toThrow('A metric cannot be called "time"');
  });
});

describe("keepMetricsLines", () => {
  const lines = (...steps: number[]) =>
    steps.map((step) => `${metricsLine(step, { loss: step / 2 }, 0)}\n`).join("");

  it("drops exactly the lines after the step resumed from, wherever the file was cut", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(20)), fc.nat(20), fc.nat(60), (steps, resumeStep, cut) => {
        const whole = lines(...steps);
        const torn = whole + metricsLine(1000, { loss: 1 }, 0).slice(0, cut);
        const kept = lines(...steps.filter((step) => step <= resumeStep));
        expect(keepMetricsLines(torn, resumeStep)).toBe(kept);
        expect(keepMetricsLines(whole)).toBe(whole);
      }),
    );
  });
  it("keeps a complete last line that lacks its line break", () => {
    expect(keepMetricsLines(lines(1) + metricsLine(2, {}, 0))).toBe(`${lines(1)}${metricsLine(2, {}, 0)}\n`);
  });
});

describe("openJsonlMetrics", () => {
  it("appends in order, also when nobody waits, and creates the folder", async () => {
    const path = join(directory, "runs", "a", "metrics.jsonl");
    const writer = await openJsonlMetrics(path);
    for (let step = 1; step <= 50; step++) void writer.write(step, { "train/loss": 1 / step });
    await writer.close();
    await writer.close();
    const written = (await readFile(path, "utf8"))
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(written.map(({ step }) => step)).toEqual(Array.from({ length: 50 }, (_, i) => i + 1));
    expect(written[2]["train/loss"]).toBe(1 / 3);
    expect(Math.abs(written[0].time - Date.now() / 1000)).toBeLessThan(60);
  });

  it("has every step once after a crash and a resume", async () => {
    const path = join(directory, "metrics.jsonl");
    const first = await openJsonlMetrics(path);
    for (const step of [1, 2, 3, 4]) await first.write(step, { run: 1 });
    await first.close();
    await writeFile(path, '{"step":5,"ti', { flag: "a" });
    const second = await openJsonlMetrics(path, { resumeStep: 2 });
    for (const step of [3, 4]) await second.write(step, { run: 2 });
    await second.close();
    const written = (await readFile(path, "utf8"))
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(written.map(({ step, run }) => [step, run])).toEqual([
      [1, 1],
      [2, 1],
      [3, 2],
      [4, 2],
    ]);
  });

  it("says what is wrong with the path", async () => {
    const file = join(directory, "file");
    await writeFile(file, "");
    await expect(openJsonlMetrics(join(file, "metrics.jsonl"))).rejects.toThrow(
      `Cannot write metrics to ${join(file, "metrics.jsonl")}: a part of the path is a file, not a folder; choose another path.`,
    );
    await expect(openJsonlMetrics(directory)).rejects.toThrow("it is a folder; name a file");
  });

  it.runIf(process.platform === "linux")("reports a full disk from write, and still closes", async () => {
    const writer = await openJsonlMetrics("/dev/full");
    await expect(writer.write(1, { loss: 1 })).rejects.toThrow(
      "/dev/full: the disk is full; free some space.",
    );
    await writer.close();
  });

  it("refuses writes after close", async () => {
    const writer = await openJsonlMetrics(join(directory, "m.jsonl"));
    await writer.close();
    expect(() => writer.write(1, {})).toThrow("Metrics of step 1 came after");
  });
});

describe("openTensorBoardMetrics", () => {
  it("starts a new file each time; a resumed one purges the steps done again", async () => {
    const first = await openTensorBoardMetrics(directory);
    await first.write(1, { "train/loss": 2 });
    await first.write(2, { "train/loss": 1.5, "train/grad_norm": 0.1 });
    await first.close();
    const second = await openTensorBoardMetrics(directory, { resumeStep: 1 });
    await second.write(2, { "train/loss": 1.25 });
    await second.close();

    const names = (await readdir(directory)).sort();
    expect(names).toHaveLength(2);
    for (const name of names) expect(name).toMatch(/^events\.out\.tfevents\.\d{10}\..+\.\d+\.\d+$/);
    const events = await Promise.all(
      names.map(async (name) =>
        [...records(await readFile(join(directory, name)))].map((data) => fromBinary(EventSchema, data)),
      ),
    );
    const what = (file: number) =>
      events[file]!.map(({ step, what: { case: kind } }) => [Number(step), kind]);
    expect(what(0)).toEqual([
      [0, "fileVersion"],
      [1, "summary"],
      [2, "summary"],
    ]);
    expect(what(1)).toEqual([
      [0, "fileVersion"],
      [2, "sessionLog"],
      [2, "summary"],
    ]);
    expect(events[0]![2]!.what.value).toMatchObject({
      value: [
        { tag: "train/loss", value: { value: 1.5 } },
        { tag: "train/grad_norm", value: { value: Math.fround(0.1) } },
      ],
    });
  });
});
