import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  bytesSource,
  readSafetensors,
  readTensor,
  serializeSafetensors,
} from "../../src/checkpoint/index.ts";
import { CheckpointError } from "../../src/errors.ts";
import { f32, failure, fileOf, readBytes } from "./helpers.ts";

const info = (dtype: string, shape: unknown, offsets: unknown) => ({ dtype, shape, data_offsets: offsets });
const test16 = { test: info("I32", [2, 2], [0, 16]) };

describe("as in safetensors/src/tensor.rs", () => {
  test("test_empty_shapes_allowed", async () => {
    const { tensors } = await readBytes(fileOf({ test: info("I32", [], [0, 4]) }, 4));
    const tensor = await readTensor(tensors.get("test")!);
    expect(tensor).toEqual({ dtype: "int32", shape: [], data: new Int32Array(1) });
  });

  test("test_deserialization", async () => {
    const { tensors } = await readBytes(fileOf(test16, 16));
    expect([...tensors.keys()]).toEqual(["test"]);
    expect(tensors.get("test")).toMatchObject({
      dtype: "int32",
      shape: [2, 2],
      byteOffset: 68,
      byteLength: 16,
    });
  });

  test("test_json_attack", async () => {
    const tensors = Array.from({ length: 10 }, (_, i) => [`weight_${i}`, info("F32", [2, 2], [0, 16])]);
    const error = await failure(readBytes(fileOf(Object.fromEntries(tensors), 16)));
    expect(error.code).toBe("invalid-offset");
    expect(error.message).toContain("9 problems:");
    expect(error.message).toContain(
      'tensor "weight_1" starts at 0 and overlaps tensor "weight_0", which ends at 16',
    );
    expect(error.message).toContain("and 1 more");
  });

  test("test_metadata_incomplete_buffer", async () => {
    const bogus = new TextEncoder().encode("0123456789abcdefextra_bogus_data_for_polyglot_file");
    const extra = await failure(readBytes(fileOf(test16, bogus)));
    expect(extra.code).toBe("incomplete-buffer");
    expect(extra.message).toBe(
      "x.safetensors: the tensors need 16 bytes of data, but the file has 50 after its header: 34 at the end " +
        "belong to no tensor. The file is damaged or was written by a faulty program: download it or save it again.",
    );
    const missing = await failure(readBytes(fileOf(test16, 14)));
    expect(missing.code).toBe("incomplete-buffer");
    expect(missing.message).toContain(
      "the file has 14 after its header: 2 are missing, as after an interrupted download",
    );
  });

  test("test_header_too_large", async () => {
    const file = fileOf(test16, 16);
    file.set([0xff, 0xff, 0xff], 5);
    const error = await failure(readBytes(file));
    expect(error.code).toBe("header-too-large");
    expect(error.message).toContain("more than the 100000000 that the format allows");
  });

  test("test_header_too_small", async () => {
    const error = await failure(readBytes(new Uint8Array(0)));
    expect(error.code).toBe("header-too-small");
    expect(error.message).toContain("the file has 0 bytes");
  });

  test("test_invalid_header_length", async () => {
    const error = await failure(readBytes(Uint8Array.of(60, 0, 0, 0, 0, 0, 0, 0)));
    expect(error.code).toBe("invalid-header-length");
    expect(error.message).toContain("announce a header of 60 bytes, but only 0 follow");
  });

  test("test_invalid_header_non_utf8", async () => {
    expect((await failure(readBytes(fileOf(Uint8Array.of(0xff))))).code).toBe("invalid-header-utf8");
  });

  test("test_invalid_header_not_json", async () => {
    const error = await failure(readBytes(fileOf("{")));
    expect(error.code).toBe("invalid-header-json");
    expect(error.message).toContain("not valid JSON at character 1 of 1");
  });

  test.each([
    ["test_whitespace_padded_header", "{}\r \t\n"],
    ["test_whitespace_leading_padded_header", "\t\n{}\r "],
  ])("%s", async (_, header) => {
    expect((await readBytes(fileOf(header))).tensors.size).toBe(0);
  });

  test("test_zero_sized_tensor", async () => {
    const { tensors } = await readBytes(fileOf({ test: info("I32", [2, 0], [0, 0]) }));
    expect(await readTensor(tensors.get("test")!)).toEqual({
      dtype: "int32",
      shape: [2, 0],
      data: new Int32Array(0),
    });
  });

  test("test_invalid_info", async () => {
    const error = await failure(readBytes(fileOf({ test: info("I32", [2, 2], [0, 4]) }, 4)));
    expect(error.code).toBe("invalid-tensor-info");
    expect(error.message).toContain(
      'tensor "test" has dtype I32 and shape [2, 2], which is 16 bytes, but its data_offsets [0, 4] span 4 bytes',
    );
  });

  test.each(["18446744073709551614", "9223372036854775807"])(
    "test_validation_overflow: [2, %s]",
    async (dim) => {
      const header = `{"test":{"dtype":"I32","shape":[2,${dim}],"data_offsets":[0,16]}}`;
      const error = await failure(readBytes(fileOf(header, 16)));
      expect(error.code).toBe("overflow");
      expect(error.message).toContain(`tensor "test" has shape [2, ${dim}]`);
    },
  );
});

