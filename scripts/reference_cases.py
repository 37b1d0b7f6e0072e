"""What the reference recorder makes: tiny checkpoints and LoRA configurations, hand-written and random.

A case says everything that decides the numbers: the model's config, how it is stored, the LoRA config, the padding
side and the lengths of the examples. `record_models.py` turns a case into a folder of files.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Case:
    """One checkpoint, one adapter, one set of expectations."""

    name: str
    description: str
    model_type: str
    config: dict[str, Any]
    lora: dict[str, Any]
    #: dtype of the stored checkpoint; everything is computed in float32
    storage: str = "float32"
    #: `max_shard_size` of save_pretrained, None for a single file
    shard: str | None = None
    #: None: as transformers 5 writes config.json; "type" / "rope_type": as transformers 4 did, with that key in rope_scaling
    old_style: str | None = None
    padding_side: str = "right"
    #: length of each line of tokens.jsonl
    lengths: list[int] = field(default_factory=lambda: [13, 9, 16, 12, 8, 15, 11])
    #: length of each row of the fixed batch, before padding
    batch_lengths: list[int] = field(default_factory=lambda: [17, 12, 9])
    prompt_length: int = 6
    #: also train with clipping, a cosine schedule with warm-up and gradient accumulation
    accumulation: bool = False
    #: also generate for a left-padded batch of two
    batch_generation: bool = False
    #: make the generation stop early, at an end-of-sequence token that the model really produces
    stop_early: bool = False
    #: also record the weights that merge_and_unload gives, in the stored dtype
    merged: bool = False


def shape(**changes: Any) -> dict[str, Any]:
    """A small decoder, with parameters random enough that nothing degenerates."""
    base = {
        "vocab_size": 96,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.2,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    return {**base, **changes}


FULL = [18, 11, 18, 9, 18, 14, 18]  # every batch of two, and the last of one, is 18 tokens long

PUBLIC_CASES = [
    Case(
        "llama-qv",
        "plain Llama without grouped queries; q_proj and v_proj",
        "llama",
        shape(num_key_value_heads=4, rope_parameters={"rope_type": "default", "rope_theta": 10000.0}),
        {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
        accumulation=True,
        merged=True,
    ),
    Case(
        "llama-tied-llama3-rope",
        "tied embeddings, one key-value head, llama3 RoPE, stored as BF16; every linear layer",
        "llama",
        shape(
            hidden_size=48,
            intermediate_size=64,
            num_attention_heads=4,
            num_key_value_heads=1,
            head_dim=12,
            tie_word_embeddings=True,
            rope_parameters={
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            },
        ),
        {"r": 2, "lora_alpha": 6, "target_modules": "all-linear"},
        storage="bfloat16",
        merged=True,
    ),
    Case(
        "llama-smollm2-style",
        "as SmolLM2 is published: transformers 4 config without rope_scaling, tied, 3 heads on 1; attention and MLP inputs",
        "llama",
        shape(
            hidden_size=36,
            num_attention_heads=3,
            num_key_value_heads=1,
            num_hidden_layers=3,
            tie_word_embeddings=True,
            rms_norm_eps=1e-5,
            vocab_size=112,
            rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        ),
        {"r": 3, "lora_alpha": 3, "target_modules": ["q_proj", "k_proj", "v_proj", "gate_proj"]},
        storage="bfloat16",
        old_style="rope_type",
        stop_early=True,
    ),
    Case(
        "llama-biases-linear-rope",
        "attention and MLP biases, all trained; linear RoPE in a transformers 4 config; left padding",
        "llama",
        shape(
            attention_bias=True,
            mlp_bias=True,
            rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0},
        ),
        {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "o_proj", "down_proj"], "bias": "all"},
        old_style="type",
        padding_side="left",
        batch_generation=True,
    ),
    Case(
        "llama-dynamic-rope",
        "dynamic RoPE on sequences longer than max_position_embeddings; regular expression; rank-stabilised scaling",
        "llama",
        shape(
            max_position_embeddings=10,
            rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 3.0},
        ),
        {
            "r": 4,
            "lora_alpha": 4,
            "use_rslora": True,
            "target_modules": r".*\.layers\.\d+\.(self_attn\.[kv]_proj|mlp\.up_proj)",
        },
        lengths=FULL,
        batch_lengths=[18, 13],
    ),
    Case(
        "llama-dynamic-rope-old-style",
        "dynamic RoPE in a transformers 4 config, in shards, stored as BF16, exact gelu",
        "llama",
        shape(
            hidden_size=48,
            num_attention_heads=6,
            num_key_value_heads=3,
            max_position_embeddings=12,
            hidden_act="gelu",
            rope_parameters={"rope_type": "dynamic", "rope_theta": 1000.0, "factor": 2.0},
        ),
        {"r": 2, "lora_alpha": 8, "target_modules": ["up_proj", "down_proj", "q_proj"]},
        storage="bfloat16",
        shard="12KB",
        old_style="type",
        lengths=FULL,
        batch_lengths=[18, 10, 15],
    ),
    Case(
        "llama-yarn",
        "YaRN RoPE with every optional field left out; every linear layer but gate_proj",
        "llama",
        shape(
            num_attention_heads=2,
            num_key_value_heads=2,
            rope_parameters={
                "rope_type": "yarn",
                "rope_theta": 100.0,
                "factor": 4.0,
                "original_max_position_embeddings": 16,
            },
        ),
        {"r": 2, "lora_alpha": 5, "target_modules": "all-linear", "exclude_modules": ["gate_proj"]},
    ),
    Case(
        "llama-embedding-lora",
        "LoRA on embed_tokens and q_proj, not tied",
        "llama",
        shape(vocab_size=80, rope_parameters={"rope_type": "default", "rope_theta": 10000.0}),
        {"r": 2, "lora_alpha": 4, "target_modules": ["embed_tokens", "q_proj"]},
    ),
    Case(
        "llama-lm-head-lora",
        "LoRA on lm_head and o_proj, not tied, gelu by tanh, F16 storage, left padding",
        "llama",
        shape(
            vocab_size=128,
            hidden_act="gelu_pytorch_tanh",
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        ),
        {"r": 3, "lora_alpha": 6, "target_modules": ["lm_head", "o_proj"]},
        storage="float16",
        padding_side="left",
    ),
    Case(
        "llama-llama3-rope-old-style",
        "as Llama 3.2 is published: transformers 4 config, llama3 RoPE, tied; one regular expression over a range of layers",
        "llama",
        shape(
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=1,
            head_dim=16,
            tie_word_embeddings=True,
            rms_norm_eps=1e-5,
            rope_parameters={
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 24,
            },
        ),
        {"r": 4, "lora_alpha": 8, "target_modules": r"model\.layers\.[2-3]\.(self_attn\.[qv]|mlp\.down)_proj"},
        storage="bfloat16",
        old_style="rope_type",
        accumulation=True,
    ),
    Case(
        "mistral-sliding-window",
        "sliding window shorter than the sequence, stored as F16; one layer through layers_to_transform",
        "mistral",
        shape(
            hidden_size=48,
            num_attention_heads=4,
            num_key_value_heads=2,
            sliding_window=5,
            num_hidden_layers=3,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        ),
        {
            "r": 4,
            "lora_alpha": 16,
            "target_modules": ["q_proj", "k_proj", "up_proj"],
            "layers_to_transform": [1, 2],
            "layers_pattern": "layers",
        },
        storage="float16",
        prompt_length=9,
        merged=True,
    ),
    Case(
        "mistral-sliding-window-left-padding",
        "sliding window with left padding, for the batch and for generation; head_dim not hidden / heads",
        "mistral",
        shape(
            sliding_window=4,
            head_dim=12,
            num_key_value_heads=1,
            rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
        ),
        {"r": 2, "lora_alpha": 4, "target_modules": ["v_proj", "o_proj"]},
        padding_side="left",
        prompt_length=8,
        batch_generation=True,
    ),
    Case(
        "mistral-yarn-attention-factor",
        "YaRN RoPE with attention_factor in a transformers 4 config, no sliding window; lm_head trained in full",
        "mistral",
        shape(
            vocab_size=64,
            sliding_window=None,
            head_dim=16,
            num_attention_heads=2,
            num_key_value_heads=1,
            rope_parameters={
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 2.0,
                "original_max_position_embeddings": 32,
                "attention_factor": 0.8,
                "beta_fast": 2.0,
                "beta_slow": 0.5,
            },
        ),
        {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"], "modules_to_save": ["lm_head"]},
        old_style="type",
    ),
    Case(
        "qwen2-tied",
        "query, key and value biases, tied embeddings, stored as BF16; trains the biases of the adapted layers",
        "qwen2",
        shape(
            vocab_size=120,
            tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
        ),
        {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"], "bias": "lora_only"},
        storage="bfloat16",
    ),
    Case(
        "qwen2-sliding-window",
        "sliding window from layer max_window_layers on",
        "qwen2",
        shape(
            num_hidden_layers=3,
            use_sliding_window=True,
            sliding_window=5,
            max_window_layers=1,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        ),
        {"r": 2, "lora_alpha": 2, "target_modules": "all-linear", "exclude_modules": r".*\.(o|gate)_proj"},
        prompt_length=9,
        accumulation=True,
        storage="float16",
    ),
    Case(
        "qwen2-layer-types",
        "layer_types that alternate; shards; rank_pattern and alpha_pattern; left padding",
        "qwen2",
        shape(
            num_hidden_layers=3,
            num_key_value_heads=1,
            use_sliding_window=True,
            sliding_window=6,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        ),
        {
            "r": 2,
            "lora_alpha": 4,
            "target_modules": ["q_proj", "v_proj", "up_proj"],
            "rank_pattern": {"layers.0.self_attn.q_proj": 5, "up_proj": 1},
            "alpha_pattern": {r"layers\.[12]\.self_attn\.v_proj": 9},
        },
        storage="bfloat16",
        shard="10KB",
        padding_side="left",
    ),
    Case(
        "qwen2-yarn-old-style",
        "as Qwen2.5 documents long contexts: transformers 4 config with rope_scaling of type yarn; gelu_new",
        "qwen2",
        shape(
            hidden_act="gelu_new",
            max_position_embeddings=32,
            rope_parameters={
                "rope_type": "yarn",
                "rope_theta": 1000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 32,
            },
        ),
        {"r": 3, "lora_alpha": 6, "target_modules": ["k_proj", "gate_proj"]},
        old_style="type",
    ),
    Case(
        "qwen2-tied-embedding-lora",
        "LoRA on embed_tokens whose weight lm_head shares: the head stays without the adapter",
        "qwen2",
        shape(
            vocab_size=72,
            tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        ),
        {"r": 2, "lora_alpha": 4, "target_modules": ["embed_tokens", "v_proj"]},
        storage="bfloat16",
    ),
    Case(
        "qwen3-head-dim",
        "query and key norms, head_dim twice hidden / heads; every linear layer",
        "qwen3",
        shape(
            head_dim=16,
            num_key_value_heads=1,
            rms_norm_eps=1e-5,
            rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
        ),
        {"r": 2, "lora_alpha": 4, "target_modules": "all-linear"},
        storage="bfloat16",
        batch_generation=True,
    ),
    Case(
        "qwen3-yarn-mscale",
        "YaRN RoPE with mscale, mscale_all_dim, beta_fast, beta_slow and no truncation; tied, attention biases",
        "qwen3",
        shape(
            head_dim=16,
            attention_bias=True,
            tie_word_embeddings=True,
            rms_norm_eps=1e-3,
            rope_parameters={
                "rope_type": "yarn",
                "rope_theta": 100.0,
                "factor": 4.0,
                "original_max_position_embeddings": 16,
                "beta_fast": 4.0,
                "beta_slow": 0.5,
                "mscale": 1.0,
                "mscale_all_dim": 0.4,
                "truncate": False,
            },
        ),
        {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "k_proj", "o_proj"], "layers_to_transform": [1]},
    ),
    Case(
        "qwen3-sliding-window",
        "query and key norms with a sliding window in the upper layers; left padding; layers_to_transform of one layer",
        "qwen3",
        shape(
            head_dim=8,
            num_hidden_layers=3,
            use_sliding_window=True,
            sliding_window=4,
            max_window_layers=2,
            num_key_value_heads=4,
            rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 3.0},
        ),
        {"r": 2, "lora_alpha": 4, "target_modules": ["v_proj", "o_proj"], "layers_to_transform": 0},
        padding_side="left",
        storage="float16",
        prompt_length=8,
    ),
]


LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def random_rope(rng: random.Random, longest: int) -> tuple[dict[str, Any], int]:
    """A random rope_parameters and the max_position_embeddings that goes with it."""
    theta = rng.choice([100.0, 1000.0, 10000.0, 500000.0])
    kind = rng.choice(["default", "linear", "dynamic", "llama3", "yarn"])
    rope: dict[str, Any] = {"rope_type": kind, "rope_theta": theta}
    if kind == "default":
        return rope, 64
    rope["factor"] = rng.choice([1.5, 2.0, 4.0, 8.0])
    if kind == "linear":
        return rope, 64
    if kind == "dynamic":
        return rope, rng.randint(longest // 2, longest - 4)
    rope["original_max_position_embeddings"] = rng.choice([8, 16, 32])
    if kind == "llama3":
        rope["low_freq_factor"] = rng.choice([1.0, 2.0])
        rope["high_freq_factor"] = rng.choice([4.0, 8.0])
    elif rng.random() < 0.7:
        if rng.random() < 0.5:
            rope["beta_fast"], rope["beta_slow"] = rng.choice([(4.0, 0.5), (8.0, 2.0), (32.0, 1.0)])
        if rng.random() < 0.4:
            rope["attention_factor"] = rng.choice([0.7, 1.0, 1.3])
        elif rng.random() < 0.5:
            rope["mscale"], rope["mscale_all_dim"] = rng.choice([(1.0, 0.5), (0.7, 1.0)])
        if rng.random() < 0.3:
            rope["truncate"] = False
    return rope, 128


def random_lora(rng: random.Random, layers: int, biased: bool, tied: bool) -> dict[str, Any]:
    """A random LoRA configuration that selects at least one layer."""
    lora: dict[str, Any] = {"r": rng.randint(1, 6), "lora_alpha": rng.choice([1, 2, 4, 8, 16])}
    names = sorted(rng.sample(LINEAR, rng.randint(1, 5)))
    how = rng.choice(["list", "list", "regex", "all-linear", "layers", "head"])
    if how == "all-linear":
        lora["target_modules"] = "all-linear"
        if rng.random() < 0.5:
            lora["exclude_modules"] = [rng.choice(LINEAR)]
    elif how == "regex":
        lora["target_modules"] = r".*\.\d+\.\w+\.(" + "|".join(names) + ")"
    elif how == "layers":
        lora["target_modules"] = names
        lora["layers_to_transform"] = sorted(rng.sample(range(layers), rng.randint(1, layers)))
        if rng.random() < 0.5:
            lora["layers_pattern"] = "layers"
    elif how == "head" and not tied:
        lora["target_modules"] = [*names, "lm_head"]
    else:
        lora["target_modules"] = names
    if rng.random() < 0.3:
        lora["use_rslora"] = True
    if rng.random() < 0.3:
        lora["rank_pattern"] = {names[0]: rng.randint(1, 8)}
    if rng.random() < 0.3:
        lora["alpha_pattern"] = {names[-1]: rng.choice([3, 7, 32])}
    if biased:
        lora["bias"] = rng.choice(["none", "all", "lora_only"])
    return lora


def random_case(seed: int, index: int) -> Case:
    """Case number `index` of the random family `seed`: any combination of the settings above."""
    rng = random.Random(f"graft-{seed}-{index}")
    model_type = rng.choice(["llama", "mistral", "qwen2", "qwen3"])
    layers = rng.randint(2, 3)
    heads = rng.choice([2, 3, 4])
    kv_heads = rng.choice([n for n in range(1, heads + 1) if heads % n == 0])
    head_width = rng.choice([8, 12, 16])
    longest = rng.randint(14, 22)
    rope, max_positions = random_rope(rng, longest)
    tied = rng.random() < 0.4
    config = shape(
        vocab_size=rng.randint(64, 140),
        hidden_size=heads * head_width,
        intermediate_size=rng.randint(30, 70),
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=max_positions,
        initializer_range=rng.choice([0.15, 0.2, 0.25]),
        rms_norm_eps=rng.choice([1e-6, 1e-5, 1e-3]),
        tie_word_embeddings=tied,
        hidden_act=rng.choice(["silu", "silu", "silu", "gelu", "gelu_new", "gelu_pytorch_tanh"]),
        rope_parameters=rope,
    )
    if model_type == "qwen3":
        config["head_dim"] = rng.choice([8, 16])
    elif model_type != "qwen2" and rng.random() < 0.4:
        config["head_dim"] = rng.choice([8, 12, 16])
    biased = model_type == "qwen2"
    if model_type == "llama":
        config["attention_bias"] = rng.random() < 0.4
        config["mlp_bias"] = rng.random() < 0.4
        biased = config["attention_bias"] or config["mlp_bias"]
    if model_type == "qwen3":
        config["attention_bias"] = biased = rng.random() < 0.4
    if model_type == "mistral":
        config["sliding_window"] = rng.choice([None, 3, 5, 8])
    if model_type in ("qwen2", "qwen3") and rng.random() < 0.6:
        config["use_sliding_window"] = True
        config["sliding_window"] = rng.choice([3, 5, 8])
        config["max_window_layers"] = rng.randint(0, layers - 1)
    # Dynamic RoPE remembers the longest sequence it has seen; batches of one length keep it free of history.
    dynamic = rope["rope_type"] == "dynamic"
    count = rng.choice([5, 7])
    lengths = [longest if dynamic and i % 2 == 0 else rng.randint(7, longest) for i in range(count)]
    batch_lengths = [longest, *(rng.randint(7, longest) for _ in range(rng.randint(1, 2)))]
    return Case(
        f"random-{seed}-{index}",
        f"random: {model_type}, {rope['rope_type']} RoPE",
        model_type,
        config,
        random_lora(rng, layers, biased, tied),
        storage=rng.choice(["float32", "bfloat16", "float16"]),
        shard=rng.choice([None, None, "16KB"]),
        old_style=rng.choice([None, "type", "rope_type"]),
        padding_side=rng.choice(["right", "left"]),
        lengths=lengths,
        batch_lengths=batch_lengths,
        prompt_length=rng.randint(4, 9),
        accumulation=count == 7 and rng.random() < 0.4,
        batch_generation=not dynamic and rng.random() < 0.4,
        stop_early=rng.random() < 0.3,
        merged=rng.random() < 0.5,
    )
