"""Makes a random checkpoint with the shape of a published model, for benchmarks.

    python scripts/make_checkpoint.py --shape smollm2-135m --out DIR [--dtype float32|bfloat16] [--seed N]
        [--rows 32] [--sequence 256] [--label-fraction 1.0] [--max-shard-size 2GB]

Writes config.json, generation_config.json, model.safetensors (or shards) and random tokens in two forms: tokens.json
({"input_ids": [[...]], "labels": [[...]]}, for benchmarks/torch_run.py) and tokens.jsonl (one row per line).
With --label-fraction 0.25 only the last quarter of each row carries labels, the rest is -100.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

transformers.utils.logging.disable_progress_bar()

#: model_type and the config values that the published checkpoint has
SHAPES = {
    "smollm2-135m": (
        "llama",
        {
            "vocab_size": 49152,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
            "bos_token_id": 0,
            "eos_token_id": 0,
        },
    ),
    "smollm2-360m": (
        "llama",
        {
            "vocab_size": 49152,
            "hidden_size": 960,
            "intermediate_size": 2560,
            "num_hidden_layers": 32,
            "num_attention_heads": 15,
            "num_key_value_heads": 5,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
            "bos_token_id": 0,
            "eos_token_id": 0,
        },
    ),
    "qwen2.5-0.5b": (
        "qwen2",
        {
            "vocab_size": 151936,
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
            "bos_token_id": 151643,
            "eos_token_id": 151643,
        },
    ),
    # For trying a benchmark out in a second.
    "toy": (
        "llama",
        {
            "vocab_size": 512,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 1024,
            "tie_word_embeddings": True,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shape", choices=sorted(SHAPES), required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--sequence", type=int, default=256)
    parser.add_argument("--label-fraction", type=float, default=1.0)
    parser.add_argument("--max-shard-size", default="50GB")
    options = parser.parse_args()
    if not 0 < options.label_fraction <= 1:
        parser.error("--label-fraction is above 0 and at most 1")

    torch.manual_seed(options.seed)
    model_type, values = SHAPES[options.shape]
    config = AutoConfig.for_model(model_type, **values)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).to(getattr(torch, options.dtype))
    model.save_pretrained(options.out, max_shard_size=options.max_shard_size)

    generator = torch.Generator().manual_seed(options.seed)
    ids = torch.randint(3, values["vocab_size"], (options.rows, options.sequence), generator=generator)
    labels = ids.clone()
    labels[:, : options.sequence - max(1, round(options.sequence * options.label_fraction))] = -100
    rows = {"input_ids": ids.tolist(), "labels": labels.tolist()}
    (options.out / "tokens.json").write_text(json.dumps(rows) + "\n")
    lines = zip(rows["input_ids"], rows["labels"])
    (options.out / "tokens.jsonl").write_text("".join(json.dumps({"input_ids": i, "labels": l}) + "\n" for i, l in lines))
    size = sum(path.stat().st_size for path in options.out.glob("*.safetensors"))
    print(json.dumps({"shape": options.shape, "parameters": model.num_parameters(), "bytes": size, "dtype": options.dtype}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
