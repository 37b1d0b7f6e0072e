"""Records what transformers and PEFT compute on tiny random encoder–decoders.

    python scripts/record_seq2seq.py --out test/vectors/seq2seq [--only NAME] [--seed N]
    python scripts/record_seq2seq.py --out FOLDER --random COUNT [--seed N]

Each case becomes a folder as `record_models.py` makes it: model/, adapter/, tokens.jsonl, expected.json and
expected.safetensors (encoder, logits_base, logits, logits_after, grad.<key>, after.<key>). Everything is computed in
float32 on one thread with the default attention of transformers (sdpa), with dropout 0. A case that shows nothing
(padding or a setting without effect, a gradient of zero) or hangs on rounding is refused.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import sys
import warnings
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from record_models import (
    BATCH_SIZE,
    IGNORED,
    CaseError,
    compact,
    folder_bytes,
    lora_targets,
    ordered_batches,
    random_tokens,
    randomize,
    require,
    save_adapter,
    trainable,
    write_manifest,
)

OPTIONS = {"batchSize": BATCH_SIZE, "maxSteps": 10, "learningRate": 1e-3, "weightDecay": 0.01}


@dataclass
class Case:
    """One checkpoint, one adapter, one set of expectations."""

    name: str
    description: str
    config: dict[str, Any]
    lora: dict[str, Any]
    model_type: str = "bart"
    #: dtype of the stored checkpoint; everything is computed in float32
    storage: str = "float32"
    source_side: str = "right"
    #: the fixed batch says what the decoder reads, with a mask, instead of leaving it to the labels
    own_decoder_inputs: bool = False
    #: give `final_logits_bias`, which is zero in a new model, values
    logits_bias: bool = False
    #: (source, target) lengths of each line of tokens.jsonl
    lengths: list[tuple[int, int]] = field(
        default_factory=lambda: [(9, 6), (12, 8), (5, 10), (11, 4), (8, 7), (13, 9), (6, 5)]
    )
    #: (source, target) lengths of each row of the fixed batch, before padding
    batch_lengths: list[tuple[int, int]] = field(default_factory=lambda: [(13, 7), (8, 10), (10, 5)])


def shape(**changes: Any) -> dict[str, Any]:
    base = {
        "vocab_size": 88,
        "d_model": 32,
        "max_position_embeddings": 24,
        "encoder_layers": 2,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 40,
        "decoder_layers": 2,
        "decoder_attention_heads": 4,
        "decoder_ffn_dim": 40,
        "init_std": 0.2,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "activation_function": "gelu",
        "scale_embedding": False,
        "tie_word_embeddings": True,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
    }
    return {**base, **changes}


EVERY_LAYER = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]

CASES = [
    Case(
        "bart-tied-gelu",
        "as bart-base is published, smaller; queries and values of every attention",
        shape(),
        {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
    ),
    Case(
        "bart-untied-relu-scaled",
        "one layer on three, other heads and widths on either side, scaled and untied embeddings, ReLU; every layer",
        shape(
            encoder_layers=1,
            decoder_layers=3,
            encoder_attention_heads=2,
            decoder_attention_heads=8,
            encoder_ffn_dim=56,
            decoder_ffn_dim=24,
            activation_function="relu",
            scale_embedding=True,
            tie_word_embeddings=False,
            init_std=0.15,
            decoder_start_token_id=0,
        ),
        {"r": 2, "lora_alpha": 6, "target_modules": EVERY_LAYER},
    ),
    Case(
        "bart-cross-attention",
        "three layers on one, scaled, tanh GELU, a bias of the logits; cross-attention and the last encoder layer; "
        "decoder inputs and their mask given",
        shape(
            encoder_layers=3,
            decoder_layers=1,
            activation_function="gelu_new",
            scale_embedding=True,
            init_std=0.1,
        ),
        {
            "r": 4,
            "lora_alpha": 4,
            "use_rslora": True,
            "target_modules": r".*\.encoder_attn\.(k_proj|v_proj|q_proj|out_proj)|.*encoder\.layers\.2\.(self_attn\.v_proj|fc[12])",
        },
        logits_bias=True,
        own_decoder_inputs=True,
    ),
    Case(
        "bart-last-decoder-layer",
        "stored as BF16, source padded on the left; the last decoder layer with its biases",
        shape(encoder_layers=1, decoder_layers=2, d_model=24, encoder_ffn_dim=32, activation_function="silu"),
        {
            "r": 3,
            "lora_alpha": 6,
            # not the keys: a bias of theirs shifts all scores of a query alike, so its gradient is zero
            "target_modules": ["q_proj", "v_proj", "out_proj", "fc1", "fc2"],
            "layers_to_transform": [1],
            "layers_pattern": "layers",
            "bias": "lora_only",
        },
        storage="bfloat16",
        source_side="left",
    ),
    Case(
        "bart-norms-and-head",
        "untied; the head, and every final norm as a whole",
        shape(encoder_layers=1, decoder_layers=1, tie_word_embeddings=False, d_model=16, vocab_size=72),
        {
            "r": 2,
            "lora_alpha": 4,
            "target_modules": ["lm_head", "fc1"],
            "modules_to_save": ["final_layer_norm", "layernorm_embedding"],
        },
        logits_bias=True,
    ),
]


def random_case(seed: int, index: int) -> Case:
    """A case whose every choice follows from seed and index."""
    rng = random.Random(seed * 1000 + index)
    targets: Any = rng.choice(
        [
            ["q_proj", "v_proj"],
            EVERY_LAYER,
            r".*\.encoder_attn\.(q_proj|v_proj|out_proj)|.*encoder\.layers\.0\.fc[12]",
            r".*decoder\.layers\.0\..*(v_proj|fc1)",
        ]
    )
    return Case(
        f"random-bart-{seed}-{index}",
        "random",
        shape(
            vocab_size=rng.randint(40, 90),
            d_model=rng.choice([16, 24, 32]),
            encoder_layers=rng.randint(1, 3),
            decoder_layers=rng.randint(1, 3),
            encoder_attention_heads=rng.choice([1, 2, 4]),
            decoder_attention_heads=rng.choice([1, 2, 4]),
            encoder_ffn_dim=rng.randint(16, 48),
            decoder_ffn_dim=rng.randint(16, 48),
            activation_function=rng.choice(["gelu", "gelu", "relu", "gelu_new", "silu"]),
            scale_embedding=rng.random() < 0.5,
            tie_word_embeddings=rng.random() < 0.6,
            init_std=rng.choice([0.1, 0.15]),
            decoder_start_token_id=rng.choice([0, 2]),
        ),
        {"r": rng.randint(1, 5), "lora_alpha": rng.randint(1, 10), "target_modules": targets},
        storage=rng.choice(["float32", "bfloat16", "float16"]),
        source_side=rng.choice(["left", "right"]),
        own_decoder_inputs=rng.random() < 0.4,
    )



def make_checkpoint(case: Case, directory: Path, generator: torch.Generator) -> None:
    config = AutoConfig.for_model(case.model_type, **case.config)
    model = AutoModelForSeq2SeqLM.from_config(config, dtype=torch.float32)
    randomize(model, generator)
    if case.logits_bias:
        model.final_logits_bias.copy_(0.5 * torch.randn(model.final_logits_bias.shape, generator=generator))
    model.to(getattr(torch, case.storage))
    model.save_pretrained(directory)


def load_base(directory: Path, **changes: Any) -> Any:
    config = AutoConfig.from_pretrained(directory)
    for name, value in changes.items():
        setattr(config, name, value)
    return AutoModelForSeq2SeqLM.from_pretrained(directory, config=config, dtype=torch.float32).eval()


def load_adapted(model_dir: Path, adapter_dir: Path, **changes: Any) -> PeftModel:
    return PeftModel.from_pretrained(load_base(model_dir, **changes), adapter_dir, is_trainable=True)


def make_adapter(case: Case, model_dir: Path, directory: Path, generator: torch.Generator) -> None:
    model = get_peft_model(load_base(model_dir), LoraConfig(**case.lora))
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        noise = torch.randn(parameter.shape, generator=generator)
        if "lora_B" in name:
            parameter.data = 0.2 * noise
        elif "lora_" in name:
            parameter.data = noise / math.sqrt(parameter.shape[-1])
        else:
            parameter.data += 0.1 * noise
    save_adapter(model, directory)


def make_example(index: int, lengths: tuple[int, int], vocab_size: int, generator: torch.Generator) -> dict[str, Any]:
    """Labels in one of three manners: everything, a gap inside, without the beginning."""
    source, target = lengths
    labels = random_tokens(target - 1, vocab_size, generator) + [2]
    if index % 3 == 1:
        labels[target // 2] = IGNORED
    elif index % 3 == 2:
        labels[:2] = [IGNORED] * 2
    return {"input_ids": [0, *random_tokens(source - 2, vocab_size, generator), 2], "labels": labels}


def padded(rows: list[list[int]], filler: int, side: str = "right") -> torch.Tensor:
    width = max(map(len, rows))
    filling = [[filler] * (width - len(row)) for row in rows]
    return torch.tensor([row + fill if side == "right" else fill + row for row, fill in zip(rows, filling)])


def collate(examples: list[dict[str, Any]], pad: int, side: str) -> dict[str, torch.Tensor]:
    sources = [example["input_ids"] for example in examples]
    return {
        "input_ids": padded(sources, pad, side),
        "attention_mask": padded([[1] * len(source) for source in sources], 0, side),
        "labels": padded([example["labels"] for example in examples], IGNORED),
    }


def add_decoder_inputs(batch: dict[str, torch.Tensor], vocab_size: int, generator: torch.Generator) -> None:
    """Other tokens than the labels' before it, and a mask that hides two of the first from what follows."""
    size = batch["labels"].shape
    batch["decoder_input_ids"] = torch.randint(3, vocab_size, size, generator=generator)
    batch["decoder_attention_mask"] = torch.ones(size, dtype=torch.int64)
    batch["decoder_attention_mask"][0, 1:3] = 0


