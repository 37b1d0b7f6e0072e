"""Records test/vectors/adapter-configs/: the text of adapter_config.json files as PEFT writes them.

    HF_HUB_OFFLINE=1 python scripts/record_adapter_configs.py

- saved.json: keyword arguments of LoraConfig, and the file that `save_pretrained` writes (the whole text).
- reloaded.json: files of older and newer versions, and the file after PEFT has loaded and saved it.
- model.json: the file of a saved PeftModel, which differs in inference_mode and auto_mapping.
- others.json: files that PEFT's LoraConfig does not load, and what happens.

PEFT keeps target_modules and exclude_modules as sets, whose order in a file changes from run to run. They are sorted here
before saving, which is the only difference.
"""
import json
import pathlib
import platform
import tempfile
import warnings

import peft
import torch
import transformers
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.tuners.lora.config import (
    ArrowConfig,
    BdLoraConfig,
    CordaConfig,
    EvaConfig,
    KasaConfig,
    LoraGAConfig,
    MontecloraConfig,
    VeloraConfig,
)
from transformers import LlamaConfig, LlamaForCausalLM

OUT = pathlib.Path(__file__).parent.parent / "test" / "vectors" / "adapter-configs"
SEED = 0
warnings.simplefilter("ignore")

KWARGS = [
    {},
    {"r": 16, "lora_alpha": 32, "lora_dropout": 0.05, "target_modules": ["v_proj", "q_proj"], "task_type": "CAUSAL_LM"},
    {"lora_dropout": 1e-5, "lora_alpha": 1.5},
    {"lora_dropout": 1e-4, "lora_alpha": 0.1, "target_modules": "all-linear"},
    {"lora_dropout": 0.1 + 0.2, "lora_alpha": 1e22, "target_modules": r".*\.(q|v)_proj$"},
    {"target_modules": ["ключ", "q_é", "𝔘", "\uffee", 'quote"\\', "tab\t\n\x7f\x01"], "base_model_name_or_path": "päth/模型"},
    {"target_modules": ["q"], "rank_pattern": {"q": 4, "k": 2, "10": 8, "9": 1}, "alpha_pattern": {"v": 0.5, "o": 16}},
    {"target_modules": ["q"], "exclude_modules": ["b", "a"], "layers_to_transform": [3, 1], "layers_pattern": ["layers", "h"]},
    {"target_modules": ["q"], "layers_to_transform": 0, "layers_pattern": "layers"},
    {"target_modules": ["q"], "modules_to_save": ["lm_head", "embed_tokens"], "bias": "all", "use_rslora": True},
    {"target_modules": ["q"], "trainable_token_indices": {"wte": [1, 2], "b": []}, "fan_in_fan_out": True},
    {"target_modules": ["q"], "layer_replication": [[0, 4], [2, 5]], "use_dora": True, "revision": "main"},
    {"target_modules": [], "target_parameters": ["experts.w", "experts.v"], "ensure_weight_tying": True},
    {"target_modules": ["q"], "init_lora_weights": "pissa_niter_4", "inference_mode": True},
    {"target_modules": ["q"], "init_lora_weights": "eva"},
    {"target_modules": ["q"], "init_lora_weights": "eva", "eva_config": EvaConfig(rho=1.0, tau=1.0, whiten=True)},
    {"target_modules": ["q"], "init_lora_weights": "corda"},
    {"target_modules": ["q"], "corda_config": CordaConfig(cache_file="x", corda_method="kpm")},
    {"target_modules": ["q"], "init_lora_weights": "lora_ga", "lora_ga_config": LoraGAConfig(direction="ArBr")},
    {"target_modules": ["q"], "loftq_config": {"loftq_bits": 4}},
    {"target_modules": ["q"], "megatron_config": {"z": 1, "a": {"y": [1.5, None, True], "b": {}}}},
    {"target_modules": ["q"], "alora_invocation_tokens": [1, 2], "task_type": "CAUSAL_LM"},
    {"target_modules": ["q"], "use_qalora": True, "qalora_group_size": 32, "lora_bias": True},
    {"target_modules": ["q"], "velora_config": VeloraConfig(num_groups=8, scale=2.0)},
    {"target_modules": ["q"], "arrow_config": ArrowConfig(top_k=2, router_temperature=0.5, rng_seed=3)},
    {"target_modules": ["q"], "kasa_config": KasaConfig()},
    {"target_modules": ["q"], "monteclora_config": MontecloraConfig(num_samples=4)},
    {"target_modules": ["q"], "use_bdlora": BdLoraConfig(target_modules_bd_a=["q"], nblocks=2)},
]

