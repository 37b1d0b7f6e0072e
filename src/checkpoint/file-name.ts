import { CheckpointError } from "../errors.ts";

/** Why `file` may not be joined to a directory, or undefined if it stays inside. */
export function unsafeFileName(file: string): string | undefined {
  if (file === "") return "is empty";
  if (/^[/\\]|^[a-z][a-z0-9+.-]*:/i.test(file)) return "is absolute";
  if (file.includes("\\")) return "contains a backslash";
  if (file.includes("\0")) return "contains a NUL character";
  const segments = file.split("/");
  if (segments.includes("..")) return "leaves the directory";
  if (segments.some((segment) => segment === "" || segment === ".")) return "has an empty or '.' segment";
  return undefined;
}

/** @throws CheckpointError if `file` could name something outside of the store. */
export function checkFileName(store: string, file: string): void {
  const reason = unsafeFileName(file);
  if (reason === undefined) return;
  throw new CheckpointError(
    `${store}: the file name ${JSON.stringify(file)} ${reason}; only files inside the directory are read. ` +
      "Use a plain relative name.",
    { code: "unsafe-file-name", details: { store, file, reason } },
  );
}

/** The part after the last slash. */
export const baseName = (file: string): string => file.slice(file.lastIndexOf("/") + 1);
