import { Template } from "@huggingface/jinja";
import { dataError } from "./problem.ts";

/** A chat message; templates may use further fields, for example `tool_calls`. */
export type ChatMessage = { role: string; content?: unknown; [field: string]: unknown };

/** A half-open range of a rendered chat, in UTF-16 units. */
export type Span = readonly [start: number, end: number];

/** A rendered chat, and what the template's `{% generation %}` blocks wrote. */
export type RenderedChat = { text: string; generated: Span[] };

// transformers' own tag: it marks what the assistant wrote, in the template.
const generationTag = /\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}/g;

/** Noncharacters, which Unicode reserves for use inside a program: two of them that the text does not have. */
const markers = Array.from({ length: 32 }, (_, i) => String.fromCharCode(0xfdd0 + i));

/**
 * A Jinja chat template, with the settings of transformers: `trim_blocks`, `lstrip_blocks`, `raise_exception`,
 * `strftime_now`, `tojson` as json.dumps, and `{% generation %}` blocks.
 */
export class ChatTemplate {
  readonly source: string;
  readonly name: string;
  /** Whether the template marks what the assistant wrote. */
  readonly hasGeneration: boolean;
  readonly #templates = new Map<string, Template>();

  /** @throws DataError "bad-chat-template" if the template cannot be parsed. `name` is for messages. */
  constructor(source: string, name = "chat template") {
    this.source = source;
    this.name = name;
    this.hasGeneration = source.search(generationTag) >= 0;
    this.#compile(markers[0]!, markers[1]!);
  }

  /**
   * Render with the given variables (`messages`, `add_generation_prompt`, `bos_token` …).
   * @throws DataError "chat-template" with what the template raised.
   */
  render(variables: Record<string, unknown>): RenderedChat {
    const used = this.hasGeneration ? JSON.stringify(variables) : "";
    const free = markers.filter((marker) => !used.includes(marker));
    const [open = markers[0]!, close = markers[1]!] = free;
    const template = this.#compile(open, close);
    let marked: string;
    try {
      marked = template.render(variables);
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw dataError(
        "chat-template",
        { file: this.name },
        `the chat template refuses these messages: ${reason}`,
        {},
        cause,
      );
    }
    if (!this.hasGeneration) return { text: marked, generated: [] };
    const generated: Span[] = [];
    let text = "";
    let start = 0;
    for (const part of marked.split(new RegExp(`([${open}${close}])`))) {
      if (part === open) start = text.length;
      else if (part === close) generated.push([start, text.length]);
      else text += part;
    }
    return { text, generated };
  }

  /**
   * The library drops `{% generation %}`. Here each tag becomes an `if` that writes a marker: also a statement, so
   * whitespace around it is trimmed by the same rules.
   */
  #compile(open: string, close: string): Template {
    let template = this.#templates.get(open + close);
    if (template === undefined) {
      const source = this.source.replace(
        generationTag,
        (_, left: string, end: string | undefined, right: string) =>
          `{%${left} if true %}${end === undefined ? open : close}{% endif ${right}%}`,
      );
      try {
        template = new Template(source);
      } catch (cause) {
        const reason = cause instanceof Error ? cause.message : String(cause);
        throw dataError(
          "bad-chat-template",
          { file: this.name },
          `the chat template cannot be parsed: ${reason}`,
          {},
          cause,
        );
      }
      this.#templates.set(open + close, template);
    }
    return template;
  }
}
