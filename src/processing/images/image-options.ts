import { dataError, type Place } from "../../data/problem.ts";
import { listProblems } from "../../errors.ts";
import { isObject, type JsonObject } from "../json-file.ts";
import { resampleFilters } from "./resample.ts";

/** The size that a picture is resized to, by one of four rules. */
export type ResizeRule =
  | { height: number; width: number }
  /** The shorter edge becomes this, unless the longer one would exceed `longestEdge`. */
  | { shortestEdge: number; longestEdge?: number }
  /** As large as fits into this, enlarged if it must be. */
  | { maxHeight: number; maxWidth: number };

/** Settings of an image processor, each named as in preprocessor_config.json but for case. */
export type ImageProcessorOptions = {
  doResize: boolean;
  size: ResizeRule;
  /** Pillow's number of the filter, see `resampleFilters`. */
  resample: number;
  doCenterCrop: boolean;
  cropSize: { height: number; width: number };
  doRescale: boolean;
  rescaleFactor: number;
  doNormalize: boolean;
  /** By channel: red, green, blue. */
  imageMean: readonly [number, number, number];
  imageStd: readonly [number, number, number];
};

/** Those of CLIPImageProcessor, which apply where a file leaves a setting out. */
export const clipDefaults: ImageProcessorOptions = {
  doResize: true,
  size: { shortestEdge: 224 },
  resample: resampleFilters.bicubic,
  doCenterCrop: true,
  cropSize: { height: 224, width: 224 },
  doRescale: true,
  rescaleFactor: 1 / 255,
  doNormalize: true,
  imageMean: [0.48145466, 0.4578275, 0.40821073],
  imageStd: [0.26862954, 0.26130258, 0.27577711],
};

const isCount = (value: unknown): value is number => Number.isInteger(value) && (value as number) > 0;

/**
 * Settings from the JSON of preprocessor_config.json (or the `image_processor` part of processor_config.json).
 * @throws DataError "bad-processor" that lists everything that is wrong with it
 */
export function parseImageProcessor(json: JsonObject, place: Place): ImageProcessorOptions {
  const problems: string[] = [];
  const take = <Value>(
    key: string,
    fallback: Value,
    expected: string,
    parse: (value: unknown) => Value | undefined,
  ): Value => {
    const value = json[key];
    if (value === undefined || value === null) return fallback;
    const parsed = parse(value);
    if (parsed === undefined) problems.push(`"${key}" must be ${expected}, got ${JSON.stringify(value)}`);
    return parsed ?? fallback;
  };
  const flag = (key: string, fallback: boolean): boolean =>
    take(key, fallback, "true or false", (value) => (typeof value === "boolean" ? value : undefined));
  const perChannel = (key: string, fallback: ImageProcessorOptions["imageMean"], nonzero: boolean) =>
    take(key, fallback, `${nonzero ? "a nonzero" : "a"} number or three of them`, (value) => {
      const values = typeof value === "number" ? [value, value, value] : value;
      const valid =
        Array.isArray(values) &&
        values.length === 3 &&
        values.every((v) => Number.isFinite(v) && !(nonzero && v === 0));
      return valid ? (values as [number, number, number]) : undefined;
    });
  const options: ImageProcessorOptions = {
    doResize: flag("do_resize", clipDefaults.doResize),
    size: take(
      "size",
      clipDefaults.size,
      'a positive integer or an object with "height" and "width", "shortest_edge" (and "longest_edge"), or "max_height" and "max_width"',
      parseSize,
    ),
    resample: take("resample", clipDefaults.resample, "the number of a Pillow filter, 0 to 5", (value) =>
      (Object.values(resampleFilters) as unknown[]).includes(value) ? (value as number) : undefined,
    ),
    doCenterCrop: flag("do_center_crop", clipDefaults.doCenterCrop),
    cropSize: take(
      "crop_size",
      clipDefaults.cropSize,
      'a positive integer or an object with "height" and "width"',
      (value) => {
        if (isCount(value)) return { height: value, width: value };
        const size = parseSize(value);
        return size !== undefined && "height" in size ? size : undefined;
      },
    ),
    doRescale: flag("do_rescale", clipDefaults.doRescale),
    rescaleFactor: take("rescale_factor", clipDefaults.rescaleFactor, "a number", (value) =>
      Number.isFinite(value) ? (value as number) : undefined,
    ),
    doNormalize: flag("do_normalize", clipDefaults.doNormalize),
    imageMean: perChannel("image_mean", clipDefaults.imageMean, false),
    imageStd: perChannel("image_std", clipDefaults.imageStd, true),
  };
  const type = json["image_processor_type"] ?? json["feature_extractor_type"];
  if (type !== undefined && !/^CLIP(ImageProcessor(Fast|Pil)?|FeatureExtractor)$/.test(String(type)))
    problems.push(`"image_processor_type" must be "CLIPImageProcessor", got ${JSON.stringify(type)}`);
  if (json["do_convert_rgb"] === false)
    problems.push('"do_convert_rgb" false is not supported: pictures are always RGB');
  if (json["do_pad"] === true) problems.push('"do_pad" is not supported: resize or crop to one size instead');
  if (problems.length > 0)
    throw dataError(
      "bad-processor",
      place,
      `${listProblems(problems)}. Correct the file, or copy it again from the model's page.`,
      { problems },
    );
  return options;
}

function parseSize(value: unknown): ResizeRule | undefined {
  if (isCount(value)) return { shortestEdge: value };
  if (Array.isArray(value))
    return value.length === 2 && value.every(isCount) ? { height: value[0], width: value[1] } : undefined;
  if (!isObject(value)) return undefined;
  // transformers writes the keys that do not apply as null.
  const given = Object.entries(value).filter(([, edge]) => edge !== null);
  if (!given.every(([, edge]) => isCount(edge))) return undefined;
  const edges = Object.fromEntries(given) as Record<string, number>;
  switch (Object.keys(edges).sort().join()) {
    case "height,width":
      return { height: edges["height"]!, width: edges["width"]! };
    case "shortest_edge":
      return { shortestEdge: edges["shortest_edge"]! };
    case "longest_edge,shortest_edge":
      return { shortestEdge: edges["shortest_edge"]!, longestEdge: edges["longest_edge"]! };
    case "max_height,max_width":
      return { maxHeight: edges["max_height"]!, maxWidth: edges["max_width"]! };
    default:
      return undefined;
  }
}
