/** Charts as SVG, readable on light and on dark ground: colours follow `prefers-color-scheme`. */

const STYLE = `<style>
    svg { --ground: #ffffff; --text: #1f2328; --faint: #d0d7de; --a: #0a66c2; --b: #c2410c; --c: #6b7280; }
    @media (prefers-color-scheme: dark) {
      svg { --ground: #0d1117; --text: #e6edf3; --faint: #30363d; --a: #58a6ff; --b: #ff9d5c; --c: #9aa4af; }
    }
    .ground { fill: var(--ground); }
    text { fill: var(--text); font: 13px system-ui, sans-serif; }
    .title { font-size: 15px; font-weight: 600; }
    .grid { stroke: var(--faint); }
    .line { fill: none; stroke-width: 2; }
    .dashed { stroke-dasharray: 6 4; }
    .a { stroke: var(--a); } .b { stroke: var(--b); } .c { stroke: var(--c); }
    .fill-a { fill: var(--a); } .fill-b { fill: var(--b); } .fill-c { fill: var(--c); }
  </style>`;

export type Colour = "a" | "b" | "c";

export type Line = {
  readonly name: string;
  readonly colour: Colour;
  readonly dashed?: boolean;
  readonly points: readonly (readonly [x: number, y: number])[];
};

export type LineChart = {
  readonly title: string;
  readonly x: string;
  readonly y: string;
  readonly lines: readonly Line[];
};

export type Bar = {
  readonly name: string;
  readonly value: number;
  readonly colour: Colour;
  /** A mark, e.g. what is aimed at. */
  readonly mark?: number;
};

export type BarChart = { readonly title: string; readonly caption: string; readonly bars: readonly Bar[] };

const escaped = (text: string): string =>
  text.replace(/[&<>"]/g, (sign) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[sign]!);

const round = (value: number): string => String(Math.round(value * 10) / 10);

function text(x: number, y: number, content: string, attributes = ""): string {
  return `<text x="${round(x)}" y="${round(y)}"${attributes && ` ${attributes}`}>${escaped(content)}</text>`;
}

function picture(width: number, height: number, title: string, parts: readonly string[]): string {
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-label="${escaped(title)}">`,
    `  ${STYLE}`,
    `  <rect class="ground" width="${width}" height="${height}"/>`,
    ...parts.map((part) => `  ${part}`),
    "</svg>\n",
  ].join("\n");
}

/** Round numbers from 0 to at least `most`, about `count` of them. */
export function ticks(most: number, count = 5): number[] {
  if (!(most > 0)) return [0, 1];
  const raw = most / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= raw * (1 - 1e-9))!;
  const steps = Math.ceil(most / step - 1e-9);
  return Array.from({ length: steps + 1 }, (_, i) => Number((i * step).toPrecision(10)));
}

/** Lines through points, both axes from 0. */
export function lineChart({ title, x, y, lines }: LineChart): string {
  const [width, height, left, right, top, bottom] = [680, 380, 64, 190, 48, 52];
  const all = lines.flatMap(({ points }) => points);
  const [across, up] = [
    ticks(Math.max(...all.map(([at]) => at))),
    ticks(Math.max(...all.map(([, at]) => at))),
  ];
  const atX = (value: number) => left + (value / across.at(-1)!) * (width - left - right);
  const atY = (value: number) => height - bottom - (value / up.at(-1)!) * (height - top - bottom);
  const path = ({ points }: Line) =>
    points.map(([a, b], i) => `${i === 0 ? "M" : "L"}${round(atX(a))} ${round(atY(b))}`).join(" ");
  return picture(width, height, title, [
    text(16, 26, title, 'class="title"'),
    ...up.flatMap((value) => [
      `<line class="grid" x1="${left}" x2="${width - right}" y1="${round(atY(value))}" y2="${round(atY(value))}"/>`,
      text(left - 8, atY(value) + 4, String(value), 'text-anchor="end"'),
    ]),
    ...across.map((value) => text(atX(value), height - bottom + 20, String(value), 'text-anchor="middle"')),
    text((left + width - right) / 2, height - 12, x, 'text-anchor="middle"'),
    text(
      16,
      (top + height - bottom) / 2,
      y,
      `text-anchor="middle" transform="rotate(-90 16 ${(top + height - bottom) / 2})"`,
    ),
    ...lines.flatMap((line) => [
      `<path class="line ${line.colour}${line.dashed ? " dashed" : ""}" d="${path(line)}"/>`,
      ...(line.dashed
        ? []
        : line.points.map(
            ([a, b]) =>
              `<circle class="fill-${line.colour}" cx="${round(atX(a))}" cy="${round(atY(b))}" r="3.5"/>`,
          )),
    ]),
    ...lines.flatMap((line, i) => [
      `<line class="line ${line.colour}${line.dashed ? " dashed" : ""}" x1="${width - right + 14}" x2="${width - right + 40}" y1="${top + 10 + i * 24}" y2="${top + 10 + i * 24}"/>`,
      text(width - right + 46, top + 14 + i * 24, line.name),
    ]),
  ]);
}

/** Where a bar's value is written: at its end, or after a mark that stands in the way. */
const afterBar = (end: number, mark: number): number => (mark > end && mark < end + 50 ? mark : end) + 6;

/** Horizontal bars from 0, each with its value. */
export function barChart({ title, caption, bars }: BarChart): string {
  const [width, left, right, top, step] = [860, 430, 70, 62, 26];
  const height = top + bars.length * step + 36;
  const marks = bars.flatMap(({ mark }) => mark ?? []);
  const across = ticks(Math.max(1, ...bars.map(({ value }) => value), ...marks));
  const at = (value: number) => left + (value / across.at(-1)!) * (width - left - right);
  const bottom = top + bars.length * step;
  return picture(width, height, title, [
    text(16, 26, title, 'class="title"'),
    text(16, 46, caption),
    ...across.flatMap((value) => [
      `<line class="grid" x1="${round(at(value))}" x2="${round(at(value))}" y1="${top}" y2="${bottom}"/>`,
      text(at(value), bottom + 18, `${value}×`, 'text-anchor="middle"'),
    ]),
    ...bars.flatMap(({ name, value, colour, mark }, i) => [
      text(left - 10, top + i * step + 17, name, 'text-anchor="end"'),
      `<rect class="fill-${colour}" x="${left}" y="${top + i * step + 5}" width="${round(at(value) - left)}" height="${step - 10}" rx="2"/>`,
      text(
        afterBar(at(value), mark === undefined ? 0 : at(mark)),
        top + i * step + 17,
        `${value.toFixed(2)}×`,
      ),
      ...(mark === undefined
        ? []
        : [
            `<line class="line c" x1="${round(at(mark))}" x2="${round(at(mark))}" y1="${top + i * step + 2}" y2="${top + i * step + step - 2}"/>`,
          ]),
    ]),
  ]);
}
