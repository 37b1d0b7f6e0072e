"""
Further models for `make_skeletons.py --extra`: small ones of many architectures, on which the inference of module trees
from a checkpoint's headers is tested (src/selection/infer).

    python scripts/infer_skeletons.py --out test/vectors/infer

Writes skeletons.json.gz, in the format of make_skeletons.py, with two additions: `checkpoint`, the tensors that
`save_pretrained` would write (tied ones once, under the names that files have), and `full_config`, its config.json.
"""

import argparse
import json
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, os.path.dirname(__file__))
import make_skeletons as ms  # noqa: E402
import torch  # noqa: E402
import transformers as tf  # noqa: E402

SMALL = dict(vocab_size=1000, hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=112)
LM = tf.AutoModelForCausalLM.from_config
NEW = {}


def new(name):
    def deco(fn):
        NEW[name] = fn
        return fn

    return deco


def lm(name, cls, **more):
    NEW[name] = lambda: LM(getattr(tf, cls)(**{**SMALL, **more}))


lm("stablelm", "StableLmConfig")
lm("phi", "PhiConfig")
lm("starcoder2", "Starcoder2Config", num_key_value_heads=2)
lm("gemma3-text", "Gemma3TextConfig", num_key_value_heads=2, head_dim=16)
lm("cohere", "CohereConfig")
lm("qwen2-moe", "Qwen2MoeConfig", num_key_value_heads=4, num_experts=6, moe_intermediate_size=48,
   shared_expert_intermediate_size=80)
lm("mixtral-small", "MixtralConfig", num_key_value_heads=2, num_local_experts=4)
lm("olmoe-small", "OlmoeConfig", num_key_value_heads=4, num_experts=6)
lm("deepseek-v3", "DeepseekV3Config", num_key_value_heads=4, n_routed_experts=8, moe_intermediate_size=24, q_lora_rank=32,
   kv_lora_rank=16, first_k_dense_replace=1, n_group=2, topk_group=1, num_experts_per_tok=2, qk_rope_head_dim=8,
   qk_nope_head_dim=16, v_head_dim=16)
lm("granitemoe", "GraniteMoeConfig", num_key_value_heads=4, num_local_experts=4)
lm("jamba", "JambaConfig", num_hidden_layers=8, num_key_value_heads=2, num_experts=4, attn_layer_period=4,
   attn_layer_offset=2, mamba_d_state=8)
lm("zamba2", "Zamba2Config", num_hidden_layers=6, num_key_value_heads=4, layers_block_type=["mamba", "hybrid"] * 3,
   mamba_ngroups=1, n_mamba_heads=4, mamba_headdim=32, num_mem_blocks=1, use_shared_attention_adapter=False)
lm("nemotron-h", "NemotronHConfig", num_key_value_heads=2, mamba_num_heads=8, mamba_head_dim=16, ssm_state_size=16,
   n_groups=2, layers_block_type=["mamba", "moe", "attention", "mamba"], n_routed_experts=4, head_dim=16,
   moe_intermediate_size=32, moe_shared_expert_intermediate_size=48, num_experts_per_tok=2)
lm("mamba2", "Mamba2Config", num_heads=8, head_dim=16, state_size=16, n_groups=1)
lm("gpt-bigcode", "GPTBigCodeConfig", n_embd=64, n_layer=3, n_head=4)
lm("biogpt", "BioGptConfig")
lm("xglm", "XGLMConfig", d_model=64, num_layers=3, attention_heads=4, ffn_dim=112)


@new("gpt-neo")
def _():
    return LM(tf.GPTNeoConfig(vocab_size=1000, hidden_size=64, num_layers=4, num_heads=4,
                              attention_types=[[["global", "local"], 2]]))


@new("gptj")
def _():
    return LM(tf.GPTJConfig(vocab_size=1000, n_embd=64, n_layer=3, n_head=4, rotary_dim=8))


@new("codegen")
def _():
    return LM(tf.CodeGenConfig(vocab_size=1000, n_embd=64, n_layer=3, n_head=4, rotary_dim=8))


@new("mpt")
def _():
    return LM(tf.MptConfig(vocab_size=1000, d_model=64, n_layers=3, n_heads=4))


@new("openai-gpt")
def _():
    return tf.OpenAIGPTLMHeadModel(tf.OpenAIGPTConfig(vocab_size=1000, n_embd=64, n_layer=3, n_head=4))


@new("imagegpt")
def _():
    return tf.ImageGPTForCausalImageModeling(tf.ImageGPTConfig(vocab_size=513, n_embd=64, n_layer=3, n_head=4))


@new("gpt2-base")
def _():
    return tf.GPT2Model(tf.GPT2Config(vocab_size=1000, n_embd=64, n_layer=3, n_head=4))


