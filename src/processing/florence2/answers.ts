import { DataError } from "../../errors.ts";
import { compile } from "../../regex/index.ts";
import { asciiOnly, findAll, parseInteger, strip } from "../python-text.ts";
import { dequantizeLocations, type ImageSize } from "./locations.ts";

/** Four coordinates: left, top, right, bottom. */
export type LabelledBox = { bbox: number[]; cat_name: string };
export type LabelledQuad = { quad_box: number[]; text: string };
export type LabelledPolygons = { polygons: number[][]; cat_name: string };

// The patterns are the reference's, in Python's dialect. Source: transformers 5.18, processing_florence2.py.
const location = String.raw`<loc_(\d+)>`;
const defaultQuad = `(.+?)${location.repeat(8)}`;
const label = String.raw`^\s*(.*?)(?=<od>|</od>|<box>|</box>|<bbox>|</bbox>|<loc_)`;
const polygonLabel = String.raw`^\s*(.*?)(?=<od>|</od>|<box>|</box>|<bbox>|</bbox>|<loc_|<poly>)`;
const labelAndLocations = String.raw`([^<]+(?:<loc_\d+>){4,})`;
const locationsAlone = String.raw`(?:(?:<loc_\d+>){4,})`;
const polygonTokens = String.raw`(?:<loc_\d+>|<sep>|<poly>|</poly>){4,}`;
const polygonInstance = "<poly>(.*?)</poly>";
const polygonPart = String.raw`((?:<loc_\d+>)+)(?:<sep>|$)`;

const withoutSequenceTokens = (text: string): string =>
  text.replace(/<s>/g, "").replace(/<\/s>/g, "").replace(/<pad>/g, "");

/** Locations as numbers. @throws DataError "bad-location" for one that no 64-bit integer holds, as the reference. */
const numbers = (digits: readonly (string | undefined)[]): number[] =>
  digits.map((text) => {
    const value = parseInteger(text!);
    if (value < 2n ** 63n) return Number(value);
    throw new DataError(
      `The answer has the location ${text}, which is far outside 0 to 999. Leave this answer out.`,
      {
        code: "bad-location",
        details: { location: text },
      },
    );
  });

/** The digits of `<loc_1><loc_2>…`, nothing else between or around them. */
const locationsOf = (run: string): string[] => run.slice("<loc_".length, -1).split("><loc_");

/** Text and four corners, from `text<loc_…>` with eight locations. */
export function parseQuads(
  text: string,
  size: ImageSize,
  { pattern = defaultQuad, areaThreshold = 0 }: { pattern?: string; areaThreshold?: number } = {},
): LabelledQuad[] {
  const quads: LabelledQuad[] = [];
  for (const { groups } of findAll(pattern, withoutSequenceTokens(text))) {
    const [, content, ...digits] = groups;
    const quad = dequantizeLocations(numbers(digits), size);
    if (areaThreshold > 0) {
      // The reference's shoelace sum leaves out the closing edge.
      let sum = 0;
      for (let i = 0; i < 3; i++)
        sum += quad[2 * i]! * quad[2 * i + 3]! - quad[2 * i + 2]! * quad[2 * i + 1]!;
      if (0.5 * Math.abs(sum) < size[0] * size[1] * areaThreshold) continue;
    }
    quads.push({ quad_box: quad, text: strip(content ?? "") });
  }
  return quads;
}

/** A phrase and its boxes, from `phrase<loc_…>` with four locations or more; what is left of four is dropped. */
function* phrasesWithBoxes(
  text: string,
  size: ImageSize,
  pattern: string,
): Generator<{ phrase: string; boxes: number[][] }> {
  for (const { groups } of findAll(pattern, withoutSequenceTokens(text))) {
    const phraseText = groups[0]!;
    const labelMatch = compile(label).search(phraseText);
    if (labelMatch === null) continue; // a line break in the label
    const digits = locationsOf(phraseText.slice(phraseText.indexOf("<loc_")));
    const boxes: number[][] = [];
    for (let at = 0; at + 4 <= digits.length; at += 4)
      boxes.push(dequantizeLocations(numbers(digits.slice(at, at + 4)), size));
    yield { phrase: strip(labelMatch.groups[0]!), boxes };
  }
}

/** Phrases of a caption, each with its boxes; phrases that say nothing (`banned`) are left out. */
export function parsePhrases(
  text: string,
  size: ImageSize,
  banned: ReadonlySet<string>,
): { bbox: number[][]; cat_name: string }[] {
  const phrases: { bbox: number[][]; cat_name: string }[] = [];
  for (const { phrase, boxes } of phrasesWithBoxes(text, size, labelAndLocations))
    if (!banned.has(phrase)) phrases.push({ bbox: boxes, cat_name: asciiOnly(phrase) });
  return phrases;
}

/** One entry for each box; with `allowEmptyPhrase`, boxes alone, without labels. */
export function parseBoxes(
  text: string,
  size: ImageSize,
  { allowEmptyPhrase = false }: { allowEmptyPhrase?: boolean } = {},
): LabelledBox[] {
  const pattern = allowEmptyPhrase ? locationsAlone : labelAndLocations;
  const entries: LabelledBox[] = [];
  for (const { phrase, boxes } of phrasesWithBoxes(text, size, pattern))
    for (const bbox of boxes) entries.push({ bbox, cat_name: asciiOnly(phrase) });
  return entries;
}

/** Polygons by `<sep>`, in instances by `<poly>…</poly>`, with their label; with `allowEmptyPhrase`, without. */
export function parsePolygons(
  text: string,
  size: ImageSize,
  { allowEmptyPhrase = false }: { allowEmptyPhrase?: boolean } = {},
): LabelledPolygons[] {
  const pattern = allowEmptyPhrase ? `(?:${polygonTokens})` : `([^<]+${polygonTokens})`;
  const entries: LabelledPolygons[] = [];
  for (const match of findAll(pattern, withoutSequenceTokens(text))) {
    const phraseText = match.groups[0]!;
    const first = compile(String.raw`<loc_\d+>`).match(phraseText);
    const unlocated = phraseText.slice(first?.end ?? 0);
    const labelMatch = compile(polygonLabel).search(unlocated);
    if (labelMatch === null) continue;
    const marked = phraseText.includes("<poly>") && phraseText.includes("</poly>");
    const instances = marked
      ? [...findAll(polygonInstance, phraseText)].map(({ groups }) => groups[1]!)
      : [phraseText];
    for (const instance of instances) {
      const polygons = [...findAll(polygonPart, instance)].map(({ groups }) => {
        const digits = locationsOf(groups[1]!);
        return dequantizeLocations(numbers(digits.slice(0, digits.length - (digits.length % 2))), size);
      });
      if (polygons.length > 0) entries.push({ cat_name: strip(labelMatch.groups[0]!), polygons });
    }
  }
  return entries;
}
