import type { SelectionConfig } from "../peft/options.ts";
import type { Selection } from "../peft/selection.ts";
import type { ModuleTree } from "../tree.ts";
import { type Deeper, onDeeperSibling } from "./deeper.ts";
import type { Form } from "./forms.ts";
import { placesOf } from "./places.ts";

/** A configuration that selects exactly what was wanted. */
export class Synthesis {
  /** Plain PEFT fields. */
  readonly config: SelectionConfig;
  readonly form: Form;
  /** The proof: what PEFT's rules make of `config`. */
  readonly selection: Selection;
  readonly exact = true;
  readonly #tree: ModuleTree;
  #deeper: Deeper | undefined;

  constructor(tree: ModuleTree, config: SelectionConfig, form: Form, selection: Selection) {
    this.#tree = tree;
    this.config = config;
    this.form = form;
    this.selection = selection;
  }

  /** Whether the configuration means the same on a model of this kind with more layers. Found out when first read. */
  get deeper(): Deeper {
    const names = new Set(this.selection.targets.map(({ name }) => name));
    this.#deeper ??= onDeeperSibling(this.#tree, placesOf(this.#tree), this.config, names);
    return this.#deeper;
  }
}
