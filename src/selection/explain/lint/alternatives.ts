/** A group, or the whole of a pattern, with alternatives. */
export type Alternatives = {
  /** The group around it, and the number of the alternative that it is in; null for the whole pattern. */
  readonly parent: { readonly group: Alternatives; readonly branch: number } | null;
  /** Where the group begins and ends, its parentheses included. */
  readonly start: number;
  readonly end: number;
  /** Where each alternative begins and ends. */
  readonly branches: readonly { readonly start: number; readonly end: number }[];
};

type Open = {
  start: number;
  parent: Open | null;
  branch: number;
  starts: number[];
  ends: number[];
  end: number;
  skip: boolean;
};

/**
 * The groups of a regular expression that have alternatives, outer ones first; the pattern itself is one if it has `|`
 * outside of parentheses. Leaves out what negative lookaround and conditions hold.
 * @returns undefined where single alternatives cannot be tried: with references to groups, or in verbose mode.
 */
export function alternativesOf(source: string): Alternatives[] | undefined {
  if (/\\[1-9]|\(\?P=|\(\?[a-z]*x/.test(source)) return undefined;
  const whole: Open = {
    start: 0,
    parent: null,
    branch: 0,
    starts: [0],
    ends: [],
    end: source.length,
    skip: false,
  };
  const groups: Open[] = [whole];
  let current: Open | null = whole;
  for (let i = 0; i < source.length; i++) {
    const char = source[i];
    if (char === "\\") i++;
    else if (char === "[") i = endOfClass(source, i);
    else if (char === "(") {
      if (current === null) return undefined;
      if (source.startsWith("(?#", i)) {
        const close = source.indexOf(")", i);
        if (close === -1) return undefined;
        i = close;
        continue;
      }
      const head =
        /^\((?:\?(?:P<\w+>|[a-zA-Z]*(?:-[a-zA-Z]+)?:|<?[=!]|>|\()|)/.exec(source.slice(i, i + 200))?.[0] ??
        "(";
      const skip = current.skip || head.endsWith("!") || (head.endsWith("(") && head.length > 1);
      const opened: Open = {
        start: i,
        parent: current,
        branch: current.starts.length - 1,
        starts: [i + head.length],
        ends: [],
        end: -1,
        skip,
      };
      groups.push(opened);
      current = opened;
      i += head.length - 1;
      // the condition's own parenthesis
      if (head === "(?(") i = source.indexOf(")", i);
      if (i === -1) return undefined;
    } else if (char === "|") {
      current!.ends.push(i);
      current!.starts.push(i + 1);
    } else if (char === ")") {
      if (current === null || current === whole) return undefined;
      current.ends.push(i);
      current.end = i + 1;
      current = current.parent;
    }
  }
  if (current !== whole) return undefined;
  whole.ends.push(source.length);
  const made = new Map<Open, Alternatives>();
  for (const group of groups)
    made.set(group, {
      parent: group.parent === null ? null : { group: made.get(group.parent)!, branch: group.branch },
      start: group.start,
      end: group.end,
      branches: group.starts.map((start, index) => ({ start, end: group.ends[index]! })),
    });
  return groups.filter(({ skip, starts }) => !skip && starts.length > 1).map((group) => made.get(group)!);
}

function endOfClass(source: string, start: number): number {
  let i = start + 1;
  if (source[i] === "^") i++;
  if (source[i] === "]") i++;
  for (; i < source.length && source[i] !== "]"; i++) if (source[i] === "\\") i++;
  return i;
}

/** The pattern with only one alternative of a group, and in the groups around it only the one that holds it. */
export function only(source: string, group: Alternatives, branch: number): string {
  let { start, end } = group.branches[branch]!;
  let text = source.slice(start, end);
  for (let inner = group; ; ) {
    const { branches } = inner;
    text =
      source.slice(inner.start, branches[0]!.start) +
      text +
      source.slice(branches[branches.length - 1]!.end, inner.end);
    if (inner.parent === null) return text;
    const outer = inner.parent.group.branches[inner.parent.branch]!;
    start = outer.start;
    end = outer.end;
    text = source.slice(start, inner.start) + text + source.slice(inner.end, end);
    inner = inner.parent.group;
  }
}
