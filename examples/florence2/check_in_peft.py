"""Load the adapter with transformers and PEFT, and compare its loss and captions with Graft's.

    python examples/florence2/check_in_peft.py MODEL ADAPTER DATA.jsonl [--predictions AFTER.jsonl] [--loss 1.234]

AFTER.jsonl is what `graft eval --adapter ADAPTER --generate --predictions` writes, and the loss what it prints. Exit status 1
if anything differs. Needs torch, transformers, peft and Pillow.
"""

import argparse
import base64
import io
import json
import sys
from pathlib import Path

import torch
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file
from transformers import Florence2ForConditionalGeneration, Florence2Processor


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("adapter", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--predictions", type=Path)
    parser.add_argument("--loss", type=float)
    options = parser.parse_args()
    processor = Florence2Processor.from_pretrained(options.model)
    base = Florence2ForConditionalGeneration.from_pretrained(options.model, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, options.adapter).eval()
    names = list(load_file(options.adapter / "adapter_model.safetensors"))
    towers = sorted({name.split(".model.model.")[1].split(".")[0] for name in names})
    print(f"PEFT loads {len(names)} tensors, all in {', '.join(towers)}")
    problems = [] if towers == ["language_model"] else [f"the adapter has tensors in {towers}"]
    rows = read(options.data)
    texts, total, tokens = [], 0.0, 0
    with torch.no_grad():
        for row in rows:
            picture = Image.open(io.BytesIO(base64.b64decode(row["image"].split(",")[1])))
            inputs = processor(images=picture, text=row["prompt"], return_tensors="pt")
            labels = processor.tokenizer(row["completion"], return_tensors="pt")["input_ids"]
            total += model(**inputs, labels=labels).loss.item() * labels.numel()
            tokens += labels.numel()
            texts.append(processor.decode(model.generate(**inputs)[0], skip_special_tokens=True))
    loss = total / tokens
    print(f"loss {loss:.4f}")
    if options.loss is not None and abs(loss - options.loss) > 1e-4:
        problems.append(f"Graft's loss is {options.loss}, PEFT's {loss:.6f}")
    if options.predictions:
        written = [row["generated"] for row in read(options.predictions)]
        same = sum(a == b for a, b in zip(written, texts, strict=True))
        print(f"{same} of {len(texts)} captions are the same")
        if same < len(texts):
            problems.append(f"{len(texts) - same} captions differ")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
