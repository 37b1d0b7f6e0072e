import type { RegexError } from "../errors.ts";
import type { PatternWarning, Sequence, Width } from "./ast.ts";
import { codePointLength, type Tokenizer } from "./tokenizer.ts";
import { isIdentifier } from "./unicode.ts";
import { widthOf } from "./width.ts";

/** What the parser knows of the whole pattern while it reads: groups, global flags, warnings. */
export class ParserState {
  readonly source: Tokenizer;
  flags = 0;
  readonly groupNames = new Map<string, number>();
  /** Width by group number, undefined while a group is open; entry 0 stands for the whole match. */
  readonly groupWidths: (Width | undefined)[] = [undefined];
  /** Inside a lookbehind: the number that its first own group gets. */
  lookbehindGroups: number | undefined;
  /** Groups that conditionals refer to, with the position of the first reference; checked at the end. */
  readonly conditionalReferences = new Map<number, number>();
  readonly warnings: PatternWarning[] = [];

  constructor(source: Tokenizer) {
    this.source = source;
  }

  /** Groups so far, the whole match included. */
  get groups(): number {
    return this.groupWidths.length;
  }

  openGroup(name: string | undefined): number {
    const index = this.groups;
    if (name !== undefined) {
      const earlier = this.groupNames.get(name);
      if (earlier !== undefined)
        throw this.source.error(
          `group name "${name}" is used twice (groups ${earlier} and ${index})`,
          codePointLength(name) + 1,
        );
      this.groupNames.set(name, index);
    }
    this.groupWidths.push(undefined);
    return index;
  }

  closeGroup(index: number, body: Sequence): void {
    this.groupWidths[index] = widthOf(body, this.groupWidths);
  }

  isClosed(index: number): boolean {
    return this.groupWidths[index] !== undefined;
  }

  /** A lookbehind may refer only to groups that were closed before it. */
  checkLookbehindReference(index: number): void {
    if (this.lookbehindGroups === undefined) return;
    if (!this.isClosed(index)) throw this.openGroupError();
    if (index >= this.lookbehindGroups)
      throw this.source.error("a lookbehind refers to a group defined inside it");
  }

  openGroupError(back = 0): RegexError {
    return this.source.error("reference to a group that is still open", back);
  }

  checkGroupName(name: string): void {
    if (!isIdentifier(name))
      throw this.source.error(
        `"${name}" is not a group name; use letters, digits and underscores`,
        codePointLength(name) + 1,
      );
  }

  warn(category: PatternWarning["category"], message: string): void {
    this.warnings.push({ category, message });
  }
}
