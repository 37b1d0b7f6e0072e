"""Further models and configurations for make_selection_vectors.py: options at their edges.

    python scripts/make_skeletons.py --extra scripts/selection_edge_cases.py --heldout test/vectors/skeletons
    python scripts/make_selection_vectors.py --set heldout --extra scripts/selection_edge_cases.py \\
        --out test/vectors/selection/edges --only edge-siglip edge-gpt-oss edge-bert-tok edge-wav2vec2 \\
        edge-llama-seqcls edge-mbart
    python scripts/code_messages.py test/vectors/selection/edges

The models are small versions of architectures with what the others lack: nn.MultiheadAttention, transposed stacks of
experts, grouped convolutions, parametrised weights, token classification, a classification head without output
embedding, two tied embeddings. Configurations on which the recording itself fails are left out.
"""

import __main__
import re

SEEDS = {"heldout": 4321}
N_RANDOM = {"heldout-extra": 60, "heldout-own": 150}


def registered(name):
    return model("edge-" + name, public=False)  # noqa: F821  (given by make_skeletons.py)


@registered("siglip")
def _():
    return tf.SiglipModel(
        tf.SiglipConfig(
            text_config=dict(
                num_hidden_layers=2, hidden_size=64, intermediate_size=128, num_attention_heads=4, vocab_size=100
            ),
            vision_config=dict(num_hidden_layers=2, hidden_size=64, intermediate_size=128, num_attention_heads=4),
        )
    )


@registered("gpt-oss")
def _():
    return lm(
        tf.GptOssConfig(
            vocab_size=1000,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            num_local_experts=4,
            head_dim=16,
        )
    )


@registered("bert-tok")
def _():
    return tf.AutoModelForTokenClassification.from_config(tf.BertConfig(num_hidden_layers=3))


@registered("wav2vec2")
def _():
    return tf.Wav2Vec2ForCTC(tf.Wav2Vec2Config(num_hidden_layers=2, vocab_size=40))


@registered("llama-seqcls")
def _():
    return tf.AutoModelForSequenceClassification.from_config(
        tf.LlamaConfig(
            vocab_size=1000,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            num_labels=3,
            pad_token_id=0,
        )
    )


@registered("mbart")
def _():
    return tf.AutoModelForSeq2SeqLM.from_config(
        tf.MBartConfig(
            vocab_size=1000,
            d_model=64,
            encoder_layers=2,
            decoder_layers=2,
            encoder_ffn_dim=128,
            decoder_ffn_dim=128,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
        )
    )