OLD = {  # members of a file that PEFT 0.4 writes
    "auto_mapping": None, "base_model_name_or_path": "some/model", "bias": "none", "fan_in_fan_out": False,
    "inference_mode": True, "init_lora_weights": True, "layers_pattern": None, "layers_to_transform": None,
    "lora_alpha": 16, "lora_dropout": 0.1, "modules_to_save": None, "peft_type": "LORA", "r": 8, "revision": None,
    "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM",
}
FILES = [
    OLD,
    {**OLD, "loftq_config": {}, "rank_pattern": {}, "alpha_pattern": {}, "megatron_config": None,
     "megatron_core": "megatron.core", "use_rslora": False, "target_modules": ["k_proj"]},  # 0.8
    {**OLD, "enable_lora": None, "merge_weights": False},  # members that are gone
    {**OLD, "of_the_future": {"b": [1], "a": 2}, "peft_version": "0.99.1"},
    {**OLD, "runtime_config": {"ephemeral_gpu_offload": False}},
    {**OLD, "peft_version": "0.18.0", "eva_config": {"rho": 2.0, "tau": 0.5}, "use_dora": True},
    {**OLD, "peft_version": None, "rank_pattern": None, "alpha_pattern": None, "loftq_config": None},
    {**OLD, "task_type": None, "auto_mapping": {"base_model_class": "M", "parent_library": "l"}},
    {"peft_type": "LORA"},
]
OTHERS = [
    {"peft_type": "IA3"}, {"peft_type": "LOHA"}, {"peft_type": "lora"}, {"peft_type": "LoRA"}, {"peft_type": "NOPE"}, {},
    {"r": 4, "target_modules": ["q"]},
]


def text_of(config, **kwargs):
    for field in ("target_modules", "exclude_modules"):
        if isinstance(getattr(config, field), set):
            setattr(config, field, sorted(getattr(config, field)))
    with tempfile.TemporaryDirectory() as directory:
        config.save_pretrained(directory, **kwargs)
        return pathlib.Path(directory, "adapter_config.json").read_text()


def plain(kwargs):
    """Keyword arguments as JSON; the settings of a variant are those that differ from its defaults."""
    return {
        key: {k: v for k, v in vars(value).items() if v != vars(type(value)())[k]} if hasattr(value, "__dict__") else value
        for key, value in kwargs.items()
    }


def load(content, loader):
    with tempfile.TemporaryDirectory() as directory:
        pathlib.Path(directory, "adapter_config.json").write_text(json.dumps(content))
        return loader(directory)


def outcome(content):
    try:
        return type(load(content, PeftConfig.from_pretrained)).__name__
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"


def tiny_llama():
    torch.manual_seed(SEED)
    config = LlamaConfig(vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    return LlamaForCausalLM(config)


def saved_model(kwargs):
    model = get_peft_model(tiny_llama(), LoraConfig(**kwargs))
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory)
        text = pathlib.Path(directory, "adapter_config.json").read_text()
        PeftModel.from_pretrained(tiny_llama(), directory)
    return text


def write(name, value):
    (OUT / name).write_text(json.dumps(value, indent=1) + "\n")


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    write("saved.json", [{"kwargs": plain(kwargs), "text": text_of(LoraConfig(**kwargs))} for kwargs in KWARGS])
    write("reloaded.json", [{"file": file, "text": text_of(load(file, PeftConfig.from_pretrained))} for file in FILES])
    cases = [
        {"r": 2, "target_modules": ["q_proj"]},
        {"r": 2, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"},
    ]
    write("model.json", [{"kwargs": kwargs, "text": saved_model(kwargs)} for kwargs in cases])
    write("others.json", [{"file": file, "outcome": outcome(file)} for file in OTHERS])
    versions = {"python": platform.python_version(), "peft": peft.__version__, "torch": torch.__version__,
                "transformers": transformers.__version__}
    write("manifest.json", {"script": "scripts/record_adapter_configs.py", "seed": SEED, **versions})


if __name__ == "__main__":
    main()
