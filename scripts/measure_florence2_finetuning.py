"""Fine-tune models/tiny-florence2 with PyTorch and PEFT on data/emoji-captions, and measure before and after.

    HF_HUB_OFFLINE=1 python scripts/measure_florence2_finetuning.py [--epochs 8] [--learning-rate 3e-3] [--r 16]

The same data, targets and optimizer as examples/florence2, whose figures it is to be compared with. Prints JSON.
Needs torch, transformers, peft and Pillow.
"""

import argparse
import base64
import io
import json
import random
import time
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from train_tiny_florence2 import answer, loss_of, make_batch, score
from transformers import Florence2ForConditionalGeneration, Florence2Processor

ROOT = Path(__file__).resolve().parent.parent
TASK = "<DETAILED_CAPTION>"


def read(path: Path, processor: Florence2Processor) -> tuple[torch.Tensor, list[str]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert all(row["prompt"] == TASK for row in rows)
    pictures = [Image.open(io.BytesIO(base64.b64decode(row["image"].split(",")[1]))) for row in rows]
    pixels = processor.image_processor(pictures, return_tensors="pt")["pixel_values"]
    return pixels, [row["completion"] for row in rows]


def measure(model: Any, processor: Florence2Processor, pixels: torch.Tensor, wanted: list[str]) -> dict[str, Any]:
    answers = answer(model, processor, TASK, pixels)

    def share(part: Any) -> float:
        return round(sum(part(a) == part(w) for a, w in zip(answers, wanted)) / len(wanted), 4)

    return {
        "loss": loss_of(model, processor, TASK, pixels, wanted),
        **score(answers, wanted),
        "category": share(lambda text: text.split(",")[0]),
        "subcategory": share(lambda text: text.split(":")[0]),
        "samples": [f"{w} -> {a}" for w, a in list(zip(wanted, answers))[:8]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "tiny-florence2")
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "emoji-captions")
    parser.add_argument("--targets", default=r".*\.(encoder\.layers\.[23]|decoder\.layers\.\d+)\..*(_proj|fc1|fc2)")
    parser.add_argument("--r", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    processor = Florence2Processor.from_pretrained(options.model)
    base = Florence2ForConditionalGeneration.from_pretrained(options.model, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(r=options.r, lora_alpha=2 * options.r, target_modules=options.targets))
    trainable, total = model.get_nb_trainable_parameters()
    pixels, wanted = read(options.data / "train.jsonl", processor)
    held_out = read(options.data / "test.jsonl", processor)
    report: dict[str, Any] = {"trainable": trainable, "total": total, "before": measure(model, processor, *held_out)}
    steps = options.epochs * (len(wanted) // options.batch)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=options.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    dice, begin, curve = random.Random(0), time.process_time(), []
    for epoch in range(options.epochs):
        order = dice.sample(range(len(wanted)), len(wanted))
        model.train()
        for at in range(0, len(order) - options.batch + 1, options.batch):
            chosen = order[at : at + options.batch]
            loss = model(**make_batch(processor, TASK, pixels[chosen], [wanted[i] for i in chosen])).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        curve.append([epoch + 1, round(loss.item(), 3), loss_of(model, processor, TASK, *held_out)])
    report |= {"steps": steps, "cpuSeconds": round(time.process_time() - begin), "curve": curve,
               "after": measure(model, processor, *held_out)}
    print(json.dumps(report, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
