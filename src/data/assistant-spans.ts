import type { ChatMessage, Span } from "./chat-template.ts";
import { dataError } from "./problem.ts";

type AssistantSpansOptions = {
  /** For messages. */
  name: string;
  /** Spelling of the special tokens. */
  specialTokens: readonly string[];
  render(messages: readonly ChatMessage[], addGenerationPrompt: boolean): string;
};

/**
 * What the assistant wrote in a rendered chat, for templates that do not mark it: for each assistant message, the text
 * from the end of the generation prompt before it to the end of the chat so far,
 *
 *     [ |render(messages[..i], generation prompt)|, |render(messages[..=i])| ).
 *
 * White space that the template writes after the message's closing special token is left out: the model never
 * generates it.
 * @throws DataError "chat-template-prefix" unless both renderings are prefixes of the whole one. Templates that
 * rewrite earlier turns (dropping their reasoning, say) or open with more than they keep are such.
 */
export function assistantSpans(
  messages: readonly ChatMessage[],
  text: string,
  { name, specialTokens, render }: AssistantSpansOptions,
): Span[] {
  const spans: Span[] = [];
  messages.forEach((message, i) => {
    if (message.role !== "assistant") return;
    const fail = (why: string) =>
      dataError(
        "chat-template-prefix",
        { file: name },
        `the chat template does not show which part of the text the assistant wrote in messages[${i}]: ${why}. ` +
          'Mark it in the template with {% generation %} … {% endgeneration %}, or give rows of {"prompt", "completion"}.',
        { message: i },
      );
    if (i === 0) throw fail("no message stands before it");
    const prompt = render(messages.slice(0, i), true);
    const through =
      i === messages.length - 1 ? render(messages, false) : render(messages.slice(0, i + 1), false);
    if (!text.startsWith(through)) throw fail("a later message changes how this one is rendered");
    if (!through.startsWith(prompt)) throw fail("the generation prompt is not how the message begins");
    const trimmed = through.trimEnd();
    const closed = trimmed.length > prompt.length && specialTokens.some((token) => trimmed.endsWith(token));
    spans.push([prompt.length, closed ? trimmed.length : through.length]);
  });
  return spans;
}
