"""Record what transformers computes with models/tiny-florence2, for test/models/tiny-florence2.test.ts.

    HF_HUB_OFFLINE=1 python scripts/record_tiny_florence2.py

Writes test/vectors/tiny-florence2/expected.json: of three rows of data/emoji-captions/base-test.jsonl the token ids, a
hash of the pixel values, the loss and some logits; greedy answers of some more.
"""

import base64
import hashlib
import io
import json
from pathlib import Path

import PIL
import torch
import transformers
from PIL import Image
from transformers import Florence2ForConditionalGeneration, Florence2Processor

ROOT = Path(__file__).resolve().parent.parent
ROWS = [0, 1, 41]
CAPTIONS = 8
STRIDE = 37  # of the vocabulary: the logits that are kept


def main() -> None:
    directory = ROOT / "models" / "tiny-florence2"
    processor = Florence2Processor.from_pretrained(directory)
    model = Florence2ForConditionalGeneration.from_pretrained(directory, dtype=torch.float32).eval()
    rows = [json.loads(line) for line in (ROOT / "data/emoji-captions/base-test.jsonl").read_text("utf-8").splitlines()]

    def inputs(index: int):
        picture = Image.open(io.BytesIO(base64.b64decode(rows[index]["image"].split(",")[1])))
        return processor(images=picture, text=rows[index]["prompt"], return_tensors="pt")

    examples = []
    with torch.no_grad():
        for index in ROWS:
            given = inputs(index)
            labels = torch.tensor([processor.tokenizer(rows[index]["completion"])["input_ids"]])
            out = model(**given, labels=labels)
            examples.append(
                {
                    "row": index,
                    "inputIds": given["input_ids"][0].tolist(),
                    "labels": labels[0].tolist(),
                    "pixelShape": list(given["pixel_values"].shape),
                    "pixelSha256": hashlib.sha256(given["pixel_values"].numpy().astype("<f4").tobytes()).hexdigest(),
                    "loss": out.loss.item(),
                    "logits": [[round(v, 6) for v in position] for position in out.logits[0, :, ::STRIDE].tolist()],
                }
            )
        captions = []
        for index in range(CAPTIONS):
            given = inputs(index)
            ids = model.generate(**given, do_sample=False, num_beams=1)[0]
            text = processor.decode(ids, skip_special_tokens=True)
            captions.append({"row": index, "prompt": rows[index]["prompt"], "ids": ids.tolist(), "text": text})
    document = {
        "script": "scripts/record_tiny_florence2.py",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__, "pillow": PIL.__version__},
        "stride": STRIDE,
        "examples": examples,
        "captions": captions,
    }
    out = ROOT / "test" / "vectors" / "tiny-florence2"
    out.mkdir(parents=True, exist_ok=True)
    (out / "expected.json").write_text(json.dumps(document, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
