#!/usr/bin/env python3
"""Run the real PEFT with configurations that a test makes up, on the model that a skeleton describes.

usage: select_on_skeleton.py SKELETON.json.gz < configs.json

The input is a JSON list of LoraConfig arguments (snake_case, as in adapter_config.json). The model is built again on the
meta device by the builder that wrote the skeleton, so its classes are transformers' own; the skeleton's list of modules
must be the model's. Prints a JSON list with one object per configuration: {"targets": {name: [r, alpha], ...}} in PEFT's
order, with "params" where parameters are targeted, or {"error": [type, message]}.
"""
import gzip
import json
import os
import sys

os.environ.setdefault("PYTHONHASHSEED", "0")  # make_selection_vectors would start the process again, without the input
import make_selection_vectors as vectors  # noqa: E402
import make_skeletons as ms  # noqa: E402


def answer(model, config):
    result = vectors.run_one(model, {}, config, {}, False)
    if "error" in result:
        return {"error": result["error"]}
    names = result["targets"] + result.get("params", [])
    r, alpha = ([x] * len(names) if not isinstance(x, list) else x for x in (result["r"], result["alpha"]))
    out = {"targets": {name: [r[i], alpha[i]] for i, name in enumerate(names)}}
    if "params" in result:
        out["params"] = result["params"]
    return out


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    ms.load_extra(os.path.join(os.path.dirname(os.path.abspath(__file__)), "selection_edge_cases.py"))
    with gzip.open(sys.argv[1]) as file:
        skeleton = json.load(file)
    if skeleton["name"] not in ms.MODELS:
        sys.exit(f"no builder for {skeleton['name']!r}; add one to make_skeletons.py or selection_edge_cases.py")
    model = ms.build(skeleton["name"])
    if [name for name, _ in model.named_modules()] != [row[0] for row in skeleton["modules"]]:
        sys.exit(f"{sys.argv[1]} is not the model that {skeleton['name']!r} builds with the installed transformers")
    configs = json.load(sys.stdin)
    print(json.dumps([answer(model, config) for config in configs], ensure_ascii=False))


if __name__ == "__main__":
    main()
