/** Results of tasks in their order; each is started when the one before it is still under way. */
export async function* ahead<T>(tasks: Iterable<() => Promise<T>>): AsyncGenerator<T> {
  let before: Promise<T> | undefined;
  for (const task of tasks) {
    const started = task();
    started.catch(() => undefined); // thrown when it is its turn
    if (before) yield before;
    before = started;
  }
  if (before) yield before;
}
