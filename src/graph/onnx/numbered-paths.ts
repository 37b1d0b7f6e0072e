/**
 * Calls files by numbers, in the order in which they are met: for emitting a program that does not depend on where its weights lie,
 * as a key of it must not (see `EmitOptions.realPath`).
 */
export function numberedPaths(): (path: string) => string {
  const paths = new Map<string, string>();
  return (path) => {
    const known = paths.get(path) ?? `/${paths.size}`;
    paths.set(path, known);
    return known;
  };
}