describe("problems", () => {
  test("are reported together, each with tensor and numbers, with the rest counted", async () => {
    const error = await failure(
      readBytes(
        fileOf(
          `{"__metadata__":{"epoch":3},"a":{"dtype":"F31","shape":[1],"data_offsets":[0,4]},
            "b":{"dtype":"F32","shape":[-1],"data_offsets":[4]},"b":0}`,
        ),
      ),
    );
    expect(error.message).toBe(
      `x.safetensors: 5 problems:
  - the value of "epoch" in __metadata__ is 3, not a string
  - tensor "a" has the unknown dtype "F31" (did the writer mean F32?)
  - tensor "b" has shape [-1], not an array of non-negative integers
  - tensor "b" has data_offsets [4], not two non-negative integers
  - the key "b" occurs more than once
Known: BOOL, U8, I8, F8_E5M2, F8_E4M3, I16, U16, F16, BF16, I32, U32, F32, F64, I64, U64. ` +
        "The file is damaged or was written by a faulty program: download it or save it again.",
    );
    expect(error.code).toBe("invalid-header");
    expect(error.details).toMatchObject({ file: "x.safetensors", count: 5 });
    expect(
      (error.details["problems"] as { code: string; tensor?: string }[]).map((p) => [p.code, p.tensor]),
    ).toEqual([
      ["invalid-metadata", undefined],
      ["unknown-dtype", "a"],
      ["invalid-tensor-info", "b"],
      ["invalid-offset", "b"],
      ["duplicate-key", "b"],
    ]);
  });

  test("100,000 of them do not make a message of 100,000 lines", async () => {
    const tensors = Array.from({ length: 100_000 }, (_, i) => [`t${i}`, info("I8", [1], [0, 2])]);
    const error = await failure(readBytes(fileOf(Object.fromEntries(tensors), 2)));
    expect(error.message).toContain("100000 problems:");
    expect(error.message).toContain("and 99992 more");
    expect(error.message.length).toBeLessThan(2000);
  });

  test("a hole names both neighbours", async () => {
    const error = await failure(
      readBytes(fileOf({ a: info("U8", [4], [0, 4]), b: info("U8", [4], [6, 10]) }, 10)),
    );
    expect(error.message).toContain(
      'tensor "b" starts at 6, which leaves a hole of 2 bytes after tensor "a"',
    );
  });

  test("a dtype that the format has and Graft has not is named as such", async () => {
    const error = await failure(readBytes(fileOf({ a: info("F8_E8M0", [1], [0, 1]) }, 1)));
    expect(error.code).toBe("unsupported-dtype");
    expect(error.message).toContain(
      'tensor "a" has dtype F8_E8M0, which Graft does not support. Supported: BOOL, U8,',
    );
  });

  test("an enormous name is cut", async () => {
    const error = await failure(readBytes(fileOf({ ["n".repeat(100_000)]: 1 })));
    expect(error.message).toContain("… (100000 characters)");
    expect(error.message.length).toBeLessThan(1000);
  });

  test("JSON mistakes are shown in place", async () => {
    const error = await failure(readBytes(fileOf('{"a":{"dtype":"F32",}}')));
    expect(error.message).toContain(
      `not valid JSON at character 20 of 22: a key in double quotes should be here (near "{\\"a\\":{\\"dtype\\":\\"F32\\",}}")`,
    );
  });
});

