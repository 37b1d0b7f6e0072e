/** The thread that decodes and preprocesses the pictures of rows. Started by thread/node.ts. */
import { parentPort, workerData } from "node:worker_threads";
import { DataError } from "../../errors.ts";
import { ImageProcessor } from "../images/image-processor.ts";
import { preparePicture } from "./prepare.ts";
import type { PictureReply, PictureRequest, PictureSettings } from "./protocol.ts";

const { options, maxPixels } = workerData as PictureSettings;
const preparation = { imageProcessor: new ImageProcessor(options), maxPixels };
const port = parentPort!;

port.on("message", async ({ id, image, place }: PictureRequest) => {
  try {
    const { shape, data } = await preparePicture(image, place, preparation);
    port.postMessage({ id, shape, data } satisfies PictureReply, [data.buffer as ArrayBuffer]);
  } catch (error) {
    port.postMessage({ id, error: plain(error) } satisfies PictureReply);
  }
});

const plain = (error: unknown): Extract<PictureReply, { error: unknown }>["error"] =>
  error instanceof DataError
    ? { message: error.message, code: error.code, details: error.details }
    : { message: error instanceof Error ? (error.stack ?? error.message) : String(error) };
