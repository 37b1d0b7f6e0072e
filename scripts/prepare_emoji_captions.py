"""Make the rows that models/tiny-florence2 is fine-tuned on and tested with, from a sheet of captioned emoji.

    python scripts/prepare_emoji_captions.py [--sheet data/emoji-captions/sheet.png] [--captions …/captions.jsonl] [--out …]

Writes, of the categories that the base model has not seen, train.jsonl (two pictures of each emoji), test.jsonl (another
picture of each) and unseen.jsonl (emoji of these categories that are in neither); and base-test.jsonl, pictures of the base
model's own categories that it was not trained on. The pictures of the first two show the emoji moved, scaled, perhaps
mirrored, on grounds of several colours. A row is {"image", "prompt", "completion"}, the image a PNG as a data URL. Where an
emoji goes, and how it is shown, depends on its code point alone. Needs Pillow.
"""

import argparse
import base64
import hashlib
import io
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops

SIZE = 24  # pixels of an emoji on the sheet
VIEW = 32  # pixels of a picture made of one
VIEWS = 2  # pictures of an emoji to train on
NEW = ("Animals & Nature", "Food & Drink")  # what the base model never sees
HELD_OUT = {"base": 0.1, "new": 0.2}  # of each category
ROOT = Path(__file__).resolve().parent.parent / "data" / "emoji-captions"


def read_emoji(sheet: Path = ROOT / "sheet.png", captions: Path = ROOT / "captions.jsonl") -> list[dict[str, Any]]:
    """Every emoji: its fields, "picture" (Pillow, RGB), "part" ("base" or "new") and "heldOut"."""
    image = Image.open(sheet).convert("RGB")
    rows = [json.loads(line) for line in captions.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row["picture"] = image.crop((row["x"], row["y"], row["x"] + SIZE, row["y"] + SIZE))
        row["part"] = "new" if row["category"] in NEW else "base"
    for category in {row["category"] for row in rows}:
        members = sorted((row for row in rows if row["category"] == category), key=lambda row: digest(row["id"]))
        for place, row in enumerate(members):
            row["heldOut"] = place < round(HELD_OUT[row["part"]] * len(members))
    return rows


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def category_of(row: dict[str, Any]) -> str:
    """Category and subcategory in words: "animals and nature, bird"."""
    kind = row["subcategory"].removeprefix("animal-").removeprefix("food-")
    return f"{row['category']}, {kind}".lower().replace("&", "and").replace("-", " ")


def detailed_caption(row: dict[str, Any]) -> str:
    """ "animals and nature, bird: penguin" """
    return f"{category_of(row)}: {row['caption']}"


def view(row: dict[str, Any], number: int) -> Image.Image:
    """The emoji in a picture of 32 × 32 pixels: its side, place, direction and ground are drawn anew for every number."""
    dice = random.Random(f"{row['id']} {number}")
    side = dice.randint(25, 32)
    emoji = row["picture"].resize((side, side), Image.Resampling.BICUBIC)
    if dice.random() < 0.5:
        emoji = emoji.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    canvas = Image.new("RGB", (VIEW, VIEW), "white")
    canvas.paste(emoji, (dice.randint(0, VIEW - side), dice.randint(0, VIEW - side)))
    ground = tuple(dice.randint(215, 255) for _ in range(3))
    return ImageChops.multiply(canvas, Image.new("RGB", canvas.size, ground))


def data_url(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def write_rows(path: Path, rows: list[dict[str, Any]], prompts: dict[str, Any]) -> None:
    lines = [
        json.dumps({"image": data_url(row["picture"]), "prompt": prompt, "completion": answer(row)}, ensure_ascii=False)
        for row in rows
        for prompt, answer in prompts.items()
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{path}: {len(lines)} rows, {path.stat().st_size / 1e3:.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sheet", type=Path, default=ROOT / "sheet.png")
    parser.add_argument("--captions", type=Path, default=ROOT / "captions.jsonl")
    parser.add_argument("--out", type=Path, default=ROOT)
    parser.add_argument("--pictures", type=Path, help="where to write the pictures of examples/florence2, if anywhere")
    options = parser.parse_args()
    emoji = sorted(read_emoji(options.sheet, options.captions), key=lambda row: digest("order" + row["id"]))
    options.out.mkdir(parents=True, exist_ok=True)
    detailed = {"<DETAILED_CAPTION>": detailed_caption}

    def chosen(part: str, held_out: bool) -> list[dict[str, Any]]:
        return [row for row in emoji if row["part"] == part and row["heldOut"] == held_out]

    def views(numbers: Iterable[int]) -> list[dict[str, Any]]:
        return [row | {"picture": view(row, number)} for number in numbers for row in chosen("new", False)]

    write_rows(options.out / "train.jsonl", views(range(1, VIEWS + 1)), detailed)
    write_rows(options.out / "test.jsonl", views([0]), detailed)
    write_rows(options.out / "unseen.jsonl", chosen("new", True), detailed)
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
        by_name = {row["caption"]: row for row in emoji}
        by_name["crown"]["picture"].save(options.pictures / "crown.png")
        view(by_name["penguin"], 0).save(options.pictures / "penguin.png")
        two = Image.new("RGB", (2 * SIZE, 2 * SIZE), "white")
        for name, place in (("rainbow", (2, 20)), ("bus", (24, 2))):
            two.paste(by_name[name]["picture"], place)
        two.save(options.pictures / "two.png")
    both = {"<CAPTION>": lambda row: row["caption"], **detailed}
    write_rows(options.out / "base-test.jsonl", chosen("base", True), both)


if __name__ == "__main__":
    main()
