"""Record how a Hugging Face tokenizer cuts texts, and NumPy files as numpy.save writes them.

    HF_HUB_OFFLINE=1 python scripts/record_data.py

Writes test/vectors/data/{truncation.json,npy/*.npy,npy.json,manifest.json}. The tokenizers are those of test/vectors.
"""

import json
import platform
from pathlib import Path

import numpy as np
import tokenizers
import transformers
from transformers import AutoTokenizer

ROOT = Path(__file__).resolve().parent.parent / "test" / "vectors"
OUT = ROOT / "data"
SEED = 3

TOKENIZERS = ["processing/current", "tokenizers/llama-metaspace", "tokenizers/qwen", "tokenizers/byte-level"]
TEXTS = [
    "What does the image describe?",
    "a",
    "",
    " leading and trailing ",
    "<s>",
    "</s></s></s></s>",
    "aaaa aaaa aaaa aaaa",
    "In the beginning God created the heaven and the earth.\nAnd the earth was without form.",
]
LIMITS = [2, 3, 4, 7, 12]


def truncation() -> list[dict]:
    cases = []
    for name in TOKENIZERS:
        tokenizer = AutoTokenizer.from_pretrained(ROOT / name)
        for text in TEXTS:
            for limit in LIMITS:
                whole = tokenizer(text_target=text)["input_ids"]
                cut = tokenizer(text_target=text, truncation=True, max_length=limit)["input_ids"]
                cases.append({"tokenizer": name, "text": text, "limit": limit, "whole": whole, "cut": cut})
    return cases


def arrays() -> dict:
    folder = OUT / "npy"
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SEED)
    good = rng.normal(size=(3, 4, 5)).astype("<f4")
    good[0, 0, 0] = np.float32(1e-42)  # subnormal
    good[1, 2, 3] = -0.0
    nan = good.copy()
    nan[1, 2, 3] = np.nan
    files = {
        "good": good,
        "float16": good.astype("<f2"),
        "float64": good.astype("<f8"),
        "big-endian": good.astype(">f4"),
        "bytes": np.zeros((3, 4, 5), dtype="u1"),
        "fortran": np.asfortranarray(good),
        "batch": good[None],
        "flat": good.reshape(-1),
        "channels-last": np.ascontiguousarray(good.transpose(1, 2, 0)),
        "empty-edge": good[:, :0],
        "scalar": np.float32(1),
        "nan": nan,
        "fields": np.zeros(3, dtype=[("a", "<f4"), ("b", "<i4")]),
    }
    for name, array in files.items():
        np.save(folder / f"{name}.npy", array)
    with open(folder / "version-2.npy", "wb") as file:
        np.lib.format.write_array(file, good, version=(2, 0))
    np.savez(folder / "archive.npz", good)
    return {"shape": list(good.shape), "values": [float(value) for value in good.ravel()]}


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    cases = truncation()
    (OUT / "truncation.json").write_text(json.dumps(cases, ensure_ascii=False, separators=(",", ":")) + "\n")
    (OUT / "npy.json").write_text(json.dumps(arrays()) + "\n")
    manifest = {
        "script": "scripts/record_data.py",
        "seed": SEED,
        "counts": {"truncation": len(cases)},
        "versions": {
            "python": platform.python_version(),
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
            "numpy": np.__version__,
        },
    }
    (OUT / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main()