@torch.no_grad()
def outputs_of(model: Any, batch: dict[str, torch.Tensor]) -> Any:
    return model.eval()(**batch)


def gradients(model: PeftModel, batch: dict[str, torch.Tensor]) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return loss.item(), {key: parameter.grad.clone() for key, parameter in trainable(model).items()}


def train(model: PeftModel, examples: list[Any], pad: int, side: str) -> list[dict[str, Any]]:
    model.train()
    parameters = list(trainable(model).values())
    optimizer = torch.optim.AdamW(
        parameters, lr=OPTIONS["learningRate"], betas=(0.9, 0.999), eps=1e-8, weight_decay=OPTIONS["weightDecay"]
    )
    epoch = ordered_batches(examples, OPTIONS["batchSize"])
    steps = []
    for step in range(OPTIONS["maxSteps"]):
        lines = epoch[step % len(epoch)]
        optimizer.zero_grad()
        loss = model(**collate([examples[line] for line in lines], pad, side)).loss
        loss.backward()
        optimizer.step()
        if not math.isfinite(loss.item()):
            raise CaseError(f"step {step}: loss {loss.item()}")
        steps.append({"step": step + 1, "lines": lines, "loss": loss.item()})
    model.eval()
    return steps


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a - b).abs().max().item()


def check_effects(case: Case, model_dir: Path, batch: dict[str, torch.Tensor], base: torch.Tensor) -> None:
    """Refuses a case in which padding, a mask or a setting changes nothing."""

    def effect(name: str, logits: torch.Tensor) -> None:
        require(difference(logits, base) > 1e-3, f"{name} changes nothing")

    blind = {**batch, "attention_mask": torch.ones_like(batch["attention_mask"])}
    effect("the source's padding", outputs_of(load_base(model_dir), blind).logits)
    if case.own_decoder_inputs:
        seen = {**batch, "decoder_attention_mask": torch.ones_like(batch["decoder_attention_mask"])}
        effect("the decoder's mask", outputs_of(load_base(model_dir), seen).logits)
    other = not case.config["scale_embedding"]
    effect("scale_embedding", outputs_of(load_base(model_dir, scale_embedding=other), batch).logits)
    if case.logits_bias:
        model = load_base(model_dir)
        model.final_logits_bias.zero_()
        effect("final_logits_bias", outputs_of(model, batch).logits)


