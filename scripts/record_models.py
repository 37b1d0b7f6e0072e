"""Records what transformers and PEFT compute on tiny random checkpoints.

    python scripts/record_models.py --out test/vectors/models [--only NAME] [--seed N] [--extra-random K]

Each case becomes a folder:

    model/                 config.json, generation_config.json, safetensors (one file, or shards with an index)
    adapter/               the adapter before training, as PEFT saves it
    tokens.jsonl           {"input_ids": [...], "labels": [...]} per line, labels not shifted, -100 where nothing is learned
    expected.json          batch, loss, training steps, generated tokens, evaluation
    expected.safetensors   logits_base, logits, logits_after, grad.<key>, after.<key>, ...

Everything is computed in float32 on one thread with the default attention of transformers (sdpa), whatever the dtype
of the stored checkpoint. A case that shows nothing (a gradient of zero, a sliding window without effect) is refused.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
import warnings
import zlib
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import peft
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, get_cosine_schedule_with_warmup

from reference_cases import PUBLIC_CASES, Case, random_case

torch.set_num_threads(1)
transformers.utils.logging.disable_progress_bar()

BATCH_SIZE = 2
NEW_TOKENS = 12
IGNORED = -100
#: two logits closer than this may change places in another implementation
MARGIN = 2e-3

PLAIN_TRAINING = {
    "batchSize": BATCH_SIZE,
    "maxSteps": 10,
    "learningRate": 1e-3,
    "weightDecay": 0.01,
    "lrScheduler": "constant",
    "warmupSteps": 0,
    "maxGradNorm": 0,
    "gradientAccumulation": 1,
    "shuffle": False,
}
ACCUMULATED_TRAINING = {
    **PLAIN_TRAINING,
    "maxSteps": 6,
    "lrScheduler": "cosine",
    "warmupSteps": 2,
    "maxGradNorm": 1.0,
    "gradientAccumulation": 2,
}


class CaseError(Exception):
    """The case does not show what it is there to show."""


# ---- making the checkpoint -------------------------------------------------------------------------------------------


def randomize(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Gives norms and biases, which transformers starts at one and zero, values that matter."""
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("bias"):
            parameter.data = 0.2 * noise
        elif "norm" in name:
            parameter.data = 1 + 0.2 * noise


def write_old_style_config(path: Path, key: str) -> None:
    """Rewrites config.json the way transformers 4 wrote it: rope_theta and rope_scaling at the top level, torch_dtype."""
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type")
    config["rope_scaling"] = None if kind == "default" else {key: kind, **rope}
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.46.0"
    path.write_text(json.dumps(dict(sorted(config.items())), indent=2) + "\n")


def make_checkpoint(case: Case, directory: Path, generator: torch.Generator) -> None:
    config = AutoConfig.for_model(case.model_type, **case.config)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    randomize(model, generator)
    model.to(getattr(torch, case.storage))
    model.generation_config.pad_token_id = case.config["pad_token_id"]
    model.save_pretrained(directory, **({"max_shard_size": case.shard} if case.shard else {}))
    if case.old_style:
        write_old_style_config(directory / "config.json", case.old_style)


def load_base(directory: Path, **changes: Any) -> Any:
    """The stored checkpoint in float32, optionally with other config values."""
    config = AutoConfig.from_pretrained(directory)
    for name, value in changes.items():
        setattr(config, name, value)
    return AutoModelForCausalLM.from_pretrained(directory, config=config, dtype=torch.float32).eval()


def save_adapter(model: PeftModel, directory: Path) -> None:
    """save_pretrained without the model card and the path of this machine, with sets in a fixed order."""
    model.save_pretrained(directory)
    (directory / "README.md").unlink(missing_ok=True)
    path = directory / "adapter_config.json"
    config = {**json.loads(path.read_text()), "base_model_name_or_path": None}
    for name in ("target_modules", "exclude_modules", "modules_to_save"):
        if isinstance(config.get(name), list):
            config[name].sort()
    path.write_text(json.dumps(config, indent=2) + "\n")


def make_adapter(case: Case, model_dir: Path, directory: Path, generator: torch.Generator) -> None:
    model = get_peft_model(load_base(model_dir), LoraConfig(task_type="CAUSAL_LM", **case.lora))
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        noise = torch.randn(parameter.shape, generator=generator)
        if "lora_B" in name or "lora_embedding_B" in name:
            parameter.data = 0.2 * noise
        elif "lora_" in name:
            parameter.data = noise / math.sqrt(parameter.shape[-1])
        else:
            parameter.data += 0.1 * noise
    save_adapter(model, directory)


