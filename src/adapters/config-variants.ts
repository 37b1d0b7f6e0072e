import type { z } from "zod";
import { boolean, is, isListOf, isText, number, textOrNull, whole, wholeOfAtLeast } from "./config-values.ts";

/** One setting of a variant: its check, PEFT's default, and whether Python writes it as a float. */
export type VariantField = { readonly type: z.ZodType; readonly default: unknown; readonly float?: true };

const float = (value: number, expectation?: string, accepts?: (value: number) => boolean): VariantField => ({
  type: number(expectation, accepts),
  default: value,
  float: true,
});
const positive = (value: number) => float(value, "a number above 0", (n) => n > 0);
const count = (value: number): VariantField => ({ type: wholeOfAtLeast(1), default: value });
const flag = (value: boolean): VariantField => ({ type: boolean(), default: value });
const path = (): VariantField => ({ type: textOrNull(), default: null });
const names = (): VariantField => ({
  type: is("a list of names or null", (value) => value === null || isListOf(value, isText)),
  default: null,
});
const choice = (value: string, ...others: string[]): VariantField => ({
  type: is([value, ...others].map((item) => `"${item}"`).join(" or "), (given) =>
    [value, ...others].includes(given as string),
  ),
  default: value,
});

/**
 * Settings of LoRA's variants, by the option that holds them. PEFT fills in what is missing and drops what it does not know.
 * Source: PEFT 0.21 tuners/lora/config.py.
 */
export const variants = {
  arrowConfig: {
    topK: count(3),
    routerTemperature: positive(1),
    useGks: flag(false),
    taskAdapterNames: names(),
    gksAdapterNames: names(),
    rngSeed: { type: is("a whole number or null", (n) => n === null || Number.isInteger(n)), default: null },
  },
  cordaConfig: {
    cacheFile: path(),
    covarianceFile: path(),
    cordaMethod: choice("ipm", "kpm"),
    verbose: flag(false),
    useFloat16ForCovariance: flag(false),
    pruneTemporaryFields: flag(true),
  },
  evaConfig: {
    rho: float(2, "a number of at least 1", (n) => n >= 1),
    tau: float(0.99, "a number from 0 to 1", (n) => n >= 0 && n <= 1),
    useLabelMask: flag(true),
    labelMaskValue: { type: whole(), default: -100 },
    whiten: flag(false),
    adjustScalingFactors: flag(true),
  },
  kasaConfig: {
    beta: float(1e-4, "a number of at least 0", (n) => n >= 0),
    gamma: float(1e-3, "a number of at least 0", (n) => n >= 0),
  },
  loraGaConfig: {
    direction: choice("ArB2r", "ArBr", "A2rBr", "random"),
    scale: choice("stable", "weight_svd", "gd_scale", "unit"),
    stableGamma: { type: whole(), default: 16 },
  },
  montecloraConfig: {
    numSamples: count(8),
    useEntropy: flag(false),
    dirichletPrior: positive(0.1),
    sampleScaler: float(1e-4),
    klLossWeight: float(1e-5),
    bufferSize: count(150),
  },
  useBdlora: {
    targetModulesBdA: names(),
    targetModulesBdB: names(),
    nblocks: { type: whole(), default: 1 },
    matchStrict: flag(true),
  },
  veloraConfig: {
    numGroups: count(64),
    scale: positive(1),
    initType: choice("batch_average", "batch_average_once", "random"),
  },
} satisfies Record<string, Record<string, VariantField>>;

export type VariantName = keyof typeof variants;

export const isVariant = (field: string): field is VariantName => Object.hasOwn(variants, field);
