/** A release of PEFT, as far as order matters. */
export type PeftRelease = {
  readonly major: number;
  readonly minor: number;
  readonly patch: number;
  /** A version before this release: alpha, beta, release candidate or development version. */
  readonly isPre: boolean;
};

/** Whose rules Graft follows. */
export const currentRelease = "0.21.0";

/** The first release that writes `peft_version` into adapter_config.json, and the last that does not. */
export const firstRecorded = "0.18.0";
export const lastUnrecorded = "0.17.1";

const shape =
  /^\s*v?(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?(?:\.\d{1,4})*[-_.]?((?:a|b|c|rc|alpha|beta|pre|preview|dev)[-_.]?\d*)?(?:[-_.]?(?:post|dev)\d*)*(?:[+@].*)?\s*$/i;

/**
 * Reads a version as Python packages write them: `0.18.0`, `0.18.0rc1`, `0.20.1.dev0`, and PEFT's own
 * `0.20.1.dev0@<commit>` of an installation from source.
 * @returns undefined for anything else.
 */
export function parseRelease(version: string): PeftRelease | undefined {
  if (version.length > 200) return undefined;
  const match = shape.exec(version);
  if (match === null) return undefined;
  const [, major, minor, patch = "0", pre] = match;
  return { major: Number(major), minor: Number(minor), patch: Number(patch), isPre: pre !== undefined };
}

/** Negative if `a` came before `b`. */
export const compareReleases = (a: PeftRelease, b: PeftRelease): number =>
  a.major - b.major || a.minor - b.minor || a.patch - b.patch || Number(b.isPre) - Number(a.isPre);
