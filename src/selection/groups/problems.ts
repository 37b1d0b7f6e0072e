import { SelectionError } from "../../errors.ts";

/** Something that makes a selection impossible. */
export type GroupProblem = {
  readonly code: string;
  readonly message: string;
  readonly [detail: string]: unknown;
};

/** Collects what is wrong with a selection, so that all of it can be said at once. */
export class GroupProblems {
  readonly list: GroupProblem[] = [];

  add(code: string, message: string, details: Record<string, unknown> = {}): void {
    this.list.push({ ...details, code, message });
  }

  /** @throws SelectionError with all problems, if there are any; its code is that of the first. */
  throw(): void {
    const [first] = this.list;
    if (first === undefined) return;
    const lines = this.list.map(({ message }) => message);
    throw new SelectionError(
      lines.length === 1
        ? first.message
        : `The selection has ${lines.length} problems:\n${lines.map((line) => `- ${line}`).join("\n")}`,
      { code: first.code, details: { problems: this.list } },
    );
  }
}

/** A text of a person's for a message, shortened. */
export const quote = (text: string): string =>
  JSON.stringify(text.length > 80 ? `${text.slice(0, 77)}…` : text);
