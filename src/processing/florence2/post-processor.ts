import { dataError, type Place } from "../../data/problem.ts";
import { DataError } from "../../errors.ts";
import { compile } from "../../regex/index.ts";
import { isObject, type JsonObject } from "../json-file.ts";
import { looksBehind, strip } from "../python-text.ts";
import { parseBoxes, parsePhrases, parsePolygons, parseQuads } from "./answers.ts";
import { defaultBannedPhrases } from "./banned-phrases.ts";
import { checkImageSize, type ImageSize } from "./locations.ts";
import { type AnswerKind, type Florence2Task, florence2Tasks } from "./tasks.ts";

/** Boxes as [left, top, right, bottom] in whole pixels, and a label for each. */
export type BoxesAnswer = { bboxes: number[][]; labels: string[] };

/** What each kind of answer becomes; keys as in the reference. */
export type AnswerByKind = {
  pure_text: string;
  description_with_bboxes: BoxesAnswer;
  phrase_grounding: BoxesAnswer;
  bboxes: BoxesAnswer;
  /** Four corners each, as eight coordinates. */
  ocr: { quad_boxes: number[][]; labels: string[] };
  /** For each label polygons, each a list of alternating x and y. */
  polygons: { polygons: number[][][]; labels: string[] };
  description_with_bboxes_or_polygons: {
    bboxes: number[][];
    bboxes_labels: string[];
    polygons: number[][][];
    polygons_labels: string[];
  };
};

/** The answer to a task; text for a task that Florence-2 does not know. */
export type Florence2Answer<Task extends string = Florence2Task> = Task extends Florence2Task
  ? AnswerByKind[(typeof florence2Tasks)[Task]["answer"]]
  : string;

/** processor_config.json's `post_processor_config`, read. */
export type PostProcessorOptions = {
  /** The kinds of answers that may be asked for. Default: all. */
  kinds?: ReadonlySet<string>;
  /** Python pattern of a line of text and its eight locations. */
  quadPattern?: string;
  /** Least area of a line of text, as a part of the picture's. */
  areaThreshold?: number;
  bannedPhrases: ReadonlySet<string>;
};

/**
 * Read `post_processor_config`. Without one, all tasks work, as with the configuration that transformers gives converted
 * checkpoints.
 * @throws DataError "bad-processor"
 */
export function parsePostProcessor(json: unknown, place: Place): PostProcessorOptions {
  if (json === undefined || json === null) return { bannedPhrases: defaultBannedPhrases };
  const bad = (what: string) =>
    dataError("bad-processor", place, `${what}. Correct the file, or copy it again from the model's page.`);
  if (!isObject(json)) throw bad('"post_processor_config" must be an object');
  const part = (key: string): JsonObject => (isObject(json[key]) ? json[key] : {});
  const banned = part("phrase_grounding")["banned_grounding_tokens"] ?? [];
  if (!Array.isArray(banned)) throw bad('"banned_grounding_tokens" must be a list');
  const { PATTERN: pattern, AREA_THRESHOLD: area } = part("ocr");
  if (area !== undefined && typeof area !== "number") throw bad('"AREA_THRESHOLD" must be a number');
  if (pattern !== undefined && pattern !== null) {
    if (typeof pattern !== "string") throw bad('"PATTERN" must be text');
    if (compile(pattern).groupCount !== 9)
      throw bad('"PATTERN" must have nine groups: the text and eight locations');
    if (looksBehind(pattern)) throw bad('"PATTERN" may not use ^, \\A, \\b, \\B or lookbehind');
  }
  return {
    kinds: new Set(Object.keys(json)),
    bannedPhrases: new Set(banned.map(String)),
    ...(typeof pattern === "string" && { quadPattern: pattern }),
    ...(typeof area === "number" && { areaThreshold: area }),
  };
}

/** Reads the texts that Florence-2 generates, with the results of transformers 5.18's Florence2PostProcessor. */
export class Florence2PostProcessor {
  readonly #options: PostProcessorOptions;

  constructor(options: PostProcessorOptions = { bannedPhrases: defaultBannedPhrases }) {
    this.#options = options;
  }

  /**
   * @param imageSize needed for every task that answers with locations
   * @throws DataError "unsupported-task" if the checkpoint's configuration leaves out this kind of answer,
   * "bad-image-size", "bad-location"
   */
  parse<Task extends string>(text: string, task: Task, imageSize?: ImageSize): Florence2Answer<Task> {
    return this.#parse(text, task, imageSize) as Florence2Answer<Task>;
  }

  #parse(text: string, task: string, imageSize?: ImageSize): AnswerByKind[AnswerKind] {
    const kind: AnswerKind = Object.hasOwn(florence2Tasks, task)
      ? florence2Tasks[task as Florence2Task].answer
      : "pure_text";
    const { kinds, quadPattern, areaThreshold, bannedPhrases } = this.#options;
    if (kinds !== undefined && !kinds.has(kind))
      throw new DataError(
        `The processor's post_processor_config has no "${kind}", which the answer to ${task} needs. Add "${kind}": {} to it.`,
        { code: "unsupported-task", details: { task, kind, kinds: [...kinds] } },
      );
    if (kind === "pure_text") return strip(text.replace(/<s>/g, "").replace(/<\/s>/g, ""));
    const size = checkImageSize(imageSize, task);
    switch (kind) {
      case "description_with_bboxes":
        return boxesAnswer(parseBoxes(text, size));
      case "bboxes":
        return boxesAnswer(parseBoxes(text, size, { allowEmptyPhrase: true }));
      case "ocr": {
        const quads = parseQuads(text, size, {
          ...(quadPattern !== undefined && { pattern: quadPattern }),
          ...(areaThreshold !== undefined && { areaThreshold }),
        });
        return { quad_boxes: quads.map((quad) => quad.quad_box), labels: quads.map((quad) => quad.text) };
      }
      case "phrase_grounding":
        return boxesAnswer(
          parsePhrases(text, size, bannedPhrases).flatMap(({ bbox, cat_name }) =>
            bbox.map((box) => ({ bbox: box, cat_name })),
          ),
        );
      case "polygons": {
        const entries = parsePolygons(text, size, { allowEmptyPhrase: true });
        return {
          polygons: entries.map(({ polygons }) => polygons),
          labels: entries.map(({ cat_name }) => cat_name),
        };
      }
      case "description_with_bboxes_or_polygons": {
        const polygons = text.includes("<poly>") ? parsePolygons(text, size) : [];
        const boxes = text.includes("<poly>") ? [] : parseBoxes(text, size);
        return {
          bboxes: boxes.map(({ bbox }) => bbox),
          bboxes_labels: boxes.map(({ cat_name }) => cat_name),
          polygons: polygons.map((entry) => entry.polygons),
          polygons_labels: polygons.map(({ cat_name }) => cat_name),
        };
      }
    }
  }
}

const boxesAnswer = (boxes: readonly { bbox: number[]; cat_name: string }[]): BoxesAnswer => ({
  bboxes: boxes.map(({ bbox }) => bbox),
  labels: boxes.map(({ cat_name }) => cat_name),
});
