"""The live oracle: PyTorch, transformers and PEFT answering questions that a test makes up.

    python scripts/oracle.py --out DIR --seed N --cases K
        K random cases in the format of test/vectors/models (see record_models.py), with a manifest.json
    python scripts/oracle.py check-adapter --model DIR [--adapter DIR] --batch FILE.json --out FILE.safetensors
        loads a checkpoint and an adapter that someone else saved; writes `logits` (float32) of the batch, and
        `adapter.<key>` as PEFT holds every adapter tensor; without --adapter the checkpoint alone (a merged one, say)
    python scripts/oracle.py load-and-generate --model DIR [--adapter DIR] --batch FILE.json --out FILE.json
        greedy tokens after the prompt: {"newTokens": [[...]], "margin": smallest lead of a chosen token}

A batch file is {"input_ids": [[...]], "attention_mask": [[...]], "labels"?: [[...]]}. Both checks print one JSON document
on stdout. They exit 1 with {"error": ...} where PEFT would load the adapter only in part, which it does silently.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

from record_models import (
    CaseError,
    compact,
    generate,
    label_tokens,
    load_base,
    load_file,
    logits_of,
    lora_targets,
    peft,
    record,
    save_file,
    torch,
    write_manifest,
)
from peft import PeftModel
from peft.utils import get_peft_model_state_dict
from reference_cases import random_case


def make_cases(options: argparse.Namespace) -> dict[str, Any]:
    """K cases; an index whose case would show nothing is passed over."""
    options.out.mkdir(parents=True, exist_ok=True)
    cases, refused, index = [], [], 0
    while len(cases) < options.cases:
        if index >= 4 * options.cases + 10:
            raise CaseError(f"only {len(cases)} of {index} random cases are usable: {refused}")
        case = random_case(options.seed, index)
        index += 1
        try:
            record(case, options.out / case.name, options.seed)
        except (CaseError, ValueError) as error:
            # ValueError: PEFT's own refusal, such as "no modules were targeted".
            shutil.rmtree(options.out / case.name, ignore_errors=True)
            refused.append(f"{case.name}: {error}")
            continue
        cases.append(case)
    write_manifest(options.out, "scripts/oracle.py", options.seed, cases)
    return {"cases": [case.name for case in cases], "refused": refused}


def read_batch(path: Path) -> dict[str, torch.Tensor]:
    content = json.loads(path.read_text())
    batch = {name: torch.tensor(content[name]) for name in ("input_ids", "attention_mask", "labels") if name in content}
    batch.setdefault("attention_mask", torch.ones_like(batch["input_ids"]))
    return batch


def load(model_dir: Path, adapter_dir: Path | None) -> tuple[Any, dict[str, torch.Tensor]]:
    """The model, adapted if asked, and the adapter's tensors as PEFT holds them; refuses a partial load."""
    model = load_base(model_dir)
    if adapter_dir is None:
        return model, {}
    stored = load_file(adapter_dir / "adapter_model.safetensors")
    model = PeftModel.from_pretrained(model, adapter_dir).eval()
    held = get_peft_model_state_dict(model)
    problems = [f"PEFT has no place for {key}" for key in sorted(stored.keys() - held.keys())]
    problems += [f"the file lacks {key}" for key in sorted(held.keys() - stored.keys())]
    for key in sorted(stored.keys() & held.keys()):
        if stored[key].shape != held[key].shape or not torch.equal(stored[key].to(held[key].dtype), held[key]):
            problems.append(f"{key} is not what the file has")
    if problems:
        raise CaseError("; ".join(problems))
    return model, {f"adapter.{key}": tensor for key, tensor in held.items()}


def check_adapter(options: argparse.Namespace) -> dict[str, Any]:
    batch = read_batch(options.batch)
    model, tensors = load(options.model, options.adapter)
    tensors["logits"] = logits_of(model, batch)
    save_file({name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}, options.out)
    answer: dict[str, Any] = {"logits": list(tensors["logits"].shape), "targets": []}
    if options.adapter:
        answer["targets"] = lora_targets(model)
    if "labels" in batch:
        with torch.no_grad():
            answer["loss"] = model(**batch).loss.item()
        answer["labelTokens"] = label_tokens(batch)
    return answer


def load_and_generate(options: argparse.Namespace) -> dict[str, Any]:
    model, _ = load(options.model, options.adapter)
    new, margin = generate(model, read_batch(options.batch), options.eos or None, options.max_new_tokens)
    answer = {"newTokens": new, "margin": margin}
    options.out.write_text(compact(answer))
    return answer


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.set_defaults(run=make_cases)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", type=int, default=4)
    commands = parser.add_subparsers()
    for name, run in (("check-adapter", check_adapter), ("load-and-generate", load_and_generate)):
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        command.add_argument("--model", type=Path, required=True)
        command.add_argument("--adapter", type=Path)
        command.add_argument("--batch", type=Path, required=True)
        command.add_argument("--out", type=Path, required=True)
        if run is load_and_generate:
            command.add_argument("--max-new-tokens", type=int, default=12)
            command.add_argument("--eos", type=int, nargs="*", help="tokens that end the text; none by default")
    options = parser.parse_args()
    if options.out is None:
        parser.error("--out is missing")
    return options


def main() -> int:
    options = parse()
    warnings.filterwarnings("ignore")
    try:
        answer = options.run(options)
    except (CaseError, ValueError, RuntimeError, OSError) as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
        return 1
    print(json.dumps({**answer, "versions": {"torch": torch.__version__, "peft": peft.__version__}}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
