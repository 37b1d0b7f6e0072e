import { GraftError } from "../errors.ts";
import { StopStringFilter } from "./stopping.ts";
import { TextStreamer } from "./text-streamer.ts";

export type SpellingOptions = {
  /** Text of tokens; without it text stays empty, and there can be no stop strings. */
  readonly decode: ((ids: number[]) => string) | undefined;
  readonly stop: readonly string[];
};

/** @throws GraftError if there are stop strings and no `decode` */
export function checkSpelling({ decode, stop }: SpellingOptions): void {
  if (stop.length > 0 && !decode)
    throw new GraftError(
      `Stopping at a text (${stop.map((text) => JSON.stringify(text)).join(", ")}) needs a tokenizer. Pass one, or leave stop out.`,
      { code: "no-tokenizer", details: { stop } },
    );
}

/** Text of tokens as they come, up to the first stop string. */
export class Spelling {
  private readonly streamer: TextStreamer | undefined;
  private readonly stops: StopStringFilter;

  /** @throws as `checkSpelling` */
  constructor(options: SpellingOptions) {
    checkSpelling(options);
    this.streamer = options.decode && new TextStreamer(options.decode);
    this.stops = new StopStringFilter(options.stop);
  }

  get isStopped(): boolean {
    return this.stops.stopped !== undefined;
  }

  /** Text that is complete with this token; with the last one all that is left. */
  push(token: number, { isLast }: { isLast: boolean }): string {
    const { stops, streamer } = this;
    let text = stops.push(streamer?.push(token) ?? "");
    if (isLast && !this.isStopped) text += stops.push(streamer?.end() ?? "");
    if (isLast && !this.isStopped) text += stops.end();
    return text;
  }
}
