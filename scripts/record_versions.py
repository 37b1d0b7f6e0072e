"""Records what older releases of PEFT would adapt: the truth for src/selection/versions.

    python scripts/record_versions.py --peft path/to/clone/of/huggingface/peft

The functions that choose modules are taken from PEFT's own git history (https://github.com/huggingface/peft,
Copyright the HuggingFace team, Apache License 2.0), each from the tag of its release, and run as they are:
`inject_adapter`, `check_target_module_exists`, `_maybe_include_all_linear_layers`, `_find_minimal_target_modules`,
`get_pattern_key`, the rank lines of `_create_and_replace`, `_convert_peft_config_moe`, and the checks of
`LoraConfig.__post_init__`. Around them stand a model of the skeleton's modules on the meta device and a tuner that
notes which modules it is asked to wrap. Nothing of PEFT is copied into this repository.

Writes test/vectors/versions/vectors.json.gz and manifest.json.
"""

import argparse
import ast
import copy
import functools
import gzip
import hashlib
import json
import platform
import re
import subprocess
import types
import warnings
from pathlib import Path

import torch
import transformers
from torch import nn
from transformers.pytorch_utils import Conv1D

ROOT = Path(__file__).resolve().parent.parent
SKELETONS = ROOT / "test/vectors/skeletons"
OUT = ROOT / "test/vectors/versions"
TAGS = """v0.3.0 v0.4.0 v0.5.0 v0.6.0 v0.6.2 v0.7.1 v0.8.2 v0.11.1 v0.12.0 v0.13.0 v0.13.2 v0.14.0
v0.15.2 v0.16.0 v0.17.1 v0.18.1 v0.19.1 v0.20.0""".split()


class Clone:
    def __init__(self, path):
        self.path = path

    def source(self, tag, path):
        run = subprocess.run(["git", "-C", self.path, "show", f"{tag}:{path}"], capture_output=True, text=True)
        return run.stdout if run.returncode == 0 else None

    def commit(self, tag):
        return subprocess.check_output(["git", "-C", self.path, "rev-parse", f"{tag}^{{commit}}"], text=True).strip()


class FakeModel(nn.Module):
    """The top of a model that is a transformers model."""

    def get_output_embeddings(self):
        return self.output

    def get_input_embeddings(self):
        return None


class Custom(nn.Module):
    """The top of a model that is none."""


class Tuned(nn.Module):
    """Stands for PEFT's BaseTunerLayer, LoraLayer and wrappers; no module of a fresh model is one."""


class SavedModule(Tuned):
    """Stands for PEFT's ModulesToSaveWrapper; it is not put into the model, which later releases use too."""

    def __init__(self, *_):
        super().__init__()


def build_model(skeleton):
    def make(kind, name, inputs, outputs, parameters):
        if kind == "linear":
            return nn.Linear(inputs, outputs, bias=False, device="meta")
        if kind == "conv1d_hf":
            with torch.device("meta"):
                return Conv1D(outputs, inputs)
        if kind == "embedding":
            return nn.Embedding(inputs, outputs, device="meta")
        module = nn.Module()
        for own, shape in parameters:
            module.register_parameter(own, nn.Parameter(torch.empty(shape, device="meta")))
        return module

    root = FakeModel() if skeleton.get("is_pretrained_model", True) else Custom()
    kinds, modules = {}, {"": root}
    for name, _, kind, inputs, outputs, parameters, *_ in skeleton["modules"]:
        kinds[name] = kind
        if name == "":
            continue
        modules[name] = make(kind, name, inputs, outputs, parameters)
        parent, _, leaf = name.rpartition(".")
        modules[parent].add_module(leaf, modules[name])
    if isinstance(root, FakeModel):
        output = skeleton.get("output_embeddings")
        root.__dict__["output"] = modules[output] if output else None
    model_type = skeleton["model_type"]
    root.config = types.SimpleNamespace(model_type=model_type, to_dict=lambda: {"model_type": model_type})
    root.__dict__["kinds"] = kinds
    return root


