import { type FileStore, readTokenizerFiles, Tokenizer, type TokenizerFiles } from "../../data/index.ts";
import { dataError } from "../../data/problem.ts";
import { LOCATION_BINS } from "./locations.ts";

const pair = (name: string): string[] => [`<${name}>`, `</${name}>`];

/**
 * Tokens that Florence-2 adds to BART's, in the order of their ids; the misspelling is the checkpoints'.
 * Source: processing_florence2.py in microsoft/Florence-2-base.
 */
const florence2Tokens: readonly string[] = [
  ...["od", "ocr"].flatMap(pair),
  ...Array.from({ length: LOCATION_BINS }, (_, i) => `<loc_${i}>`),
  ...["cap", "ncap", "dcap", "grounding", "seg"].flatMap(pair),
  "<sep>",
  ...["region_cap", "region_to_desciption", "proposal", "poly"].flatMap(pair),
  "<and>",
];

/** BART's own tokens, which the tokenizer_config.json of published checkpoints does not name. */
const bartTokens: Readonly<Record<string, string>> = {
  bos_token: "<s>",
  eos_token: "</s>",
  sep_token: "</s>",
  cls_token: "<s>",
  unk_token: "<unk>",
  pad_token: "<pad>",
  mask_token: "<mask>",
};

/** The picture's placeholder in checkpoints whose tokenizer names none. */
const DEFAULT_IMAGE_TOKEN = "<image>";

export type Florence2Tokens = { tokenizer: Tokenizer; imageToken: string; imageTokenId: number };

/**
 * The tokenizer of a checkpoint. One with remote code ships BART's tokenizer and adds Florence-2's tokens when it is
 * loaded; they are added here as its code and then transformers' conversion script add them, `<image>` last.
 * @throws DataError as AutoTokenizer; "bad-processor" if the image token is missing, or there is no start or end token.
 */
export async function readFlorence2Tokens(store: FileStore): Promise<Florence2Tokens> {
  const read = await readTokenizerFiles(store);
  const place = { file: `${store.name}/tokenizer_config.json` };
  const named = read.specialTokens["image_token"] ?? imageTokenOf(read.config);
  const files = named === undefined ? withFlorence2Tokens(read) : read;
  const tokenizer = new Tokenizer(files);
  const imageToken = named ?? DEFAULT_IMAGE_TOKEN;
  const imageTokenId = tokenizer.tokenToId(imageToken);
  if (imageTokenId === undefined)
    throw dataError(
      "bad-processor",
      place,
      `names the image token ${JSON.stringify(imageToken)}, which tokenizer.json does not have. Copy both files again from the model's page.`,
    );
  for (const name of ["bos_token", "eos_token"])
    if (files.specialTokens[name] === undefined)
      throw dataError(
        "bad-processor",
        place,
        `"${name}" is missing, which Florence-2's prompts need. Copy the file again from the model's page.`,
      );
  return { tokenizer, imageToken, imageTokenId };
}

/** `extra_special_tokens.image_token`, where earlier versions of transformers write it. */
function imageTokenOf(config: TokenizerFiles["config"]): string | undefined {
  const extra = config["extra_special_tokens"] as Record<string, unknown> | null | undefined;
  const token = extra?.["image_token"];
  return typeof token === "string" ? token : undefined;
}

function withFlorence2Tokens(files: TokenizerFiles): TokenizerFiles {
  const plain = new Tokenizer(files);
  const missing = [...florence2Tokens, DEFAULT_IMAGE_TOKEN].filter(
    (content) => plain.tokenToId(content) === undefined,
  );
  const added = missing.map((content, i) => ({
    id: plain.vocabSize + i,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  }));
  const addedTokens = [...files.addedTokens, ...added];
  const own = Object.entries(bartTokens).filter(([, content]) => plain.tokenToId(content) !== undefined);
  return {
    ...files,
    addedTokens,
    specialTokens: { ...Object.fromEntries(own), ...files.specialTokens },
    tokenizer: { ...files.tokenizer, added_tokens: addedTokens },
  };
}
