import type { SelectionConfig } from "../peft/options.ts";
import type { Selection } from "../peft/selection.ts";

/** What a compiled selection of groups holds, as far as it is explained here. */
export type CompiledLike = {
  /** PEFT's configuration that selects the same. */
  readonly config: SelectionConfig;
  readonly selection: Selection;
  readonly groups: readonly {
    readonly spec: { readonly name?: string | undefined; readonly layers?: unknown };
    readonly modules: readonly string[];
    readonly entries: readonly {
      readonly entry: string;
      readonly kind: string;
      readonly negative: boolean;
      /** All that it matches, and those of them that the group takes, or that a negative entry takes away. */
      readonly matched: readonly string[];
      readonly modules: readonly string[];
    }[];
  }[];
};

export const isCompiled = (source: object): source is CompiledLike =>
  "groups" in source && "selection" in source;