def hard(F):
    """What selections turn on: names that reach too far or not far enough, wrong types, odd initialisations."""
    T = "target_modules"
    a, b, c, cl, cf, n = (F.a, F.b, F.c, F.cl, F.cf, F.n)
    MS = "modules_to_save"
    LT = "layers_to_transform"
    LP = "layers_pattern"
    TP = "target_parameters"
    TT = "trainable_token_indices"
    out = []

    def v(cat, cfg, **as_types):
        out.append((cat, cfg, as_types))

    emb = F.embleaf
    head = F.head
    for task in ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS", "CAUSAL_LM", "FEATURE_EXTRACTION", "SEQ_2_SEQ_LM", "BOGUS"):
        v("x-task", {T: [a], "task_type": task})
        v("x-task", {T: "all-linear", "task_type": task, "bias": "all"})
        v("x-task", {T: [a], "task_type": task, MS: [F.normleaf or a]})
    for ms in (
        "n",
        "t",
        "default",
        "base_layer",
        "lora_A",
        "lora_dropout",
        "",
        "A",
        "e",
        cl,
        F.root,
        F.parent,
        "." + a,
        a[1:],
        "norm",
        "0",
        cl + ".0",
        F.f0.rsplit(".", 1)[0],
        head or a,
        "embed",
        cf + ".1",
        cf,
    ):
        for bias in ("none", "all"):
            v("x-saved", {T: [a], MS: [ms], "bias": bias})
        v("x-saved-inf", {T: [a, b], MS: [ms, a], "inference_mode": True, "bias": "lora_only"})
        v("x-saved2", {T: f".*\\.{re.escape(a)}", MS: [ms + "?"]})
        v("x-saved3", {T: [b], MS: [ms, F.root]})
        v("x-saved4", {T: [a], MS: [ms], "task_type": "SEQ_CLS"})
    v("x-saved-str", {T: [a], MS: "lm_head"})
    v("x-saved-parts", {T: [a], MS: [F.parent + "("]})
    for dora in (False, True):
        for i in (
            "mica",
            "MICA",
            "loftq",
            "corda",
            "lora_ga",
            "GAUSSIAN",
            "pissa_niter_x",
            "pissa_16",
            "olora",
            "OLoRA",
            "",
            None,
            "eva",
            "orthogonal",
            "pissa",
            True,
            False,
        ):
            v("x-init", {T: [a], "init_lora_weights": i, "r": 64, "use_dora": dora})
            if emb:
                v("x-init-emb", {T: [emb], "init_lora_weights": i, "use_dora": dora})
            if F.conv:
                v("x-init-conv", {T: [F.conv[-1].split(".")[-1]], "init_lora_weights": i, "use_dora": dora})
            v("x-init-param", {T: [], TP: [a + ".weight"], "init_lora_weights": i, "r": 4})
            if F.params3:
                v("x-init-param", {T: [], TP: F.params3[:1], "init_lora_weights": i, "r": 4})
    for i in ("pissa", "olora", "mica", "orthogonal"):
        v("x-init-all", {T: "all-linear", "init_lora_weights": i, "r": 100})
    for lt in ("0", [True], True, [0, "1"], [None], [], [0.5], "", [2, 1]):
        v("x-layers", {T: [a], LT: lt})
        v("x-layers", {T: [a], LT: lt, LP: cl})
    v("x-layers", {T: [a], LT: [0]}, layers_to_transform="set")
    v("x-layers", {T: [a], LT: []}, layers_to_transform="tuple")
    v("x-layers", {T: [a], LT: [0], LP: [cl]}, layers_pattern="tuple")
    for lp in (
        "(?P<idx>" + cl + ")",
        "(?i:" + cl.upper() + ")",
        cl + "|",
        "\\w*",
        "[" + cl,
        cl + "\\.0",
        cl + "\\.\\d+\\.\\w+",
        ".*" + cl,
        "..",
        "(?:\\w+\\.)?" + cl,
        cf.replace(".", "/"),
        [cl, "("],
        ["(", cl],
    ):
        v("x-lp", {T: [a, b], LT: [0, 1], LP: lp})
    v("x-exc", {T: [a], "exclude_modules": [""]})
    v("x-exc", {T: [a], "exclude_modules": ["q", "."]})
    v("x-exc", {T: "all-linear", "exclude_modules": F.lin})
    v("x-exc", {T: "all-linear", "exclude_modules": F.lin[:3]}, exclude_modules="tuple")
    v("x-exc", {T: "dummy-target-modules"})
    v("x-exc", {T: ["dummy-target-modules"]})
    v("x-exc", {T: "dummy-target-modules", "exclude_modules": ["x"], "rank_pattern": {"a": 1}})
    v("x-exc", {T: "dummy-target-modules", TP: [a + ".weight"]})
    v("x-exc", {T: "dummy-target-modules", MS: [head or "x"], "bias": "all"})
    v("x-none", {TP: []})
    v("x-none", {T: None, TP: ["zz"]})
    v("x-none", {"exclude_modules": [a]})
    for rp in (
        {a: 4, b: 4},
        {"": 3},
        {".*": 3},
        {"\\w+": 5},
        {a + "|" + b: 3},
        {"^" + F.f0 + "$": 9},
        {F.f0: 2, a: 6},
        {re.escape(F.f0): 7},
        {"(" + a: 1},
        {a + "\\": 2},
        {"(?i)" + a.upper(): 4},
        {F.two: 1.5},
        {"(?P<x>" + a + ")": 4},
        {".*\\.(?P<x>\\d)\\.(?P=x)?.*": 4},
    ):
        v("x-rp", {T: [a, b], "rank_pattern": rp})
        v("x-ap", {T: [a, b], "alpha_pattern": rp, "use_rslora": True})
    v("x-rp", {T: [a], "rank_pattern": None})
    v("x-rp", {T: [a], "alpha_pattern": None})
    v("x-bias", {T: [a], "bias": None})
    for k in (18, 19, 20, 21, 30):
        v("x-long", {T: [a] + [f"{cf}.{i}.{F.parent}.zzz{i}" for i in range(k)]})
        v("x-long", {T: F.inside[:k] + ["junk.x"]})
        v("x-long", {T: F.inside[:k] + [""]})
        v("x-long", {T: F.inside[-k:], LT: [n - 1], LP: cl})
        v("x-long", {T: F.names[:k]})
        v("x-long", {T: F.lin[:k], MS: [F.lin[0].split(".")[-1]]})
        v("x-long", {T: F.lin[1:k:2] + F.lin[k : 3 * k]})
    v("x-long", {T: F.lin})
    v("x-long", {T: F.lin + F.conv, "exclude_modules": [a]})
    if F.conv:
        for cv in {x.split(".")[-1] for x in F.conv}:
            for r in (1, 3, 8, 32):
                v("x-conv", {T: [cv], "r": r, "lora_bias": r == 8, "use_dora": r == 32, "bias": "lora_only"})
        v("x-conv", {T: F.conv, "r": 96})
        v("x-conv-param", {T: [], TP: [F.conv[0].split(".")[-1] + ".weight"]})
    if emb:
        for t in (
            [emb],
            [F.emb[0]],
            [emb, a],
            f".*{emb}",
            f".*({emb}|lm_head)",
            ["lm_head"],
            ["embed_tokens"],
            ["embed_tokens", "lm_head", a],
            ".*(embed_tokens|lm_head|%s)" % a,
            "all-linear",
            ".*(embed_tokens|lm_head)|lm_head|embed_tokens",
        ):
            for ew in (False, True):
                v("x-emb", {T: t, "ensure_weight_tying": ew})
                v(
                    "x-emb",
                    {
                        T: t,
                        "ensure_weight_tying": ew,
                        "r": 4,
                        "rank_pattern": {"lm_head": 16},
                        "use_dora": True,
                        "bias": "all",
                    },
                )
                v("x-emb", {T: t, "ensure_weight_tying": ew, MS: ["lm_head"]})
                v("x-emb", {T: t, "ensure_weight_tying": ew, TT: [1, 2, 3]})
                v("x-emb", {T: t, "ensure_weight_tying": ew, "exclude_modules": ["lm_head", emb]})
                v("x-emb", {T: t, "ensure_weight_tying": ew, "init_lora_weights": "olora"})
                if isinstance(t, list):
                    v("x-emb-tuple", {T: t, "ensure_weight_tying": ew}, target_modules="tuple")
        for ms in (
            ["embed_tokens"],
            ["lm_head"],
            ["lm_head", "embed_tokens"],
            [emb, "lm_head"],
            ["embed_tokens", "norm"],
            [F.emb[0]],
            [".*head"],
            ["lm_head", "lm_head"],
        ):
            for ew in (False, True):
                for bias in ("none", "all"):
                    v("x-emb-saved", {T: [a], MS: ms, "ensure_weight_tying": ew, "bias": bias})
                v("x-emb-saved", {T: [a], MS: ms, "ensure_weight_tying": ew, TT: [1]})
                v(
                    "x-emb-saved",
                    {T: [a], MS: ms, "ensure_weight_tying": ew, "task_type": "CAUSAL_LM", "inference_mode": True},
                )
            v("x-emb-saved-set", {T: [a], MS: ms, "ensure_weight_tying": True}, modules_to_save="set")
            v("x-emb-saved-set", {T: [a], MS: ms, "task_type": "SEQ_CLS"}, modules_to_save="tuple")
        for tt in (
            [],
            [0],
            {},
            {emb: [1, 1]},
            {F.emb[0]: [1, 2]},
            {emb: [1], "lm_head": [1]},
            {emb: [1], "lm_head": [2]},
            {"lm_head": [5]},
            {a: [1]},
            {emb: [1], a: [2]},
            {"norm": [1]},
            {cl: [1]},
            {"": [1]},
            {F.root: [2]},
            {"base_layer": [1]},
            {"default": [1]},
            {emb[2:]: [3]},
            {F.emb[-1]: [1, 2, 3], emb: [1, 2, 3]},
            {"lm_head": [1], emb: [1]},
            {F.parent: [1]},
        ):
            for ew in (False, True):
                v("x-tok", {T: [b] if b != a else [a], TT: tt, "ensure_weight_tying": ew})
                v("x-tok", {T: [a], TT: tt, "ensure_weight_tying": ew, "bias": "all", "inference_mode": ew})
                v("x-tok", {T: [a], TT: tt, "ensure_weight_tying": ew, MS: [head or "x"]})
                v("x-tok", {T: [a], TT: tt, "ensure_weight_tying": ew, MS: [F.root]})
    for tp in (
        ["weight"],
        ["bias"],
        ["norm.weight"],
        [a + ".weight", b + ".weight"],
        ["default.weight"],
        ["lora_A.default.weight"],
        [F.f0 + ".weight", F.f0 + ".bias"],
        ["base_layer.weight"],
        [""],
        ["."],
        ["proj.weight"],
        ["A_log"],
        ["D"],
    ):
        for t in ([], None, [b], [a], "all-linear"):
            v("x-param", {T: t, TP: tp, "r": 3}) if t is not None else v("x-param", {TP: tp, "r": 3})
        v("x-param", {T: [], TP: tp, MS: [a], "bias": "lora_only"})
        v("x-param", {T: [], TP: tp, MS: [F.parent], "bias": "all"})
        v("x-param", {T: [], TP: tp, "exclude_modules": [a], "rank_pattern": {a: 2, a + ".weight": 5}})
        v("x-param-set", {T: [], TP: tp}, target_parameters="set")
        v("x-param", {T: [], TP: tp, "init_lora_weights": "orthogonal"})
        v("x-param", {T: [], TP: tp, "task_type": "SEQ_CLS"})
        v("x-param", {T: [], TP: tp, MS: ["default", "x"]})
    if F.params3:
        for t in (
            "all-linear",
            "ALL-LINEAR",
            ".*",
            ".*proj",
            ".*mlp.*",
            ".*\\.(gate|up|down)_proj",
            ".*experts.*",
            ".*\\.0\\..*proj",
            ".*(gate_up_proj|q_proj)",
            ".*gate",
            ["gate_up_proj"],
            ["experts"],
            ["mlp.down_proj", "q_proj"],
            ["gate_proj", "up_proj", "down_proj", "q_proj"],
            ["x.gate_proj", "y.up_proj"],
            ["w1", "w2", "w3"],
            ".*\\.w\\d|.*q_proj",
            "(gate_proj",
            ["router"],
            ".*(router|q_proj)",
            ["shared_expert.up_proj", "gate_proj"],
        ):
            for e in (
                {},
                {"exclude_modules": ".*\\.0\\..*"},
                {MS: ["lm_head"]},
                {"rank_pattern": {"gate_up_proj": 3}},
                {"rank_pattern": {".*\\.gate_up_proj": 3}, "alpha_pattern": {"down_proj": 1}},
                {"lora_dropout": 0.1},
                {"r": 4, "lora_alpha": 3, "use_rslora": True},
                {TP: ["gate_up_proj"]},
                {"bias": "all", "task_type": "CAUSAL_LM"},
            ):
                v("x-moe", {T: t, **e})
    for lr in ([[0, 2], [1, 2]], [[0, n + 5]], [[-1, 1]], [[1, 0]], [[0, 1], [0, 1], [0, 1]]):
        v("x-rep", {T: [a], "layer_replication": lr, "bias": "all"})
        v("x-rep", {T: "all-linear", "layer_replication": lr, MS: ["norm"]})
        v("x-rep", {T: [a, b], "layer_replication": lr, LT: [1]})
        v("x-rep", {T: F.inside[:25], "layer_replication": lr})
    for t in (
        ["mha"],
        ["attention"],
        ["head.attention"],
        ["out_proj"],
        ["attention", "out_proj"],
        [F.names[-1]],
        ["conv"],
        ".*head\\.attention",
        ".*head\\.attention(\\.out_proj)?",
    ):
        for e in (
            {},
            {"use_dora": True},
            {"lora_bias": True},
            {"bias": "lora_only"},
            {"bias": "all"},
            {MS: ["head"]},
            {MS: ["classifier"]},
            {"init_lora_weights": "pissa"},
            {"init_lora_weights": "orthogonal"},
            {"init_lora_weights": "mica"},
            {MS: ["out_proj"]},
        ):
            v("x-mha", {T: t, **e})
    v("x-opt", {T: [a], "alora_invocation_tokens": [1, 2]})
    v("x-opt", {T: [emb or a], "alora_invocation_tokens": [1, 2], "task_type": "CAUSAL_LM"})
    v("x-opt", {T: [a], "alora_invocation_tokens": [1], "use_dora": True})
    v("x-opt", {T: [a], "loftq_config": {"loftq_bits": 4}})
    v("x-opt", {T: [a], "eva_config": {}})
    v("x-opt", {T: [a], "corda_config": {}})
    v("x-opt", {T: [a], "lora_ga_config": {}, "init_lora_weights": "lora_ga"})
    v("x-opt", {T: [a], "init_lora_weights": "eva", "corda_config": {}})
    v("x-opt", {T: [a], "megatron_config": {"a": 1}, "use_dora": True})
    v("x-opt", {T: [a], "nonsense": 1})
    v("x-opt", {T: [a], "use_rslora": True, "rank_pattern": {a: 2}, "init_lora_weights": "olora"})
    return out


if hasattr(__main__, "run_one"):
    run_one, make = __main__.run_one, __main__.make

    def run_or_skip(*args):
        try:
            return run_one(*args)
        except Exception:  # noqa: BLE001
            return None

    def make_recordable(name, which):
        document = make(name, which)
        document["vectors"] = [v for v in document["vectors"] if v["expect"] is not None]
        return document

    __main__.run_one, __main__.make = run_or_skip, make_recordable
