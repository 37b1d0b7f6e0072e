import { CheckpointError } from "../../errors.ts";

/** A repository on the Hub, and which version of it. */
export type HubName = { readonly id: string; readonly revision: string };

const pattern = /^((?:[A-Za-z0-9][\w.-]*\/)?[A-Za-z0-9][\w.-]*)(?:@([\w./-]+))?$/;

/** Endings of files; a name with one of them was meant as a path. */
const fileName = /\.(?:json|gz|safetensors|bin|pth?|ckpt|gguf|onnx|txt|ya?ml)$/i;

/** Reads `org/name` or `org/name@revision`; undefined for what cannot be one. */
export function parseHubName(text: string): HubName | undefined {
  const match = text.length <= 400 ? pattern.exec(text) : null;
  const [, id, revision = "main"] = match ?? [];
  if (id === undefined || id.includes("..") || id.includes("--") || revision.includes("..")) return undefined;
  return { id, revision };
}

/** Whether a location that is no local file could name a repository. */
export const looksLikeHubName = (location: string): boolean =>
  !fileName.test(location) && parseHubName(location) !== undefined;

/** @throws CheckpointError if it is not a name of a repository. */
export function requireHubName(text: string): HubName {
  const name = parseHubName(text);
  if (name !== undefined) return name;
  const shown = text.length <= 120 ? text : `${text.slice(0, 120)}…`;
  throw new CheckpointError(
    `${JSON.stringify(shown)} is not the name of a repository on the Hub. It looks like "org/name" or "org/name@revision".`,
    { code: "invalid-hub-name", details: { repository: shown } },
  );
}
