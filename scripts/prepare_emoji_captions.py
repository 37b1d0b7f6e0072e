"""Make the rows that models/tiny-florence2 is fine-tuned on and tested with, from a sheet of captioned emoji.

    python scripts/prepare_emoji_captions.py [--sheet data/emoji-captions/sheet.png] [--captions …/captions.jsonl] [--out …]

Writes train.jsonl and test.jsonl (the categories that the base model has not seen: for fine-tuning) and base-test.jsonl
(pictures of the base model's own categories that it was not trained on). A row is {"image", "prompt", "completion"}, the
image a PNG as a data URL. Which emoji goes where depends on its code point alone. Needs Pillow.
"""

import argparse
import base64
import hashlib
import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

SIZE = 24  # pixels of an emoji on the sheet
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
    options = parser.parse_args()
    emoji = sorted(read_emoji(options.sheet, options.captions), key=lambda row: digest("order" + row["id"]))
    options.out.mkdir(parents=True, exist_ok=True)
    detailed = {"<DETAILED_CAPTION>": detailed_caption}

    def chosen(part: str, held_out: bool) -> list[dict[str, Any]]:
        return [row for row in emoji if row["part"] == part and row["heldOut"] == held_out]

    write_rows(options.out / "train.jsonl", chosen("new", False), detailed)
    write_rows(options.out / "test.jsonl", chosen("new", True), detailed)
    both = {"<CAPTION>": lambda row: row["caption"], **detailed}
    write_rows(options.out / "base-test.jsonl", chosen("base", True), both)


if __name__ == "__main__":
    main()
