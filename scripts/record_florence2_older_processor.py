"""Records what the processor that came with older Florence-2 checkpoints ("remote code") makes of prompts.

    python scripts/record_florence2_older_processor.py --out test/vectors/processing

Published checkpoints have BART's tokenizer.json and a tokenizer_config.json with model_max_length alone; the processor adds
its tokens when it is made. That is followed here, on original/tokenizer.json, which record_processor.py wrote. Writes
older-prompts.json: the ids of the tokens that were added, and of prompts as the processor expands them. The features of the picture
stand in front of them there, without tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import transformers
from transformers import BartTokenizerFast

from record_processor import FLORENCE_TOKENS

TEXTS = {
    "<CAPTION>": "What does the image describe?",
    "<OD>": "Locate the objects with category name in the image.",
    "<CAPTION_TO_PHRASE_GROUNDING>a red mat": "Locate the phrases in the caption: a red mat",
    "<REGION_TO_CATEGORY><loc_52><loc_332><loc_932><loc_774>": "What is the region <loc_52><loc_332><loc_932><loc_774>?",
    "<OPEN_VOCABULARY_DETECTION>a wheel<and>a door": "Locate a wheel<and>a door in the image.",
    "a caption <od> <sep><poly></poly> <region_to_desciption> <loc_1000>": (
        "a caption <od> <sep><poly></poly> <region_to_desciption> <loc_1000>"
    ),
    " café 日本語 🎉 <pad></s>": " café 日本語 🎉 <pad></s>",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(out / "original" / "tokenizer.json", folder)
        (Path(folder) / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 64}))
        tokenizer = BartTokenizerFast.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": list(FLORENCE_TOKENS)})
    record = {
        "script": "scripts/record_florence2_older_processor.py",
        "transformers": transformers.__version__,
        "vocabSize": len(tokenizer),
        "tokens": {token: tokenizer.convert_tokens_to_ids(token) for token in FLORENCE_TOKENS},
        "special": {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad", "unk")},
        "prompts": [
            {"text": text, "prompt": prompt, "inputIds": tokenizer(prompt)["input_ids"]} for text, prompt in TEXTS.items()
        ],
    }
    (out / "older-prompts.json").write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n")
    print(len(tokenizer), record["special"], [len(p["inputIds"]) for p in record["prompts"]])


if __name__ == "__main__":
    main()
