/**
 * Regular expressions of Python 3.11's `re`, for the patterns in adapter configurations.
 *
 * ```ts
 * const pattern = compile(".*\\.layers\\.(\\d+)\\..*_proj");
 * pattern.fullmatch("model.layers.7.self_attn.q_proj")?.groups[1]; // "7"
 * ```
 *
 * Matching always ends: in linear time for regular patterns, otherwise within a bound on steps.
 */

export type { PatternWarning } from "./ast.ts";
export type { Progress } from "./dfa.ts";
export { escapePattern as escape } from "./escape.ts";
export { compile, type Match, type Pattern } from "./pattern.ts";
