/** A root that paths are counted from: "/", "C:/" or "//server/share/". */
const ROOT = /^(?:[A-Za-z]:[\\/]|[\\/]{2}[^\\/]+[\\/][^\\/]+[\\/]|\/)/;

/** An absolute path in parts. A backslash separates only on Windows; elsewhere it is a character like any other. */
function parse(path: string): { root: string; windows: boolean; segments: string[] } {
  const root = ROOT.exec(path)?.[0] ?? "";
  const windows = root !== "" && root !== "/";
  const segments = path.slice(root.length).split(windows ? /[\\/]/ : "/");
  return { root, windows, segments };
}

/** The drive, share or root that a path starts with, spelled the same for all files there. */
export const rootOf = (path: string): string => parse(path).root.replaceAll("\\", "/").toLowerCase();

/**
 * The deepest directory that holds all files; their common root at least.
 * Paths are absolute, POSIX or Windows, at least one, and share a root (see `rootOf`).
 */
export function commonDirectory(paths: readonly string[]): string {
  const { root, windows } = parse(paths[0]!);
  const [first, ...rest] = paths.map((path) => parse(path).segments.slice(0, -1));
  let length = first!.length;
  for (const other of rest) {
    let i = 0;
    while (i < length && i < other.length && other[i] === first![i]) i++;
    length = i;
  }
  return root + first!.slice(0, length).join(windows ? "\\" : "/");
}

/** The path of a file inside `directory`, which is one of its own ancestors, with "/" as ONNX wants it. */
export function relativeTo(directory: string, path: string): string {
  const { segments } = parse(directory);
  const skip = segments[0] === "" ? 0 : segments.length;
  return parse(path).segments.slice(skip).join("/");
}