describe("reading", () => {
  test("the order is that of the bytes, whatever the order of the header", async () => {
    const header = { a: info("U8", [4], [1, 5]), b: info("U8", [1], [0, 1]) };
    const { tensors } = await readBytes(fileOf(header, Uint8Array.of(1, 2, 3, 4, 5)));
    expect([...tensors.keys()]).toEqual(["b", "a"]);
    expect((await readTensor(tensors.get("a")!)).data).toEqual(Uint8Array.of(2, 3, 4, 5));
  });

  test("unaligned data", async () => {
    const bytes = new Uint8Array(9);
    new DataView(bytes.buffer).setFloat64(1, 1.5, true);
    const { tensors } = await readBytes(
      fileOf({ a: info("U8", [1], [0, 1]), b: info("F64", [1], [1, 9]) }, bytes),
    );
    expect((await readTensor(tensors.get("b")!)).data).toEqual(Float64Array.of(1.5));
  });

  test("names that JavaScript objects treat specially", async () => {
    const names = ["__proto__", "constructor", "toString", "2", "1", ""];
    const header = `{${names.map((n, i) => `"${n}":{"dtype":"U8","shape":[1],"data_offsets":[${i},${i + 1}]}`).join()},
      "__metadata__":{"__proto__":"x"}}`;
    const { tensors, metadata } = await readBytes(fileOf(header, names.length));
    expect([...tensors.keys()]).toEqual(names);
    expect(Object.entries(metadata)).toEqual([["__proto__", "x"]]);
  });

  test("reads the header only, and no more than 100,000 bytes at first", async () => {
    const file = fileOf({ a: info("U8", [1_000_000], [0, 1_000_000]) }, 1_000_000);
    const reads: [number, number][] = [];
    const source = bytesSource("x", file);
    const { tensors } = await readSafetensors({
      ...source,
      read: (start, end) => {
        reads.push([start, end]);
        return source.read(start, end);
      },
    });
    expect(reads).toEqual([[0, 100_000]]);
    await readTensor(tensors.get("a")!);
    expect(reads).toEqual([
      [0, 100_000],
      [file.length - 1_000_000, file.length],
    ]);
  });

  test.each([-2, -1, 0, 1, 2])("a header that ends %i bytes from byte 100,000", async (distance) => {
    const json = JSON.stringify({ a: info("U8", [3], [0, 3]) });
    const file = fileOf(json.padEnd(100_000 - 8 + distance), Uint8Array.of(1, 2, 3));
    const { tensors } = await readBytes(file);
    expect((await readTensor(tensors.get("a")!)).data).toEqual(Uint8Array.of(1, 2, 3));
  });

  test("what cannot be a header is not fetched", async () => {
    const file = fileOf(`x${" ".repeat(200_000)}`);
    const reads: number[] = [];
    const source = bytesSource("x", file);
    const error = await failure(
      readSafetensors({
        ...source,
        read: (start, end) => {
          reads.push(end);
          return source.read(start, end);
        },
      }),
    );
    expect(error.message).toContain('the header does not begin with "{"');
    expect(reads).toEqual([100_000]);
  });

  test("100,000 tensors take linear time", async () => {
    const tensors = Array.from({ length: 100_000 }, (_, i) => [
      `model.layers.${i % 61}.mlp.experts.${i}.down_proj.weight`,
      info("F16", [1, 2], [4 * i, 4 * i + 4]),
    ]);
    const file = fileOf(Object.fromEntries(tensors), 400_000);
    const begin = performance.now();
    expect((await readBytes(file)).tensors.size).toBe(100_000);
    // About 200 ms; quadratic work would take minutes.
    expect(performance.now() - begin).toBeLessThan(5000);
  });

  test("an aborted signal's reason comes through", async () => {
    const reason = new Error("enough");
    const signal = AbortSignal.abort(reason);
    await expect(readSafetensors(bytesSource("x", fileOf({})), { signal })).rejects.toBe(reason);
  });
});