@new("bert-mlm")
def _():
    return tf.BertForMaskedLM(tf.BertConfig(**SMALL))


@new("bert-base")
def _():
    return tf.BertModel(tf.BertConfig(**SMALL))


@new("roberta-mlm")
def _():
    return tf.RobertaForMaskedLM(tf.RobertaConfig(**SMALL))


@new("albert")
def _():
    return tf.AlbertForMaskedLM(tf.AlbertConfig(**SMALL, embedding_size=32))


@new("electra")
def _():
    return tf.ElectraForPreTraining(tf.ElectraConfig(**SMALL, embedding_size=32))


@new("deberta-v2-mlm")
def _():
    return tf.DebertaV2ForMaskedLM(tf.DebertaV2Config(**SMALL, relative_attention=True, position_buckets=16))


@new("modernbert")
def _():
    return tf.ModernBertForMaskedLM(tf.ModernBertConfig(**SMALL, pad_token_id=0, cls_token_id=1, sep_token_id=2, bos_token_id=1, eos_token_id=2))


@new("marian")
def _():
    return tf.MarianMTModel(tf.MarianConfig(vocab_size=1000, d_model=64, encoder_layers=2, decoder_layers=2,
                                            encoder_ffn_dim=112, decoder_ffn_dim=112, encoder_attention_heads=4,
                                            decoder_attention_heads=4, pad_token_id=999, decoder_start_token_id=999))


@new("pegasus")
def _():
    return tf.PegasusForConditionalGeneration(
        tf.PegasusConfig(vocab_size=1000, d_model=64, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=112,
                         decoder_ffn_dim=112, encoder_attention_heads=4, decoder_attention_heads=4))


@new("mt5")
def _():
    return tf.MT5ForConditionalGeneration(tf.MT5Config(vocab_size=1000, d_model=64, d_ff=112, num_layers=2, num_heads=4,
                                                       d_kv=16))


@new("swin")
def _():
    return tf.SwinForImageClassification(tf.SwinConfig(embed_dim=24, depths=[2, 2, 3], num_heads=[2, 4, 8], num_labels=10))


@new("convnext")
def _():
    return tf.ConvNextForImageClassification(tf.ConvNextConfig(depths=[2, 2, 3, 2], hidden_sizes=[16, 24, 32, 40]))


@new("convnextv2")
def _():
    return tf.ConvNextV2ForImageClassification(tf.ConvNextV2Config(depths=[1, 2, 2, 1], hidden_sizes=[16, 24, 32, 40]))


@new("dinov2")
def _():
    return tf.Dinov2ForImageClassification(tf.Dinov2Config(hidden_size=48, num_hidden_layers=3, num_attention_heads=4,
                                                           num_labels=10))


@new("segformer")
def _():
    return tf.SegformerForSemanticSegmentation(
        tf.SegformerConfig(hidden_sizes=[16, 24, 32, 48], depths=[1, 2, 2, 1], num_attention_heads=[1, 2, 4, 8],
                           decoder_hidden_size=32, num_labels=10))


@new("mobilenet-v2")
def _():
    return tf.MobileNetV2ForImageClassification(tf.MobileNetV2Config(depth_multiplier=0.5))


@new("siglip")
def _():
    text = dict(vocab_size=1000, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96)
    vision = dict(hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96)
    return tf.SiglipModel(tf.SiglipConfig(text_config=text, vision_config=vision))


@new("clip-small")
def _():
    text = dict(vocab_size=1000, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96)
    vision = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96)
    return tf.CLIPModel(tf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=32))


@new("wav2vec2")
def _():
    return tf.Wav2Vec2ForCTC(tf.Wav2Vec2Config(**{**SMALL, "vocab_size": 40}, conv_dim=[32] * 7,
                                               num_conv_pos_embedding_groups=4, num_conv_pos_embeddings=16))


@new("blip2")
def _():
    vision = dict(hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96)
    q = dict(vocab_size=1000, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96,
             encoder_hidden_size=48)
    text = dict(model_type="opt", vocab_size=1000, hidden_size=64, ffn_dim=112, num_hidden_layers=2,
                num_attention_heads=4, word_embed_proj_dim=64)
    return tf.Blip2ForConditionalGeneration(tf.Blip2Config(vision_config=vision, qformer_config=q, text_config=text))


@new("donut")
def _():
    enc = tf.DonutSwinConfig(embed_dim=24, depths=[1, 2], num_heads=[2, 4])
    dec = tf.MBartConfig(vocab_size=1000, d_model=48, decoder_layers=2, decoder_ffn_dim=96, decoder_attention_heads=4,
                         is_decoder=True, add_cross_attention=True)
    return tf.VisionEncoderDecoderModel(tf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(enc, dec))


