/**
 * A page of pictures with what the model wrote about them before and after.
 *
 *     node --import tsx examples/florence2/page.ts DATA.jsonl BEFORE.jsonl AFTER.jsonl PAGE.html
 *
 * BEFORE and AFTER are what `graft eval --generate --predictions` writes, row by row.
 */

import { readFile, writeFile } from "node:fs/promises";

type Row = { image: string; prompt: string; completion: string };
type Written = { generated: string; reference: string };

const [data, before, after, page] = process.argv.slice(2);
if (!data || !before || !after || !page) throw new Error("usage: page.ts DATA BEFORE AFTER PAGE");

const lines = async <T>(file: string): Promise<T[]> =>
  (await readFile(file, "utf8"))
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as T);

const escaped = (text: string) => text.replace(/[&<>"]/g, (character) => `&#${character.codePointAt(0)};`);

const [rows, first, second] = await Promise.all([
  lines<Row>(data),
  lines<Written>(before),
  lines<Written>(after),
]);
for (const [file, written] of [
  [before, first],
  [after, second],
] as const)
  if (written.length !== rows.length)
    throw new Error(`${file} holds ${written.length} texts for the ${rows.length} pictures of ${data}`);

/** The words that are in the caption, too, stand out. */
function compared(text: string, reference: string): string {
  const words = new Set(reference.match(/[\w-]+/g));
  return escaped(text).replace(/[\w-]+/g, (word) => (words.has(word) ? `<b>${word}</b>` : word));
}

const cells = rows.map(({ image, completion }, i) => {
  const texts = [first[i]!, second[i]!].map(({ generated }) => `<td>${compared(generated, completion)}</td>`);
  return `<tr><td><img src="${escaped(image)}" alt=""></td><td>${escaped(completion)}</td>${texts.join("")}</tr>`;
});

await writeFile(
  page,
  `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Captions before and after</title>
<style>
  body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; color: #333; }
  table { border-collapse: collapse; width: 100%; }
  th, td { text-align: left; padding: 0.3rem 0.8rem; border-bottom: 1px solid #ddd; }
  img { width: 48px; image-rendering: pixelated; }
  b { color: #06703b; }
</style>
<h1>Captions before and after</h1>
<p>Pictures that the adapter was not trained on. Words that are in the caption are green.</p>
<table>
<tr><th></th><th>caption</th><th>before</th><th>after</th></tr>
${cells.join("\n")}
</table>
</html>
`,
);
console.log(`${page}: ${rows.length} pictures`);
