"""One training measurement with PyTorch + PEFT, in a process of its own.

    python benchmarks/torch_step.py MODEL_DIR --rows FILE.json --lora JSON [--dtype float32|bfloat16]
        [--batch 4] [--steps 5] [--threads 2]

Prints one JSON document. A step is forward, backward, AdamW and zero_grad on one batch, without gradient checkpointing,
and with everything else as transformers and PEFT do it by default (sdpa attention, adapters in float32).

The rows file is {"input_ids": [[...], ...], "labels"?: [[...], ...], "pixels"?: {"file": ..., "shape": [3, h, w]}}: rows of
equal length, taken in order, `batch` at a time, starting over at the end. Pictures are raw float32 values in a file of
their own. For an encoder-decoder `labels` are what is to be written. `scripts/make_checkpoint.py` writes rows of text.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

started = time.perf_counter()
import numpy
import peft
import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

transformers.utils.logging.disable_progress_bar()
import_seconds = time.perf_counter() - started


def peak_rss_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--lora", type=json.loads, default={}, help="members of an adapter_config.json")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    dtype = getattr(torch, options.dtype)

    rows = json.loads((options.rows or options.model / "tokens.json").read_text())
    inputs = {
        "input_ids": torch.tensor(rows["input_ids"]),
        "labels": torch.tensor(rows.get("labels", rows["input_ids"])),
    }
    pixels = rows.get("pixels")
    if pixels:
        values = numpy.fromfile(pixels["file"], dtype=numpy.float32).reshape(-1, *pixels["shape"])
        inputs["pixel_values"] = torch.from_numpy(values).to(dtype)
    count = len(inputs["input_ids"])
    if count < options.batch:
        parser.error(f"there are {count} rows, too few for a batch of {options.batch}")
    if not (inputs["labels"][:, 0 if pixels else 1 :] != -100).any(dim=1).all():
        parser.error("a row has no label")

    begin = time.perf_counter()
    auto = AutoModelForImageTextToText if pixels else AutoModelForCausalLM
    model = auto.from_pretrained(options.model, dtype=dtype)
    model = get_peft_model(model, LoraConfig(**options.lora))
    model.train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=options.learning_rate, weight_decay=0.01)
    load_seconds = time.perf_counter() - begin

    seconds, losses = [], []
    for step in range(options.steps):
        lines = [(step * options.batch + i) % count for i in range(options.batch)]
        begin = time.perf_counter()
        loss = model(**{name: value[lines] for name, value in inputs.items()}, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - begin)

    answer = {
        "stepSeconds": seconds,
        "peakRssBytes": peak_rss_bytes(),
        "loadSeconds": load_seconds,
        "importSeconds": import_seconds,
        "loss": losses[-1],
        "losses": losses,
        "dtype": options.dtype,
        "batch": options.batch,
        "threads": options.threads,
        "trainableParameters": sum(parameter.numel() for parameter in parameters),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__},
    }
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
