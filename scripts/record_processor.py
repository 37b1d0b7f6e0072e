"""Record what transformers' Florence-2 processor does, for test/processing.

    HF_HUB_OFFLINE=1 python scripts/record_processor.py

Trains a tiny byte-level BPE with BART's special tokens, adds Florence-2's tokens in the order of its checkpoints, and
saves a processor with it. Records prompts (expansion, placeholders, padding, truncation, errors), pixel values of
pictures under many preprocessor settings, Pillow's resizing with every filter, post-processing of well-formed, odd and
random texts for every task, and location quantization.

Writes test/vectors/processing/: current/ (the processor as transformers saves it), original/ (the files of a checkpoint
with remote code, whose tokenizer lacks the added tokens), prompts.json, pixels.json, pixels.bin.gz,
post-processing.json.gz and manifest.json. Run record_processor_images.py first: some pictures come from there.
"""

import copy
import gzip
import hashlib
import io
import json
import pathlib
import random
import shutil
import sys
import tempfile

import numpy as np
import PIL
import tokenizers
import torch
import transformers
from PIL import Image
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from transformers import BartTokenizer, CLIPImageProcessorPil, Florence2Processor
from transformers.image_utils import load_image
from transformers.models.florence2.processing_florence2 import Florence2PostProcessor

SEED = 11
OUT = pathlib.Path(__file__).resolve().parent.parent / "test" / "vectors" / "processing"
rng = np.random.default_rng(SEED)
dice = random.Random(SEED)

CORPUS = [
    "What is the text in the image? What does the image describe? Describe in detail what is shown in the image.",
    "Describe with a paragraph what is shown in the image. Locate the objects with category name in the image.",
    "Locate the region proposals in the image. What is the polygon mask of region, what is the region.",
    "a green car parked in front of a yellow building, a dog and a cat on a red mat, two wheels, a door handle",
    "The quick brown fox jumps over the lazy dog 0123456789 café naïve 日本語 🎉",
]

# In the order of the checkpoints' remote code (processing_florence2.py): 1024 tokens.
FLORENCE_TOKENS = (
    ["<od>", "</od>", "<ocr>", "</ocr>"]
    + [f"<loc_{i}>" for i in range(1000)]
    + ["<cap>", "</cap>", "<ncap>", "</ncap>", "<dcap>", "</dcap>", "<grounding>", "</grounding>", "<seg>", "</seg>",
       "<sep>", "<region_cap>", "</region_cap>", "<region_to_desciption>", "</region_to_desciption>", "<proposal>",
       "</proposal>", "<poly>", "</poly>", "<and>"]
)

POST_PROCESSOR = {
    "ocr": {
        "pattern": r"(.+?)<loc_(\d+)><loc_(\d+)><loc_(\d+)><loc_(\d+)><loc_(\d+)><loc_(\d+)><loc_(\d+)><loc_(\d+)>",
        "area_threshold": 0.0,
    },
    "phrase_grounding": {"banned_grounding_tokens": ["it", "the image", "a", "his", "other objects"]},
    "pure_text": {}, "description_with_bboxes": {}, "description_with_polygons": {}, "polygons": {}, "bboxes": {},
    "description_with_bboxes_or_polygons": {},
}

PREPROCESSOR = {
    "crop_size": {"height": 768, "width": 768}, "do_center_crop": False, "do_convert_rgb": None, "do_normalize": True,
    "do_rescale": True, "do_resize": True, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
    "image_processor_type": "CLIPImageProcessor", "image_seq_length": 6, "processor_class": "Florence2Processor",
    "resample": 3, "rescale_factor": 0.00392156862745098, "size": {"height": 16, "width": 24},
}


def base_tokenizer():
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=420, show_progress=False, special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    model = json.loads(backend.to_str())["model"]
    vocabulary = dict(model["vocab"]) | {"<mask>": len(model["vocab"])}
    return BartTokenizer(vocab=vocabulary, merges=[tuple(m) for m in model["merges"]], model_max_length=64)


def florence_tokenizer(tokenizer):
    """As the remote code and then the conversion script of transformers do."""
    added = [AddedToken(token, special=True, normalized=False) for token in [*FLORENCE_TOKENS, "<image>"]]
    tokenizer.add_tokens(added, special_tokens=True)
    with tempfile.TemporaryDirectory() as directory:
        tokenizer.save_pretrained(directory)
        path = pathlib.Path(directory) / "tokenizer_config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps(config | {"extra_special_tokens": {"image_token": "<image>"}}))
        return BartTokenizer.from_pretrained(directory)