def check_noise(
    model_dir: Path,
    adapter_dir: Path,
    batch: dict[str, torch.Tensor],
    examples: list[Any],
    case: Case,
    expected: dict[str, Any],
    tensors: dict[str, torch.Tensor],
) -> dict[str, float]:
    """The same with another attention kernel: what rounding alone does to each number."""

    def load() -> PeftModel:
        return load_adapted(model_dir, adapter_dir, _attn_implementation="eager")

    logits = difference(outputs_of(load(), batch).logits, tensors["logits"])
    _, grads = gradients(load(), batch)
    relative = max(
        ((grad - tensors[f"grad.{key}"]).norm() / tensors[f"grad.{key}"].norm()).item() for key, grad in grads.items()
    )
    model = load()
    steps = train(model, examples, case.config["pad_token_id"], case.source_side)
    losses = max(abs(a["loss"] / b["loss"] - 1) for a, b in zip(steps, expected["training"]["steps"]))
    after = max(difference(parameter, tensors[f"after.{key}"]) for key, parameter in trainable(model).items())
    noise = {"logits": logits, "gradients": relative, "losses": losses, "after": after}
    bound = 2e-5
    if case.name.startswith("random"):
        # AdamW makes whole steps of gradients next to nothing: a random case is not to hang on one
        bound = 3e-6
        least = min((grad[grad != 0].abs().min() / grad.abs().max()).item() for grad in grads.values())
        require(least > 5e-6, f"a gradient is {least:.0e} of its tensor's largest")
    require(logits < 3e-5 and relative < 3e-5 and losses < 3e-6 and after < bound, f"too sensitive to rounding: {noise}")
    return noise


