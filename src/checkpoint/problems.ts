import { CheckpointError } from "../errors.ts";

/** One thing wrong with a file, as data. */
export type Problem = {
  /** Stable identifier, e.g. `"invalid-offset"`. */
  readonly code: string;
  /** A clause that names the tensor and the numbers. */
  readonly message: string;
  readonly tensor?: string;
  readonly [detail: string]: unknown;
};

/** Problems shown in a message; a damaged header may hold one for each of 100,000 tensors. */
const shownProblems = 8;

/** Problems kept in `details`, so that a hostile file cannot fill the memory with them. */
const keptProblems = 1000;

/** Collects problems so that one error reports them together. */
export class Problems {
  readonly kept: Problem[] = [];
  readonly codes = new Set<string>();
  count = 0;

  add(problem: Problem): void {
    this.count++;
    this.codes.add(problem.code);
    if (this.kept.length < keptProblems) this.kept.push(problem);
  }

  /** @throws CheckpointError if any problem was added. Its code is theirs where they all have the same. */
  throwIfAny({ file, code, remedy }: { file: string; code: string; remedy: string }): void {
    if (this.count === 0) return;
    const lines = this.kept.slice(0, shownProblems).map(({ message }) => message);
    const rest = this.count - lines.length;
    const text =
      this.count === 1
        ? `${lines[0]}.`
        : [`${this.count} problems:`, ...lines, ...(rest > 0 ? [`and ${rest} more`] : [])].join("\n  - ");
    const [first, ...others] = this.codes;
    throw new CheckpointError(`${file}: ${text}${this.count === 1 ? " " : "\n"}${remedy}`, {
      code: others.length === 0 ? first! : code,
      details: { file, count: this.count, problems: this.kept },
    });
  }
}

/** A name for a message: quoted, and cut if somebody made it enormous. */
export function quote(name: string): string {
  const characters = 200;
  if (name.length <= characters) return JSON.stringify(name);
  return `${JSON.stringify(name.slice(0, characters))}… (${name.length} characters)`;
}
