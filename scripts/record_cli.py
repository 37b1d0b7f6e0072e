"""Records what transformers makes of the bundled models/tiny-llama: greedy text, and the loss of a few texts.

    python scripts/record_cli.py --out test/vectors/cli

Greedy decoding with the settings that the model's generation_config.json leaves (do_sample off), float32, one thread.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

torch.set_num_threads(1)

MODEL = Path(__file__).resolve().parent.parent / "models" / "tiny-llama"

#: prompt, and settings of generate besides do_sample=False
PROMPTS = [
    ("In the beginning", {"max_new_tokens": 32}),
    ("And Moses said unto ", {"max_new_tokens": 24, "repetition_penalty": 1.3}),
    ("Love, n. ", {"max_new_tokens": 24}),
    ("“Étude” 日本", {"max_new_tokens": 12}),
    # as many tokens as generation_config.json says
    ("The LORD is my shepherd", {}),
]
TEXTS = [
    "In the beginning God created the heaven and the earth.",
    "Now it came to pass,",
    "A decent and customary mental attitude in the presence of wealth of power.",
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()

    generations = []
    for prompt, settings in PROMPTS:
        inputs = tokenizer(prompt, return_tensors="pt")
        with torch.no_grad():
            output = model.generate(**inputs, do_sample=False, **settings)
        new = output[0, inputs["input_ids"].shape[1] :].tolist()
        text = tokenizer.decode(new, skip_special_tokens=True)
        generations.append({"prompt": prompt, "settings": settings, "tokens": new, "text": text})

    total, count = 0.0, 0
    for text in TEXTS:
        ids = torch.tensor([tokenizer(text)["input_ids"] + [tokenizer.eos_token_id]])
        with torch.no_grad():
            logits = model(ids).logits[0, :-1].double()
        total += torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
        count += ids.shape[1] - 1
    evaluation = {"loss": total / count, "perplexity": math.exp(total / count), "tokens": count}

    options.out.mkdir(parents=True, exist_ok=True)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    document = {
        "script": "scripts/record_cli.py",
        "versions": versions,
        "generations": generations,
        "texts": TEXTS,
        "evaluation": evaluation,
    }
    path = options.out / "tiny-llama.json"
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    print(f"{path}: {len(generations)} generations, loss {evaluation['loss']:.6f}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