def record(case: Case, directory: Path, seed: int) -> dict[str, Any]:
    """Writes the folder of one case and returns its expected.json. The result depends on case and seed alone."""
    case_seed = (seed * 1_000_003 + zlib.crc32(case.name.encode())) % 2**31
    torch.manual_seed(case_seed)
    generator = torch.Generator().manual_seed(case_seed)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    model_dir, adapter_dir = directory / "model", directory / "adapter"
    vocab_size, pad, side = case.config["vocab_size"], case.config["pad_token_id"], case.source_side

    make_checkpoint(case, model_dir, generator)
    make_adapter(case, model_dir, adapter_dir, generator)
    examples = [make_example(i, lengths, vocab_size, generator) for i, lengths in enumerate(case.lengths)]
    (directory / "tokens.jsonl").write_text("".join(json.dumps(example) + "\n" for example in examples))
    rows = [make_example(i, lengths, vocab_size, generator) for i, lengths in enumerate(case.batch_lengths)]
    batch = collate(rows, pad, side)
    if case.own_decoder_inputs:
        add_decoder_inputs(batch, vocab_size, generator)

    def load() -> PeftModel:
        return load_adapted(model_dir, adapter_dir)

    tensors: dict[str, torch.Tensor] = {}
    expected: dict[str, Any] = {
        "name": case.name,
        "description": case.description,
        "modelType": case.model_type,
        "seed": seed,
        "sourceSide": side,
        "batch": {name: tensor.tolist() for name, tensor in batch.items()},
        "shiftedLabels": load_base(model_dir).prepare_decoder_input_ids_from_labels(labels=batch["labels"]).tolist(),
    }
    base = outputs_of(load_base(model_dir), batch)
    tensors["logits_base"] = base.logits
    expected["lossBase"] = base.loss.item()
    check_effects(case, model_dir, batch, base.logits)
    model = load()
    stored = load_file(adapter_dir / "adapter_model.safetensors")
    loaded = get_peft_model_state_dict(model)
    require(stored.keys() == loaded.keys(), "the adapter loads with other keys")
    require(all(torch.equal(stored[key], loaded[key]) for key in stored), "the adapter loads with other values")
    expected["targets"] = lora_targets(model)
    expected["adapterKeys"] = sorted(stored)
    expected["trainableKeys"] = list(trainable(model))
    expected["trainableParameters"], expected["totalParameters"] = model.get_nb_trainable_parameters()
    adapted = outputs_of(model, batch)
    tensors["encoder"] = adapted.encoder_last_hidden_state
    tensors["logits"] = adapted.logits
    require(difference(adapted.logits, base.logits) > 1e-2, "the adapter changes nothing")
    for name in ("logits_base", "logits"):
        require(0.2 < tensors[name].std().item() < 30, f"{name} has a standard deviation of {tensors[name].std():.2g}")
    expected["loss"], grads = gradients(load(), batch)
    tensors |= {f"grad.{key}": grad for key, grad in grads.items()}
    for key, grad in grads.items():
        require(grad.norm().item() > 1e-5, f"gradient of {key} is {grad.norm():.1e}")

    model = load()
    expected["training"] = {"options": OPTIONS, "steps": train(model, examples, pad, side)}
    tensors |= {f"after.{key}": parameter.detach().clone() for key, parameter in trainable(model).items()}
    tensors["logits_after"] = outputs_of(model, batch).logits
    require(difference(tensors["logits_after"], tensors["logits"]) > 1e-3, "training changes nothing")
    expected["noise"] = check_noise(model_dir, adapter_dir, batch, examples, case, expected, tensors)

    (directory / "expected.json").write_text(compact(expected))
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, directory / "expected.safetensors")
    return expected


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", help="record this case alone")
    parser.add_argument("--random", type=int, help="record this many random cases instead")
    parser.add_argument("--seed", type=int, default=20)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    cases = [case for case in CASES if options.only in (None, case.name)]
    if options.random:
        # some show nothing, or hang on rounding: others are drawn for them
        cases = [random_case(options.seed, index) for index in range(4 * options.random + 10)]
    if not cases:
        parser.error(f"no case {options.only}; there are: {', '.join(case.name for case in CASES)}")
    options.out.mkdir(parents=True, exist_ok=True)
    refused = made = 0
    for case in cases:
        if options.random and made == options.random:
            break
        try:
            expected = record(case, options.out / case.name, options.seed)
        except CaseError as error:
            print(f"{case.name}: REFUSED: {error}", file=sys.stderr)
            shutil.rmtree(options.out / case.name, ignore_errors=True)
            refused += 1
            continue
        made += 1
        steps = expected["training"]["steps"]
        noise = ", ".join(f"{key} {value:.0e}" for key, value in expected["noise"].items())
        print(
            f"{case.name}: loss {steps[0]['loss']:.4f} -> {steps[-1]['loss']:.4f}, {len(expected['targets'])} targets, "
            f"{folder_bytes(options.out / case.name) / 1000:.0f} kB, noise: {noise}",
            file=sys.stderr,
        )
    if not refused and options.only is None and not options.random:
        write_manifest(options.out, "scripts/record_seq2seq.py", options.seed, cases)
    return int(made < options.random if options.random else refused > 0)


if __name__ == "__main__":
    sys.exit(main())
