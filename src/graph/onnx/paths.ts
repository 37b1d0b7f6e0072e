/** Splits an absolute path, POSIX or Windows, at its separators. */
const segments = (path: string): string[] => path.split(/[\\/]/);

/** The deepest directory that holds all files; the drive or root at least. */
export function commonDirectory(paths: readonly string[]): string {
  const [first, ...rest] = paths.map((path) => segments(path).slice(0, -1));
  let length = first!.length;
  for (const other of rest) {
    let i = 0;
    while (i < length && i < other.length && other[i] === first![i]) i++;
    length = i;
  }
  const separator = paths[0]!.includes("\\") ? "\\" : "/";
  return first!.slice(0, length).join(separator) || separator;
}

/** The path of a file inside `directory`, with "/" as ONNX wants it. */
export function relativeTo(directory: string, path: string): string {
  const skip = directory === "/" ? 1 : segments(directory).length;
  return segments(path).slice(skip).join("/");
}
