/** Runs of consecutive numbers, ascending: `[5, 0, 1, 2]` as `[[0, 2], [5, 5]]`. */
export function numberRuns(numbers: Iterable<number>): [first: number, last: number][] {
  const runs: [number, number][] = [];
  for (const number of [...new Set(numbers)].sort((a, b) => a - b)) {
    const run = runs.at(-1);
    if (run !== undefined && number === run[1] + 1) run[1] = number;
    else runs.push([number, number]);
  }
  return runs;
}
