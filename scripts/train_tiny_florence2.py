"""Train a small Florence-2 from scratch on emoji, and save it as transformers saves a converted checkpoint.

    HF_HUB_OFFLINE=1 python scripts/train_tiny_florence2.py --out models/tiny-florence2

It learns <CAPTION>, <DETAILED_CAPTION> and <OD> in Florence-2's own prompts, on the emoji of data/emoji-captions that
scripts/prepare_emoji_captions.py gives to the base model, moved, scaled, mirrored and tinted. First the vision tower and the
projector learn to tell the emoji, their categories and subcategories apart, with linear heads that are thrown away later, as
Florence-2's tower was trained before the rest; then everything is trained. The schedules follow CPU time. Writes the
checkpoint, the processor's files and training.json with what was measured. Needs torch, transformers, tokenizers, numpy and
Pillow.
"""

import argparse
import json
import math
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import tokenizers
import torch
import transformers
from PIL import Image
from prepare_emoji_captions import category_of, detailed_caption, read_emoji
from safetensors.torch import load_file
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from transformers import BartTokenizer, CLIPImageProcessorPil, GenerationConfig
from transformers import Florence2Config, Florence2ForConditionalGeneration, Florence2Processor

IMAGE = 48  # pixels of a picture's sides, as the model sees it
EMOJI = 24
IMAGE_TOKENS = 1 + (IMAGE // 16) ** 2
PROMPTS = {
    "<CAPTION>": "What does the image describe?",
    "<DETAILED_CAPTION>": "Describe in detail what is shown in the image.",
    "<OD>": "Locate the objects with category name in the image.",
}

# In the order of the checkpoints' remote code: 1,024 tokens.
FLORENCE_TOKENS = (
    ["<od>", "</od>", "<ocr>", "</ocr>"]
    + [f"<loc_{i}>" for i in range(1000)]
    + "<cap> </cap> <ncap> </ncap> <dcap> </dcap> <grounding> </grounding> <seg> </seg> <sep> <region_cap> "
    "</region_cap> <region_to_desciption> </region_to_desciption> <proposal> </proposal> <poly> </poly> <and>".split()
)

POST_PROCESSOR = {
    "ocr": {
        "pattern": r"(.+?)<loc_(\d+)><loc_(\d+)><loc_(\d+)><loc_(\d+)><loc_(\d+)><loc_(\d+)><loc_(\d+)><loc_(\d+)>",
        "area_threshold": 0.0,
    },
    "phrase_grounding": {"banned_grounding_tokens": ["it", "the image", "a", "his", "other objects"]},
    "pure_text": {},
    "description_with_bboxes": {},
    "description_with_polygons": {},
    "polygons": {},
    "bboxes": {},
    "description_with_bboxes_or_polygons": {},
}


def make_tokenizer(texts: list[str], size: int) -> Any:
    """Byte-level BPE with BART's special tokens, then Florence-2's, as the remote code and the conversion script add them."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=size,
            min_frequency=4,
            show_progress=False,
            special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        ),
    )
    model = json.loads(backend.to_str())["model"]
    vocabulary = dict(model["vocab"]) | {"<mask>": len(model["vocab"])}
    base = BartTokenizer(vocab=vocabulary, merges=[tuple(m) for m in model["merges"]], model_max_length=128)
    added = [AddedToken(token, special=True, normalized=False) for token in [*FLORENCE_TOKENS, "<image>"]]
    base.add_tokens(added, special_tokens=True)
    with tempfile.TemporaryDirectory() as directory:
        base.save_pretrained(directory)
        path = Path(directory) / "tokenizer_config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps(config | {"extra_special_tokens": {"image_token": "<image>"}}))
        return BartTokenizer.from_pretrained(directory)


def make_processor(texts: list[str], size: int) -> Florence2Processor:
    image_processor = CLIPImageProcessorPil.from_dict(
        {
            "crop_size": {"height": IMAGE, "width": IMAGE},
            "do_center_crop": False,
            "do_convert_rgb": None,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.229, 0.224, 0.225],
            "image_seq_length": IMAGE_TOKENS,
            "resample": 3,
            "rescale_factor": 1 / 255,
            "size": {"height": IMAGE, "width": IMAGE},
        }
    )
    return Florence2Processor(
        image_processor=image_processor, tokenizer=make_tokenizer(texts, size), post_processor_config=POST_PROCESSOR
    )


def make_model(tokenizer: Any) -> Any:
    vision = {
        "depths": [1, 1, 2, 1],
        "embed_dim": [32, 64, 96, 128],
        "num_heads": [1, 2, 3, 4],
        "num_groups": [1, 2, 3, 4],
        "patch_size": [7, 3, 3, 3],
        "patch_stride": [4, 2, 2, 1],
        "patch_padding": [3, 1, 1, 1],
        "patch_prenorm": [False, True, True, True],
        "window_size": 3,
        "drop_path_rate": 0.0,
        "projection_dim": 128,
        "max_temporal_embeddings": 4,
        "max_position_embeddings": 8,
    }
    text = {
        "model_type": "bart",
        "vocab_size": len(tokenizer),
        "d_model": 128,
        "encoder_layers": 4,
        "decoder_layers": 4,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 256,
        "decoder_ffn_dim": 256,
        "max_position_embeddings": 128,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "init_std": 0.04,
        "scale_embedding": False,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
        "forced_eos_token_id": 2,
        "forced_bos_token_id": 0,
    }
    config = Florence2Config(
        text_config=text, vision_config=vision, image_token_id=tokenizer.convert_tokens_to_ids("<image>")
    )
    for name in ("bos_token_id", "pad_token_id", "eos_token_id"):
        setattr(config, name, text[name])
    model = Florence2ForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        bos_token_id=0, pad_token_id=1, eos_token_id=2, decoder_start_token_id=2, forced_bos_token_id=0,
        forced_eos_token_id=2, max_length=60,
    )
    return model


def start_vision(model: Any) -> None:
    """Weights with which features are as large as the embeddings of places that are added to them."""
    for module in model.model.vision_tower.modules():
        if isinstance(module, torch.nn.Conv2d):
            gain = 0.3 if module.groups > 1 else 1
            torch.nn.init.normal_(module.weight, std=gain / math.sqrt(module.weight[0].numel()))
        elif isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=0.7 / math.sqrt(module.in_features))
    projection = model.model.multi_modal_projector.image_projection
    torch.nn.init.normal_(projection.weight, std=1 / math.sqrt(projection.in_features))


class Heads(torch.nn.Module):
    """Tells emoji, category and subcategory from a picture's features."""

    def __init__(self, rows: list[dict[str, Any]], width: int):
        super().__init__()
        names = [[row[key] for row in rows] for key in ("id", "category", "subcategory")]
        tables = [{name: i for i, name in enumerate(sorted(set(column)))} for column in names]
        self.labels = torch.tensor([[table[name] for name in column] for table, column in zip(tables, names)])
        self.layers = torch.nn.ModuleList([torch.nn.Linear(width, len(table)) for table in tables])

    def loss(self, features: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        pooled = features.mean(1)
        return sum(
            torch.nn.functional.cross_entropy(layer(pooled), labels[index])
            for layer, labels in zip(self.layers, self.labels)
        )


class Schedule:
    """AdamW whose learning rate rises over `warmup` steps and falls along a cosine over so much CPU time."""

    def __init__(self, parameters: list[torch.nn.Parameter], rate: float, minutes: float, warmup: int):
        decay = [p for p in parameters if p.ndim > 1]
        rest = [p for p in parameters if p.ndim <= 1]
        self.parameters, self.rate, self.minutes, self.warmup = parameters, rate, minutes, warmup
        self.begin, self.steps = time.process_time(), 0
        self.optimizer = torch.optim.AdamW(
            [{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}], lr=rate, betas=(0.9, 0.98)
        )

    @property
    def seconds(self) -> float:
        return time.process_time() - self.begin

    @property
    def done(self) -> bool:
        return self.seconds >= 60 * self.minutes

    def step(self, loss: torch.Tensor) -> None:
        progress = min(1.0, self.seconds / (60 * self.minutes))
        scale = min(1.0, (self.steps + 1) / self.warmup) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * scale
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.steps += 1


class Pictures:
    """Emoji on canvases of the model's size, as values of 0 to 1 that multiply: white is nothing."""

    def __init__(self, rows: list[dict[str, Any]], processor: Florence2Processor, generator: torch.Generator):
        pixels = np.stack([np.asarray(row["picture"]) for row in rows]).astype(np.float32) / 255
        self.emoji = torch.tensor(pixels).permute(0, 3, 1, 2)
        self.generator = generator
        self.mean = torch.tensor(processor.image_processor.image_mean).view(3, 1, 1)
        self.std = torch.tensor(processor.image_processor.image_std).view(3, 1, 1)

    def uniform(self, shape: tuple[int, ...], low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(shape, generator=self.generator)

    def place(self, index: torch.Tensor, left: torch.Tensor, top: torch.Tensor, side: torch.Tensor, mirror: torch.Tensor) -> torch.Tensor:
        """Each emoji with its top left corner and side in pixels of the canvas."""
        width = side / IMAGE
        x = (2 * left + side) / IMAGE - 1
        y = (2 * top + side) / IMAGE - 1
        sign = 1 - 2 * mirror.float()
        zero = torch.zeros_like(width)
        theta = torch.stack(
            [torch.stack([sign / width, zero, -sign * x / width], -1), torch.stack([zero, 1 / width, -y / width], -1)], 1
        )
        grid = torch.nn.functional.affine_grid(theta, [len(index), 3, IMAGE, IMAGE], align_corners=False)
        ink = 1 - self.emoji[index]
        return 1 - torch.nn.functional.grid_sample(ink, grid, mode="bicubic", align_corners=False)

    def finish(self, canvas: torch.Tensor) -> torch.Tensor:
        """Half of them on a tinted ground, some brighter or darker; then normalised, in eighths of a bit as a PNG is."""
        count = len(canvas)
        tinted = (self.uniform((count, 1, 1, 1), 0, 1) < 0.5).float()
        canvas = canvas * (1 - tinted * self.uniform((count, 3, 1, 1), 0, 0.15))
        canvas = canvas.clamp(0, 1) ** self.uniform((count, 1, 1, 1), 0.85, 1.15)
        canvas = (canvas + 0.01 * torch.randn(canvas.shape, generator=self.generator)).clamp(0, 1)
        return (canvas - self.mean) / self.std

    def single(self, index: torch.Tensor, small: bool = False) -> torch.Tensor:
        """One to a picture: about as large as it, or small and somewhere in it."""
        count = (len(index),)
        side = (self.uniform(count, 0.42, 0.7) if small else self.uniform(count, 0.8, 1.06)) * IMAGE
        reach = (IMAGE - side) / 2 if small else 4
        left = (IMAGE - side) / 2 + self.uniform(count, -1, 1) * reach
        top = (IMAGE - side) / 2 + self.uniform(count, -1, 1) * reach
        mirror = self.uniform(count, 0, 1) < 0.3
        return self.finish(self.place(index, left, top, side, mirror))


def layouts(count: int, dice: random.Random) -> list[list[tuple[int, int, int]]]:
    """(left, top, side) of one to three emoji that do not overlap, from left to right; all in multiples of 2 pixels."""
    made = []
    while len(made) < count:
        wanted, boxes = dice.choice([1, 2, 2, 3]), []
        for _ in range(40):
            side = 2 * dice.randint(10, 14 if wanted < 3 else 11)
            left, top = 2 * dice.randint(0, (IMAGE - side) // 2), 2 * dice.randint(0, (IMAGE - side) // 2)
            if all(left >= l + s or l >= left + side or top >= t + s or t >= top + side for l, t, s in boxes):
                boxes.append((left, top, side))
            if len(boxes) == wanted:
                break
        made.append(sorted(boxes))
    return made


def location(value: float) -> str:
    return f"<loc_{min(999, int(value / IMAGE * 1000))}>"


def detection(names: list[str], boxes: list[tuple[int, int, int]]) -> str:
    """label<loc_x1><loc_y1><loc_x2><loc_y2>…, as Florence-2 answers <OD>."""
    return "".join(
        name + location(l) + location(t) + location(l + s) + location(t + s) for name, (l, t, s) in zip(names, boxes)
    )


def compose(pictures: Pictures, rows: list[dict[str, Any]], count: int, dice: random.Random) -> tuple[torch.Tensor, list[str], list[Any]]:
    chosen = layouts(count, dice)
    members = [[dice.randrange(len(rows)) for _ in boxes] for boxes in chosen]
    flat = [(i, m, b) for i, (ms, bs) in enumerate(zip(members, chosen)) for m, b in zip(ms, bs)]
    boxes = torch.tensor([b for _, _, b in flat], dtype=torch.float32)
    layers = pictures.place(
        torch.tensor([m for _, m, _ in flat]), boxes[:, 0], boxes[:, 1], boxes[:, 2],
        pictures.uniform((len(flat),), 0, 1) < 0.3,
    )
    canvas = torch.ones(count, 3, IMAGE, IMAGE)
    for (i, _, _), layer in zip(flat, layers):
        canvas[i] *= layer
    answers = [detection([rows[m]["caption"] for m in ms], bs) for ms, bs in zip(members, chosen)]
    return pictures.finish(canvas), answers, chosen


def encode_prompt(processor: Florence2Processor, task: str) -> list[int]:
    tokenizer = processor.tokenizer
    text = tokenizer.bos_token + PROMPTS[task] + tokenizer.eos_token
    return [processor.image_token_id] * IMAGE_TOKENS + tokenizer.encode(text, add_special_tokens=False)


def make_batch(processor: Florence2Processor, task: str, pixels: torch.Tensor, answers: list[str]) -> dict[str, torch.Tensor]:
    ids = processor.tokenizer(answers, padding=True, return_tensors="pt")
    return {
        "input_ids": torch.tensor([encode_prompt(processor, task)] * len(answers)),
        "pixel_values": pixels,
        "labels": ids["input_ids"].masked_fill(ids["attention_mask"] == 0, -100),
    }


def plain_pixels(processor: Florence2Processor, rows: list[dict[str, Any]]) -> torch.Tensor:
    return processor.image_processor([row["picture"] for row in rows], return_tensors="pt")["pixel_values"]


@torch.no_grad()
def answer(model: Any, processor: Florence2Processor, task: str, pixels: torch.Tensor) -> list[str]:
    """Greedy answers, special tokens but the locations' left out."""
    model.eval()
    texts: list[str] = []
    for part in pixels.split(64):
        ids = torch.tensor([encode_prompt(processor, task)] * len(part))
        out = model.generate(input_ids=ids, pixel_values=part)
        for text in processor.tokenizer.batch_decode(out, skip_special_tokens=False):
            texts.append(text.replace("<s>", "").replace("</s>", "").replace("<pad>", "").strip())
    return texts


def rouge_l(answer_text: str, reference: str) -> float:
    """F1 of the longest common subsequence of words."""
    a, b = answer_text.replace(",", " ").replace(":", " ").split(), reference.replace(",", " ").replace(":", " ").split()
    lengths = [0] * (len(b) + 1)
    for word in a:
        previous = 0
        for j, other in enumerate(b):
            previous, lengths[j + 1] = lengths[j + 1], previous + 1 if word == other else max(lengths[j + 1], lengths[j])
    return 2 * lengths[-1] / (len(a) + len(b)) if a and b else 0.0


def score(answers: list[str], references: list[str]) -> dict[str, float]:
    n = len(references)
    return {
        "rougeL": round(sum(rouge_l(a, r) for a, r in zip(answers, references)) / n, 4),
        "exact": round(sum(a == r for a, r in zip(answers, references)) / n, 4),
    }


@torch.no_grad()
def loss_of(model: Any, processor: Florence2Processor, task: str, pixels: torch.Tensor, answers: list[str]) -> float:
    model.eval()
    total, tokens = 0.0, 0
    for at in range(0, len(answers), 64):
        batch = make_batch(processor, task, pixels[at : at + 64], answers[at : at + 64])
        count = int((batch["labels"] != -100).sum())
        total += model(**batch).loss.item() * count
        tokens += count
    return round(total / tokens, 4)


def describe(model: Any, processor: Florence2Processor, rows: list[dict[str, Any]], pixels: torch.Tensor) -> dict[str, Any]:
    """How well pictures are described; "chance": the same answers against the captions of other pictures."""
    shuffled = rows[:]
    random.Random(1).shuffle(shuffled)
    report: dict[str, Any] = {"pictures": len(rows)}
    for task, caption in (("<CAPTION>", lambda row: row["caption"]), ("<DETAILED_CAPTION>", detailed_caption)):
        answers = answer(model, processor, task, pixels)
        report[task] = {
            "loss": loss_of(model, processor, task, pixels, [caption(row) for row in rows]),
            **score(answers, [caption(row) for row in rows]),
            "chance": score(answers, [caption(row) for row in shuffled]),
        }
        if task == "<DETAILED_CAPTION>":
            for name, part in (("category", lambda text: text.split(",")[0]), ("subcategory", lambda text: text.split(":")[0])):
                def accuracy(others: list[dict[str, Any]]) -> float:
                    return round(sum(part(a) == part(category_of(row)) for a, row in zip(answers, others)) / len(rows), 4)
                report[task][name] = accuracy(rows)
                report[task]["chance"][name] = accuracy(shuffled)
        report[task]["samples"] = [f"{caption(row)} -> {text}" for row, text in list(zip(rows, answers))[:8]]
    return report


def detect(model: Any, processor: Florence2Processor, pictures: Pictures, rows: list[dict[str, Any]], count: int) -> dict[str, Any]:
    pixels, references, layouts_ = compose(pictures, rows, count, random.Random(5))
    answers = answer(model, processor, "<OD>", pixels)
    found = named = total = 0
    for text, reference, boxes in zip(answers, references, layouts_):
        parsed = processor.post_process_generation(text, task="<OD>", image_size=(IMAGE, IMAGE))["<OD>"]
        wanted = processor.post_process_generation(reference, task="<OD>", image_size=(IMAGE, IMAGE))["<OD>"]
        for box, label in zip(wanted["bboxes"], wanted["labels"]):
            total += 1
            hits = [l for b, l in zip(parsed["bboxes"], parsed["labels"]) if overlap(b, box) >= 0.5]
            found += bool(hits)
            named += label in hits
    return {
        "canvases": count, "objects": total, "found at IoU 0.5": round(found / total, 4),
        "found and named": round(named / total, 4),
        "samples": [f"{r} -> {a}" for r, a in list(zip(references, answers))[:4]],
    }


def overlap(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


CAPTIONS = ("<CAPTION>", "<DETAILED_CAPTION>", "<CAPTION>", "<DETAILED_CAPTION>", "<OD>")
BOXES = ("<OD>", "<OD>", "<OD>", "<CAPTION>", "<OD>", "<OD>", "<OD>", "<DETAILED_CAPTION>")


class Phases:
    """What is trained, one after the other."""

    def __init__(
        self,
        model: Any,
        processor: Florence2Processor,
        train: list[dict[str, Any]],
        pictures: Pictures,
        dice: random.Random,
        options: argparse.Namespace,
    ):
        self.model, self.processor, self.train, self.pictures = model, processor, train, pictures
        self.dice, self.options = dice, options
        self.heads = Heads(train, model.config.text_config.d_model)

    def draw(self, count: int) -> torch.Tensor:
        return torch.randint(len(self.train), (count,), generator=self.pictures.generator)

    def tell_apart(self) -> dict[str, Any]:
        """The vision tower and the projector learn what is in a picture."""
        parts = self.model.model
        parameters = [*parts.vision_tower.parameters(), *parts.multi_modal_projector.parameters()]
        schedule = Schedule([*parameters, *self.heads.parameters()], 2e-3, self.options.vision_minutes, 100)
        self.model.train()
        while not schedule.done:
            index = self.draw(64)
            pixels = self.pictures.single(index, small=schedule.steps % 4 == 3)
            loss = self.heads.loss(parts.get_image_features(pixels).pooler_output, index)
            schedule.step(loss)
            if schedule.steps % 99 == 0:
                print(f"vision step {schedule.steps} {schedule.seconds:.0f} s CPU: {loss.item():.3f}", flush=True)
        return {"steps": schedule.steps, "pictures_seen": 64 * schedule.steps, "cpu_seconds": round(schedule.seconds)}

    def describe(self, name: str, minutes: float, tasks: tuple[str, ...]) -> dict[str, Any]:
        """All of the model learns to write; the heads help with single emoji until boxes are learnt."""
        batch, model = self.options.batch, self.model
        features: list[torch.Tensor] = []
        hook = model.model.multi_modal_projector.register_forward_hook(lambda _, __, out: features.append(out))
        helped = name == "captions"
        parameters = [*model.parameters(), *(self.heads.parameters() if helped else [])]
        rate = self.options.lr if helped else self.options.box_lr
        schedule = Schedule(parameters, rate, minutes, 150)
        losses: dict[str, float] = {}
        seen = 0
        model.train()
        while not schedule.done:
            task = tasks[schedule.steps % len(tasks)]
            if task == "<OD>":
                pixels, answers, _ = compose(self.pictures, self.train, batch // 2 if helped else batch, self.dice)
            else:
                index = self.draw(batch)
                pixels = self.pictures.single(index)
                rows = [self.train[i] for i in index]
                answers = [row["caption"] if task == "<CAPTION>" else detailed_caption(row) for row in rows]
            loss = model(**make_batch(self.processor, task, pixels, answers)).loss
            losses[task] = 0.9 * losses.get(task, loss.item()) + 0.1 * loss.item()
            if helped and task != "<OD>":
                loss = loss + 0.1 * self.heads.loss(features[-1], index)
            schedule.step(loss)
            features.clear()
            seen += len(answers)
            if schedule.steps % 50 == 0:
                shown = " ".join(f"{task} {value:.3f}" for task, value in losses.items())
                print(f"{name} step {schedule.steps} {schedule.seconds:.0f} s CPU: {shown}", flush=True)
        hook.remove()
        return {
            "steps": schedule.steps,
            "pictures_seen": seen,
            "cpu_seconds": round(schedule.seconds),
            "losses": {task: round(value, 4) for task, value in losses.items()},
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vision-minutes", type=float, default=3, help="of CPU time")
    parser.add_argument("--minutes", type=float, default=8, help="of CPU time, mostly for captions")
    parser.add_argument("--box-minutes", type=float, default=6, help="of CPU time, mostly for boxes")
    parser.add_argument("--start", type=Path, help="a checkpoint of this script, for the boxes alone")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1.2e-3)
    parser.add_argument("--box-lr", type=float, default=1e-3)
    parser.add_argument("--vocab", type=int, default=640)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    dice = random.Random(options.seed)
    rows = [row for row in read_emoji() if row["part"] == "base"]
    train = [row for row in rows if not row["heldOut"]]
    held_out = [row for row in rows if row["heldOut"]]
    texts = [text for row in train for text in (row["caption"], detailed_caption(row))] + [*PROMPTS.values()] * 20
    processor = make_processor(texts, options.vocab)
    model = make_model(processor.tokenizer)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{len(train)} emoji, {len(held_out)} held out, {parameters} parameters, {len(processor.tokenizer)} tokens", flush=True)
    generator = torch.Generator().manual_seed(options.seed)
    pictures = Pictures(train, processor, generator)
    start_vision(model)
    phases = Phases(model, processor, train, pictures, dice, options)
    begin = time.time()
    report: dict[str, Any] = {"parameters": parameters}
    if options.start:
        model.load_state_dict(load_file(options.start / "model.safetensors"), strict=False)
        model.tie_weights()
        earlier = json.loads((options.start / "training.json").read_text())
        report |= {name: earlier[name] for name in ("vision", "captions")}
    else:
        report |= {"vision": phases.tell_apart(), "captions": phases.describe("captions", options.minutes, CAPTIONS)}
    report["boxes"] = phases.describe("boxes", options.box_minutes, BOXES)
    report["seconds"] = round(time.time() - begin) + (earlier["seconds"] if options.start else 0)

    options.out.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(options.out)
    processor.save_pretrained(options.out)
    path = options.out / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()), ensure_ascii=False) + "\n")
    # What is measured is what was saved.
    model = Florence2ForConditionalGeneration.from_pretrained(options.out, dtype=torch.float32)
    generator.manual_seed(99)
    view = pictures.single(torch.arange(len(train)))
    report |= {
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__,
                     "tokenizers": tokenizers.__version__, "pillow": PIL.__version__, "numpy": np.__version__},
        "arguments": {k: v for k, v in vars(options).items() if not isinstance(v, Path)},
        "training pictures as they are": describe(model, processor, train, plain_pixels(processor, train)),
        "training pictures moved, scaled and tinted anew": describe(model, processor, train, view),
        "held-out pictures": describe(model, processor, held_out, plain_pixels(processor, held_out)),
        "detection of training pictures on new canvases": detect(model, processor, pictures, train, 200),
    }
    (options.out / "training.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    print(json.dumps(report, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
