"""Record what Python's transformers does with small tokenizers, for test/data/tokenizer-vectors.test.ts.

    HF_HUB_OFFLINE=1 python scripts/record_tokenizers.py --tiny-llama DIR --text FILE [FILE ...]

Trains four small tokenizers on the given text (the kinds that today's checkpoints use), saves each as a directory
of the files a checkpoint ships, reloads it with AutoTokenizer, and records encodings, decodings, rendered chats and
assistant masks. `--tiny-llama` is a directory with a finished tokenizer whose files are copied and recorded as well.
Writes test/vectors/tokenizers/<name>/ and manifest.json there.
"""

import argparse
import copy
import functools
import hashlib
import json
import pathlib
import random
import shutil

import tokenizers
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

SEED = 20
OUT = pathlib.Path(__file__).resolve().parent.parent / "test" / "vectors" / "tokenizers"

MULTILINGUAL = [
    "Übung macht den Meister; ça va très bien, naïve café.",
    "Привет, мир! Как дела?",
    "日本語のテキストと中文文本。",
    "مرحبا بالعالم",
    "def f(x):\n    return x ** 2  # square\n\nprint(f(3))\n",
    "🎉 Emoji 👩‍👩‍👧 and 🏳️‍🌈 flags 🇩🇪",
    "1234567890 3.14159 1,000,000 2024-01-31",
]

TEXTS = [
    "",
    " ",
    "  ",
    "\n",
    "\n\n",
    " \n \n",
    "\t",
    "a",
    " a",
    "a ",
    "  two  spaces   three ",
    "Hello, world!",
    "Hello world",
    "In the beginning God created the heaven and the earth.",
    "I'm you're he'll they've we'd it's DON'T I'LL",
    "CamelCase snake_case kebab-case http://example.com/a?b=c&d=%20",
    "line one\nline two\n\nline four\r\nwindows\r\n",
    "tab\tseparated\tvalues",
    "def f(x):\n    return x ** 2  # square\n\nprint(f(3))\n",
    '{"key": [1, 2.5, null, true], "nested": {"a": "b"}}',
    "1234567890 3.14159 1,000,000 12 345",
    "café naïve Übung",
    "cafe\u0301 (decomposed) and caf\u00e9 (composed)",
    "ﬁ ligature Ⅷ ½ ™ Å",
    "Привет, мир! Как дела?",
    "日本語のテキストと中文文本。",
    "한국어 문장",
    "مرحبا بالعالم עברית",
    "हिन्दी ไทย",
    "🎉 👩‍👩‍👧 🏳️‍🌈 🇩🇪",
    "\u00a0non\u00a0breaking\u2003em\u3000ideographic",
    "zero\u200bwidth\u200djoiner \u2060",
    "control\u0001\u0007\u001b[0m",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈",
    "▁ underline block ▁▁",
    "<0x0A> byte token lookalike <0xFF>",
    "<s>", "</s>", "<s> hello </s>", "x</s>y", "<pad><unk>",
    "<|im_start|>user\nhi<|im_end|>\n",
    " <|im_end|> <|endoftext|>",
    "a<tool_call>b</tool_call> c",
    "[INST] question [/INST] answer",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "ababababababababab the the the the",
    "!!!???...---___***///\\\\",
    "trailing newline\n",
    "\nleading newline",
    "   leading spaces",
    "end with spaces    ",
    # JavaScript's \\s has U+FEFF, Rust's has not; Rust's has U+0085.
    "bom \ufeff inside",
    "nel\u0085 here",
    "\ufeffbom first",
]


def random_texts(rng, count):
    pieces = ["the", " God", "earth", " ", "  ", "\n", "é", "ß", "日", "本", "🎉", "1", "23", ".", ",", "'s", "'", '"',
              "-", "x", "Q", "\t", "а", "я", "ing", "un", "(", ")", "{", "}", "\\", "/", "\u0301", "</s>", "\r\n"]
    return ["".join(rng.choice(pieces) for _ in range(rng.randint(1, 24))) for _ in range(count)]


