import type { Place } from "../../data/problem.ts";
import type { ImageSource } from "../../data/types.ts";
import type { ImageProcessorOptions } from "../images/image-options.ts";

/** What the thread for pictures starts with. */
export type PictureSettings = { options: ImageProcessorOptions; maxPixels: number };

export type PictureRequest = { id: number; image: ImageSource; place: Place };

export type PictureReply =
  | { id: number; shape: readonly number[]; data: Float32Array }
  | {
      id: number;
      /** `code` is absent for what is no DataError. */
      error: { message: string; code?: string; details?: Record<string, unknown> };
    };
