import { isGraftError } from "../errors.ts";
import { type Tensor, tensor } from "../tensor/index.ts";
import { readExactly } from "./byte-source.ts";
import { dataError, type Place } from "./problem.ts";
import type { ByteSource } from "./types.ts";

/** Larger files hold no picture that a model reads. */
const MAX_BYTES = 1 << 30;

/** Bytes in which a header ends that describes a picture; NumPy writes 128. */
const MAX_HEADER = 1 << 16;

/** Red, green and blue. */
const CHANNELS = 3;

type Header = { shape: [number, number, number]; dataOffset: number };

/**
 * Pixel values from a NumPy file of float32 [channels, height, width], as they stand in it.
 * @throws DataError "unreadable", "bad-npy" naming the row and what is wrong with the file
 */
export async function readNpy(path: string, place: Place, channels = CHANNELS): Promise<Tensor<"float32">> {
  return withFile(path, place, async (source) => {
    const { shape, dataOffset } = await readHeader(source, path, place, channels);
    const { parse } = await import("npyjs");
    const bytes = await readExactly(source, 0, source.size);
    let data: unknown;
    try {
      ({ data } = parse(exactBuffer(bytes)));
    } catch (cause) {
      throw badNpy(path, place, `cannot be read (${reasonOf(cause)})`, "Save it with numpy.save.", cause);
    }
    const values = data as Float32Array;
    const odd = values.findIndex((value) => !Number.isFinite(value));
    if (odd >= 0) {
      const [, height, width] = shape;
      const at = [Math.floor(odd / (height * width)), Math.floor(odd / width) % height, odd % width];
      throw badNpy(
        path,
        place,
        `holds ${values[odd]} at [${at.join(", ")}], byte ${dataOffset + 4 * odd}`,
        "Pixel values must be finite: process the picture again.",
      );
    }
    return tensor("float32", shape, values);
  });
}

/** The checks of `readNpy` but for the values, by the header and the file's size. @throws DataError as `readNpy` */
export async function checkNpy(path: string, place: Place, channels = CHANNELS): Promise<void> {
  await withFile(path, place, (source) => readHeader(source, path, place, channels));
}

async function withFile<Result>(
  path: string,
  place: Place,
  use: (source: ByteSource) => Promise<Result>,
): Promise<Result> {
  if (/^[a-z][a-z\d+.-]+:\/\//i.test(path))
    throw badNpy(path, place, "is an address", "Download it, and give its path.");
  const { openFile } = await import("./node.ts");
  let source: Required<ByteSource>;
  try {
    source = await openFile(path);
  } catch (error) {
    if (!isGraftError(error)) throw error;
    // The message opens with the path.
    throw dataError("unreadable", place, error.message, { ...error.details, ...place, array: path }, error);
  }
  try {
    return await use(source);
  } finally {
    await source.close();
  }
}

const badNpy = (path: string, place: Place, what: string, remedy: string, cause?: unknown) =>
  dataError("bad-npy", place, `${path}: the file ${what}. ${remedy}`, { array: path }, cause);

const reasonOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause));

const exactBuffer = (bytes: Uint8Array): ArrayBuffer =>
  bytes.byteOffset === 0 && bytes.byteLength === bytes.buffer.byteLength
    ? (bytes.buffer as ArrayBuffer)
    : (bytes.slice().buffer as ArrayBuffer);

/** Source of the layout: NumPy, numpy/lib/format.py, versions 1.0 to 3.0. */
async function readHeader(source: ByteSource, path: string, place: Place, channels: number): Promise<Header> {
  const bad = (what: string, remedy: string, cause?: unknown) => badNpy(path, place, what, remedy, cause);
  const again = "Save it again with numpy.save, or copy it again.";
  if (source.size === 0) throw bad("is empty", again);
  const head = await readExactly(source, 0, Math.min(source.size, MAX_HEADER));
  if (String.fromCharCode(...head.subarray(0, 6)) !== "\x93NUMPY")
    throw bad(
      head[0] === 0x50 && head[1] === 0x4b
        ? "is a .npz archive, or another zip file"
        : "is not a NumPy array",
      "Save one array with numpy.save.",
    );
  if (head.length < 12) throw bad("is cut off in its header", again);
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
  const [major, minor] = [head[6]!, head[7]!];
  if (major < 1 || major > 3) throw bad(`is of the unknown format version ${major}.${minor}`, again);
  const dataOffset = major === 1 ? 10 + view.getUint16(8, true) : 12 + view.getUint32(8, true);
  if (dataOffset > head.length)
    throw bad(
      source.size > head.length
        ? `has a header of ${dataOffset} bytes, which no picture needs`
        : "is cut off in its header",
      again,
    );
  const { parse } = await import("npyjs");
  const text = new TextDecoder("latin1").decode(head.subarray(0, dataOffset));
  let header: { shape: number[]; fortranOrder: boolean };
  const descr = /'descr'\s*:\s*'([^']*)'/.exec(text)?.[1];
  if (descr !== "<f4")
    throw bad(
      descr === undefined ? "does not hold plain numbers" : `holds values of type ${JSON.stringify(descr)}`,
      "Save it as little-endian float32: array.astype('<f4').",
    );
  try {
    header = parse(exactBuffer(head.slice(0, dataOffset)));
  } catch (cause) {
    throw bad(`has a header that cannot be read (${reasonOf(cause)})`, again, cause);
  }
  const { shape, fortranOrder } = header;
  if (fortranOrder)
    throw bad("is stored column by column (Fortran order)", "Save numpy.ascontiguousarray(array).");
  if (
    shape.length !== 3 ||
    shape[0] !== channels ||
    !shape.every((length) => Number.isSafeInteger(length) && length > 0)
  )
    throw bad(
      `has the shape [${shape.join(", ")}]`,
      shape.length === 4
        ? `It must hold one picture, [${channels}, height, width]: save pixel_values[0].`
        : `It must be [${channels}, height, width], none of them 0.`,
    );
  const expected = dataOffset + 4 * shape.reduce((product, length) => product * length, 1);
  if (expected !== source.size)
    throw bad(
      `has ${source.size} bytes where the shape [${shape.join(", ")}] takes ${expected}`,
      source.size < expected ? `It is cut off. ${again}` : "Save one array alone with numpy.save.",
    );
  if (source.size > MAX_BYTES)
    throw bad(`has ${source.size} bytes, more than the limit of ${MAX_BYTES}`, "Use smaller pictures.");
  return { shape: shape as [number, number, number], dataOffset };
}