CHATML = (
    "{%- for message in messages %}"
    "{%- if message['role'] == 'assistant' %}"
    "{{- '<|im_start|>assistant\n' }}{GEN}{{- message['content'] + '<|im_end|>' }}{ENDGEN}{{- '\n' }}"
    "{%- else %}"
    "{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
TEMPLATES = {
    # ChatML with the tags that mark what the assistant wrote.
    "chatml-generation": CHATML.replace("{GEN}", "{% generation %}").replace("{ENDGEN}", "{% endgeneration %}"),
    # The same without them.
    "chatml": CHATML.replace("{GEN}", "").replace("{ENDGEN}", ""),
    # Written over several lines, so that trim_blocks and lstrip_blocks matter.
    "multiline-generation": """{% for message in messages %}
    {% if message.role == "assistant" %}
        {% generation %}
{{ message.content | trim }}{{ eos_token }}
        {% endgeneration %}
    {% else %}
[{{ message.role | upper }}] {{ message.content }}
    {% endif %}
{% endfor %}
{% if add_generation_prompt %}
>
{% endif %}
""",
    "dashed-generation": """{%- for message in messages -%}
  {%- if message.role == "assistant" -%}
    > {% generation -%}  {{ message.content }}  {%- endgeneration -%}
    {{ eos_token }}
  {%- else -%}
    {{ message.role }}: {{ message.content }}
  {% endif -%}
{%- endfor -%}""",
    # As Llama 2 chat ships it.
    "llama-2": (
        "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
        "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
        "{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
        "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
        "{% if loop.index0 == 0 and system_message != false %}"
        "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
        "{% else %}{% set content = message['content'] %}{% endif %}"
        "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
        "{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
    ),
    # tojson, namespaces, filters, tests, macros, default values.
    "features": """{%- set ns = namespace(n=0) -%}
{%- macro show(m) -%}{{ m.role | title }}<{{ m.content | length }}>{%- endmacro -%}
{%- if tools is defined and tools %}{{ tools | tojson }} {{ tools | tojson(indent=2) }}
{% endif -%}
{%- for m in messages if m.role != "system" -%}
{%- set ns.n = ns.n + 1 -%}
{{ ns.n }}/{{ loop.length }} {{ show(m) }}: {{ m.content | replace("a", "A") | trim }}{{ "," if not loop.last else "." }}
{% endfor -%}
{{ {"text": messages[-1].content, "unicode": "é\\"\\n"} | tojson }} {{ extra | default("none") }}""",
}

CHATS = [
    [{"role": "user", "content": "Who was Moses?"}, {"role": "assistant", "content": "A prophet."}],
    [
        {"role": "system", "content": "Answer briefly."},
        {"role": "user", "content": "Define abasement."},
        {"role": "assistant", "content": " A decent attitude. "},
        {"role": "user", "content": "And   again?\nPlease"},
        {"role": "assistant", "content": "No — 🎉 it's café\n\nnew paragraph"},
    ],
    [{"role": "user", "content": "only a question?"}],
    [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
        {"role": "user", "content": "e"},
    ],
    [{"role": "user", "content": "empty answer"}, {"role": "assistant", "content": ""}],
]
TOOLS = [{"type": "function", "function": {"name": "f", "description": "<é & 'quotes'>", "parameters": {"n": [1, 2.5, None, True]}}}]

GPT2 = dict(add_prefix_space=False, trim_offsets=True, use_regex=True)
QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_level(lines):
    """GPT-2, SmolLM: byte-level BPE with the pattern built in."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(**GPT2)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    tokenizer.train_from_iterator(lines, trainers.BpeTrainer(
        vocab_size=900, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    config = {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False, "bos_token": "<|im_start|>",
              "eos_token": "<|im_end|>", "unk_token": "<|endoftext|>", "pad_token": "<|im_end|>",
              "model_max_length": 2048, "chat_template": TEMPLATES["chatml"]}
    return tokenizer, config, {}


def qwen(lines):
    """Qwen 2: NFC, split by a pattern, then bytes; added tokens beyond the vocabulary, some of them not special."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN_PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.train_from_iterator(lines, trainers.BpeTrainer(
        vocab_size=800, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True)
                                  for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
    tokenizer.add_tokens([AddedToken(t, normalized=False, special=False) for t in ("<tool_call>", "</tool_call>")])
    added = {str(i): {"content": t.content, "lstrip": t.lstrip, "normalized": t.normalized, "rstrip": t.rstrip,
                      "single_word": t.single_word, "special": t.special}
             for i, t in tokenizer.get_added_tokens_decoder().items()}
    config = {"tokenizer_class": "Qwen2Tokenizer", "add_prefix_space": False, "add_bos_token": False,
              "added_tokens_decoder": added, "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
              "bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": None,
              "errors": "replace", "split_special_tokens": False, "model_max_length": 32768,
              "clean_up_tokenization_spaces": False}
    return tokenizer, config, {"chat_template.jinja": TEMPLATES["chatml-generation"]}