def get_submodules(model, key):
    parent = model.get_submodule(".".join(key.split(".")[:-1]))
    return parent, model.get_submodule(key), key.split(".")[-1]


def literals(sources):
    """Constants of a release: assignments of literals at the top level."""
    found = {}
    for source in sources:
        for node in ast.parse(source).body if source else []:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                try:
                    found[node.targets[0].id] = ast.literal_eval(node.value)
                except ValueError:
                    continue
    return found


def functions(source):
    return {n.name: n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef)} if source else {}


def define(node, namespace):
    """Defines a function of PEFT's source, without its decorators and annotations."""
    node = copy.deepcopy(node)
    node.decorator_list = []
    node.returns = None
    for argument in [*node.args.args, *node.args.kwonlyargs]:
        argument.annotation = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(ast.Module([node], []), "peft", "exec"), namespace)
    return namespace[node.name]


class Release:
    """The choosing part of one release."""

    def __init__(self, clone, tag):
        self.tag = tag
        read = lambda path: clone.source(tag, path)
        utils = read("src/peft/tuners/tuners_utils.py")
        lora = read("src/peft/tuners/lora/model.py") or read("src/peft/tuners/lora.py")
        config = read("src/peft/tuners/lora/config.py") or lora
        layers = read("src/peft/tuners/lora/layer.py") or lora
        other = read("src/peft/utils/other.py")
        experts = read("src/peft/utils/transformers_weight_conversion.py")
        classes = re.findall(r"^class (\w+)\(", layers, re.M)
        self.kinds = {"linear", "conv1d_hf", "embedding"} | {
            kind for kind, name in [("conv1d", "Conv1d"), ("conv2d", "Conv2d"), ("conv3d", "Conv3d"), ("mha", "MultiheadAttention")]
            if name in classes
        }
        from contextlib import nullcontext
        from itertools import chain
        namespace = self.namespace = {
            **literals([read("src/peft/utils/other.py"), read("src/peft/utils/constants.py")]),
            "re": re, "warnings": warnings, "torch": torch, "nn": nn, "Conv1D": Conv1D, "chain": chain, "copy": copy,
            "nullcontext": nullcontext, "init_empty_weights": nullcontext, "textwrap": __import__("textwrap"),
            "itertools": __import__("itertools"),
            "PreTrainedModel": FakeModel, "BaseTunerLayer": Tuned, "LoraLayer": Tuned, "ModulesToSaveWrapper": SavedModule,
            "setattr": lambda *_: None,
            "ParamWrapper": Tuned, "AuxiliaryTrainingWrapper": Tuned, "_get_submodules": get_submodules,
            "PeftType": types.SimpleNamespace(IA3="IA3"), "TaskType": types.SimpleNamespace(SEQ_CLS="SEQ_CLS"),
            "PEFT_TYPE_TO_PREFIX_MAPPING": {}, "is_transformers_ge_v5": False,
            "set_additional_trainable_modules": lambda **_: None, "BaseTuner": types.SimpleNamespace(get_model_config=lambda _: {}),
            "is_bnb_available": lambda: False, "NoMatchingPeftModuleError": ValueError, "PeftWarning": UserWarning,
        }
        exec("class _ExcludedModule:\n    def __bool__(self): return False", namespace)
        for node in [*functions(other).values(), *functions(utils).values()]:
            if node.name in ("get_pattern_key", "match_target_against_key", "check_target_module_exists",
                             "_maybe_include_all_linear_layers", "_find_minimal_target_modules",
                             "_check_lora_target_modules_mamba"):
                define(node, namespace)
        own = functions(lora)
        self.find_and_replace = own.get("_find_and_replace")
        self.check = own["_check_target_module_exists"] if "_check_target_module_exists" in own and tag < "v0.6" and len(tag) == 6 else None
        self.prepare = own.get("_prepare_adapter_config") or own.get("_prepare_lora_config") or functions(utils).get("_prepare_adapter_config")
        self.utils = functions(utils)
        self.replace = own.get("_create_and_replace")
        self.post_init = self._checks(config)
        self._load_experts(experts)
        self.saves_head_first = self._saves_head_first(read("src/peft/peft_model.py"))

    def _checks(self, config):
        """The statements of __post_init__ that read the fields of layers."""
        node = next((c for c in ast.walk(ast.parse(config)) if isinstance(c, ast.ClassDef) and c.name == "LoraConfig"))
        init = next(f for f in node.body if isinstance(f, ast.FunctionDef) and f.name == "__post_init__")
        tests = [s for s in init.body if isinstance(s, ast.If) and "layers_" in ast.unparse(s.test)]
        return compile(ast.Module(tests, []), "peft", "exec")

    def _saves_head_first(self, source):
        """Does PeftModelForSequenceClassification add its head to the configuration before it injects the adapter?"""
        node = next(c for c in ast.parse(source).body if isinstance(c, ast.ClassDef) and c.name == "PeftModelForSequenceClassification")
        init = ast.unparse(next(f for f in node.body if isinstance(f, ast.FunctionDef) and f.name == "__init__"))
        added = init.find("peft_config.modules_to_save")
        return 0 <= added < init.index("super().__init__")

    def _load_experts(self, source):
        self.convert = None
        if source is None:
            return
        from transformers.conversion_mapping import _MODEL_TO_CONVERSION_PATTERN
        self.namespace["_MODEL_TO_CONVERSION_PATTERN"] = dict(_MODEL_TO_CONVERSION_PATTERN)
        for node in ast.parse(source).body:
            names = [node.target] if isinstance(node, ast.AnnAssign) else node.targets if isinstance(node, ast.Assign) else []
            if any(ast.unparse(n).startswith(("_MOE", "_MODEL_TO_CONVERSION_PATTERN")) for n in names):
                exec(compile(ast.Module([node], []), "peft", "exec"), self.namespace)
        found = functions(source)
        if "_resolve_string_target_modules" in found:
            define(found["_resolve_string_target_modules"], self.namespace)
        self.convert = define(found["_convert_peft_config_moe"], self.namespace)
        self.convert_takes_model = "model" in [a.arg for a in found["_convert_peft_config_moe"].args.args]

    def rank(self, config, key):
        values = {"lora_config": config, "current_key": key, "r": config.r, "alpha": config.lora_alpha, **self.namespace}
        wanted = {"pattern_keys", "target_name_key", "r_key", "alpha_key", "r", "alpha"}
        if self.replace is not None and "rank_pattern" in ast.unparse(self.replace):
            lines = [s for s in self.replace.body if isinstance(s, ast.Assign) and getattr(s.targets[0], "id", "") in wanted]
            exec(compile(ast.Module(lines, []), "peft", "exec"), values)
        return [values["r"], values["alpha"]]

    def choose(self, model, fields):
        """Names with rank and alpha, or the type of the error."""
        config = make_config(fields)
        if config.task_type == "SEQ_CLS" and self.saves_head_first:
            config.modules_to_save = [*(config.modules_to_save or []), "classifier", "score"]
        hits = []
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                exec(self.post_init, {"self": config, **self.namespace})
                self._run(model, config, hits)
        except Refused as refused:
            return {"error": "Refused", "module": str(refused)}
        except Exception as error:
            return {"error": type(error).__name__, "text": str(error)[:120]}
        return {"targets": hits}

    def _run(self, model, config, hits):
        namespace = self.namespace

        def note(key, module):
            kind = model.kinds.get(key)
            if not isinstance(module, nn.Module) or kind not in self.kinds:
                raise Refused(key)
            hits.append([key, *self.rank(config, key)])

        if self.find_and_replace is not None:
            return self._run_first(model, config, note)
        tuner = Tuner()
        tuner.peft_config = {"default": config}
        tuner.model = model
        tuner.targeted_module_names, tuner.targeted_parameter_names = [], []
        tuner.active_adapters = tuner.active_adapter = ["default"]
        tuner.get_model_config = lambda m: {"model_type": model.config.model_type}
        takes_self = self.prepare.args.args[0].arg == "self"
        prepare = define(self.prepare, namespace)
        tuner.target_module_mapping = namespace["TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING"]
        tuner._prepare_adapter_config = (lambda c, m: prepare(tuner, c, m)) if takes_self else prepare
        check = define(self.check, namespace) if self.check is not None else namespace["check_target_module_exists"]
        tuner._check_target_module_exists = check
        if "_check_target_module_compatiblity" in self.utils:
            compatible = define(self.utils["_check_target_module_compatiblity"], namespace)
            tuner._check_target_module_compatiblity = lambda *a: compatible(tuner, *a)
        if "_inject_parameters" in self.utils:
            inject_parameters = define(self.utils["_inject_parameters"], namespace)
            tuner._inject_parameters = lambda **k: inject_parameters(tuner, **k)

        def create(peft_config, adapter, target, name, parent, current_key=None, parameter_name=None, **_):
            if parameter_name is not None:
                hits.append([current_key, *self.rank(config, current_key)])
            else:
                note(current_key, target)

        tuner._create_and_replace = create
        if self.convert is not None:
            self.convert(config, model if self.convert_takes_model else model.config.model_type)
        define(self.utils["inject_adapter"], namespace)(tuner, model, "default")

    def _run_first(self, model, config, note):
        """Releases 0.3 and 0.4: one loop that wraps at once."""
        namespace = dict(self.namespace)
        tuner = Tuner()
        tuner.peft_config = {"default": config}
        tuner.model = model
        prepare = define(self.prepare, namespace)
        prepare(config, {"model_type": model.config.model_type})
        if self.check is not None:
            check = define(self.check, namespace)
            tuner._check_target_module_exists = lambda c, k: check(tuner, c, k)

        def submodules(root, key):
            found = get_submodules(root, key)
            note(key, found[1])
            return found

        namespace["_get_submodules"] = submodules
        namespace["Linear"] = namespace["Embedding"] = lambda *a, **k: None
        tuner._create_new_module = lambda *a: None
        define(self.find_and_replace, namespace)(tuner, "default")