def load_adapted(model_dir: Path, adapter_dir: Path, **changes: Any) -> PeftModel:
    return PeftModel.from_pretrained(load_base(model_dir, **changes), adapter_dir, is_trainable=True)


def trainable(model: PeftModel) -> dict[str, torch.nn.Parameter]:
    """Trainable parameters by the key that adapter_model.safetensors has for them."""
    saved = get_peft_model_state_dict(model)
    keyed = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = name.replace(".modules_to_save.default", "").replace(".default", "")
            if key not in saved or saved[key].shape != parameter.shape:
                raise CaseError(f"{name} is trained but not saved as {key}")
            keyed[key] = parameter
    return keyed


def lora_targets(model: PeftModel) -> list[dict[str, Any]]:
    targets = []
    for name, module in model.base_model.model.named_modules():
        if isinstance(module, peft.tuners.lora.LoraLayer):
            targets.append(
                {
                    "name": name,
                    "r": module.r["default"],
                    "alpha": module.lora_alpha["default"],
                    "scaling": module.scaling["default"],
                }
            )
    return targets


# ---- data ------------------------------------------------------------------------------------------------------------


def random_tokens(length: int, vocab_size: int, generator: torch.Generator) -> list[int]:
    """Tokens without the first three, which are padding, begin and end."""
    return torch.randint(3, vocab_size, (length,), generator=generator).tolist()


