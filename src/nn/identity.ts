import type { Value } from "../graph/index.ts";
import { Layer } from "./module.ts";

/** y = x, where a configuration leaves a layer out. Source: torch.nn.Identity. */
export class Identity extends Layer {
  override readonly className = "Identity";
  override readonly kind = "identity";

  override forward(x: Value): Value {
    return x;
  }
}
