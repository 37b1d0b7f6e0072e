export { scoreTexts, type TextPair, type TextScores } from "./scores.ts";
export { type EvaluatedTexts, type EvaluateTextsOptions, evaluateTexts } from "./texts.ts";