def make_example(index: int, length: int, vocab_size: int, generator: torch.Generator) -> dict[str, list[int]]:
    """Labels in one of four manners: everything, after a prompt, with a gap inside, only the end."""
    ids = random_tokens(length, vocab_size, generator)
    labels = list(ids)
    if index % 4 == 1:
        labels[: length // 3] = [IGNORED] * (length // 3)
    elif index % 4 == 2:
        labels[:2] = [IGNORED] * 2
        labels[length // 2 : length // 2 + 2] = [IGNORED] * 2
    elif index % 4 == 3:
        labels[: length - 3] = [IGNORED] * (length - 3)
    return {"input_ids": ids, "labels": labels}


def collate(examples: list[dict[str, list[int]]], pad: int, side: str = "right") -> dict[str, torch.Tensor]:
    width = max(len(example["input_ids"]) for example in examples)
    batch: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
    for example in examples:
        missing = width - len(example["input_ids"])
        for name, values, filler in (
            ("input_ids", example["input_ids"], pad),
            ("attention_mask", [1] * len(example["input_ids"]), 0),
            ("labels", example["labels"], IGNORED),
        ):
            filling = [filler] * missing
            batch[name].append(values + filling if side == "right" else filling + values)
    return {name: torch.tensor(rows) for name, rows in batch.items()}


def label_tokens(batch: dict[str, torch.Tensor]) -> int:
    return int((batch["labels"][:, 1:] != IGNORED).sum())


def ordered_batches(examples: list[Any], size: int) -> list[list[int]]:
    """Line numbers of each batch of one epoch, in order; the last may be smaller."""
    return [list(range(start, min(start + size, len(examples)))) for start in range(0, len(examples), size)]


# ---- measurements ----------------------------------------------------------------------------------------------------


def train(model: PeftModel, examples: list[Any], pad: int, options: dict[str, Any]) -> list[dict[str, Any]]:
    """AdamW as `graft train` does it; the loss of a step is the mean over the label tokens of all its micro-batches."""
    model.train()
    parameters = list(trainable(model).values())
    optimizer = torch.optim.AdamW(
        parameters,
        lr=options["learningRate"],
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=options["weightDecay"],
    )
    schedule = None
    if options["lrScheduler"] == "cosine":
        schedule = get_cosine_schedule_with_warmup(optimizer, options["warmupSteps"], options["maxSteps"])
    epoch = ordered_batches(examples, options["batchSize"])
    group_size = options["gradientAccumulation"]
    groups = [epoch[start : start + group_size] for start in range(0, len(epoch), group_size)]
    steps = []
    for step in range(options["maxSteps"]):
        lines = groups[step % len(groups)]
        batches = [collate([examples[line] for line in batch], pad) for batch in lines]
        items = sum(label_tokens(batch) for batch in batches)
        optimizer.zero_grad()
        loss = 0.0
        for batch in batches:
            # One batch: the loss exactly as the model returns it. Several: as transformers' Trainer normalises it.
            extra = {"num_items_in_batch": torch.tensor(items)} if len(batches) > 1 else {}
            micro = model(**batch, **extra).loss
            micro.backward()
            loss += micro.item()
        limit = options["maxGradNorm"] or math.inf
        norm = torch.nn.utils.clip_grad_norm_(parameters, limit).item()
        rate = optimizer.param_groups[0]["lr"]
        optimizer.step()
        if schedule:
            schedule.step()
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise CaseError(f"step {step}: loss {loss}, gradient norm {norm}")
        steps.append(
            {
                "step": step + 1,
                "lines": lines,
                "loss": loss,
                "gradNorm": norm,
                "learningRate": rate,
                "tokens": sum(int(batch["attention_mask"].sum()) for batch in batches),
                "labelTokens": items,
            }
        )
    model.eval()
    return steps


@torch.no_grad()
def logits_of(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    model.eval()
    return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits


def gradients(model: PeftModel, batch: dict[str, torch.Tensor]) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return loss.item(), {key: parameter.grad.clone() for key, parameter in trainable(model).items()}


@torch.no_grad()
def evaluate(model: Any, examples: list[Any], pad: int) -> dict[str, Any]:
    """Loss over the whole file, every label token weighing the same."""
    total, count = 0.0, 0
    for lines in ordered_batches(examples, BATCH_SIZE):
        batch = collate([examples[line] for line in lines], pad)
        items = label_tokens(batch)
        total += model(**batch).loss.item() * items
        count += items
    loss = total / count
    return {"loss": loss, "perplexity": math.exp(loss), "labelTokens": count}


@torch.no_grad()
def generate(
    model: Any, batch: dict[str, torch.Tensor], eos: list[int] | None, count: int = NEW_TOKENS
) -> tuple[list[list[int]], float]:
    """Greedy tokens after the prompt with the cache, and the smallest lead of a winner over the second."""
    model.eval()
    output = model.generate(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        max_new_tokens=count,
        do_sample=False,
        eos_token_id=eos,
        return_dict_in_generate=True,
        output_scores=True,
    )
    best = torch.stack(output.scores).topk(2, dim=-1).values
    new = output.sequences[:, batch["input_ids"].shape[1] :].tolist()
    return new, (best[..., 0] - best[..., 1]).min().item()


def choose_prompt(
    load: Any, lengths: list[int], vocab_size: int, pad: int, eos: list[int] | None, generator: torch.Generator
) -> tuple[dict[str, torch.Tensor], list[list[int]]]:
    """The first of some random prompts whose continuation does not hang on a near tie or end at once."""
    for _ in range(40):
        rows = [{"input_ids": random_tokens(n, vocab_size, generator), "labels": [IGNORED] * n} for n in lengths]
        batch = collate(rows, pad, "left")
        new, margin = generate(load(), batch, eos)
        if margin > MARGIN and all(len(row) == NEW_TOKENS for row in new) and len(set(new[0])) > 3:
            return batch, new
    raise CaseError("no prompt with clearly decided tokens")


# ---- does the case show anything? ------------------------------------------------------------------------------------


def real_difference(a: torch.Tensor, b: torch.Tensor, batch: dict[str, torch.Tensor]) -> float:
    """Largest difference at positions that are not padding."""
    return (a - b).abs()[batch["attention_mask"].bool()].max().item()


def require(condition: bool, message: str) -> None:
    if not condition:
        raise CaseError(message)


def check_effects(case: Case, model_dir: Path, batch: dict[str, torch.Tensor], base: torch.Tensor) -> dict[str, float]:
    """How much each special setting changes the logits; refuses the case where one changes nothing."""
    config = AutoConfig.from_pretrained(model_dir)
    effects = {}

    def effect(name: str, **changes: Any) -> None:
        effects[name] = real_difference(logits_of(load_base(model_dir, **changes), batch), base, batch)
        require(effects[name] > 1e-3, f"{name} changes nothing ({effects[name]:.1e})")

    kind = config.rope_parameters["rope_type"]
    if kind != "default":
        effect("rope", rope_parameters={"rope_type": "default", "rope_theta": config.rope_parameters["rope_theta"]})
    if case.model_type == "mistral" and config.sliding_window:
        effect("slidingWindow", sliding_window=None)
    if "sliding_attention" in (getattr(config, "layer_types", None) or []):
        effect("slidingWindow", layer_types=["full_attention"] * config.num_hidden_layers)
    if case.padding_side == "left" and not batch["attention_mask"].all():
        blind = {**batch, "attention_mask": torch.ones_like(batch["attention_mask"])}
        effects["padding"] = real_difference(logits_of(load_base(model_dir), blind), base, batch)
        require(effects["padding"] > 1e-3, "the attention mask changes nothing")
    return effects


def check_noise(
    model_dir: Path,
    adapter_dir: Path,
    batch: dict[str, torch.Tensor],
    examples: list[Any],
    pad: int,
    expected: dict[str, Any],
    tensors: dict[str, torch.Tensor],
) -> dict[str, float]:
    """The same with another attention kernel: what rounding alone does to each number."""
    model = load_adapted(model_dir, adapter_dir, _attn_implementation="eager")
    require(model.base_model.model.config._attn_implementation == "eager", "eager attention was not taken")
    logits = real_difference(logits_of(model, batch), tensors["logits"], batch)
    _, grads = gradients(model, batch)
    relative = max(
        ((grad - tensors[f"grad.{key}"]).norm() / tensors[f"grad.{key}"].norm()).item() for key, grad in grads.items()
    )
    model = load_adapted(model_dir, adapter_dir, _attn_implementation="eager")
    steps = train(model, examples, pad, PLAIN_TRAINING)
    losses = max(abs(a["loss"] / b["loss"] - 1) for a, b in zip(steps, expected["training"]["steps"]))
    after = max((parameter - tensors[f"after.{key}"]).abs().max().item() for key, parameter in trainable(model).items())
    noise = {"logits": logits, "gradients": relative, "losses": losses, "after": after}
    # AdamW turns a gradient that is only rounding into a full step, so tensors can part where losses agree.
    require(logits < 3e-5 and relative < 3e-5 and losses < 3e-6 and after < 2e-5, f"too sensitive to rounding: {noise}")
    return noise


def trainer_log(load: Any, examples: list[Any], pad: int, directory: Path) -> list[dict[str, Any]]:
    """The accumulated run by transformers' own Trainer, to check `train` against."""
    from torch.utils.data import SequentialSampler
    from transformers import Trainer, TrainingArguments

    class InOrder(Trainer):
        def _get_train_sampler(self, *_args: Any, **_kwargs: Any) -> Any:
            return SequentialSampler(examples)

    options = ACCUMULATED_TRAINING
    trainer = InOrder(
        model=load(),
        args=TrainingArguments(
            output_dir=str(directory),
            per_device_train_batch_size=options["batchSize"],
            gradient_accumulation_steps=options["gradientAccumulation"],
            max_steps=options["maxSteps"],
            learning_rate=options["learningRate"],
            weight_decay=options["weightDecay"],
            lr_scheduler_type="cosine",
            warmup_steps=options["warmupSteps"],
            max_grad_norm=options["maxGradNorm"],
            logging_steps=1,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
            remove_unused_columns=False,
        ),
        train_dataset=examples,
        data_collator=lambda rows: collate(rows, pad),
    )
    trainer.train()
    return [entry for entry in trainer.state.log_history if "loss" in entry]


# ---- one case --------------------------------------------------------------------------------------------------------


def record(case: Case, directory: Path, seed: int, check_trainer: bool = False) -> dict[str, Any]:
    """Writes the folder of one case and returns its expected.json. The result depends on case and seed alone."""
    case_seed = (seed * 1_000_003 + zlib.crc32(case.name.encode())) % 2**31
    torch.manual_seed(case_seed)
    generator = torch.Generator().manual_seed(case_seed)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    model_dir, adapter_dir = directory / "model", directory / "adapter"
    vocab_size, pad = case.config["vocab_size"], case.config["pad_token_id"]

    make_checkpoint(case, model_dir, generator)
    make_adapter(case, model_dir, adapter_dir, generator)
    examples = [make_example(i, length, vocab_size, generator) for i, length in enumerate(case.lengths)]
    (directory / "tokens.jsonl").write_text("".join(json.dumps(example) + "\n" for example in examples))
    rows = [make_example(i, length, vocab_size, generator) for i, length in enumerate(case.batch_lengths)]
    batch = collate(rows, pad, case.padding_side)

    def load() -> PeftModel:
        return load_adapted(model_dir, adapter_dir)

    tensors: dict[str, torch.Tensor] = {}
    expected: dict[str, Any] = {
        "name": case.name,
        "description": case.description,
        "modelType": case.model_type,
        "seed": seed,
        "storage": case.storage,
        "paddingSide": case.padding_side,
        "padTokenId": pad,
        "batch": {name: tensor.tolist() for name, tensor in batch.items()},
    }

    # The fixed batch: logits without and with the adapter, loss and gradients.
    base = load_base(model_dir)
    tensors["logits_base"] = logits_of(base, batch)
    expected["lossBase"] = base(**batch).loss.item()
    expected["effects"] = check_effects(case, model_dir, batch, tensors["logits_base"])
    model = load()
    stored = load_file(adapter_dir / "adapter_model.safetensors")
    loaded = get_peft_model_state_dict(model)
    require(stored.keys() == loaded.keys(), "the adapter loads with other keys")
    require(all(torch.equal(stored[key], loaded[key]) for key in stored), "the adapter loads with other values")
    before = {key: parameter.detach().clone() for key, parameter in trainable(model).items()}
    count, total = model.get_nb_trainable_parameters()
    expected["targets"] = lora_targets(model)
    expected["adapterKeys"] = sorted(stored)
    expected["trainableKeys"] = list(before)
    expected["trainableParameters"], expected["totalParameters"] = count, total
    rotary = model.base_model.model.model.rotary_emb
    expected["rope"] = {
        "inverseFrequencies": rotary.original_inv_freq.tolist(),
        "attentionScaling": float(rotary.attention_scaling),
    }
    tensors["logits"] = logits_of(model, batch)
    expected["loss"], grads = gradients(load(), batch)
    tensors |= {f"grad.{key}": grad for key, grad in grads.items()}
    expected["batchTokens"] = int(batch["attention_mask"].sum())
    expected["batchLabelTokens"] = label_tokens(batch)

    require(math.isfinite(expected["loss"]), "loss is not finite")
    for name in ("logits_base", "logits"):
        require(bool(torch.isfinite(tensors[name]).all()), f"{name} is not finite")
        require(0.2 < tensors[name].std().item() < 30, f"{name} has a standard deviation of {tensors[name].std():.2g}")
    require(real_difference(tensors["logits"], tensors["logits_base"], batch) > 1e-2, "the adapter changes nothing")
    for key, grad in grads.items():
        require(grad.norm().item() > 1e-5, f"gradient of {key} is {grad.norm():.1e}")

    # Training.
    model = load()
    expected["training"] = {"options": PLAIN_TRAINING, "steps": train(model, examples, pad, PLAIN_TRAINING)}
    tensors |= {f"after.{key}": tensor.clone() for key, tensor in get_peft_model_state_dict(model).items()}
    tensors["logits_after"] = logits_of(model, batch)
    require(real_difference(tensors["logits_after"], tensors["logits"], batch) > 1e-3, "training changes nothing")
    for key, tensor in before.items():
        require(not torch.equal(tensor, tensors[f"after.{key}"]), f"{key} was not trained")
    evaluation_after = evaluate(model, examples, pad)
    expected["noise"] = check_noise(model_dir, adapter_dir, batch, examples, pad, expected, tensors)
    if case.accumulation:
        model = load()
        steps = train(model, examples, pad, ACCUMULATED_TRAINING)
        norms = [step["gradNorm"] for step in steps]
        require(max(norms) > ACCUMULATED_TRAINING["maxGradNorm"], f"nothing is clipped: {norms}")
        expected["trainingAccumulated"] = {"options": ACCUMULATED_TRAINING, "steps": steps}
        tensors |= {f"accumulated.{key}": p.detach().clone() for key, p in trainable(model).items()}
        if check_trainer:
            with tempfile.TemporaryDirectory() as scratch:
                logged = trainer_log(load, examples, pad, Path(scratch))
            for mine, theirs in zip(steps, logged, strict=True):
                # Trainer logs the rate after the scheduler's step, and rounds what it logs.
                require(abs(mine["loss"] - theirs["loss"]) < 1e-4, f"Trainer's loss: {theirs['loss']}, {mine['loss']}")
                require(abs(mine["gradNorm"] - theirs["grad_norm"]) < 1e-4, f"Trainer's norm: {theirs}, {mine}")

    # Evaluation.
    expected["evaluation"] = {
        "base": evaluate(load_base(model_dir), examples, pad),
        "adapter": evaluate(load(), examples, pad),
        "after": evaluation_after,
    }

    # Generation.
    prompt, new = choose_prompt(load, [case.prompt_length], vocab_size, pad, None, generator)
    eos: list[int] = [case.config["eos_token_id"]]
    if case.stop_early:
        at = next(i for i in range(3, NEW_TOKENS) if new[0][i] not in new[0][:i])
        eos.append(new[0][at])
        path = model_dir / "generation_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": eos}, indent=2) + "\n")
    stopped, margin = generate(load(), prompt, eos)
    base_new, _ = generate(load_base(model_dir), prompt, eos)
    expected["generation"] = {
        "prompt": prompt["input_ids"][0].tolist(),
        "maxNewTokens": NEW_TOKENS,
        "eosTokenIds": eos,
        "newTokens": stopped[0],
        "newTokensWithoutEos": new[0],
        "newTokensBase": base_new[0],
        "margin": margin,
    }
    if case.batch_generation:
        lengths = [case.prompt_length, max(3, case.prompt_length - 3)]
        pair, new = choose_prompt(load, lengths, vocab_size, pad, None, generator)
        expected["generationBatch"] = {
            "input_ids": pair["input_ids"].tolist(),
            "attention_mask": pair["attention_mask"].tolist(),
            "maxNewTokens": NEW_TOKENS,
            "eosTokenIds": [],
            "newTokens": new,
        }

    # Merged weights, in the dtype of the checkpoint.
    if case.merged:
        stored_dtype = AutoModelForCausalLM.from_pretrained(model_dir, dtype="auto")
        merged = PeftModel.from_pretrained(stored_dtype, adapter_dir).merge_and_unload().state_dict()
        for target in expected["targets"]:
            tensors[f"merged.{target['name']}.weight"] = merged[f"{target['name']}.weight"].clone()

    (directory / "expected.json").write_text(compact(expected))
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, directory / "expected.safetensors")
    return expected


