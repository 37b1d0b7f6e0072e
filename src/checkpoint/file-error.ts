import { CheckpointError } from "../errors.ts";

/** What the operating system's error codes mean for the user: our code, what happened, what to do. */
const meanings: Record<string, readonly [code: string, what: string, remedy: string]> = {
  ENOENT: ["missing-file", "there is no such file or directory", "Check the path."],
  ENOSPC: ["no-space", "the disk is full", "Free some space or choose another place; nothing was written."],
  EDQUOT: [
    "no-space",
    "the disk quota is used up",
    "Free some space or choose another place; nothing was written.",
  ],
  EFBIG: ["no-space", "the file system does not allow files of this size", "Choose another place."],
  EACCES: ["permission", "permission denied", "Check the permissions, or choose another place."],
  EPERM: ["permission", "operation not permitted", "Check the permissions, or choose another place."],
  EROFS: ["read-only", "the file system is read-only", "Choose another place."],
  ENOTDIR: ["not-a-directory", "part of the path is a file, not a directory", "Check the path."],
  EEXIST: ["exists", "a file of that name is in the way", "Remove it, or choose another name."],
  EISDIR: ["is-a-directory", "it is a directory, not a file", "Name a file inside it."],
  ENAMETOOLONG: ["name-too-long", "the name is too long for the file system", "Choose a shorter one."],
  ELOOP: ["link-loop", "symbolic links go round in a circle", "Correct the links."],
  EMFILE: ["too-many-files", "too many files are open", "Close some, or raise the limit (`ulimit -n`)."],
  ENFILE: ["too-many-files", "too many files are open on this machine", "Close some programs."],
  EBUSY: ["busy", "it is in use", "Close the program that uses it and try again."],
};

/** The error for an operation on a local file that the operating system refused. */
export function fileError(action: "read" | "write", path: string, cause: unknown): CheckpointError {
  if (cause instanceof CheckpointError) return cause;
  if (cause instanceof RangeError)
    return new CheckpointError(
      `${path}: cannot ${action}: ${cause.message}; there is not enough memory for it.`,
      {
        code: "out-of-memory",
        details: { path },
        cause,
      },
    );
  const errno = (cause as { code?: unknown } | null)?.code;
  const known = typeof errno === "string" ? meanings[errno] : undefined;
  const [code, what, remedy] = known ?? ["io", String(cause), "Check the disk, and try again."];
  const suffix = known === undefined ? "" : ` (${errno})`;
  return new CheckpointError(`${path}: cannot ${action}: ${what}${suffix}. ${remedy}`, {
    code,
    details: { path, errno },
    cause,
  });
}
