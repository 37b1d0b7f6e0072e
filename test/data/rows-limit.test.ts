import { expect, test } from "vitest";
import { encodeRow } from "../../src/data/rows.ts";

const ids = Array.from({ length: 12 }, (_, i) => i);

test("rows of token ids are cut to maxLength only, not to the limit for text", () => {
  const place = { file: "d.jsonl", line: 1 };
  const encode = (options: { maxLength?: number; textLimit?: number }) =>
    encodeRow({ input_ids: ids }, "input-ids", options, place);
  expect(encode({ textLimit: 8 })).toMatchObject({ truncated: false, example: { inputIds: ids } });
  expect(encode({ textLimit: 8, maxLength: 6 })).toMatchObject({
    truncated: true,
    example: { inputIds: ids.slice(0, 6) },
  });
});