@new("sam")
def _():
    vision = dict(hidden_size=48, num_hidden_layers=2, num_attention_heads=4, output_channels=32, mlp_dim=96,
                  global_attn_indexes=[1])
    mask = dict(hidden_size=32, mlp_dim=64, iou_head_hidden_dim=32)
    return tf.SamModel(tf.SamConfig(vision_config=vision, mask_decoder_config=mask,
                                    prompt_encoder_config=dict(hidden_size=32)))


@new("detr")
def _():
    return tf.DetrForObjectDetection(
        tf.DetrConfig(use_timm_backbone=False, use_pretrained_backbone=False, backbone=None,
                      backbone_config=tf.ResNetConfig(hidden_sizes=[16, 24, 32, 48], depths=[1, 1, 1, 1],
                                                      embedding_size=16, out_features=["stage4"]),
                      d_model=32, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=64, decoder_ffn_dim=64,
                      encoder_attention_heads=4, decoder_attention_heads=4))


@new("llava")
def _():
    vision = dict(model_type="clip_vision_model", hidden_size=48, num_hidden_layers=2, num_attention_heads=4,
                  intermediate_size=96)
    return tf.LlavaForConditionalGeneration(tf.LlavaConfig(text_config=dict(model_type="llama", **SMALL),
                                                           vision_config=vision))


@new("qwen2-vl-small")
def _():
    vision = dict(depth=2, embed_dim=48, hidden_size=64, num_heads=4, mlp_ratio=2, patch_size=14)
    return tf.Qwen2VLForConditionalGeneration(
        tf.Qwen2VLConfig(text_config=dict(**SMALL, num_key_value_heads=2), vision_config=vision))


@new("paligemma")
def _():
    vision = dict(model_type="siglip_vision_model", hidden_size=48, num_hidden_layers=2, num_attention_heads=4,
                  intermediate_size=96)
    text = dict(model_type="gemma", **SMALL, num_key_value_heads=1, head_dim=16)
    return tf.PaliGemmaForConditionalGeneration(tf.PaliGemmaConfig(text_config=text, vision_config=vision,
                                                                   projection_dim=64))


def saved(m):
    """The tensors of the file that save_pretrained would write."""
    from transformers.core_model_loading import revert_weight_conversion

    state = m.state_dict()
    tied = set()
    first = {}
    for n, p in m.named_parameters(remove_duplicate=False):
        if id(p) in first:
            tied.add(n)
        else:
            first[id(p)] = n
    keys = getattr(m, "all_tied_weights_keys", None) or {}
    for k in list(keys):
        if keys[k] in state and keys[k] not in tied:
            tied.add(k)
    for k in tied:
        state.pop(k, None)
    state = revert_weight_conversion(m, state)
    return [[k, list(v.shape), str(v.dtype).replace("torch.", "")] for k, v in sorted(state.items())]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", required=True)
    ap.add_argument("--only", nargs="*")
    a = ap.parse_args()
    torch.set_num_threads(1)
    models = []
    for name, fn in {**NEW, **{n: f for n, (_, f) in ms.MODELS.items()}}.items():
        if a.only and name not in a.only:
            continue
        torch.manual_seed(0)
        try:
            with torch.device("meta"):
                m = fn()
            m.eval()
            s = ms.skeleton(name, m)
        except Exception as e:  # noqa: BLE001
            print(f"{name:20s} FAILED {type(e).__name__}: {str(e)[:300]}", file=sys.stderr, flush=True)
            continue
        m.config.architectures = [type(m).__name__]
        entry = {"name": name}
        if name in NEW:
            s.pop("state_dict")
            entry["skeleton"] = s
        try:
            entry["checkpoint"] = saved(m)
        except Exception as e:  # noqa: BLE001
            print(f"{name:20s} no checkpoint: {type(e).__name__}: {str(e)[:300]}", file=sys.stderr, flush=True)
        cfg = json.loads(m.config.to_json_string(use_diff=True))
        entry["full_config"] = {k: v for k, v in cfg.items() if k not in ("id2label", "label2id")}
        models.append(entry)
        print(f"{name:20s} {s['class']:40s} modules {len(s['modules']):5d} tensors {len(entry.get('checkpoint', []))}",
              flush=True)
    size = ms.write_gz(os.path.join(a.out, "models.json.gz"), {"models": models})
    with open(os.path.join(a.out, "manifest.json"), "w") as f:
        json.dump({"script": "scripts/infer_skeletons.py", "seed": 0, "python": sys.version.split()[0],
                   "torch": torch.__version__, "transformers": tf.__version__, "models": [e["name"] for e in models]},
                  f, indent=2)
        f.write("\n")
    print(f"{size / 1e3:.1f} kB")


if __name__ == "__main__":
    main()