class Refused(Exception):
    pass


class Tuner:
    """PEFT's tuner, as far as injecting calls it. What is not set does nothing."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *a, **k: False if "tied_module_exists" in name else []


def make_config(fields):
    base = dict(
        r=8, lora_alpha=16, lora_dropout=0.0, fan_in_fan_out=False, init_lora_weights=True, target_modules=None,
        exclude_modules=None, layers_to_transform=None, layers_pattern=None, rank_pattern={}, alpha_pattern={},
        modules_to_save=None, target_parameters=None, task_type=None, peft_type="LORA", inference_mode=False,
        layer_replication=None, ensure_weight_tying=False, bias="none", megatron_config=None,
    )
    values = {**base, **copy.deepcopy(fields)}
    for field in ("target_modules", "exclude_modules"):
        if isinstance(values[field], list):
            values[field] = set(values[field])
    return types.SimpleNamespace(**values)


def cases(names_of):
    """(skeleton, fields): what each change of the rules touches, and combinations."""
    qv = ["q_proj", "v_proj"]
    out = []
    add = lambda skeleton, **fields: out.append((skeleton, fields))
    for skeleton, targets in [("llama-3.2-1b", qv), ("bert-base-seqcls", ["query", "dense"]), ("gpt2", ["c_attn"]),
                              ("t5-small", ["q", "v", "wi"]), ("whisper-tiny", qv), ("olmoe-1b-7b", qv),
                              ("florence2-base", qv), ("deberta-v3-small", ["query_proj"]), ("toy-moe", ["up_proj", "q_proj"]),
                              ("toy-bare", ["q_proj", "proj"]), ("edge-bert-tok", ["query", "classifier"])]:
        add(skeleton, target_modules=targets)
        for layers in ([0], [1, 2], 0, 1, []):
            add(skeleton, target_modules=targets, layers_to_transform=layers)
        for pattern in ("layers", "layer", "h", ["layers", "layer"], ["block", "h"], "(layers|layer)", "layers|layer",
                        "(?:layers|h)", "experts", ".*layers", "l[a-z]+s?", "", []):
            add(skeleton, target_modules=targets, layers_to_transform=[0, 1], layers_pattern=pattern)
        add(skeleton, target_modules=targets, layers_to_transform=0, layers_pattern="layers")
        add(skeleton, target_modules=targets, layers_pattern="layers")
        add(skeleton, target_modules="all-linear")
        add(skeleton, target_modules="All-Linear", task_type="SEQ_CLS")
        add(skeleton)
        add(skeleton, target_modules=targets, modules_to_save=["classifier", "lm_head"])
        add(skeleton, target_modules=targets, modules_to_save=[targets[0]])
        add(skeleton, target_modules=targets, modules_to_save=["encoder.layer.0", "layers.1", "1"])
        add(skeleton, target_modules=targets, exclude_modules=[targets[-1]])
        add(skeleton, target_modules=targets, exclude_modules=r".*\.0\..*")
        add(skeleton, target_modules=rf".*\.({'|'.join(targets)})")
        add(skeleton, target_modules=rf".*[13]\..*\.{targets[0]}")
        for key in (targets[0], rf".*\.1\..*{targets[0]}", "|".join(targets), f"^{targets[0]}", r"layers\.0\..*", "proj"):
            add(skeleton, target_modules=targets, rank_pattern={key: 4})
            add(skeleton, target_modules=targets, alpha_pattern={key: 4}, rank_pattern={targets[-1]: 2})
        add(skeleton, target_modules=targets, rank_pattern={targets[0]: 4, ".*": 2}, alpha_pattern={".*": 5})
        names = [n for n in names_of(skeleton) if any(n == t or n.endswith("." + t) for t in targets)]
        add(skeleton, target_modules=names[:24])
        add(skeleton, target_modules=names[:24], layers_to_transform=[0])
        add(skeleton, target_modules=names[:19], layers_to_transform=[0])
        add(skeleton, target_modules=names[::2])
        add(skeleton, target_modules=[*names[:3], targets[0]], layers_to_transform=[1])
        add(skeleton, target_modules=[targets[0][1:]])
        add(skeleton, target_modules=[targets[0][:-1] + ".", "nothing"])
    add("toy-moe", target_modules=["up_proj", "down_proj"], layers_to_transform=[0], rank_pattern={"layers.0": 2})
    for skeleton in ("olmoe-1b-7b", "mixtral-8x7b"):
        for targets in (["gate_proj", "up_proj", "q_proj"], ["w1", "w3", "q_proj"], ["w1"], ["down_proj"], ["q_proj", "gate"],
                        r".*\.(q_proj|w1|w3|gate_proj|up_proj)", r".*\.q_proj"):
            add(skeleton, target_modules=targets)
    for skeleton in ("mamba-130m",):
        for targets in (["in_proj"], ["out_proj"], ["x_proj", "out_proj"], "all-linear"):
            add(skeleton, target_modules=targets)
    for skeleton in ("bloom-560m", "falcon-7b", "gemma-2-2b", "mistral-7b", "opt-125m", "phi-3-mini", "pythia-70m",
                     "qwen2.5-0.5b", "roberta-base-seqcls", "vit-base", "edge-llama-seqcls"):
        add(skeleton)
        add(skeleton, target_modules="all-linear")
        add(skeleton, target_modules="all-linear", task_type="SEQ_CLS")
    add("resnet-50", target_modules=["convolution"])
    add("edge-wav2vec2", target_modules=["conv", "q_proj"])
    return out


def toy(name, model_type, modules):
    rows = [["", "Toy", "module", None, None, []]]
    for path in modules:
        parts = path.split(".")
        for i in range(1, len(parts)):
            prefix = ".".join(parts[:i])
            if all(row[0] != prefix for row in rows):
                rows.append([prefix, "Block", "module", None, None, []])
        rows.append([path, "Linear", "linear", 4, 4, [["weight", [4, 4]]]])
    return {"name": name, "model_type": model_type, "class": "Toy", "config": {"model_type": model_type},
            "is_pretrained_model": False, "input_embeddings": None, "output_embeddings": None, "num_parameters": 0, "modules": rows}


TOYS = {
    "toy-moe": toy("toy-moe", "custom", [
        f"model.layers.{i}.{leaf}" for i in range(3)
        for leaf in ["self_attn.q_proj", *[f"mlp.experts.{j}.{p}" for j in range(3) for p in ("up_proj", "down_proj")]]
    ]),
    "toy-bare": toy("toy-bare", "custom", [
        "q_proj", *[f"layers.{i}.q_proj" for i in range(3)], *[f"h.{i}.layers.{j}.proj" for i in range(2) for j in range(2)],
        "blocks.0.q_proj", "xlayers.1.q_proj", "model.layers.1",
    ]),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peft", required=True, help="a clone of huggingface/peft with its tags")
    clone = Clone(parser.parse_args().peft)
    skeletons = {}

    def skeleton(name):
        if name not in skeletons:
            skeletons[name] = TOYS.get(name) or json.loads(gzip.decompress((SKELETONS / f"{name}.json.gz").read_bytes()))
        return skeletons[name]

    @functools.cache
    def model_of(name):
        return build_model(skeleton(name))

    todo = cases(lambda name: [row[0] for row in skeleton(name)["modules"] if row[2] in ("linear", "conv1d_hf")])
    releases = [Release(clone, tag) for tag in TAGS]
    digests, vectors = {}, []
    for name, fields in todo:
        model = model_of(name)
        results = {}
        for release in releases:
            results[release.tag[1:]] = release.choose(model, fields)
        vectors.append({"skeleton": name, "config": fields, "releases": fold(results, digests)})
    OUT.mkdir(exist_ok=True)
    text = json.dumps({"toys": TOYS, "outcomes": list(digests.values()), "configurations": vectors}, separators=(",", ":"))
    (OUT / "vectors.json.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    manifest = {
        "script": "scripts/record_versions.py", "configurations": len(vectors), "python": platform.python_version(),
        "torch": torch.__version__, "transformers": transformers.__version__,
        "source": "https://github.com/huggingface/peft (Apache-2.0), functions of each tag run as they are",
        "commits": {tag: clone.commit(tag) for tag in TAGS},
    }
    (OUT / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    print(len(vectors), "configurations", len(digests), "outcomes", len(text) // 1000, "kB")


def fold(results, digests):
    """Outcomes are stored once, and named by position."""
    out = {}
    for release, result in results.items():
        text = json.dumps(compact(result))
        key = hashlib.sha256(text.encode()).hexdigest()
        if key not in digests:
            digests[key] = {"at": len(digests), **compact(result)}
        out[release] = digests[key]["at"]
    return out


def compact(result):
    if "error" in result:
        return {"error": result["error"]}
    targets = result["targets"]
    if len(targets) <= 40:
        return {"targets": targets}
    digest = hashlib.sha256(json.dumps(targets, separators=(",", ":")).encode()).hexdigest()
    return {"count": len(targets), "sha256": digest}


if __name__ == "__main__":
    main()
