import fc from "fast-check";
import { expect, test } from "vitest";
import { serializeSafetensors } from "../../../src/checkpoint/index.ts";
import { AdapterFile } from "../../../src/selection/cost/file-size.ts";
import { zeros } from "../../../src/tensor/index.ts";

test("is what the safetensors writer writes, whatever the names and shapes", () => {
  const name = fc.oneof(
    fc.string(),
    fc.string({ unit: "grapheme" }),
    fc.constantFrom("layers.0.q", "layers.10.q"),
  );
  fc.assert(
    fc.property(
      fc.uniqueArray(name, { maxLength: 12 }),
      fc.array(fc.array(fc.integer({ min: 0, max: 40 }), { maxLength: 3 }), { minLength: 1, maxLength: 3 }),
      (modules, shapes) => {
        const tensors = shapes.map((shape, i) => [`.lora_${i}`, shape] as const);
        const file = new AdapterFile("base_model.");
        for (const module of modules) file.add(module, tensors);
        const written = serializeSafetensors(
          new Map(
            modules.flatMap((module) =>
              tensors.map(
                ([tail, shape]) => [`base_model.${module}${tail}`, zeros("float32", shape)] as const,
              ),
            ),
          ),
          { format: "pt" },
        );
        expect(file.bytes).toBe(written.length);
      },
    ),
  );
});

test("base weights in half precision come last", () => {
  const file = new AdapterFile("");
  file.add("a", [["", [3, 5]]], "BF16");
  file.add("b", [["", [300, 5]]]);
  const written = serializeSafetensors(
    { a: zeros("bfloat16", [3, 5]), b: zeros("float32", [300, 5]) },
    { format: "pt" },
  );
  expect(file.bytes).toBe(written.length);
  expect(file.parameters).toBe(1515);
});
