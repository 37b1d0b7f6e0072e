import { nearest, RuntimeFailure } from "../errors.ts";
import { type Dim, evaluateDim, formatShape, type Port, symbolName } from "../graph/index.ts";
import { numel, type Tensor } from "../tensor/index.ts";
import type { WireTensor } from "./protocol.ts";
import type { Feeds } from "./types.ts";

type Feed = Feeds[string];

/**
 * The feeds of a program's inputs, as they are sent. Extra feeds are not sent, so that one set of feeds serves several
 * programs.
 * @throws RuntimeFailure that names the input, if one is missing, or of another dtype, shape or size, or if a symbolic
 * dimension has two sizes (ONNX Runtime would broadcast a 1 without a word).
 */
export function checkFeeds(ports: readonly Port[], feeds: Feeds): Record<string, WireTensor> {
  const wire = Object.fromEntries(ports.map((port) => [port.name, checkFeed(port, feeds)]));
  checkSymbols(ports, feeds);
  return wire;
}

function checkFeed(port: Port, feeds: Feeds): WireTensor {
  const { name, dtype, shape } = port;
  const value = feeds[name];
  if (value === undefined) {
    const close = nearest(name, Object.keys(feeds), 1)[0];
    throw new RuntimeFailure(`Input "${name}" is not fed.${close ? ` Did you mean it by "${close}"?` : ""}`, {
      code: "missing-feed",
      details: { name },
    });
  }
  const fits =
    value.shape.length === shape.length &&
    shape.every((dim, i) => typeof dim !== "number" || dim === value.shape[i]);
  if (value.dtype !== dtype || !fits)
    throw new RuntimeFailure(
      `Input "${name}" needs ${dtype}${formatShape(shape)}, got ${value.dtype}${formatShape(value.shape)}.`,
      { code: "wrong-feed", details: { name } },
    );
  if ("resident" in value) return { resident: value.resident };
  const { data } = value;
  if (data.length !== numel(value.shape))
    throw new RuntimeFailure(
      `Input "${name}" has ${data.length} elements, its shape ${formatShape(value.shape)} says ${numel(value.shape)}.`,
      { code: "wrong-feed", details: { name } },
    );
  return wholeTensor(value);
}

/** The tensor with a buffer of its own: sending a view would copy the whole buffer below it. */
export function wholeTensor({ dtype, shape, data }: Tensor): Tensor {
  const isWhole = data.byteLength === data.buffer.byteLength;
  return { dtype, shape, data: isWhole ? data : data.slice() };
}

/** Each symbol has one size in all feeds. */
function checkSymbols(ports: readonly Port[], feeds: Feeds): void {
  const sizes = new Map<string, number>();
  const axes = ports.flatMap(({ name, shape }) =>
    shape.flatMap((dim, axis) =>
      typeof dim === "number" ? [] : [{ name, axis, dim, size: sizeOf(feeds[name]!, axis) }],
    ),
  );
  for (const { dim, size } of axes) {
    const symbol = symbolName(dim);
    if (symbol !== undefined && !sizes.has(symbol)) sizes.set(symbol, size);
  }
  for (const { name, axis, dim, size } of axes) {
    const expected = sizeFrom(dim, sizes);
    if (expected !== undefined && expected !== size)
      throw new RuntimeFailure(
        `Input "${name}" has size ${size} at axis ${axis}, where "${dim}" is ${expected} in the other inputs.`,
        { code: "wrong-feed", details: { name, axis, size, expected } },
      );
  }
}

const sizeOf = (feed: Feed, axis: number): number => feed.shape[axis]!;

/** The size of a dimension, unless a symbol is in it that no input has alone. */
function sizeFrom(dim: Dim, sizes: ReadonlyMap<string, number>): number | undefined {
  try {
    return evaluateDim(dim, sizes);
  } catch {
    return undefined;
  }
}
