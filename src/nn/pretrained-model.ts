import type { Tensor } from "../tensor/index.ts";
import { Module } from "./module.ts";
import type { OlderLayout } from "./older-layout.ts";

/** The root of a model that comes from a checkpoint: what adapters need to know of it besides its modules. */
export abstract class PreTrainedModel extends Module {
  /** `model_type` of its config.json. */
  abstract readonly modelType: string;
  /** Path of the module that embeds tokens, and of the one that scores them; null if there is none. */
  abstract readonly inputEmbeddingPath: string | null;
  abstract readonly outputEmbeddingPath: string | null;
  /** True if the two share their weight. */
  abstract readonly tiedEmbeddings: boolean;
  /** Where it was loaded from, as the user spelled it; becomes `base_model_name_or_path`. */
  abstract readonly nameOrPath: string;

  /** Its config.json, where it has one. */
  get configFields(): Readonly<Record<string, unknown>> {
    return {};
  }

  /** Names that an older class gives the same model, if there is one. */
  get olderLayout(): OlderLayout | undefined {
    return undefined;
  }

  /** Paths of parameters that are shared, each with the first path of the same parameter. */
  tiedWeights(): [path: string, source: string][] {
    return [...this.parameterPaths().values()].flatMap(([source, ...others]) =>
      others.map((path): [string, string] => [path, source]),
    );
  }

  /** Number of parameters, shared ones counted once. */
  parameterCount(): number {
    let count = 0;
    for (const [, parameter] of this.namedParameters()) count += parameter.size;
    return count;
  }

  /** Values of the parameters that live in JavaScript, by name, for a run; those still in a file are read first. */
  async parameterFeeds(): Promise<Record<string, Tensor>> {
    const feeds: Record<string, Tensor> = {};
    for (const [, parameter] of this.namedParameters())
      if (parameter.fed) feeds[parameter.name] = await parameter.materialize();
    return feeds;
  }
}
