import { type Document, isAlias, isNode, LineCounter, parseDocument, visit, type YAMLError } from "yaml";
import { AdapterError, listProblems } from "../errors.ts";

/** Collections inside each other: the parser calls itself for each, and the stack ends. */
const maxDepth = 200;
/** Uses of an anchor, each counted with those inside of it. */
const maxAliases = 100;
/** Mistakes of one sort that are collected. */
const maxMistakes = 100;

type Mistake = { readonly line?: number; readonly column?: number; readonly message: string };

/**
 * Reads one YAML 1.2 document; JSON is YAML too. Mappings become Maps, so that the order of keys is kept; keys are
 * strings. Duplicate keys, unknown tags, and aliases that blow up are refused.
 * @param file what to call it in messages.
 * @throws AdapterError `invalid-yaml` with all mistakes, each with line and column.
 */
export function parseYaml(text: string, file: string): unknown {
  const lines = new LineCounter();
  if (isDeep(text))
    throw invalid(file, [{ message: `it has more than ${maxDepth} collections inside each other` }]);
  const document = parseDocument(text, { stringKeys: true, lineCounter: lines, prettyErrors: false });
  const at = (offset: number): { line: number; column: number } => {
    const { line, col } = lines.linePos(offset);
    return { line, column: col };
  };
  const mistakes = [
    ...[...document.errors, ...document.warnings].slice(0, maxMistakes).map(({ code, message, pos }) => ({
      ...at(pos[0]),
      message: wordsOf(code, message),
    })),
    ...aliasMistakes(document, at),
  ].sort((a, b) => a.line - b.line || a.column - b.column);
  if (mistakes.length > 0) throw invalid(file, mistakes);
  try {
    const value = document.toJS({ mapAsMap: true, maxAliasCount: maxAliases }) as unknown;
    refuseCycles(value, new Set());
    return value;
  } catch (cause) {
    if (!(cause instanceof ReferenceError || cause instanceof RangeError)) throw cause;
    throw invalid(file, [{ message: "its aliases (*name) stand for too much, or for themselves" }], cause);
  }
}

/** Looks at aliases before they are resolved: the parser looks through the whole document for each. */
function aliasMistakes(
  document: Document,
  at: (offset: number) => { line: number; column: number },
): Required<Mistake>[] {
  const mistakes: Required<Mistake>[] = [];
  const anchors = new Set<string>();
  let count = 0;
  visit(document, (_, node) => {
    if (isAlias(node)) {
      const place = at(node.range?.[0] ?? 0);
      if (!anchors.has(node.source)) mistakes.push({ ...place, message: `*${node.source} names no anchor` });
      else if (++count > maxAliases)
        mistakes.push({ ...place, message: `there are more than ${maxAliases} aliases` });
      if (count > maxAliases || mistakes.length === maxMistakes) return visit.BREAK;
    } else if (isNode(node) && "anchor" in node && node.anchor !== undefined) anchors.add(node.anchor);
    return undefined;
  });
  return mistakes;
}

/** A bound from above on the depth: brackets that are open, and columns taken by indentation, dashes and keys. */
function isDeep(text: string): boolean {
  let open = 0;
  for (const bracket of text.matchAll(/[[\]{}]/g)) {
    open = "[{".includes(bracket[0]) ? open + 1 : Math.max(0, open - 1);
    if (open > maxDepth) return true;
  }
  return new RegExp(`^[ \\t?:-]{${2 * maxDepth}}`, "m").test(text);
}

/** @throws RangeError if a collection is inside itself. */
function refuseCycles(value: unknown, around: Set<unknown>): void {
  if (typeof value !== "object" || value === null) return;
  if (around.has(value)) throw new RangeError("cyclic");
  around.add(value);
  for (const item of value instanceof Map ? value.values() : (value as unknown[])) refuseCycles(item, around);
  around.delete(value);
}

function wordsOf(code: YAMLError["code"], message: string): string {
  const words: Partial<Record<YAMLError["code"], string>> = {
    DUPLICATE_KEY: "a key is given twice",
    TAG_RESOLVE_FAILED: `${message.replace(/^Unresolved tag: /, "")} is read as a tag of YAML`,
    MULTIPLE_DOCS: "there is more than one document",
  };
  return words[code] ?? message.replace(/\.$/, "");
}

function invalid(file: string, mistakes: readonly Mistake[], cause?: unknown): AdapterError {
  const shown = mistakes.map(({ line, column, message }) =>
    line === undefined ? message : `line ${line}, column ${column}: ${message}`,
  );
  const needsQuotes = mistakes.some(({ message }) => /\*|tag|mapping|node end|flow/i.test(message));
  const remedy = needsQuotes
    ? 'Put quotes around what starts with !, *, { or [, or holds a colon: "!lm_head", "*_proj", "-2:".'
    : "Correct the file.";
  return new AdapterError(`${file}: not valid YAML: ${listProblems(shown)}. ${remedy}`, {
    code: "invalid-yaml",
    details: { file, problems: mistakes },
    cause,
  });
}
