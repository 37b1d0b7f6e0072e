"""Records what transformers' generate makes of tiny random models: greedy search and beam search.

    python scripts/record_generation_seq2seq.py [--out test/vectors/generation-seq2seq] [--seed N]
        cases on the checkpoints of test/vectors/{seq2seq,florence2,models}, with and without their adapters
    python scripts/record_generation_seq2seq.py --out DIR --random N --seed S
        N cases with settings and prompts of their own, on new random checkpoints (in DIR) of the same shapes

    python scripts/record_generation_seq2seq.py --answers --seed 7073
        test/vectors/generation-seq2seq/answers: a tiny Florence-2 that goes with test/vectors/processing/current, asked about
        pictures by name: model/, and answers.json with tokens, text and what the processor's post-processing makes of it

The first two write DIR/cases.json.gz: of each case the checkpoint, generate's settings, the prompts (token ids, and with pictures the rows of
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


#: one stage whose feature map of a 16 × 24 picture is 1 × 5: with the mean of them, the six tokens of the processor
ANSWERS_VISION = {
    "embed_dim": [12], "num_heads": [3], "num_groups": [4], "depths": [1], "patch_size": [16], "patch_stride": [2],
    "patch_padding": [0], "patch_prenorm": [False], "window_size": 3, "projection_dim": 16, "mlp_ratio": 2.0,
    "max_position_embeddings": 10, "max_temporal_embeddings": 4, "initializer_range": 0.2,
}
QUESTIONS: list[tuple[str, str, dict[str, Any]]] = [
    ("rgb.png", "<OD>", {"max_new_tokens": 48, "no_repeat_ngram_size": 2}),
    ("rgb.png", "<OD>", {"max_new_tokens": 40, "no_repeat_ngram_size": 2, "num_beams": 3}),
    ("gray.jpg", "<CAPTION>", {"max_new_tokens": 16, "no_repeat_ngram_size": 1}),
    ("cmyk.jpg", "<OCR_WITH_REGION>", {"max_new_tokens": 60, "no_repeat_ngram_size": 1}),
    ("gray.jpg", "<CAPTION_TO_PHRASE_GROUNDING>two other objects", {"max_new_tokens": 48, "no_repeat_ngram_size": 1, "num_beams": 2}),
    ("rgb.png", "<REFERRING_EXPRESSION_SEGMENTATION>a red car", {"max_new_tokens": 48, "no_repeat_ngram_size": 1}),
    ("gray.png", "<REGION_PROPOSAL>", {"max_new_tokens": 30, "no_repeat_ngram_size": 1}),
    ("gray.png", "What is there?", {"max_new_tokens": 12, "no_repeat_ngram_size": 1}),
]


def record_answers(out: Path, seed: int) -> None:
    from PIL import Image, ImageOps
    from transformers import CLIPImageProcessorPil, Florence2Config, Florence2Processor

    processing = VECTORS / "processing"
    processor = Florence2Processor.from_pretrained(processing / "current")
    assert isinstance(processor.image_processor, CLIPImageProcessorPil), type(processor.image_processor)
    text = {
        "model_type": "bart", "vocab_size": len(processor.tokenizer), "d_model": 16, "encoder_layers": 1, "decoder_layers": 2,
        "encoder_attention_heads": 2, "decoder_attention_heads": 4, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
        "max_position_embeddings": 96, "init_std": 0.3, "dropout": 0.0, "scale_embedding": False, "pad_token_id": 1,
        "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2, "forced_bos_token_id": 0, "forced_eos_token_id": 2,
    }
    config = Florence2Config(text_config=text, vision_config=ANSWERS_VISION, image_token_id=processor.image_token_id)
    torch.manual_seed(seed)
    model = Florence2ForConditionalGeneration(config).eval()
    randomize(model, torch.Generator().manual_seed(seed))
    shutil.rmtree(out, ignore_errors=True)
    model.to(torch.float16).save_pretrained(out / "model")
    # Old checkpoints keep these in config.json, and have no generation_config.json.
    (out / "model" / "generation_config.json").unlink()
    path = out / "model" / "config.json"
    stored = json.loads(path.read_text())
    stored["text_config"] |= {"num_beams": 2, "early_stopping": True, "forced_bos_token_id": 0}
    path.write_text(json.dumps(stored, indent=2) + "\n")
    model = Florence2ForConditionalGeneration.from_pretrained(out / "model", dtype=torch.float32).eval()
    assert model.generation_config.num_beams == 2 and model.generation_config.forced_bos_token_id == 0

    answers = []
    for image, prompt, settings in QUESTIONS:
        picture = ImageOps.exif_transpose(Image.open(processing / "images" / image)).convert("RGB")
        inputs = processor(text=prompt, images=picture, return_tensors="pt")
        with torch.no_grad(), Decisions() as decisions:
            ids = model.generate(**inputs, **settings, do_sample=False)
        assert decisions.gap > GAP, (prompt, decisions.gap)
        generated = processor.batch_decode(ids, skip_special_tokens=False)[0]
        task = prompt[: prompt.index(">") + 1] if prompt.startswith("<") else None
        parsed = processor.post_process_generation(generated, task=task, image_size=picture.size) if task else None
        answers.append(
            {
                "image": image, "prompt": prompt, "settings": settings, "size": list(picture.size),
                "inputIds": inputs["input_ids"][0].tolist(), "tokens": ids[0, 1:].tolist(), "generated": generated,
                "parsed": parsed and parsed[task], "gap": decisions.gap,
            }
        )
        print(prompt, parsed or generated, file=sys.stderr)
    document = {"manifest": {"script": "scripts/record_generation_seq2seq.py --answers", "seed": seed,
                             "versions": {"torch": torch.__version__, "transformers": transformers.__version__}}, "answers": answers}
    (out / "answers.json").write_text(json.dumps(document, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=VECTORS / "generation-seq2seq")
    parser.add_argument("--seed", type=int, default=7071)
    parser.add_argument("--random", type=int)
    parser.add_argument("--answers", action="store_true")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    if options.answers:
        record_answers(options.out / "answers", options.seed)
        return 0
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