describe("hostile bytes", () => {
  const small = serializeSafetensors({ "a.b": f32(1, 2), é: f32(3), none: f32() }, { format: "pt", k: "v" });

  test("truncation at every byte is a CheckpointError", async () => {
    for (let length = 0; length < small.length; length++)
      expect(await failure(readBytes(small.slice(0, length)))).toBeInstanceOf(CheckpointError);
    expect((await readBytes(small)).tensors.size).toBe(3);
  });

  const outcome = async (bytes: Uint8Array) => {
    try {
      const { tensors } = await readBytes(bytes);
      let total = 0;
      for (const entry of tensors.values()) total += (await readTensor(entry)).data.byteLength;
      const headerLength = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
      // Whatever is accepted covers the file exactly.
      expect(8 + headerLength + total).toBe(bytes.length);
    } catch (error) {
      if (!(error instanceof CheckpointError)) throw error;
    }
  };

  test("mutated files are read or refused, nothing else", async () => {
    const edit = fc.record({
      at: fc.nat(small.length),
      remove: fc.nat(8),
      insert: fc.oneof(
        fc.uint8Array({ maxLength: 6 }),
        fc.constantFrom(...'{}[]",:\\0123456789-.eE tfn').map((c) => Uint8Array.of(c.charCodeAt(0))),
      ),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.array(edit, { minLength: 1, maxLength: 4 }),
        fc.boolean(),
        async (edits, fixLength) => {
          let bytes: Uint8Array = small;
          for (const { at, remove, insert } of edits)
            bytes = new Uint8Array([...bytes.subarray(0, at), ...insert, ...bytes.subarray(at + remove)]);
          if (fixLength && bytes.length >= 8) {
            const dataLength = 12;
            new DataView(bytes.buffer).setBigUint64(
              0,
              BigInt(Math.max(0, bytes.length - 8 - dataLength)),
              true,
            );
          }
          await outcome(bytes);
        },
      ),
      { numRuns: 2000 },
    );
  });

  test("any JSON as a header, any bytes as a file", async () => {
    await fc.assert(
      fc.asyncProperty(fc.json(), fc.nat(20), async (header, length) => outcome(fileOf(header, length))),
      { numRuns: 500 },
    );
    await fc.assert(fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), outcome), { numRuns: 500 });
  });

  test.each([
    ["deep nesting", "[".repeat(1_000_000)],
    ["a number of a million digits", `{"a":${"9".repeat(1_000_000)}}`],
    ["a million escapes", `{"${"\\n".repeat(1_000_000)}":1}`],
    ["a million backslashes", `{"${"\\\\".repeat(1_000_000)}`],
    ["a million quotes", '"'.repeat(1_000_000)],
    [
      "a shape of a million dimensions",
      `{"a":{"dtype":"U8","shape":[${"2,".repeat(999_999)}2],"data_offsets":[0,1]}}`,
    ],
    [
      "a million zero dimensions",
      `{"a":{"dtype":"U8","shape":[${"0,".repeat(999_999)}0],"data_offsets":[0,1]}}`,
    ],
  ])(
    "%s",
    async (_, header) => {
      const error = await failure(readBytes(fileOf(header, 1)));
      expect(error.message.length).toBeLessThan(2000);
    },
    5000,
  );
});
