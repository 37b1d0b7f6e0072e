"""Records what PEFT does with layers that decoders do not have: scaled and positional embeddings, norms, convolutions.

    python scripts/record_adapter_layers.py --out test/vectors/adapters/layers [--seed N]

Each case becomes a folder: adapter/ as PEFT saves it, with values that differ from the base model's, and
expected.safetensors with `output`, grad.<key> for everything that is trained and, for convolutions, `images` and the
base model's tensors as base.<path>. cases.json has

    bart         cases on the models of test/vectors/seq2seq: settings, loss and keys for the recorded batch
    convolution  cases on a chain of convolutions, each followed by tanh, then the mean over each image, LayerNorm and
                 Linear: the layers, the rows that a skeleton has of them, settings, output, gradients of Σ output², keys
    refused      what PEFT cannot adapt: stage ("inject" or "forward"), type and message of its error
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

from make_skeletons import describe
from record_adapters import printed
from record_models import peft, save_adapter, trainable, transformers
from record_seq2seq import LoraConfig, PeftModel, get_peft_model, load_base, load_file, outputs_of, save_file, torch

MODELS = Path(__file__).parent.parent / "test/vectors/seq2seq"

BART: dict[str, tuple[str, dict[str, Any]]] = {
    "scaled-embedding": ("bart-untied-relu-scaled", {"r": 3, "lora_alpha": 4, "target_modules": ["embed_tokens", "fc1"]}),
    "scaled-embedding-tied-head": (
        "bart-cross-attention",
        {"r": 2, "target_modules": ["embed_tokens", "lm_head", "q_proj"], "use_rslora": True},
    ),
    # the model hands out `shared` as its embedding and never calls it
    "scaled-embedding-unused": ("bart-cross-attention", {"r": 2, "target_modules": ["shared", "decoder.embed_tokens"]}),
    "positions-and-norms-saved": (
        "bart-tied-gelu",
        {"r": 2, "target_modules": ["q_proj"], "modules_to_save": ["embed_positions", "layernorm_embedding", "fc2"]},
    ),
    "every-bias-and-norms-saved": (
        "bart-tied-gelu",
        {"r": 2, "target_modules": ["q_proj"], "bias": "all", "modules_to_save": ["final_layer_norm", "embed_positions"]},
    ),
    "scaled-embedding-saved": (
        "bart-untied-relu-scaled",
        {"r": 2, "target_modules": ["out_proj"], "bias": "lora_only", "modules_to_save": ["decoder.embed_tokens"]},
    ),
}

Layers = list[dict[str, Any]]


def layer(inputs: int, outputs: int, kernel: Any, **options: Any) -> dict[str, Any]:
    return {"in": inputs, "out": outputs, "kernel_size": kernel, **options}


#: strides that leave a remainder, padding, groups, sides that differ, and a dilation that the strides round away
CHAIN: Layers = [
    layer(3, 8, 3, stride=2, padding=1),
    layer(8, 8, [3, 5], padding=[1, 2], groups=4, bias=False),
    layer(8, 6, 3, stride=4, padding=1, dilation=2),
    layer(6, 6, 1),
]
#: the base layer's image is 1 × 2, the adapter's 3 × 2
REPEATED: Layers = [layer(3, 4, 3, stride=2), layer(4, 6, [3, 1], dilation=[2, 3], groups=2)]
DILATED: Layers = [layer(3, 8, 3, dilation=2)]

CONVOLUTION: dict[str, tuple[Layers, tuple[int, int], dict[str, Any]]] = {
    "every-convolution": (CHAIN, (15, 14), {"r": 4, "lora_alpha": 6, "target_modules": r"layers\.\d|head"}),
    "ranks-and-biases": (
        CHAIN,
        (15, 14),
        {
            "r": 8,
            "lora_alpha": 3,
            "use_rslora": True,
            "rank_pattern": {"layers.0": 2, "layers.3": 5},
            "target_modules": ["layers.0", "layers.1", "layers.3"],
            "bias": "lora_only",
            "modules_to_save": ["layers.2", "norm"],
        },
    ),
    "every-bias-and-convolution-saved": (
        CHAIN,
        (9, 16),
        {"r": 2, "target_modules": ["layers.3"], "bias": "all", "modules_to_save": ["layers.0", "layers.1"]},
    ),
    "repeated-image": (REPEATED, (11, 5), {"r": 2, "target_modules": ["layers.1"]}),
}


class Chain(torch.nn.Module):
    def __init__(self, layers: Layers) -> None:
        super().__init__()
        sizes = [{key: tuple(v) if isinstance(v, list) else v for key, v in options.items()} for options in layers]
        self.layers = torch.nn.ModuleList(
            torch.nn.Conv2d(options["in"], options["out"], **{k: v for k, v in options.items() if k not in ("in", "out")})
            for options in sizes
        )
        self.norm = torch.nn.LayerNorm(layers[-1]["out"])
        self.head = torch.nn.Linear(layers[-1]["out"], 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        for convolution in self.layers:
            images = torch.tanh(convolution(images))
        return self.head(self.norm(images.mean((2, 3))))


def disturb(model: torch.nn.Module, generator: torch.Generator, by: float = 0.1) -> None:
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += by * torch.randn(parameter.shape, generator=generator)


def gradients(model: PeftModel, scores: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    scores.backward()
    parameters = trainable(model).items()
    return {f"grad.{key}": torch.zeros_like(p) if p.grad is None else p.grad.clone() for key, p in parameters}


def write(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, folder / "expected.safetensors")


def keys(model: PeftModel, folder: Path) -> dict[str, Any]:
    return {
        "trainableKeys": list(trainable(model)),
        "adapterKeys": sorted(load_file(folder / "adapter" / "adapter_model.safetensors")),
    }


def record_bart(name: str, base: str, settings: dict[str, Any], out: Path, generator: torch.Generator) -> dict[str, Any]:
    model = get_peft_model(load_base(MODELS / base / "model"), LoraConfig(**settings))
    case = {"name": name, "base": base, "settings": settings, "printed": printed(model)}
    disturb(model, generator)
    folder = out / name
    save_adapter(model, folder / "adapter")
    loaded = PeftModel.from_pretrained(load_base(MODELS / base / "model"), folder / "adapter", is_trainable=True)
    recorded = json.loads((MODELS / base / "expected.json").read_text())
    batch = {key: torch.tensor(value) for key, value in recorded["batch"].items()}
    # PyTorch's embeddings give the padding token no gradient; here it is only where nothing depends on it
    inputs = batch.setdefault("decoder_input_ids", torch.tensor(recorded["shiftedLabels"]))
    inputs[inputs == loaded.config.pad_token_id] = 7
    case["decoderInputIds"] = inputs.tolist()
    write(folder, {"output": outputs_of(loaded, batch).logits, **gradients(loaded, loss := loaded(**batch).loss)})
    return {**case, "loss": loss.item(), **keys(loaded, folder)}


def record_convolution(
    name: str, layers: Layers, size: tuple[int, int], settings: dict[str, Any], out: Path, generator: torch.Generator
) -> dict[str, Any]:
    base = Chain(layers).eval()
    disturb(base, generator, 0.3)
    stored = {path: parameter.detach().clone() for path, parameter in base.named_parameters()}
    rows = []
    for path, module in base.named_modules():
        kind, inputs, outputs, extra = describe(module)
        own = [[own, list(parameter.shape)] for own, parameter in module.named_parameters(recurse=False)]
        rows.append([path, type(module).__name__, kind, inputs, outputs, own, *([extra] if extra else [])])
    # a task type keeps the name of the class above out of adapter_config.json
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = get_peft_model(base, LoraConfig(task_type="FEATURE_EXTRACTION", **settings))
    case = {"name": name, "layers": layers, "rows": rows, "settings": settings, "printed": printed(model)}
    case["warnings"] = sorted({str(warning.message) for warning in caught if "LoRA" in str(warning.message)})
    disturb(model, generator)
    folder = out / name
    save_adapter(model, folder / "adapter")
    bare = Chain(layers).eval()
    bare.load_state_dict(stored)
    loaded = PeftModel.from_pretrained(bare, folder / "adapter", is_trainable=True).eval()
    images = torch.randn(2, 3, *size, generator=generator)
    scores = loaded.base_model.model(images)
    tensors = {"images": images, "output": scores, **gradients(loaded, (scores**2).sum())}
    for key, tensor in tensors.items():
        assert tensor.norm() > 1e-5, f"{name}: {key} is nothing"
    write(folder, {**tensors, **{f"base.{path}": parameter for path, parameter in stored.items()}})
    return {**case, **keys(loaded, folder)}


def refusal(attempt: Any) -> dict[str, str]:
    stage = "inject"
    try:
        for stage, step in attempt:
            step()
    except Exception as error:  # noqa: BLE001
        return {"stage": stage, "type": type(error).__name__, "message": str(error)}
    raise SystemExit(f"PEFT does not refuse what it should at {stage}")


def refuse_bart(target: str) -> dict[str, Any]:
    folder = MODELS / "bart-tied-gelu"
    recorded = json.loads((folder / "expected.json").read_text())["batch"]
    model: list[PeftModel] = []
    steps = [
        ("inject", lambda: model.append(get_peft_model(load_base(folder / "model"), LoraConfig(r=2, target_modules=[target])))),
        ("forward", lambda: model[0](**{key: torch.tensor(value) for key, value in recorded.items()})),
    ]
    return {"base": "bart-tied-gelu", "settings": {"r": 2, "target_modules": [target]}, **refusal(steps)}


def refuse_convolution(layers: Layers, size: tuple[int, int], settings: dict[str, Any]) -> dict[str, Any]:
    model: list[PeftModel] = []
    steps = [
        ("inject", lambda: model.append(get_peft_model(Chain(layers), LoraConfig(**settings)))),
        ("forward", lambda: model[0].base_model.model(torch.zeros(2, 3, *size))),
    ]
    return {"layers": layers, "size": size, "settings": settings, **refusal(steps)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=20)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    shutil.rmtree(options.out, ignore_errors=True)
    options.out.mkdir(parents=True)
    torch.manual_seed(options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    cases = {
        "bart": [record_bart(name, *case, options.out, generator) for name, case in BART.items()],
        "convolution": [record_convolution(name, *case, options.out, generator) for name, case in CONVOLUTION.items()],
        "refused": [
            refuse_bart("encoder.embed_positions"),
            refuse_bart("decoder.embed_positions"),
            refuse_bart("layernorm_embedding"),
            refuse_convolution(CHAIN, (15, 14), {"r": 3, "target_modules": ["layers.1"]}),
            refuse_convolution(CHAIN, (15, 14), {"r": 4, "target_modules": ["norm"]}),
            refuse_convolution(DILATED, (12, 9), {"r": 4, "target_modules": ["layers.0"]}),
        ],
    }
    (options.out / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__}
    manifest = {
        "script": "scripts/record_adapter_layers.py",
        "seed": options.seed,
        "versions": {"python": sys.version.split()[0], **versions},
        "cases": [*BART, *CONVOLUTION],
    }
    (options.out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