@functools.cache
def llama_model(lines):
    """Train sentencepiece-like BPE: words begin with the block, bytes stand in for unknown characters."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    specials = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    tokenizer.train_from_iterator(lines, trainers.BpeTrainer(
        vocab_size=1100, special_tokens=specials, show_progress=False, limit_alphabet=120))
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [t for t in state["added_tokens"] if t["id"] < 3]
    state["post_processor"] = json.loads(processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]).__getstate__())
    state["decoder"] = {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    return state


def llama_legacy(lines):
    """Llama 2, TinyLlama: the block is prepended and replaced by normalizers, the file has no pre-tokenizer."""
    state = copy.deepcopy(llama_model(lines))
    state["pre_tokenizer"] = None
    state["normalizer"] = {"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
    config = {"add_bos_token": True, "add_eos_token": False, "bos_token": {"__type": "AddedToken", "content": "<s>",
              "lstrip": False, "normalized": False, "rstrip": False, "single_word": False},
              "eos_token": {"__type": "AddedToken", "content": "</s>", "lstrip": False, "normalized": False,
                            "rstrip": False, "single_word": False},
              "unk_token": "<unk>", "legacy": False, "model_max_length": 2048, "pad_token": None,
              "clean_up_tokenization_spaces": False, "tokenizer_class": "PreTrainedTokenizerFast",
              "chat_template": TEMPLATES["llama-2"]}
    return Tokenizer.from_str(json.dumps(state)), config, {
        "special_tokens_map.json": json.dumps({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
                                               "pad_token": "</s>"})}


def llama_class(lines):
    """The same files, with the class name that makes transformers 5 rebuild the pipeline from the vocabulary."""
    tokenizer, config, files = llama_legacy(lines)
    return tokenizer, {**config, "tokenizer_class": "LlamaTokenizer"}, files


def llama_metaspace(lines):
    """Newer sentencepiece conversions: Metaspace prepends only at the start of the text."""
    state = copy.deepcopy(llama_model(lines))
    state["normalizer"] = None
    state["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "model_max_length": 10**30,
              "tokenizer_class": "PreTrainedTokenizerFast", "chat_template": [
                  {"name": "default", "template": TEMPLATES["chatml"]},
                  {"name": "tool_use", "template": TEMPLATES["features"]}]}
    return Tokenizer.from_str(json.dumps(state)), config, {}


def llama3(lines):
    """Llama 3: split by a pattern with three-digit groups, ignore_merges, bos from the post-processor."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3_PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(lines, trainers.BpeTrainer(
        vocab_size=700, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"])
    bos = tokenizer.token_to_id("<|begin_of_text|>")
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=True),
        processors.TemplateProcessing(single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1",
                                      special_tokens=[("<|begin_of_text|>", bos)])])
    # <|finetune_pad|> is in no file but this one: transformers appends it to the vocabulary.
    config = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "pad_token": "<|finetune_pad|>",
              "clean_up_tokenization_spaces": True, "model_max_length": 131072, "tokenizer_class": "PreTrainedTokenizerFast"}
    return tokenizer, config, {"chat_template.json": json.dumps({"chat_template": TEMPLATES["chatml"]})}


