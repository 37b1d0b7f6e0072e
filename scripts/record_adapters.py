"""Records what PEFT does with modules trained as a whole, and what it prints.

    python scripts/record_adapters.py --out test/vectors/adapters [--seed N]

The base models are those of test/vectors/models. Each case becomes a folder:

    adapter/               as PEFT saves it, with values that differ from the base model's
    expected.safetensors   grad.<key> for everything that is trained
cases.json has, per case, the base model, the settings, the loss on the base model's recorded batch, the trained and
the saved keys, and the line of print_trainable_parameters; `conflict`, where one weight is saved several times: values
given to each copy in the file, and what is in the model after loading it. manifest.json has script, versions and seed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import shutil
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from record_models import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    gradients,
    load_base,
    load_file,
    peft,
    save_adapter,
    save_file,
    torch,
    trainable,
    transformers,
)

MODELS = Path(__file__).parent.parent / "test/vectors/models"

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "head-and-embedding": ("llama-qv", {"r": 2, "modules_to_save": ["lm_head", "embed_tokens"]}),
    "norms": ("qwen3-head-dim", {"r": 2, "modules_to_save": ["input_layernorm", "model.norm", "q_norm"]}),
    "tied-head": ("llama-tied-llama3-rope", {"r": 2, "modules_to_save": ["lm_head"]}),
    "tied-embedding": ("llama-tied-llama3-rope", {"r": 2, "modules_to_save": ["embed_tokens"]}),
    "linear-with-bias": ("llama-biases-linear-rope", {"r": 2, "bias": "lora_only", "modules_to_save": ["o_proj"]}),
    "saved-and-targeted": ("llama-qv", {"r": 3, "target_modules": ["v_proj", "lm_head"], "modules_to_save": ["lm_head"]}),
    "every-bias": ("qwen2-tied", {"r": 8, "target_modules": ["q_proj"], "bias": "all", "use_rslora": True}),
    "inference": ("llama-qv", {"r": 4, "inference_mode": True}),
    # adapters on a head that shares its weight, whose base weights are saved along because the settings name it
    "tied-lora-head": ("qwen2-tied", {"r": 2, "target_modules": ["q_proj", "lm_head"]}),
    "tied-lora-head-regex": ("llama-tied-llama3-rope", {"r": 2, "target_modules": r".*\.1\..*v_proj|lm_head"}),
    "tied-lora-embedding-regex": ("llama-tied-llama3-rope", {"r": 2, "target_modules": r".*(q_proj|embed_tokens)"}),
    "tied-lora-both": ("qwen2-tied", {"r": 2, "target_modules": ["embed_tokens", "lm_head", "v_proj"]}),
    "tied-lora-both-regex": ("qwen2-tied", {"r": 3, "target_modules": r".*\.0\..*v_proj|model.embed_tokens|lm_head"}),
    "tied-lora-full-names": ("qwen2-tied", {"r": 2, "target_modules": ["model.embed_tokens", "lm_head"]}),
    "tied-lora-head-saved-embedding": (
        "qwen2-tied",
        {"r": 2, "target_modules": ["lm_head", "q_proj"], "modules_to_save": ["embed_tokens"]},
    ),
    "tied-lora-embedding-saved-head": (
        "qwen2-tied",
        {"r": 2, "target_modules": ["embed_tokens", "q_proj"], "modules_to_save": ["lm_head"]},
    ),
    # PEFT saves the biases of a module that is trained as a whole three times
    "every-bias-and-saved": (
        "llama-biases-linear-rope",
        {"r": 2, "target_modules": ["q_proj"], "bias": "all", "modules_to_save": ["o_proj"]},
    ),
    # the padding token inside of the text: its row of an embedding, and its column of LoRA's A, get no gradient
    "padding-in-text-lora": ("llama-embedding-lora", {"r": 2, "target_modules": ["embed_tokens", "q_proj"]}),
    "padding-in-text-saved": ("qwen3-head-dim", {"r": 2, "modules_to_save": ["embed_tokens"]}),
}


def printed(model: PeftModel) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        model.print_trainable_parameters()
    return out.getvalue().rstrip("\n")


def record(name: str, base: str, settings: dict[str, Any], out: Path, generator: torch.Generator) -> dict[str, Any]:
    settings = {"target_modules": ["q_proj", "v_proj"], **settings}
    model_dir = MODELS / base / "model"
    model = get_peft_model(load_base(model_dir), LoraConfig(task_type="CAUSAL_LM", **settings))
    case = {"name": name, "base": base, "settings": settings, "printed": printed(model)}
    if settings.get("inference_mode"):
        return case
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    save_adapter(model, folder / "adapter")
    loaded = PeftModel.from_pretrained(load_base(model_dir), folder / "adapter", is_trainable=True)
    expected = json.loads((MODELS / base / "expected.json").read_text())
    if name.startswith("padding-in-text"):
        padding = json.loads((model_dir / "config.json").read_text())["pad_token_id"]
        real = [list(map(bool, row)) for row in expected["batch"]["attention_mask"]]
        rows = expected["batch"]["input_ids"]
        rows = [[padding if on and j % 3 == 1 else t for j, (t, on) in enumerate(zip(*p))] for p in zip(rows, real)]
        expected["batch"]["input_ids"] = rows
        case["batch"] = expected["batch"]
    batch = {key: torch.tensor(value) for key, value in expected["batch"].items()}
    loss, grads = gradients(loaded, batch)
    for key, grad in grads.items():
        if not grad.norm().item() > 1e-5:
            raise SystemExit(f"{name}: gradient of {key} is {grad.norm():.1e}")
    save_file({f"grad.{key}": grad.contiguous() for key, grad in grads.items()}, folder / "expected.safetensors")
    saved = load_file(folder / "adapter" / "adapter_model.safetensors")
    return {**case, "loss": loss, "trainableKeys": list(trainable(loaded)), "adapterKeys": sorted(saved)}


def conflict(case: dict[str, Any], out: Path) -> dict[str, Any]:
    """Which of several saved copies of one weight counts: each gets values of its own, and the adapter is loaded."""
    folder = out / case["name"] / "adapter"
    stored = load_file(folder / "adapter_model.safetensors")
    copies = [key for key in sorted(stored) if "base_layer.weight" in key or "original_module.bias" in key]
    copies += [key for key in sorted(stored) if "modules_to_save" in key or key.endswith("o_proj.bias")]
    given = {key: 2.0 + i for i, key in enumerate(copies)}
    edited = {key: torch.full_like(value, given[key]) if key in given else value for key, value in stored.items()}
    with tempfile.TemporaryDirectory() as directory:
        shutil.copytree(folder, directory, dirs_exist_ok=True)
        save_file(edited, Path(directory) / "adapter_model.safetensors", {"format": "pt"})
        loaded = PeftModel.from_pretrained(load_base(MODELS / case["base"] / "model"), directory)
    values = {}
    for name, value in loaded.state_dict().items():
        key = name.replace(".modules_to_save.default", "").replace(".default", "")
        if key in given:
            assert value.min() == value.max(), name
            values[key] = value.flatten()[0].item()
    return {"given": given, "loaded": values}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=20)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    options.out.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(options.seed)
    torch.manual_seed(options.seed)
    cases = [record(name, base, settings, options.out, generator) for name, (base, settings) in CASES.items()]
    for case in cases:
        if case["name"] in ("tied-lora-both", "every-bias-and-saved"):
            case["conflict"] = conflict(case, options.out)
    (options.out / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")
    manifest = {
        "script": "scripts/record_adapters.py",
        "seed": options.seed,
        "versions": {
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "peft": peft.__version__,
        },
        "cases": list(CASES),
    }
    (options.out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