def outcome(action):
    try:
        return {"result": action()}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}".split("({")[0][:300]}  # sets print in any order


def picture(width, height, kind):
    if kind == "noise":
        return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    planes = [127 + 110 * np.sin(x / (3 + c) + c) * np.cos(y / (5 - c)) + 40 * (x > width / 2) for c in range(3)]
    return np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8)


def record_prompts(processor):
    image = Image.fromarray(picture(20, 12, "gradient"))
    tasks = list(processor.tasks_answer_post_processing_type)
    texts = [*tasks, "", "a caption", "<CAPTION> more", " <CAPTION>", "<OD>\n", "<OD><OCR>", "<OCR_WITH_REGION>", "<UNKNOWN>"]
    for task in processor.task_prompts_with_input:
        texts += [f"{task}a green car", f"{task} a {{braced}} {{0}} text \u00a0\n", f"a{task}b{task}c"]
    texts += ["<CAPTION_TO_PHRASE_GROUNDING><REGION_TO_OCR>x", "<REGION_TO_CATEGORY><loc_52><loc_332><loc_932><loc_774>",
              "<REGION_TO_DESCRIPTION>\ufeffbom\u0085\x1c", "what is <s> this </s><pad> and <mask>  here", "x <image> y",
              "café 日本語 🎉 naïve", "  spaces  ", "<OPEN_VOCABULARY_DETECTION>a wheel<and>a door", "<caption>", "<sep><poly></poly>",
              "<REGION_TO_OCR><CAPTION>", "<loc_1000><loc_-1><loc_007>", "word " * 40]
    cases = []

    def add(text, images, **options):
        given = [image] * images if images is not None else None
        def run():
            inputs = processor(text=text, images=given, **options)
            return {"inputIds": [list(map(int, ids)) for ids in inputs["input_ids"]],
                    "attentionMask": [list(map(int, ids)) for ids in inputs["attention_mask"]]}
        cases.append({"text": text, "images": images, "options": options, **outcome(run)})

    for text in texts:
        add(text, 1)
        add(text, None)
    add(None, 2)
    add(None, None)
    add([], None)
    batch = ["<CAPTION>", "<CAPTION_TO_PHRASE_GROUNDING>a red mat", "x"]
    add(batch, 3)
    add(batch, 2)
    add(batch, 4)
    for side in ("right", "left"):
        add(batch, 3, padding=True, padding_side=side)
        add(batch, 3, padding="max_length", max_length=40, padding_side=side)
    add(batch, None, padding="longest")
    add(batch, 3, padding=True, pad_to_multiple_of=16)
    add(batch, 3, padding=True, truncation=True, max_length=9)
    add(batch, 3, truncation=True, max_length=8)
    add(batch, 3, truncation=True, max_length=4)
    add(["word " * 80], 1, truncation=True)
    add(["word " * 80], 1)
    (OUT / "prompts.json").write_text(json.dumps(cases, indent=0) + "\n")
    return len(cases)


def record_pixels():
    settings = {
        "florence": {},
        "square": {"size": {"height": 20, "width": 20}},
        "nearest": {"resample": 0}, "lanczos": {"resample": 1}, "bilinear": {"resample": 2}, "box": {"resample": 4},
        "hamming": {"resample": 5},
        "no-resize": {"do_resize": False},
        "no-rescale": {"do_rescale": False},
        "no-normalize": {"do_normalize": False},
        "bytes": {"do_rescale": False, "do_normalize": False},
        "rescale-factor": {"rescale_factor": 1 / 127.5},
        "scalar-mean": {"image_mean": 0.5, "image_std": 0.25},
        "shortest": {"size": {"shortest_edge": 14}},
        "shortest-int": {"size": 14},
        "shortest-longest": {"size": {"shortest_edge": 14, "longest_edge": 23}},
        "max": {"size": {"max_height": 30, "max_width": 18}},
        "crop": {"do_center_crop": True, "crop_size": {"height": 11, "width": 13}},
        "crop-int": {"do_center_crop": True, "crop_size": 12, "size": {"shortest_edge": 15}},
        "crop-pads": {"do_center_crop": True, "crop_size": {"height": 21, "width": 15}},
        "crop-pads-both": {"do_center_crop": True, "crop_size": {"height": 31, "width": 32}},
        "two-means": {"image_mean": [0.5, 0.5]},
        "no-size": {"size": {"height": 10}},
    }
    shapes = [(37, 29), (24, 16), (5, 7), (61, 16), (24, 40), (1, 9), (30, 1), (1, 1), (9, 200)]
    pictures, cases, blob = [], [], io.BytesIO()
    for width, height in shapes:
        for kind in ("gradient", "noise"):
            data = picture(width, height, kind)
            pictures.append({"width": width, "height": height, "kind": kind, "offset": blob.tell()})
            blob.write(data.tobytes())
            pictures[-1]["data"] = data
    for name, changes in settings.items():
        config = PREPROCESSOR | changes
        for index, entry in enumerate(pictures):
            if name != "florence" and index not in (0, 5, 10, 13, 15):
                continue
            def run():
                processor = CLIPImageProcessorPil.from_dict(copy.deepcopy(config))
                return processor(Image.fromarray(entry["data"]), return_tensors="np")["pixel_values"]
            result = outcome(run)
            if "result" in result:
                values = result.pop("result")
                shape = list(values.shape)
                values = values.astype("<f4")
                result |= {"shape": shape, "offset": blob.tell(), "sha256": hashlib.sha256(values.tobytes()).hexdigest()}
                blob.write(values.tobytes())
            cases.append({"settings": name, "picture": index, **result})
    # At the real size: hashes only.
    for file, resample in [("large.jpg", 3), ("sampling-420.jpg", 3), ("one-row.png", 3), ("large.jpg", 1), ("cmyk.jpg", 2)]:
        config = PREPROCESSOR | {"size": {"height": 768, "width": 768}, "resample": resample}
        values = CLIPImageProcessorPil.from_dict(config)(load_image(str(OUT / "images" / file)), return_tensors="np")["pixel_values"]
        cases.append({"settings": {"size": config["size"], "resample": resample}, "file": file, "shape": list(values.shape),
                      "sha256": hashlib.sha256(values.astype("<f4").tobytes()).hexdigest()})
    # Shrinking a large picture: hash only, of the bytes.
    y, x = np.mgrid[0:1203, 0:1601]
    large = np.stack([(x * (3 + c) + y * (7 - c) + (x * y) // (11 + c)) % 256 for c in range(3)], -1).astype(np.uint8)
    resized = [{"filter": f, "width": w, "height": h,
                "sha256": hashlib.sha256(np.asarray(Image.fromarray(large).resize((w, h), resample=f)).tobytes()).hexdigest()}
               for f in range(6) for w, h in ((768, 768), (96, 1203), (1601, 50), (1700, 1300))]
    for entry in pictures:
        del entry["data"]
    (OUT / "pixels.json").write_text(json.dumps({"settings": settings, "base": PREPROCESSOR, "pictures": pictures,
                                                 "cases": cases, "resized": resized}, indent=0) + "\n")
    (OUT / "pixels.bin.gz").write_bytes(gzip.compress(blob.getvalue(), mtime=0))
    return len(cases)


def locs(*values):
    return "".join(f"<loc_{v}>" for v in values)


HANDMADE = [
    "", "</s>", "a caption", "<s>A green car parked.</s><pad><pad>", " spaced </s> ",
    f"</s><s>car{locs(52, 332, 932, 774)}door handle{locs(425, 504, 474, 516)}wheel{locs(708, 575, 865, 773, 147, 563, 305, 768)}</s>",
    f"car{locs(1, 2, 3)}", f"car{locs(1, 2, 3, 4, 5)}", f"{locs(1, 2, 3, 4)}", f"{locs(1, 2, 3, 4, 5, 6, 7, 8)}", f"{locs(1, 2, 3)}",
    f"a{locs(1, 2, 3, 4)}it{locs(5, 6, 7, 8)}the image{locs(1, 1, 2, 2)} a {locs(9, 9, 9, 9)}his hat{locs(9, 8, 7, 6)}",
    f"<ground>a phrase{locs(1, 2, 3, 4)}<obj>other{locs(5, 6, 7, 8)}", f"<ground>{locs(1, 2, 3, 4)}",
    f"<od>car{locs(1, 2, 3, 4)}</od>", f"car</od>x{locs(1, 2, 3, 4)}", f"<box>car{locs(1, 2, 3, 4)}</box>", f"a<b{locs(1, 2, 3, 4)}",
    f"café 🎉 日本{locs(10, 20, 30, 40)}", f"multi\nline label{locs(10, 20, 30, 40)}", f"\x1cfs\x85{locs(1, 2, 3, 4)}", f"\ufeffbom{locs(1, 2, 3, 4)}",
    f"tab\t nbsp\u00a0{locs(1, 2, 3, 4)}", f"a\rb\u2028c{locs(1, 2, 3, 4, 5, 6, 7, 8)}", f"a\nb{locs(1, 2, 3, 4, 5, 6, 7, 8)}",
    f"text one{locs(10, 10, 200, 12, 199, 50, 11, 49)}text two{locs(300, 310, 400, 310, 400, 350, 300, 350)}",
    f"text{locs(1, 2, 3, 4, 5, 6, 7)}", f"text{locs(1, 2, 3, 4, 5, 6, 7, 8, 9)}more{locs(1, 2, 3, 4, 5, 6, 7, 8)}", f"{locs(1, 2, 3, 4, 5, 6, 7, 8)}text{locs(1, 2, 3, 4, 5, 6, 7, 8)}",
    f"x</s>y<s>{locs(1, 2, 3, 4, 5, 6, 7, 8)}<pad>", f"same{locs(5, 5, 5, 5)}same{locs(5, 5, 5, 5)}",
    f"{locs(0, 0, 999, 999)}", f"edge{locs(0, 0, 999, 999)}", f"beyond{locs(1000, 1234, 5, 99999)}", f"rev{locs(900, 800, 100, 50)}", f"007{locs('007', '0', '00', '42')}",
    "car<loc_1> <loc_2><loc_3><loc_4>", "car<loc_1><loc_2><loc_><loc_4><loc_5>", "car<loc_-1><loc_2><loc_3><loc_4>", "car<loc_1.5><loc_2><loc_3><loc_4><loc_5>", "car<LOC_1><loc_2><loc_3><loc_4><loc_5>",
    "car<loc_\u0663><loc_\u0661\u0662><loc_3><loc_4>", f"big{locs('9' * 30, 1, 2, 3)}", f"left{locs(1, 2, 3, 4, '9' * 30)}", f"plain text with no locations <loc_", f"car{locs(1, 2, 3, 4)}trailing text",
    f"<poly>{locs(1, 2, 3, 4, 5, 6)}</poly>", f"mat<poly>{locs(1, 2, 3, 4, 5, 6)}</poly>", f"mat<poly>{locs(1, 2, 3, 4, 5, 6)}<sep>{locs(7, 8, 9, 10, 11, 12, 13)}</poly>", f"mat<poly>{locs(1, 2, 3)}</poly><poly>{locs(4, 5, 6, 7)}</poly>",
    f"mat<poly></poly><poly></poly>", f"mat<poly><sep></poly>{locs(1, 2, 3, 4)}", f"mat{locs(1, 2, 3, 4)}<sep>{locs(5, 6, 7, 8)}", f"{locs(1, 2, 3, 4)}<sep>{locs(5, 6, 7, 8, 9)}", f"{locs(1, 2, 3, 4, 5, 6, 7)}",
    f"{locs(1, 2, 3, 4)}\n", f"mat{locs(1, 2, 3, 4)}\n{locs(5, 6, 7, 8)}", f"mat<poly>{locs(1, 2, 3, 4)}", f"mat{locs(1, 2, 3, 4)}</poly>", f"a<poly>{locs(1, 2, 3, 4)}</poly>b<poly>{locs(5, 6, 7, 8)}</poly>", f"<sep><sep><sep><sep>", "<poly><poly><poly><poly>", "</poly></poly></poly></poly>",
    f"car{locs(1, 2, 3, 4)}mat<poly>{locs(1, 2, 3, 4, 5, 6)}</poly>", f"<loc_5>mat<poly>{locs(1, 2, 3, 4)}</poly>", f"a<and>b{locs(1, 2, 3, 4)}", f"<region_cap>a{locs(1, 2, 3, 4)}</region_cap>", f"{locs(1)}" * 12,
]


def random_text():
    pieces = [lambda: dice.choice(["car", "a dog", " ", "it", "the image", "\n", "é", "🎉", "<", ">", "x y", "  z", ".", "\t"]),
              lambda: locs(*(dice.randrange(1000) for _ in range(dice.choice([1, 2, 3, 4, 4, 4, 6, 7, 8, 8, 9])))),
              lambda: dice.choice(["<sep>", "<poly>", "</poly>", "<poly>", "</poly>", "</s>", "<s>", "<pad>", "<od>", "</od>", "<ground>", "<obj>", "<box>", "</bbox>", "<and>", "<loc_>", "<loc_12", "<loc_1200>"])]
    return "".join(dice.choices(pieces, [4, 5, 2])[0]() for _ in range(dice.randrange(1, 14)))


def record_post_processing(processor):
    tasks = list(processor.tasks_answer_post_processing_type)
    representative = ["<OCR_WITH_REGION>", "<OD>", "<CAPTION_TO_PHRASE_GROUNDING>", "<REGION_TO_SEGMENTATION>", "<OPEN_VOCABULARY_DETECTION>", "<REGION_PROPOSAL>"]
    sizes = [(640, 480), (1000, 1000), (333, 251), (1, 1), (4032, 3024)]
    cases = []
    for index, text in enumerate(HANDMADE):
        size = sizes[index % len(sizes)]
        cases.append({"text": text, "size": size, "tasks": {task: outcome(lambda: processor.post_process_generation(text, task=task, image_size=size)[task]) for task in [*tasks, "<OTHER>"]}})
    for _ in range(400):
        text, size = random_text(), dice.choice(sizes)
        cases.append({"text": text, "size": size, "tasks": {task: outcome(lambda: processor.post_process_generation(text, task=task, image_size=size)[task]) for task in representative}})
    areas, configured = [], {"ocr": {"PATTERN": r"(?P<label>\w+)\s*<loc_(\d+)><loc_(\d+)><loc_(\d+)><loc_(\d+)><loc_(\d+)><loc_(\d+)><loc_(\d+)><loc_(\d+)>", "AREA_THRESHOLD": 0.004}}
    custom = Florence2PostProcessor(configured, processor.tokenizer)
    for text in [t for t in HANDMADE if locs(1)[:5] in t]:
        areas.append({"text": text, "size": (640, 480), **outcome(lambda: custom(text=text, image_size=(640, 480), parse_tasks="ocr")["ocr"])})
    sequences = []
    tokenizer = processor.tokenizer
    for text in ["<s>a green car</s>", f"</s><s>car{locs(52, 332, 932, 774)}door handle{locs(425, 504, 474, 516)}</s>", "café 日本語 🎉", "<pad><pad>", f"dog<poly>{locs(1, 2, 3, 4)}</poly>", "<mask> x"]:
        ids = tokenizer.encode(text, add_special_tokens=False)
        for task in ("<CAPTION>", "<OD>", "<OPEN_VOCABULARY_DETECTION>"):
            sequences.append({"sequence": ids, "task": task, "size": (640, 480), **outcome(lambda: processor.post_process_generation(sequence=ids, task=task, image_size=(640, 480))[task])})
    quantized = []
    for size in sizes:
        for dims in (2, 4):
            values = (rng.random((12, dims)) * np.array([size[0], size[1]] * (dims // 2)) * 1.1 - 0.03 * size[0]).round(3)
            values[0] = 0
            values[1] = np.array([size[0], size[1]] * (dims // 2))
            bins = processor.post_processor.quantize(torch.tensor(values.tolist()), size)
            quantized.append({"size": size, "values": values.tolist(), "quantized": bins.tolist(),
                              "dequantized": processor.post_processor.dequantize(bins, size).tolist()})
    document = {"cases": cases, "areas": {"config": configured, "cases": areas}, "sequences": sequences, "quantized": quantized}
    (OUT / "post-processing.json.gz").write_bytes(gzip.compress(json.dumps(document).encode(), mtime=0))
    return len(cases)


def main():
    for name in ("current", "original"):
        shutil.rmtree(OUT / name, ignore_errors=True)
    base = base_tokenizer()
    original = OUT / "original"
    base.save_pretrained(original)
    vocabulary = len(base)
    (original / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR | {"auto_map": {"AutoProcessor": "processing_florence2.Florence2Processor"}}, indent=1) + "\n")
    image_processor = CLIPImageProcessorPil.from_dict(copy.deepcopy(PREPROCESSOR))
    made = Florence2Processor(image_processor=image_processor, tokenizer=florence_tokenizer(base), post_processor_config=POST_PROCESSOR)
    made.save_pretrained(OUT / "current")
    # Compact: the added tokens are many.
    path = OUT / "current" / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()), ensure_ascii=False) + "\n")
    processor = Florence2Processor.from_pretrained(OUT / "current")
    assert processor.image_token_id == vocabulary + 1024, (processor.image_token_id, vocabulary)
    counts = {"prompts": record_prompts(processor), "pixels": record_pixels(), "postProcessing": record_post_processing(processor)}
    manifest = {"script": "scripts/record_processor.py", "seed": SEED, "counts": counts,
                "versions": {"python": sys.version.split()[0], "transformers": transformers.__version__, "tokenizers": tokenizers.__version__,
                             "pillow": PIL.__version__, "numpy": np.__version__, "torch": torch.__version__}}
    (OUT / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main()
