"""Records what PEFT selects and saves on the class that came with older Florence-2 checkpoints ("remote code").

    python scripts/record_florence2_older_adapters.py --out test/vectors/florence2-older

That class is no part of transformers. Its stand-in here has the same modules, by name, order, class name, kind and shape, as
modeling_florence2.py beside microsoft/Florence-2-base defines them, and computes nothing: PEFT looks at no more. Its tensors
are checked against the conversion rules, by which transformers' own class gets the same ones.

Writes config.json (a tiny model in the older layout), tree.json.gz (the stand-in's module tree, as make_skeletons.py writes
it), selections.json (what PEFT selects and saves for each configuration, or the exception that it raises) and adapters/NAME
(some of them, with random weights, as PEFT saves them).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import warnings
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import peft
import torch
import transformers
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper, get_peft_model_state_dict
from torch import nn
from transformers import Florence2Config, Florence2ForConditionalGeneration, PreTrainedModel
from transformers.activations import ACT2FN

import make_skeletons
from record_florence2 import Case, older_name, text, vision, write_older
from record_models import save_adapter

CASE = Case(
    "older",
    "four stages, three layers on either side",
    text(encoder_layers=3, decoder_layers=3, vocab_size=48),
    vision(
        embed_dim=[8, 8, 12, 16],
        num_heads=[2, 2, 3, 4],
        num_groups=[2, 4, 3, 2],
        depths=[1, 1, 2, 1],
        patch_size=[7, 3, 3, 3],
        patch_stride=[4, 2, 2, 2],
        patch_padding=[3, 1, 1, 1],
        patch_prenorm=[False, True, True, True],
        drop_path_rate=0.1,
        mlp_ratio=4.0,
    ),
    {},
    picture=(64, 64),
)


# ------------------------------------------------------------------ the stand-in: names as in modeling_florence2.py
class LearnedAbsolutePositionEmbedding2D(nn.Module):
    def __init__(self, width: int, places: int):
        super().__init__()
        self.row_embeddings = nn.Embedding(places, width // 2)
        self.column_embeddings = nn.Embedding(places, width - width // 2)


class PositionalEmbeddingCosine1D(nn.Module):
    def __init__(self, width: int, places: int):
        super().__init__()
        self.register_buffer("pos_idx_to_embed", torch.zeros(places, width))


class MySequential(nn.Sequential):
    pass


class DropPath(nn.Module):
    pass


class PreNorm(nn.Module):
    def __init__(self, norm: nn.Module | None, fn: nn.Module, drop_path: nn.Module | None = None):
        super().__init__()
        self.norm = norm
        self.fn = fn
        self.drop_path = drop_path


class Mlp(nn.Module):
    def __init__(self, width: int, inner: int):
        super().__init__()
        layers = [("fc1", nn.Linear(width, inner)), ("act", nn.GELU()), ("fc2", nn.Linear(inner, width))]
        self.net = nn.Sequential(OrderedDict(layers))


class DepthWiseConv2d(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.dw = nn.Conv2d(width, width, kernel_size=3, padding=1, groups=width, stride=1)


class ConvEmbed(nn.Module):
    def __init__(self, inputs: int, width: int, size: int, stride: int, padding: int, prenorm: bool):
        super().__init__()
        self.proj = nn.Conv2d(inputs, width, kernel_size=size, stride=stride, padding=padding)
        self.norm = nn.LayerNorm(inputs if prenorm else width)


class ChannelAttention(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)


class WindowAttention(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.softmax = nn.Softmax(dim=-1)


class Block(nn.Module):
    def __init__(self, width: int, ratio: float, rate: float, attention: str):
        super().__init__()
        drop_path = DropPath() if rate > 0 else nn.Identity()
        attend = WindowAttention(width) if attention == "window_attn" else ChannelAttention(width)
        self.conv1 = PreNorm(None, DepthWiseConv2d(width))
        self.add_module(attention, PreNorm(nn.LayerNorm(width), attend, drop_path))
        self.conv2 = PreNorm(None, DepthWiseConv2d(width))
        self.ffn = PreNorm(nn.LayerNorm(width), Mlp(width, int(width * ratio)), drop_path)


class SpatialBlock(Block):
    def __init__(self, width: int, ratio: float, rate: float):
        super().__init__(width, ratio, rate, "window_attn")


class ChannelBlock(Block):
    def __init__(self, width: int, ratio: float, rate: float):
        super().__init__(width, ratio, rate, "channel_attn")


class DaViT(nn.Module):
    def __init__(self, config: Any):
        super().__init__()
        widths = config.embed_dim
        rates = [x.item() for x in torch.linspace(0, config.drop_path_rate, sum(config.depths) * 2)]
        self.convs = nn.ModuleList(
            ConvEmbed(
                3 if i == 0 else widths[i - 1],
                width,
                config.patch_size[i],
                config.patch_stride[i],
                config.patch_padding[i],
                config.patch_prenorm[i],
            )
            for i, width in enumerate(widths)
        )
        blocks = []
        for i, width in enumerate(widths):
            offset = 2 * sum(config.depths[:i])
            halves = [
                OrderedDict(
                    spatial_block=SpatialBlock(width, config.mlp_ratio, rates[offset + 2 * j]),
                    channel_block=ChannelBlock(width, config.mlp_ratio, rates[offset + 2 * j + 1]),
                )
                for j in range(config.depths[i])
            ]
            blocks.append(MySequential(*[MySequential(half) for half in halves]))
        self.blocks = nn.ModuleList(blocks)
        # `norms` and `head` are there in between, and deleted by the model
        self.avgpool = nn.AdaptiveAvgPool1d(1)


class Florence2LearnedPositionalEmbedding(nn.Embedding):
    pass


class Florence2ScaledWordEmbedding(nn.Embedding):
    pass


class Florence2SdpaAttention(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)


class Florence2EncoderLayer(nn.Module):
    def __init__(self, config: Any):
        super().__init__()
        width = config.d_model
        self.self_attn = Florence2SdpaAttention(width)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.activation_fn = ACT2FN[config.activation_function]
        self.fc1 = nn.Linear(width, config.encoder_ffn_dim)
        self.fc2 = nn.Linear(config.encoder_ffn_dim, width)
        self.final_layer_norm = nn.LayerNorm(width)


class Florence2DecoderLayer(nn.Module):
    def __init__(self, config: Any):
        super().__init__()
        width = config.d_model
        self.self_attn = Florence2SdpaAttention(width)
        self.activation_fn = ACT2FN[config.activation_function]
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.encoder_attn = Florence2SdpaAttention(width)
        self.encoder_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, config.decoder_ffn_dim)
        self.fc2 = nn.Linear(config.decoder_ffn_dim, width)
        self.final_layer_norm = nn.LayerNorm(width)


class Florence2Side(nn.Module):
    def __init__(self, config: Any, shared: nn.Embedding, layer: type[nn.Module], count: int):
        super().__init__()
        self.embed_tokens = Florence2ScaledWordEmbedding(config.vocab_size, config.d_model, config.pad_token_id)
        self.embed_tokens.weight = shared.weight
        self.embed_positions = Florence2LearnedPositionalEmbedding(config.max_position_embeddings + 2, config.d_model)
        self.layers = nn.ModuleList(layer(config) for _ in range(count))
        self.layernorm_embedding = nn.LayerNorm(config.d_model)


class Florence2Encoder(Florence2Side):
    pass


class Florence2Decoder(Florence2Side):
    pass


class Florence2LanguageModel(nn.Module):
    def __init__(self, config: Any):
        super().__init__()
        self.shared = nn.Embedding(config.vocab_size, config.d_model, config.pad_token_id)
        self.encoder = Florence2Encoder(config, self.shared, Florence2EncoderLayer, config.encoder_layers)
        self.decoder = Florence2Decoder(config, self.shared, Florence2DecoderLayer, config.decoder_layers)


class Florence2LanguageForConditionalGeneration(nn.Module):
    def __init__(self, config: Any):
        super().__init__()
        self.model = Florence2LanguageModel(config)
        self.register_buffer("final_logits_bias", torch.zeros((1, config.vocab_size)))
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.lm_head.weight = self.model.shared.weight


def stand_in(config: Florence2Config) -> PreTrainedModel:
    class Florence2ForConditionalGeneration(PreTrainedModel):
        config_class = Florence2Config
        _tied_weights_keys = [
            "language_model.encoder.embed_tokens.weight",
            "language_model.decoder.embed_tokens.weight",
            "language_model.lm_head.weight",
        ]

        def __init__(self, config: Florence2Config):
            super().__init__(config)
            eyes = config.vision_config
            width = eyes.embed_dim[-1]
            self.vision_tower = DaViT(eyes)
            self.image_projection = nn.Parameter(torch.empty(width, eyes.projection_dim))
            self.image_proj_norm = nn.LayerNorm(eyes.projection_dim)
            self.image_pos_embed = LearnedAbsolutePositionEmbedding2D(width, eyes.max_position_embeddings)
            self.visual_temporal_embed = PositionalEmbeddingCosine1D(width, eyes.max_temporal_embeddings)
            self.language_model = Florence2LanguageForConditionalGeneration(config.text_config)

        def get_input_embeddings(self) -> nn.Module:
            return self.language_model.model.shared

        def prepare_inputs_for_generation(self, **_: Any) -> None:
            raise NotImplementedError

        def forward(self, **_: Any) -> None:
            raise NotImplementedError

    model = Florence2ForConditionalGeneration(config)
    native = transformers.Florence2ForConditionalGeneration(config).state_dict()
    renamed = {older_name(name): tuple(tensor.shape) for name, tensor in native.items()}
    renamed["image_projection"] = renamed["image_projection"][::-1]
    renamed["language_model.final_logits_bias"] = (1, config.text_config.vocab_size)
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if own != renamed:
        raise SystemExit(f"the stand-in differs from the conversion rules: {set(own.items()) ^ set(renamed.items())}")
    return model


# ------------------------------------------------------------------ configurations
ENCODER = r"language_model\.model\.encoder"
CONFIGS: dict[str, dict[str, Any]] = {
    "qv": {"target_modules": ["q_proj", "v_proj"]},
    # as in the published notebooks on training Florence-2
    "notebook": {
        "r": 8,
        "lora_alpha": 8,
        "lora_dropout": 0.05,
        "target_modules": ["q_proj", "o_proj", "k_proj", "v_proj", "linear", "Conv2d", "lm_head", "fc2"],
        "use_rslora": True,
        "init_lora_weights": "gaussian",
        "task_type": "CAUSAL_LM",
    },
    "every-attention": {"target_modules": ["q_proj", "k_proj", "v_proj", "out_proj", "qkv", "proj"]},
    "vision-list": {"target_modules": ["qkv", "proj", "fc1", "fc2"]},
    "depthwise": {"target_modules": ["dw"], "r": 48},
    "patches": {"target_modules": ["convs.0.proj", "convs.3.proj"]},
    "fn-qkv": {"target_modules": ["fn.qkv"]},
    "net-fc1": {"target_modules": ["net.fc1"]},
    "window-attn-fn-proj": {"target_modules": ["window_attn.fn.proj"]},
    "spatial-regex": {"target_modules": r"vision_tower\.blocks\.\d+\.\d+\.spatial_block\.window_attn\.fn\.(qkv|proj)"},
    "last-stage": {"target_modules": r"vision_tower\.blocks\.3\..*\.(qkv|proj|fc1|fc2)"},
    "stage-2-block-1": {"target_modules": r"vision_tower\.blocks\.2\.1\..*fn\.(qkv|net\.fc[12])"},
    "encoder-last-two": {"target_modules": ENCODER + r"\.layers\.[12]\..*(_proj|fc[12])"},
    "decoder-cross": {"target_modules": r".*decoder\.layers\.\d+\.encoder_attn\.(k|v)_proj"},
    "towers": {"target_modules": r".*blocks\.3\..*qkv|.*encoder\.layers\.2\..*v_proj|.*decoder\..*fc1"},
    "full-name": {"target_modules": ["language_model.model.encoder.layers.0.self_attn.q_proj"]},
    "full-regex": {"target_modules": r"language_model\.model\.decoder\.layers\.0\.fc1"},
    "layers": {"target_modules": ["q_proj", "fc1"], "layers_to_transform": [0, 2]},
    "layers-pattern": {
        "target_modules": ["q_proj", "v_proj", "qkv"],
        "layers_to_transform": [1],
        "layers_pattern": "layers",
    },
    "blocks-pattern": {
        "target_modules": ["qkv", "proj", "q_proj"],
        "layers_to_transform": [2, 3],
        "layers_pattern": ["blocks"],
    },
    "two-patterns": {
        "target_modules": ["fc1", "fc2"],
        "layers_to_transform": [1, 2],
        "layers_pattern": ["blocks", "layers"],
    },
    "older-pattern": {
        "target_modules": ["self_attn.k_proj"],
        "layers_to_transform": 1,
        "layers_pattern": "language_model.model.decoder.layers",
    },
    "all-linear": {"target_modules": "all-linear"},
    "all-linear-but": {"target_modules": "all-linear", "exclude_modules": ["fc1", "fc2", "lm_head"]},
    "all-linear-not-vision": {"target_modules": "all-linear", "exclude_modules": r"vision_tower.*|.*lm_head"},
    "exclude-names": {"target_modules": ["qkv", "proj"], "exclude_modules": ["channel_attn.fn.qkv", "convs.0.proj"]},
    "exclude-regex": {"target_modules": r".*\.(q_proj|v_proj)", "exclude_modules": r".*decoder.*"},
    "ranks": {
        "target_modules": ["q_proj", "v_proj", "qkv"],
        "rank_pattern": {"qkv": 4, r"language_model\.model\.decoder.*q_proj": 2},
        "alpha_pattern": {"window_attn.fn.qkv": 12, "v_proj": 3},
    },
    "ranks-full-names": {
        "target_modules": ["fc1"],
        "rank_pattern": {
            r"^language_model\.model\.encoder\.layers\.1\.fc1": 3,
            "vision_tower.blocks.0.0.spatial_block.ffn.fn.net.fc1": 5,
        },
        "alpha_pattern": {r"^vision_tower\.blocks\.[01].*": 20},
    },
    "saved-norm": {"target_modules": ["q_proj"], "modules_to_save": ["image_proj_norm"]},
    "saved-norms": {"target_modules": ["fc1"], "modules_to_save": ["window_attn.norm", "convs.1.norm", "layernorm_embedding"]},
    "saved-head": {"target_modules": ["v_proj"], "modules_to_save": ["lm_head"]},
    "saved-embeddings": {"target_modules": ["v_proj"], "modules_to_save": ["row_embeddings", "column_embeddings"]},
    "saved-projection": {"target_modules": ["v_proj"], "modules_to_save": ["image_projection"]},
    "bias-all": {"target_modules": ["qkv"], "bias": "all"},
    "bias-lora": {"target_modules": ["out_proj", "dw"], "bias": "lora_only", "r": 48},
    "head": {"target_modules": ["lm_head", "q_proj"]},
    "embed-tokens": {"target_modules": ["embed_tokens"]},
    "rows-and-columns": {"target_modules": ["row_embeddings", "column_embeddings"]},
    "shared": {"target_modules": ["shared"]},
    "rslora": {"target_modules": r".*channel_attn\.fn\.proj", "use_rslora": True, "r": 6, "lora_alpha": 12},
    "projection": {"target_modules": ["image_projection"]},
    "native-regex": {"target_modules": r"model\.vision_tower\..*qkv"},
    "whole-attention": {"target_modules": r".*window_attn"},
    "whole-fn": {"target_modules": ["fn"]},
    "nothing": {"target_modules": ["query"]},
}
SAVED = (
    "qv notebook vision-list depthwise layers-pattern blocks-pattern towers ranks saved-norms saved-head bias-all bias-lora "
    "embed-tokens rslora all-linear-but"
).split()


def record(name: str, given: dict[str, Any], config: Florence2Config) -> tuple[dict[str, Any], Any]:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = get_peft_model(stand_in(config), LoraConfig(**given))
        except Exception as error:  # noqa: BLE001
            return {"name": name, "config": given, "error": type(error).__name__, "message": str(error)[:200]}, None
        state = get_peft_model_state_dict(model)
    base = model.base_model.model
    targets = [
        {
            "name": path,
            "r": module.r["default"],
            "alpha": module.lora_alpha["default"],
            "scaling": module.scaling["default"],
        }
        for path, module in base.named_modules()
        if isinstance(module, LoraLayer)
    ]
    saved = [path for path, module in base.named_modules() if isinstance(module, ModulesToSaveWrapper)]
    trainable, total = model.get_nb_trainable_parameters()
    return {
        "name": name,
        "config": given,
        "targets": targets,
        "modulesToSave": saved,
        "trainableParameters": trainable,
        "totalParameters": total,
        "stateDict": [[key, list(tensor.shape)] for key, tensor in state.items()],
    }, model


@torch.no_grad()
def save(model: Any, name: str, directory: Path) -> None:
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    for path, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = noise / math.sqrt(parameter.shape[-1]) if "lora_" in path else parameter + 0.1 * noise
    save_adapter(model, directory)
    # where this script was run from; the published class lies in a module of the hub
    path = directory / "adapter_config.json"
    saved = json.loads(path.read_text())
    if saved["auto_mapping"] is not None:
        saved["auto_mapping"]["parent_library"] = "transformers_modules.microsoft.Florence-2-base.modeling_florence2"
        path.write_text(json.dumps(saved, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    torch.set_num_threads(1)
    random.seed(0)
    config = CASE.config

    tree = make_skeletons.skeleton("florence2-older", stand_in(config))
    for row in tree["modules"]:
        if row[1] == "PreNorm":
            row[2] = "module"  # a norm by its name only
    make_skeletons.write_gz(out / "tree.json.gz", tree)

    # the configuration of a checkpoint in the older layout
    native = out / "native"
    Florence2ForConditionalGeneration(config).save_pretrained(native)
    write_older(out / "older", native)
    shutil.move(out / "older" / "config.json", out / "config.json")
    shutil.rmtree(out / "older")
    shutil.rmtree(native)

    rows = []
    for name, given in CONFIGS.items():
        row, model = record(name, given, config)
        rows.append(row)
        if name in SAVED:
            if model is None:
                raise SystemExit(f"{name}: {row}")
            save(model, name, out / "adapters" / name)
    (out / "selections.json").write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    manifest = {
        "script": "scripts/record_florence2_older_adapters.py",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__},
        "seed": "the CRC-32 of an adapter's name",
        "selections": len(rows),
        "errors": sum("error" in row for row in rows),
        "adapters": SAVED,
    }
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    print(f"{len(rows)} selections ({manifest['errors']} refused), {len(SAVED)} adapters")
    for row in rows:
        print(row["name"], row.get("error") or len(row["targets"]))


if __name__ == "__main__":
    main()
