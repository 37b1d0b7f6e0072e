import type { Tensor } from "../tensor/index.ts";
import { noProcessor } from "./decoder-rows.ts";
import { checkNpy, readNpy } from "./npy.ts";
import { dataError, describeValue, type Place } from "./problem.ts";
import { foundKey, type RowKind, requireText } from "./row-checks.ts";
import type { Row } from "./row-ids.ts";
import type { RowOptions } from "./rows.ts";
import type { ImageSource } from "./types.ts";

/** A row's picture as the model reads it; undefined if rows of its kind have none. @throws DataError that names the place */
export async function readPicture(
  row: Row,
  kind: RowKind,
  { processor, imageChannels }: RowOptions,
  place: Place,
): Promise<Tensor<"float32"> | undefined> {
  if (kind === "pixel-values") return readNpy(npyPath(row, place), place, imageChannels);
  if (kind !== "image-text") return undefined;
  if (processor === undefined) throw noProcessor(place);
  return processor.readPixels(imageOf(row, place), place);
}

/** The checks of a row's picture that need only its first bytes. @throws DataError that names the place */
export async function checkPicture(
  row: Row,
  kind: RowKind,
  { processor, imageChannels }: RowOptions,
  place: Place,
): Promise<void> {
  if (kind === "pixel-values") await checkNpy(npyPath(row, place), place, imageChannels);
  else if (kind === "image-text") {
    if (processor === undefined) throw noProcessor(place);
    await processor.checkImage(imageOf(row, place), place);
  }
}

const npyPath = (row: Row, place: Place): string =>
  besideFile(requireText(row, "pixel_values_file", place), place.file);

/**
 * The picture that a row names: a path beside its file, an absolute one, a data URL, or bytes, which parquet files hold
 * alone or, as Hugging Face datasets writes them, with a path. @throws DataError "wrong-type"
 */
export function imageOf(row: Row, place: Place): ImageSource {
  const key = foundKey(row, "image-text", "image")!;
  const value = row[key];
  if (typeof value === "string" && value !== "")
    return /^data:/i.test(value) ? { url: value } : { path: besideFile(value, place.file) };
  if (value instanceof Uint8Array) return { bytes: value, name: "picture" };
  if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    const { bytes, path } = value as Row;
    if (bytes instanceof Uint8Array)
      return { bytes, name: typeof path === "string" && path !== "" ? path : "picture" };
    if (bytes == null && typeof path === "string" && path !== "")
      return { path: besideFile(path, place.file) };
  }
  throw dataError(
    "wrong-type",
    place,
    `"${key}" must be a picture's path or a data URL, got ${value === "" ? "empty text" : describeValue(value)}. Name the file.`,
    { key },
  );
}

/** A path as it is if it is absolute, else beside a data file. Web addresses stay as they are, to be refused by whoever reads them. */
export function besideFile(path: string, file: string): string {
  if (/^([\\/]|[a-z]:[\\/]|[a-z][a-z\d+.-]+:\/\/)/i.test(path)) return path;
  return file.slice(0, Math.max(file.lastIndexOf("/"), file.lastIndexOf("\\")) + 1) + path;
}
