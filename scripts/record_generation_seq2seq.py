"""Records what transformers' generate makes of tiny random models: greedy search and beam search.

    python scripts/record_generation_seq2seq.py [--out test/vectors/generation-seq2seq] [--seed N]
        cases on the checkpoints of test/vectors/{seq2seq,florence2,models}, with and without their adapters
    python scripts/record_generation_seq2seq.py --out DIR --random N --seed S
        N cases with settings and prompts of their own, on new random checkpoints (in DIR) of the same shapes

Writes DIR/cases.json.gz: of each case the checkpoint, generate's settings, the prompts (token ids, and with pictures the rows of
pixels.safetensors) and the new tokens of every returned sequence, in beam search with its score. A decision that hangs on less
than GAP is left to rounding, so such a case is passed over; `gap` is the narrowest decision of the case.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, Florence2ForConditionalGeneration
from transformers.generation.utils import GenerationMixin

from record_models import randomize

VECTORS = Path(__file__).parent.parent / "test" / "vectors"
CLASSES = {"seq2seq": AutoModelForSeq2SeqLM, "florence2": Florence2ForConditionalGeneration, "models": AutoModelForCausalLM}
CAUSAL = ["llama-qv", "mistral-sliding-window", "qwen2-tied"]
GAP = 1e-5
#: below it a score stands for "not to be chosen"
CHOOSABLE = -1e8


class Decisions:
    """Watches the choices that generate makes, for the narrowest of them."""

    def __init__(self) -> None:
        self.gap = float("inf")

    def see(self, values: torch.Tensor) -> None:
        """Values that were ranked, the largest first."""
        for row in values.reshape(-1, values.shape[-1]).to(torch.float64):
            row = row[row > CHOOSABLE]
            if len(row) > 1:
                self.gap = min(self.gap, (row[:-1] - row[1:]).min().item())

    def __enter__(self) -> "Decisions":
        self.topk, self.argmax = torch.topk, torch.argmax
        self.heuristic = GenerationMixin._check_early_stop_heuristic

        def topk(values: torch.Tensor, k: int, **kwargs: Any) -> Any:
            self.see(self.topk(values, min(k + 1, values.shape[-1])).values)
            return self.topk(values, k, **kwargs)

        def argmax(values: torch.Tensor, **kwargs: Any) -> torch.Tensor:
            self.see(self.topk(values, 2).values)
            return self.argmax(values, **kwargs)

        def heuristic(**kwargs: Any) -> torch.Tensor:
            finished, length = kwargs["is_sent_finished"], kwargs["cur_len"]
            if kwargs["early_stopping"] == "never" and kwargs["length_penalty"] > 0:
                length = kwargs["max_length"]
            hoped = kwargs["running_beam_scores"][:, 0] / (length - kwargs["decoder_prompt_len"]) ** kwargs["length_penalty"]
            worst = kwargs["beam_scores"].min(dim=1).values
            for row in range(len(worst)):
                if finished[row].all() and hoped[row] > CHOOSABLE:
                    self.gap = min(self.gap, (hoped[row] - worst[row]).abs().item())
            return self.heuristic(**kwargs)

        torch.topk, torch.argmax = topk, argmax
        GenerationMixin._check_early_stop_heuristic = staticmethod(heuristic)
        return self

    def __exit__(self, *_: Any) -> None:
        torch.topk, torch.argmax = self.topk, self.argmax
        GenerationMixin._check_early_stop_heuristic = staticmethod(self.heuristic)


class Checkpoint:
    def __init__(self, kind: str, name: str, base: Path) -> None:
        self.kind, self.name, self.folder = kind, name, base / name
        self.models: dict[bool, Any] = {}
        lines = (self.folder / "tokens.jsonl").read_text().splitlines()
        self.lines = [json.loads(line)["input_ids"] for line in lines]
        self.pixels = load_file(self.folder / "pixels.safetensors")["lines"] if kind == "florence2" else None

    def model(self, adapted: bool) -> Any:
        if adapted not in self.models:
            model = CLASSES[self.kind].from_pretrained(self.folder / "model", dtype=torch.float32)
            if adapted:
                model = PeftModel.from_pretrained(model, self.folder / "adapter")
            self.models[adapted] = model.eval()
        return self.models[adapted]

    @property
    def has_adapter(self) -> bool:
        return (self.folder / "adapter").exists()


def generate(checkpoint: Checkpoint, case: dict[str, Any]) -> tuple[list[list[int]], list[float] | None, float]:
    """New tokens of every sequence, scores of beam search, and the narrowest decision."""
    settings, lines = dict(case["settings"]), case["lines"]
    prompts = [checkpoint.lines[line] for line in lines] if "prompts" not in case else case["prompts"]
    model = checkpoint.model(case["adapter"])
    width = max(map(len, prompts))
    pad = 1 if checkpoint.kind != "models" else 0
    left = checkpoint.kind == "models"
    fill = [[pad] * (width - len(prompt)) for prompt in prompts]
    ids = [f + p if left else p + f for p, f in zip(prompts, fill)]
    mask = [[0] * len(f) + [1] * len(p) if left else [1] * len(p) + [0] * len(f) for p, f in zip(prompts, fill)]
    inputs = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
    if checkpoint.pixels is not None:
        inputs["pixel_values"] = checkpoint.pixels[lines]
    if settings.get("num_beams", 1) > 1:
        settings |= {"output_scores": True}
    with torch.no_grad(), Decisions() as decisions:
        output = model.generate(**inputs, **settings, do_sample=False, return_dict_in_generate=True)
    begun = width if left else 1
    ends = settings.get("eos_token_id", model.generation_config.eos_token_id)
    ends = set(ends if isinstance(ends, list) else [ends])
    new = []
    for row in output.sequences[:, begun:].tolist():
        end = next((i for i, token in enumerate(row) if token in ends), len(row) - 1)
        new.append(row[: end + 1])
    scores = output.get("sequences_scores") if settings.get("num_beams", 1) > 1 else None
    return new, scores if scores is None else scores.tolist(), decisions.gap


def random_settings(rng: random.Random, checkpoint: Checkpoint, rows: int) -> dict[str, Any]:
    causal = checkpoint.kind == "models"
    vocabulary = checkpoint.model(False).config.get_text_config().vocab_size
    settings: dict[str, Any] = {}
    beams = rng.choice([1, 2, 2, 3, 3, 4, 5])
    longest = rng.randint(3, 14)
    if rng.random() < 0.7:
        settings["max_new_tokens"] = longest
    else:
        settings["max_length"] = longest + (max(map(len, checkpoint.lines)) if causal else 1)
    if beams > 1:
        settings["num_beams"] = beams
        settings["length_penalty"] = rng.choice([1.0, 1.0, 0.5, 2.0, -1.0, 0.0])
        settings["early_stopping"] = rng.choice([False, True, "never"])
        if rng.random() < 0.3:
            settings["num_return_sequences"] = rng.randint(2, beams)
    # Of several ends random models come to one now and then.
    if rng.random() < 0.7:
        settings["eos_token_id"] = sorted({2, *rng.sample(range(3, vocabulary - 1), rng.choice([1, 4, 10]))})
    # In a batch of causal prompts these rules see the padding, in transformers.
    if not causal or rows == 1:
        if rng.random() < 0.4:
            settings["no_repeat_ngram_size"] = rng.choice([1, 2, 2, 3])
        if rng.random() < 0.2:
            settings["repetition_penalty"] = rng.choice([1.3, 0.8])
    if rng.random() < 0.3:
        settings["min_new_tokens"] = rng.randint(1, longest)
    elif rng.random() < 0.3 and not causal:
        settings["min_length"] = rng.randint(1, longest + 1)
    if not causal:
        # One that is an end too would leave beam search nothing to go on with.
        forced = rng.choice([None, None, 0, 5])
        settings["forced_bos_token_id"] = None if forced in settings.get("eos_token_id", []) else forced
    settings["forced_eos_token_id"] = rng.choice([None, 2])
    return settings


def systematic(rng: random.Random, checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """Greedy search, and every number of beams with every penalty and every way to stop; one each with other settings."""
    cases: list[dict[str, Any]] = [{"settings": {"max_new_tokens": 12}, "rows": 1}, {"settings": {"max_new_tokens": 12}, "rows": 3}]
    grid = [(beams, penalty, early) for beams in (2, 3, 4, 5) for penalty in (0.5, 1.0, 2.0, -1.0) for early in (False, True, "never")]
    for beams, penalty, early in rng.sample(grid, 12):
        settings = random_settings(rng, checkpoint, 1)
        for name in ("num_return_sequences", "min_length", "min_new_tokens"):
            if rng.random() < 0.5:
                settings.pop(name, None)
        settings |= {"num_beams": beams, "length_penalty": penalty, "early_stopping": early}
        if settings.get("num_return_sequences", 1) > beams:
            settings["num_return_sequences"] = beams
        cases.append({"settings": settings, "rows": 1})
    for _ in range(8):
        rows = rng.choice([2, 3])
        cases.append({"settings": random_settings(rng, checkpoint, rows), "rows": rows})
    return cases


def fresh_checkpoint(source: Checkpoint, out: Path, name: str, rng: random.Random) -> Checkpoint:
    """New random weights, prompts and pictures for a shape."""
    folder = out / name
    (folder / "model").mkdir(parents=True)
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    torch.manual_seed(rng.randrange(2**31))
    config = AutoConfig.from_pretrained(source.folder / "model")
    model = CLASSES[source.kind]._from_config(config) if source.kind == "florence2" else CLASSES[source.kind].from_config(config)
    model = model.to(torch.float32)
    randomize(model, generator)
    model.save_pretrained(folder / "model")
    vocabulary = config.get_text_config().vocab_size
    lines = []
    for line in source.lines:
        places = [token for token in line if source.kind == "florence2" and token == config.image_token_id]
        words = [rng.randrange(3, vocabulary - 1) for _ in range(rng.randint(2, 10))]
        lines.append(places + ([1, *words] if source.kind == "models" else [0, *words, 2]))
    (folder / "tokens.jsonl").write_text("".join(json.dumps({"input_ids": line}) + "\n" for line in lines))
    if source.pixels is not None:
        save_file({"lines": torch.randn(source.pixels.shape, generator=generator)}, folder / "pixels.safetensors")
    return Checkpoint(source.kind, name, out)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=VECTORS / "generation-seq2seq")
    parser.add_argument("--seed", type=int, default=7071)
    parser.add_argument("--random", type=int)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    rng = random.Random(options.seed)
    names = {kind: sorted(path.parent.name for path in (VECTORS / kind).glob("*/model")) for kind in ("seq2seq", "florence2")}
    names["models"] = CAUSAL
    sources = [Checkpoint(kind, name, VECTORS / kind) for kind in names for name in names[kind]]
    options.out.mkdir(parents=True, exist_ok=True)

    wanted: list[tuple[Checkpoint, dict[str, Any]]] = []
    if options.random is None:
        for source in sources:
            wanted += [(source, case) for case in systematic(rng, source)]
    else:
        for index in range(options.random):
            shape = rng.choice(sources)
            name = f"random-{options.seed}-{index}"
            shutil.rmtree(options.out / name, ignore_errors=True)
            checkpoint = fresh_checkpoint(shape, options.out, name, rng)
            rows = rng.choice([1, 1, 2, 3])
            wanted.append((checkpoint, {"settings": random_settings(rng, checkpoint, rows), "rows": rows}))

    cases, close = [], 0
    for checkpoint, case in wanted:
        rows = case.pop("rows")
        case["lines"] = sorted(rng.sample(range(len(checkpoint.lines)), rows))
        case["adapter"] = checkpoint.has_adapter and rng.random() < 0.5
        sequences, scores, gap = generate(checkpoint, case)
        # Without so many texts that end, transformers returns padding for the rest.
        if gap < GAP or min(scores or [0]) < CHOOSABLE:
            close += 1
            continue
        prompts = [checkpoint.lines[line] for line in case["lines"]]
        cases.append(
            {
                "kind": checkpoint.kind,
                "checkpoint": checkpoint.name,
                **case,
                "prompts": prompts,
                "sequences": sequences,
                **({"scores": scores} if scores else {}),
                "gap": gap,
            }
        )
    document = {
        "manifest": {
            "script": "scripts/record_generation_seq2seq.py",
            "seed": options.seed,
            "versions": {
                "python": sys.version.split()[0],
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "peft": __import__("peft").__version__,
            },
            "passedOver": close,
        },
        "cases": cases,
    }
    with open(options.out / "cases.json.gz", "wb") as file, gzip.GzipFile(fileobj=file, mode="wb", mtime=0, filename="") as zipped:
        zipped.write(json.dumps(document, separators=(",", ":"), allow_nan=False).encode())
    (options.out / "manifest.json").write_text(json.dumps({**document["manifest"], "cases": len(cases)}, indent=2) + "\n")
    print(f"{len(cases)} cases, {close} passed over", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
