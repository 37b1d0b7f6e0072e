import type { z } from "zod";
import { custom, FlagProblem, optional, parseNumber, single } from "./flags.ts";

const units: Readonly<Record<string, number>> = { "": 1, k: 1e3, m: 1e6, g: 1e9, t: 1e12 };
const binaryUnits: Readonly<Record<string, number>> = { k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 };

/** `2GB`, `1.5 GiB`, `500M` or a number of bytes. */
function readBytes(texts: readonly string[]): number {
  const text = single(texts);
  const [, digits, unit = "", binary] = /^([\d.]+(?:e\d+)?)\s*([kmgt]?)(i?)b?$/i.exec(text.trim()) ?? [];
  const factor = (binary ? binaryUnits : units)[unit.toLowerCase()];
  const bytes = (parseNumber(digits ?? "") ?? Number.NaN) * (factor ?? Number.NaN);
  if (!(bytes > 0 && bytes < Infinity))
    throw new FlagProblem(`must be a size such as 2GB, 1.5GiB or 800MB, got ${JSON.stringify(text)}`);
  return bytes;
}

/** The flags of gradient checkpointing, whose values are no plain numbers and words. */
export const checkpointingFlags = (shape: {
  readonly gradientCheckpointing: z.ZodType;
  readonly memoryLimit: z.ZodType;
}) => ({
  gradientCheckpointing: optional(
    `${shape.gradientCheckpointing.description} One of auto, true, false. Default: auto; without a word true.`
      .replaceAll("memoryLimit", "--memory-limit")
      .replaceAll('"', ""),
    "mode",
  ),
  memoryLimit: custom(
    "Memory that training may take, by its estimate, for --gradient-checkpointing, e.g. 2GB. Default: no limit.",
    { placeholder: "size" },
    readBytes,
  ),
});

/** Words that stand for true and false. */
export const withMode = <T extends { readonly gradientCheckpointing?: unknown }>(values: T): T => {
  const { gradientCheckpointing: mode } = values;
  return mode === "true" || mode === "false" ? { ...values, gradientCheckpointing: mode === "true" } : values;
};
