"""Records test/vectors/generation.json.gz: logits processors as transformers applies them, and two tokenizers.

    python scripts/record_generation.py

Scores are written as 32-bit patterns, so that comparisons can be bit for bit.
"""
import gzip
import json
import pathlib
import platform

import tokenizers
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers.generation import logits_process as lp

OUT = pathlib.Path(__file__).parent.parent / "test" / "vectors" / "generation.json.gz"
SEED = 20261
generator = torch.Generator().manual_seed(SEED)


def bits(tensor):
    return tensor.detach().to(torch.float32).numpy().astype("<f4").view("<u4").flatten().tolist()


def scores(vocab, kind):
    x = torch.randn(vocab, generator=generator)
    if kind == "normal":
        return x * 3
    if kind == "peaked":
        return x * 12
    if kind == "flat":
        return x * 0.01
    if kind == "bfloat16":  # many equal scores
        return (x * 3).to(torch.bfloat16).to(torch.float32)
    if kind == "integers":
        return (x * 2).round()
    if kind == "equal":
        return torch.zeros(vocab)
    if kind == "masked":
        return torch.where(torch.rand(vocab, generator=generator) < 0.7, -float("inf"), x * 3)
    raise ValueError(kind)


KINDS = ["normal", "peaked", "flat", "bfloat16", "integers", "equal", "masked"]
VOCABS = [1, 2, 33, 301]  # of 300 equal scores, 0.1 would be exactly 30: a matter of rounding


INPUTS = []


def remember(x):
    """Index of an input; many cases share one."""
    recorded = bits(x)
    if not INPUTS or INPUTS[-1] != recorded:
        INPUTS.append(recorded)
    return len(INPUTS) - 1


def stably(run):
    """Runs with torch.sort made stable."""
    sort = torch.sort
    torch.sort = lambda *args, **kwargs: sort(*args, stable=True, **kwargs)
    try:
        return run()
    finally:
        torch.sort = sort


def outcome(x, y):
    """Which tokens stay, if that is all that changed; else the scores."""
    stays = torch.isfinite(y)
    if torch.equal(x[stays], y[stays]):
        return dict(kept=stays.nonzero().flatten().tolist())
    return dict(output=bits(y))


def processors():
    cases = []

    def add(name, args, processor, ids, x):
        y = processor(torch.tensor([ids]), x[None].clone())[0]
        if name == "topP":
            # torch.sort is not stable, so which of equal scores stay is up to it; how many is not
            plain = y
            y = stably(lambda: processor(torch.tensor([ids]), x[None].clone())[0])
            assert torch.equal(plain.sort().values, y.sort().values)
        cases.append(dict(name=name, args=args, ids=ids, input=remember(x), **outcome(x, y)))

    def ids(vocab, length):
        return torch.randint(0, vocab, (length,), generator=generator).tolist()

    for vocab in VOCABS:
        for kind in KINDS:
            x = scores(vocab, kind)
            for t in [0.1, 0.7, 1.3]:
                add("temperature", [t], lp.TemperatureLogitsWarper(t), ids(vocab, 3), x)
            for k, keep in [(1, 1), (5, 1), (40, 1), (2, 4)]:
                add("topK", [k, keep], lp.TopKLogitsWarper(k, min_tokens_to_keep=keep), ids(vocab, 3), x)
            for p, keep in [(0.0, 1), (0.1, 1), (0.5, 1), (0.9, 1), (0.95, 1), (0.1, 3)]:
                add("topP", [p, keep], lp.TopPLogitsWarper(p, min_tokens_to_keep=keep), ids(vocab, 3), x)
            for p in [0.05, 0.5, 1.0]:
                add("minP", [p], lp.MinPLogitsWarper(p), ids(vocab, 3), x)
            for penalty in [1.3, 0.8]:
                # ids may repeat, and may lie outside the scores
                add("repetitionPenalty", [penalty], lp.RepetitionPenaltyLogitsProcessor(penalty), ids(vocab + 2, 20), x)
            for n in [1, 2, 3]:
                add("noRepeatNGram", [n], lp.NoRepeatNGramLogitsProcessor(n), ids(min(vocab, 4) + 1, 15), x)
            add("noRepeatNGram", [4], lp.NoRepeatNGramLogitsProcessor(4), ids(vocab, 2), x)
            for new in [2, 5]:
                eos = sorted(set(ids(vocab, 2)))
                add("minNewTokens", [3, new, eos], lp.MinNewTokensLengthLogitsProcessor(3, new, eos), ids(vocab, 6), x)
    # a real vocabulary
    for kind in ["normal", "bfloat16"]:
        x = scores(50000, kind)
        for name, args, processor in [
            ("topK", [50, 1], lp.TopKLogitsWarper(50)),
            ("topP", [0.9, 1], lp.TopPLogitsWarper(0.9)),
            ("minP", [0.02], lp.MinPLogitsWarper(0.02)),
        ]:
            add(name, args, processor, [0], x)
    return cases


