import { aims } from "./aims.ts";
import { cases, scaling } from "./cases.ts";
import { valuesOf } from "./compare.ts";
import { layersFit } from "./layers.ts";
import { quantities } from "./quantities.ts";
import type { Results } from "./results.ts";
import type { ShapeName } from "./shapes.ts";
import { barChart, type Line, lineChart } from "./svg.ts";

/** A picture beside docs/performance.md: name of its file, what it shows, and its content. */
export type Chart = { readonly file: string; readonly alt: string; readonly svg: string };

/** All charts there are numbers for. */
export function charts(results: Results, shape: ShapeName = "smollm2-135m"): Chart[] {
  return [speedups(results), layersChart(results, shape), sequenceChart(results)].flatMap(
    (chart) => chart ?? [],
  );
}

function speedups(results: Results): Chart | undefined {
  const bars = aims.flatMap(({ better, work, measured, aim, compared }) => {
    const value = better === "more" ? measured(results) : undefined;
    const int8 = compared.includes("int8");
    return value
      ? [
          {
            name: work + (int8 ? ", int8" : ""),
            value: value.median,
            colour: int8 ? ("b" as const) : ("a" as const),
            mark: aim,
          },
        ]
      : [];
  });
  if (bars.length === 0) return undefined;
  const title = "Graft's speed, PyTorch + PEFT = 1";
  const caption = "Over PyTorch float32; with an int8 base over PyTorch bfloat16. The mark is the aim.";
  return { file: "performance-speedups.svg", alt: title, svg: barChart({ title, caption, bars }) };
}

function layersChart(results: Results, shape: ShapeName): Chart | undefined {
  const fit = layersFit(results, shape);
  if (!fit) return undefined;
  const { points } = fit;
  const torch = points.flatMap(({ count, torch: value }) =>
    value === undefined ? [] : [[count, value] as const],
  );
  const lines: Line[] = [
    ...(torch.length > 0 ? [{ name: "PyTorch float32", colour: "b" as const, points: torch }] : []),
    { name: "Graft", colour: "a", points: points.map(({ count, graft }) => [count, graft]) },
    {
      ...{ name: "by its operations", colour: "c", dashed: true },
      points: points.map(({ count, predicted }) => [count, predicted]),
    },
  ];
  const title = `A step with the last layers of ${shape} adapted, later epochs`;
  const svg = lineChart({ title, x: "adapted layers", y: "seconds", lines });
  return { file: "performance-layers.svg", alt: title, svg };
}

function sequenceChart({ cases: found }: Results): Chart | undefined {
  const line = (contestant: "graft" | "torch-float32"): (readonly [number, number])[] =>
    scaling.sequence.flatMap(({ value, one: { id } }) => {
      const result = found[id];
      const measured = result && valuesOf(result, contestant, quantities.step);
      return measured ? [[value, measured.median] as const] : [];
    });
  const [graft, torch] = [line("graft"), line("torch-float32")];
  if (graft.length < 2) return undefined;
  const { shape } = cases.find(({ id }) => id === scaling.sequence[0]!.one.id)!;
  const title = `A step of ${shape} against the length of its 2 rows`;
  const lines: Line[] = [
    ...(torch.length > 1 ? [{ name: "PyTorch float32", colour: "b" as const, points: torch }] : []),
    { name: "Graft", colour: "a", points: graft },
  ];
  const svg = lineChart({ title, x: "tokens of a row", y: "seconds", lines });
  return { file: "performance-sequence.svg", alt: title, svg };
}
