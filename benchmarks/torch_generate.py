"""One measurement of generation with PyTorch + transformers + PEFT, in a process of its own.

    python benchmarks/torch_generate.py MODEL_DIR --rows FILE.json [--lora JSON] [--dtype float32|bfloat16]
        [--batch 1] [--prompt TOKENS] [--new-tokens 128] [--beams 1] [--repeats 4] [--threads 2]

Prints one JSON document; the same work, options and output as graft-generate.ts. The adapter is not merged, and everything
else is as transformers does it by default (sdpa attention, a growing cache). A prompt is the beginning of a row. No text
ends before it has all its new tokens. The first repeat warms up.

`promptSeconds` is the time of a text of one token; `tokensPerSecond` of all rows together is (new tokens - 1) · batch,
divided by what a text of all its tokens takes longer than that.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from torch_common import import_seconds, load_model, peak_rss_bytes, prepare, read_pictures, versions  # first: it times the imports

import torch
from peft import LoraConfig, get_peft_model


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--lora", type=json.loads, help="members of an adapter_config.json")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--prompt", type=int, help="tokens of a row that are its prompt; default: all")
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    prepare(options.threads)
    dtype = getattr(torch, options.dtype)

    rows = json.loads(options.rows.read_text())
    inputs = {"input_ids": torch.tensor(rows["input_ids"])[: options.batch, : options.prompt]}
    if len(inputs["input_ids"]) < options.batch:
        parser.error(f"there are {len(inputs['input_ids'])} rows, too few for a batch of {options.batch}")
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    pixels = rows.get("pixels")
    if pixels:
        inputs["pixel_values"] = read_pictures(pixels)[: options.batch].to(dtype)

    begin = time.perf_counter()
    model = load_model(options.model, pictures=bool(pixels), dtype=dtype)
    if options.lora is not None:
        model = get_peft_model(model, LoraConfig(**options.lora))
    model.eval()
    load_seconds = time.perf_counter() - begin
    settings = model.generation_config
    settings.eos_token_id = None
    settings.forced_eos_token_id = None
    settings.pad_token_id = 0

    def timed(new_tokens: int) -> tuple[float, torch.Tensor]:
        begin = time.perf_counter()
        ids = model.generate(**inputs, max_new_tokens=new_tokens, do_sample=False, num_beams=options.beams)
        return time.perf_counter() - begin, ids[:, -new_tokens:]

    prompt_seconds, tokens_per_second = [], []
    texts = None
    for _ in range(options.repeats):
        prompt, _ = timed(1)
        whole, texts = timed(options.new_tokens)
        prompt_seconds.append(prompt)
        tokens_per_second.append(options.batch * (options.new_tokens - 1) / (whole - prompt))

    answer = {
        "promptSeconds": prompt_seconds,
        "tokensPerSecond": tokens_per_second,
        "peakRssBytes": peak_rss_bytes(),
        "loadSeconds": load_seconds,
        "importSeconds": import_seconds,
        "promptTokens": inputs["input_ids"].shape[1],
        "newTokens": options.new_tokens,
        "beams": options.beams,
        "texts": texts.tolist(),
        "dtype": options.dtype,
        "batch": options.batch,
        "threads": options.threads,
        "versions": versions,
    }
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