def record(directory, rng, chats):
    tokenizer = AutoTokenizer.from_pretrained(directory)
    texts = []
    for text in TEXTS + random_texts(rng, 120):
        ids = tokenizer(text)["input_ids"]
        texts.append({
            "text": text, "ids": ids, "bare": tokenizer(text, add_special_tokens=False)["input_ids"],
            "decoded": tokenizer.decode(ids), "skipped": tokenizer.decode(ids, skip_special_tokens=True),
        })
    size = len(tokenizer)
    decodes = []
    for _ in range(60):
        ids = [rng.randrange(size) for _ in range(rng.randint(1, 12))]
        decodes.append({"ids": ids, "decoded": tokenizer.decode(ids),
                        "skipped": tokenizer.decode(ids, skip_special_tokens=True)})
    recorded = {
        "class": type(tokenizer).__name__, "vocabSize": size, "texts": texts, "decodes": decodes,
        "special": {k: getattr(tokenizer, f"{k}_token_id") for k in ("bos", "eos", "pad", "unk")},
        "specialIds": sorted(tokenizer.all_special_ids),
        "chats": [],
    }
    if not chats:
        return recorded
    for name, template in TEMPLATES.items():
        for index, messages in enumerate(CHATS):
            for prompt in (False, True):
                case = {"template": name, "chat": index, "addGenerationPrompt": prompt}
                tools = TOOLS if name == "features" and index == 0 else None
                try:
                    case["text"] = tokenizer.apply_chat_template(
                        messages, chat_template=template, tools=tools, add_generation_prompt=prompt, tokenize=False)
                except Exception as error:  # noqa: BLE001 - what the template raises is the recorded result
                    case["error"] = str(error)
                    recorded["chats"].append(case)
                    continue
                if tools:
                    case["tools"] = tools
                out = tokenizer.apply_chat_template(
                    messages, chat_template=template, tools=tools, add_generation_prompt=prompt, return_dict=True,
                    return_assistant_tokens_mask="generation" in name)
                case["ids"] = out["input_ids"]
                if "generation" in name:
                    case["mask"] = out["assistant_masks"]
                recorded["chats"].append(case)
    default = tokenizer.get_chat_template() if tokenizer.chat_template else None
    if default is not None:
        recorded["default"] = tokenizer.apply_chat_template(CHATS[0], tokenize=False)
    return recorded


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tiny-llama", type=pathlib.Path, required=True)
    parser.add_argument("--text", type=pathlib.Path, nargs="+", required=True)
    arguments = parser.parse_args()
    lines = [line for path in arguments.text for line in path.read_text(encoding="utf-8").splitlines()[:3000]] + MULTILINGUAL * 8
    lines = tuple(lines)

    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    kinds = {"byte-level": byte_level, "qwen": qwen, "llama-legacy": llama_legacy, "llama-class": llama_class,
             "llama-metaspace": llama_metaspace, "llama3": llama3}
    for name, build in kinds.items():
        tokenizer, config, files = build(lines)
        directory = OUT / name
        directory.mkdir()
        state = json.loads(tokenizer.to_str())
        (directory / "tokenizer.json").write_text(json.dumps(state, ensure_ascii=False))
        (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=1))
        for file, text in files.items():
            (directory / file).write_text(text)
    directory = OUT / "tiny-llama"
    directory.mkdir()
    for file in ("tokenizer.json", "tokenizer_config.json"):
        data = json.loads((arguments.tiny_llama / file).read_text())
        (directory / file).write_text(json.dumps(data, ensure_ascii=False))

    for name in [*kinds, "tiny-llama"]:
        # llama-class differs from llama-legacy in the class name only.
        recorded = record(OUT / name, random.Random(SEED), chats=name in ("byte-level", "qwen", "llama-legacy", "llama-metaspace"))
        (OUT / name / "expected.json").write_text(json.dumps(recorded, ensure_ascii=True, separators=(",", ":")))
    (OUT / "chat.json").write_text(json.dumps({"templates": TEMPLATES, "chats": CHATS}, indent=1))
    (OUT / "manifest.json").write_text(json.dumps({
        "script": "scripts/record_tokenizers.py", "seed": SEED,
        "versions": {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__},
        "text": {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in arguments.text},
    }, indent=1) + "\n")


if __name__ == "__main__":
    main()