def compact(value: Any) -> str:
    """JSON with one line per entry of the outermost object, so that regenerated vectors give readable diffs."""
    lines = (f"  {json.dumps(key)}: {json.dumps(entry)}" for key, entry in value.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def folder_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def write_manifest(out: Path, script: str, seed: int, cases: list[Case]) -> None:
    manifest = {
        "script": script,
        "seed": seed,
        "versions": {
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "peft": peft.__version__,
        },
        "cases": [
            {"name": case.name, "modelType": case.model_type, "description": case.description, "storage": case.storage}
            for case in cases
        ],
    }
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


def record_all(cases: list[Case], out: Path, seed: int, check_trainer: bool) -> int:
    """Records every case, reports on stderr, and returns how many were refused."""
    refused = 0
    for case in cases:
        try:
            expected = record(case, out / case.name, seed, check_trainer)
        except CaseError as error:
            print(f"{case.name}: REFUSED: {error}", file=sys.stderr)
            shutil.rmtree(out / case.name, ignore_errors=True)
            refused += 1
            continue
        steps = expected["training"]["steps"]
        noise = ", ".join(f"{key} {value:.0e}" for key, value in expected["noise"].items())
        effects = ", ".join(f"{key} {value:.2g}" for key, value in expected["effects"].items())
        print(
            f"{case.name}: loss {steps[0]['loss']:.4f} -> {steps[-1]['loss']:.4f}, {len(expected['targets'])} targets, "
            f"{folder_bytes(out / case.name) / 1000:.0f} kB, noise: {noise}; effects: {effects or 'none'}",
            file=sys.stderr,
        )
    return refused


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", help="record this case alone")
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--extra-random", type=int, default=0, help="how many random cases to add")
    parser.add_argument("--check-trainer", action="store_true", help="compare accumulated runs with transformers' Trainer")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    every = PUBLIC_CASES + [random_case(options.seed, index) for index in range(options.extra_random)]
    cases = [case for case in every if options.only in (None, case.name)]
    if not cases:
        parser.error(f"no case {options.only}; there are: {', '.join(case.name for case in every)}")
    options.out.mkdir(parents=True, exist_ok=True)
    refused = record_all(cases, options.out, options.seed, options.check_trainer)
    if not refused and options.only is None:
        write_manifest(options.out, "scripts/record_models.py", options.seed, cases)
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
