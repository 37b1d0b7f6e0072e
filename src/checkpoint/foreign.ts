import { CheckpointError } from "../errors.ts";
import { baseName } from "./file-name.ts";

/** Bytes of a file's beginning that `foreignFormat` looks at. */
export const sniffLength = 512;

const saveAgain = `Convert it once, in Python, where the file is trusted (loading a pickle runs the code in it):
  from transformers import AutoModel; m = AutoModel.from_pretrained("MODEL_DIR")  # or the Auto class of its task
  m.save_pretrained("OUT_DIR", safe_serialization=True)
or, for a plain state dict:
  import torch; from safetensors.torch import save_file
  save_file(torch.load("FILE", weights_only=True, map_location="cpu"), "model.safetensors")`;

/** What a file is, if not what it should be, and what to do about it. */
export type ForeignFormat = { readonly code: string; readonly what: string; readonly remedy: string };

const pickle: ForeignFormat = {
  code: "pickle",
  what: "a PyTorch pickle, which can run any code when it is loaded, so it is not read",
  remedy: saveAgain,
};

/** `text` has one character for each byte. */
type Recogniser = (text: string) => boolean;

const prefix =
  (...prefixes: string[]): Recogniser =>
  (text) =>
    prefixes.some((start) => text.startsWith(start));

const pattern =
  (regex: RegExp): Recogniser =>
  (text) =>
    regex.test(text);

const formats: readonly (ForeignFormat & { readonly recognises: Recogniser })[] = [
  // torch.save since 1.6 writes a zip of a pickle; before, a bare pickle of protocol 2 to 5.
  { recognises: prefix("PK\x03\x04"), ...pickle },
  { recognises: prefix("\x80\x02", "\x80\x03", "\x80\x04", "\x80\x05"), ...pickle },
  {
    recognises: prefix("version https://git-lfs.github.com/spec/"),
    code: "git-lfs-pointer",
    what: "a Git LFS pointer, which stands for a file that has not been downloaded",
    remedy: "Run `git lfs install` and `git lfs pull` in the repository, or download the file itself.",
  },
  {
    recognises: pattern(/^(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html|head|body|!--)/i),
    code: "html",
    what: "an HTML page, not the file",
    remedy:
      "The server answered with a page, often a sign-in or error page, or a file viewer: use the address of " +
      "the raw file (on huggingface.co …/resolve/main/…, not …/blob/main/…) and check access to it.",
  },
  {
    recognises: pattern(/^(?:\xef\xbb\xbf)?\s*<\?xml/i),
    code: "xml",
    what: "an XML document, usually a storage server's error message",
    remedy: "Check the address, and that access to it has not expired.",
  },
  {
    recognises: prefix("GGUF"),
    code: "gguf",
    what: "a GGUF file (llama.cpp)",
    remedy: "Use the original model in safetensors format, from which the GGUF file was made.",
  },
  {
    recognises: prefix("\x89HDF\r\n"),
    code: "hdf5",
    what: "an HDF5 file (Keras, TensorFlow)",
    remedy: "Save the model again as safetensors, for example with transformers' save_pretrained.",
  },
  {
    recognises: prefix("\x93NUMPY"),
    code: "numpy",
    what: "a NumPy array",
    remedy: "Save it as safetensors, with safetensors.numpy.save_file.",
  },
  {
    recognises: prefix("\x1f\x8b"),
    code: "gzip",
    what: "a gzip archive",
    remedy: "Unpack it first, with gunzip or tar.",
  },
  {
    recognises: pattern(/^(?:\xef\xbb\xbf)?\s*\{/),
    code: "json",
    what: "a JSON text, without the 8 bytes of header length that begin a safetensors file",
    remedy: "Name the .safetensors file, the .safetensors.index.json, or the directory that holds them.",
  },
];

/** Recognises, by its first bytes, a file that is something other than safetensors. */
export function foreignFormat(head: Uint8Array): ForeignFormat | undefined {
  const text = String.fromCharCode(...head.subarray(0, sniffLength));
  const found = formats.find(({ recognises }) => recognises(text));
  return found && { code: found.code, what: found.what, remedy: found.remedy };
}

const pickleName = /\.(?:bin|pt|pth|ckpt|pkl|pickle)(?:\.index\.json)?$/i;

/** True for names under which PyTorch saves pickles: pytorch_model.bin, its shards and index, *.pt, *.ckpt. */
export const isPickleName = (file: string): boolean => pickleName.test(baseName(file));

/** The error for a file that is recognised as something else. */
export const foreignError = (file: string, { code, what, remedy }: ForeignFormat, cause?: unknown) =>
  new CheckpointError(`${file}: this is ${what}. ${remedy}`, { code, details: { file }, cause });

/** The error for pickle files, found by name. */
export const pickleError = (files: readonly string[], where?: string) =>
  new CheckpointError(
    `${where === undefined ? "" : `${where}: `}${files.join(", ")}: ${pickle.what}. Graft reads safetensors only. ` +
      pickle.remedy,
    { code: pickle.code, details: { files } },
  );
