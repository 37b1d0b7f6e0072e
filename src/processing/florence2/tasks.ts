import { DataError } from "../../errors.ts";
import { strip } from "../python-text.ts";

/** How the text that answers a task is read. */
export type AnswerKind =
  | "pure_text"
  | "ocr"
  | "description_with_bboxes"
  | "phrase_grounding"
  | "polygons"
  | "description_with_bboxes_or_polygons"
  | "bboxes";

type Task = {
  /** What the model is asked; `{input}` stands for the text that follows the task's token. */
  prompt: string;
  answer: AnswerKind;
};

/** Florence-2's tasks, prompts word for word. Source: transformers 5.18, processing_florence2.py. */
export const florence2Tasks = {
  "<OCR>": { prompt: "What is the text in the image?", answer: "pure_text" },
  "<OCR_WITH_REGION>": { prompt: "What is the text in the image, with regions?", answer: "ocr" },
  "<CAPTION>": { prompt: "What does the image describe?", answer: "pure_text" },
  "<DETAILED_CAPTION>": { prompt: "Describe in detail what is shown in the image.", answer: "pure_text" },
  "<MORE_DETAILED_CAPTION>": {
    prompt: "Describe with a paragraph what is shown in the image.",
    answer: "pure_text",
  },
  "<OD>": {
    prompt: "Locate the objects with category name in the image.",
    answer: "description_with_bboxes",
  },
  "<DENSE_REGION_CAPTION>": {
    prompt: "Locate the objects in the image, with their descriptions.",
    answer: "description_with_bboxes",
  },
  "<REGION_PROPOSAL>": { prompt: "Locate the region proposals in the image.", answer: "bboxes" },
  "<CAPTION_TO_PHRASE_GROUNDING>": {
    prompt: "Locate the phrases in the caption: {input}",
    answer: "phrase_grounding",
  },
  "<REFERRING_EXPRESSION_SEGMENTATION>": {
    prompt: "Locate {input} in the image with mask",
    answer: "polygons",
  },
  "<REGION_TO_SEGMENTATION>": {
    prompt: "What is the polygon mask of region {input}",
    answer: "polygons",
  },
  "<OPEN_VOCABULARY_DETECTION>": {
    prompt: "Locate {input} in the image.",
    answer: "description_with_bboxes_or_polygons",
  },
  "<REGION_TO_CATEGORY>": { prompt: "What is the region {input}?", answer: "pure_text" },
  "<REGION_TO_DESCRIPTION>": { prompt: "What does the region {input} describe?", answer: "pure_text" },
  "<REGION_TO_OCR>": { prompt: "What text is in the region {input}?", answer: "pure_text" },
} as const satisfies Record<string, Task>;

/** A task's token, such as `<OD>`. */
export type Florence2Task = keyof typeof florence2Tasks;

const tasks = Object.entries(florence2Tasks);
const takesInput = ([, { prompt }]: (typeof tasks)[number]): boolean => prompt.includes("{input}");

/**
 * What the model is asked for a text with a task's token: `<OD>` becomes the task's question, `<REGION_TO_OCR>…` its
 * question with the rest of the text put in. Text without a task's token stays as it is.
 * @throws DataError "bad-prompt" if a task that takes no text is given some.
 */
export function expandPrompt(text: string): string {
  const plain = tasks.find((task) => !takesInput(task) && text.includes(task[0]));
  if (plain !== undefined) {
    const [token, { prompt }] = plain;
    if (text === token) return prompt;
    throw new DataError(
      `The prompt ${JSON.stringify(text)} has other text beside ${token}, and this task takes none. Give "${token}" alone.`,
      { code: "bad-prompt", details: { prompt: text, task: token } },
    );
  }
  const asking = tasks.find((task) => takesInput(task) && text.includes(task[0]));
  if (asking === undefined) return text;
  const [token, { prompt }] = asking;
  const [before, after] = prompt.split("{input}") as [string, string];
  return before + strip(text.replaceAll(token, "")) + after;
}
