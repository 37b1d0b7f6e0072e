"""What Python makes of what `graft init` writes. One JSON document on stdout.

    python scripts/check_init.py make DIR      a tiny random BERT classifier, of a type that Graft does not build
    python scripts/check_init.py load MODEL ADAPTER...
        loads each adapter with PEFT: the keys that are missing or unexpected, how far the logits are from the base model's,
        and the deviation of every lora_A
    python scripts/check_init.py snippets < [{"code": ..., "adapter": DIR}...]
        runs each snippet up to its model; compares its LoraConfig with the adapter_config.json in DIR
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification


def make(directory: str) -> dict[str, Any]:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
        num_labels=3,
    )
    BertForSequenceClassification(config).save_pretrained(directory)
    return {"directory": directory}


def logits(model: torch.nn.Module) -> torch.Tensor:
    ids = torch.arange(1, 13).reshape(2, 6)
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits


def load(model: str, adapters: list[str]) -> list[dict[str, Any]]:
    base = logits(AutoModelForSequenceClassification.from_pretrained(model))
    results = []
    for adapter in adapters:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            peft = PeftModel.from_pretrained(AutoModelForSequenceClassification.from_pretrained(model), adapter)
        loaded = [str(w.message) for w in caught if "keys" in str(w.message)]
        factors = {n: p for n, p in peft.named_parameters() if "lora_A" in n or "lora_embedding_A" in n}
        results.append(
            {
                "problems": loaded,
                "difference": float((logits(peft) - base).abs().max()),
                "targets": sorted(n.split(".lora_")[0] for n in factors),
                "largest": {n: float(p.abs().max()) for n, p in factors.items()},
            }
        )
    return results


def snippets(asked: list[dict[str, str]]) -> list[dict[str, Any]]:
    results = []
    for item in asked:
        code = item["code"].split("\nmodel = ")[0].split("\n# model:")[0]
        code = "\n".join(line for line in code.split("\n") if not line.startswith("from transformers"))
        scope: dict[str, Any] = {}
        exec(code, scope)  # our own snippets
        saved = LoraConfig.from_pretrained(item["adapter"])
        left, right = scope["config"].to_dict(), saved.to_dict()
        passive = {"auto_mapping", "base_model_name_or_path", "inference_mode", "peft_version", "revision"}
        different = {
            key: [repr(left[key]), repr(right[key])]
            for key in left
            if key not in passive and left[key] != right[key]
        }
        results.append({"different": different})
    return results


if __name__ == "__main__":
    command, *rest = sys.argv[1:]
    if command == "make":
        print(json.dumps(make(str(Path(rest[0])))))
    elif command == "load":
        print(json.dumps(load(rest[0], rest[1:])))
    else:
        print(json.dumps(snippets(json.load(sys.stdin))))
