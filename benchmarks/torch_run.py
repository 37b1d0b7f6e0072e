"""One training run with PyTorch + PEFT, in a process of its own; the same work, options and output as graft-run.ts.

    python benchmarks/torch_run.py MODEL_DIR --rows FILE.json --adapter DIR [--dtype float32|bfloat16] [--compile]
        [--batch 4] [--epochs 1] [--threads 2]

Prints one JSON document. A step is forward, backward, AdamW and zero_grad on one batch, without gradient checkpointing,
and with everything else as transformers and PEFT do it by default (sdpa attention, adapters in float32). An epoch is all
rows, in their order. `--compile` is torch.compile on the adapted model, which compiles in the first step.

The rows file is {"input_ids": [[...], ...], "labels"?: [[...], ...], "pixels"?: {"file": ..., "shape": [3, h, w]}}: rows of
equal length. Pictures are raw float32 values in a file of their own. For an encoder-decoder `labels` are what is to be
written. `scripts/make_checkpoint.py` writes rows of text too.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from torch_common import import_seconds, load_model, peak_rss_bytes, prepare, read_pictures, versions  # first: it times the imports

import torch
from peft import PeftModel


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--adapter", type=Path, required=True)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    options = parser.parse_args()
    prepare(options.threads)
    dtype = getattr(torch, options.dtype)

    rows = json.loads(options.rows.read_text())
    inputs = {
        "input_ids": torch.tensor(rows["input_ids"]),
        "labels": torch.tensor(rows.get("labels", rows["input_ids"])),
    }
    pixels = rows.get("pixels")
    if pixels:
        inputs["pixel_values"] = read_pictures(pixels).to(dtype)
    count = len(inputs["input_ids"])
    if not (inputs["labels"][:, 0 if pixels else 1 :] != -100).any(dim=1).all():
        parser.error("a row has no label")

    begin = time.perf_counter()
    model = load_model(options.model, pictures=bool(pixels), dtype=dtype)
    model = PeftModel.from_pretrained(model, options.adapter, is_trainable=True)
    model.train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=options.learning_rate, weight_decay=0.01)
    forward = torch.compile(model) if options.compile else model
    load_seconds = time.perf_counter() - begin

    ends, losses = [], []
    begin = time.perf_counter()
    for _ in range(options.epochs):
        for row in range(0, count, options.batch):
            batch = {name: value[row : row + options.batch] for name, value in inputs.items()}
            loss = forward(**batch, use_cache=False).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            ends.append(time.perf_counter() - begin)

    answer = {
        "importSeconds": import_seconds,
        "loadSeconds": load_seconds,
        "stepEnds": ends,
        "losses": losses,
        "epochs": options.epochs,
        "batch": options.batch,
        "threads": options.threads,
        "peakRssBytes": peak_rss_bytes(),
        "trainableParameters": sum(parameter.numel() for parameter in parameters),
        "versions": versions,
    }
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