def chains():
    """Whole configurations, through `_get_logits_processor`."""
    vocab = 300
    config = LlamaConfig(vocab_size=vocab, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    model = LlamaForCausalLM(config)
    cases = []
    for settings in [
        dict(do_sample=True, temperature=0.7, top_k=40),
        dict(do_sample=True, temperature=1.0, top_k=50, top_p=0.9),
        dict(do_sample=True, temperature=1.5, top_k=0, top_p=0.8, min_p=0.1, repetition_penalty=1.2),
        dict(do_sample=True, temperature=0.5, top_k=20, top_p=0.95, no_repeat_ngram_size=2, min_new_tokens=4),
        dict(do_sample=False, repetition_penalty=1.5, no_repeat_ngram_size=2, min_new_tokens=9),
        dict(do_sample=False, temperature=0.5, top_k=3),
        dict(do_sample=True),
    ]:
        generation = GenerationConfig(eos_token_id=[2, 7], **settings)
        # what generate() fills in for settings that are None
        for key, value in GenerationConfig._get_default_generation_params().items():
            if getattr(generation, key, None) is None:
                setattr(generation, key, value)
        generation._eos_token_tensor = torch.tensor([2, 7])
        for kind in ["normal", "bfloat16"]:
            ids = torch.randint(0, 12, (16,), generator=generator).tolist()
            x = scores(vocab, kind)
            chain = model._get_logits_processor(generation, input_ids_seq_length=10)
            y = stably(lambda: chain(torch.tensor([ids]), x[None].clone())[0])
            cases.append(
                dict(file=dict(eos_token_id=[2, 7], **settings), promptLength=10, ids=ids, input=remember(x), **outcome(x, y),
                     names=[type(p).__name__ for p in chain])
            )
    return cases


TEXTS = [
    "Hello, world!",
    " leading and  double   spaces ",
    "naïve café — “quoted” … ½",
    "emoji 😀👨‍👩‍👧‍👦🇩🇪 end",
    "日本語のテキスト and 한국어, العربية",
    "tabs\tand\nnew lines\n\n",
    "𝒳 ∈ ℝⁿ",
    "",
]


def tokenizer_cases():
    corpus = [
        "Hello world, the quick brown fox jumps over the lazy dog. Leading spaces and double spaces.",
        "naïve café quoted emoji end text and tabs and new lines",
    ] * 20

    byte_level = Tokenizer(models.BPE())
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    byte_level.decoder = decoders.ByteLevel()
    byte_level.train_from_iterator(
        corpus, trainers.BpeTrainer(vocab_size=340, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    )

    # As Llama 2: spaces as ▁, one put before the text, unknown characters as UTF-8 bytes
    spaced = Tokenizer(models.BPE())
    spaced.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    spaced.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=100, special_tokens=["<unk>", "<s>", "</s>"]))
    trained = json.loads(spaced.to_str())
    vocab = trained["model"]["vocab"]
    for byte in range(256):
        vocab[f"<0x{byte:02X}>"] = len(vocab)
    trained["model"].update(byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    trained["decoder"] = {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ],
    }
    spaced = Tokenizer.from_str(json.dumps(trained))

    result = []
    for name, tokenizer in [("byte-level BPE", byte_level), ("BPE with byte fallback", spaced)]:
        samples = []
        for text in TEXTS:
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            decoded = tokenizer.decode(ids)
            assert decoded == text, (name, text, decoded)
            samples.append(dict(text=text, ids=ids))
        result.append(dict(name=name, json=json.loads(tokenizer.to_str()), samples=samples))
    return result


vectors = dict(
    manifest=dict(
        script="scripts/record_generation.py",
        seed=SEED,
        python=platform.python_version(),
        torch=torch.__version__,
        transformers=transformers.__version__,
        tokenizers=tokenizers.__version__,
    ),
    processors=processors(),
    chains=chains(),
    inputs=INPUTS,
    tokenizers=tokenizer_cases(),
)
with open(OUT, "wb") as file, gzip.GzipFile(fileobj=file, mode="wb", mtime=0, filename="") as zipped:
    zipped.write(json.dumps(vectors, separators=(",", ":"), ensure_ascii=False).encode())
