"""One training measurement with PyTorch + PEFT, in a process of its own.

    python benchmarks/torch_step.py MODEL_DIR --selection all-linear|qv|last-quarter [--dtype float32|bfloat16]
        [--tokens FILE.json] [--batch 4] [--sequence 256] [--steps 5] [--threads 2]

Prints one JSON document. A step is forward, backward, AdamW and zero_grad on one batch, without gradient checkpointing,
and with everything else as transformers and PEFT do it by default (sdpa attention, adapters in float32).

The tokens file is {"input_ids": [[...], ...], "labels"?: [[...], ...]}: rows of at least `sequence` tokens, taken in
order, `batch` at a time, starting over at the end; rows are cut to `sequence`. `scripts/make_checkpoint.py` writes one.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import sys
import time
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

started = time.perf_counter()
import peft
import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

transformers.utils.logging.disable_progress_bar()
import_seconds = time.perf_counter() - started


def lora_config(selection: str, layers: int) -> LoraConfig:
    """The three selections of the comparison; the last quarter of the layers is rounded up."""
    if selection == "all-linear":
        return LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    last = list(range(layers - math.ceil(layers / 4), layers)) if selection == "last-quarter" else None
    return LoraConfig(
        r=8,
        lora_alpha=16,
        target_modules=["q_proj", "v_proj"],
        layers_to_transform=last,
        layers_pattern="layers" if last else None,
        task_type="CAUSAL_LM",
    )


def peak_rss_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--selection", choices=["all-linear", "qv", "last-quarter"], required=True)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--tokens", type=Path, help="default: tokens.json in MODEL_DIR")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--sequence", type=int, default=256)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)

    rows = json.loads((options.tokens or options.model / "tokens.json").read_text())
    ids = torch.tensor([row[: options.sequence] for row in rows["input_ids"]])
    labels = torch.tensor([row[: options.sequence] for row in rows.get("labels", rows["input_ids"])])
    if ids.shape[1] < options.sequence or len(ids) < options.batch:
        parser.error(f"the tokens are {tuple(ids.shape)}, too few for {options.batch} x {options.sequence}")
    if not (labels[:, 1:] != -100).any(dim=1).all():
        parser.error(f"a row has no label among its first {options.sequence} tokens")

    begin = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=getattr(torch, options.dtype))
    model = get_peft_model(model, lora_config(options.selection, model.config.num_hidden_layers))
    model.train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=options.learning_rate, weight_decay=0.01)
    load_seconds = time.perf_counter() - begin

    seconds, losses = [], []
    for step in range(options.steps):
        lines = [(step * options.batch + i) % len(ids) for i in range(options.batch)]
        begin = time.perf_counter()
        loss = model(input_ids=ids[lines], labels=labels[lines], use_cache=False).loss
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
        "selection": options.selection,
        "dtype": options.dtype,
        "batch": options.batch,
        "sequence": options.sequence,
        "threads": options.threads,
        "trainableParameters": sum(parameter.numel() for parameter in parameters),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__},
    }
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
