"""Makes test/reference/qwen-tokenizer: a small tokenizer of Qwen's form, and what transformers makes of many prompts.

Run from the repository root, with transformers installed:

    python test/parity/make-qwen-tokenizer-golden.py

The vocabulary is trained here. `files` has vocab.json, merges.txt and the added tokens in tokenizer_config.json, `fast`
tokenizer.json. expected.json holds the versions and per folder the ids of the prompts of
test/reference/clip-tokenizer/expected.json and of MORE, and `padded`, of every 40th of them as a chat whose answer does
not think, cut and padded to PADDED. The template is short and does for one turn what Qwen3's does.
"""

import json
import shutil
from pathlib import Path

import tokenizers
import transformers
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, Qwen2TokenizerFast
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

TARGET = Path("test/reference/qwen-tokenizer")
PROMPTS = Path("test/reference/clip-tokenizer/expected.json")
PADDED = 24
ADDED = {"<|endoftext|>": True, "<|im_start|>": True, "<|im_end|>": True, "<think>": False, "</think>": False}
MORE = [
    "it'S IT'S don'T we'LL", "a\u017f '\u017f x", "\n\n  a \n b\r\n\r\nc ", "  two  spaces   three", "tab\t\tcat", "12345 a1b2",
    "!!\n?", "<|im_end|> cat <|im_start|>", "<think>\n\n</think>\n\n", "\u0085\u0085a", "\ufeffa \ufeff", "e\u0301",
    "\u1112\u1161\u11ab", "x \u00a0 y", " ", "",
]  # fmt: skip
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


def train(prompts: list[str]) -> dict:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=560, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(prompts, trainer)
    return json.loads(tokenizer.to_str())["model"]


def main() -> None:
    prompts = json.loads(PROMPTS.read_text())["prompts"]
    shutil.rmtree(TARGET, ignore_errors=True)
    files, fast = TARGET / "files", TARGET / "fast"
    files.mkdir(parents=True)
    model = train(prompts)
    (files / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (files / "merges.txt").write_text("\n".join(merges) + "\n")
    size = len(model["vocab"])
    flags = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    decoder = {str(size + i): {"content": name, **flags, "special": special} for i, (name, special) in enumerate(ADDED.items())}
    config = {
        "added_tokens_decoder": decoder,
        "tokenizer_class": "Qwen2Tokenizer",
        "pad_token": "<|endoftext|>",
        "eos_token": "<|im_end|>",
        "unk_token": None,
        "model_max_length": 131072,
        "chat_template": TEMPLATE,
    }
    (files / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
    tokenizer = Qwen2TokenizerFast.from_pretrained(files)
    tokenizer.save_pretrained(fast)
    versions = {module.__name__: module.__version__ for module in (transformers, tokenizers)}
    expected = {"script": "test/parity/make-qwen-tokenizer-golden.py", "versions": versions, "more": MORE}
    for folder in (files, fast):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        texts = [*prompts, *MORE]
        ids = [tokenizer(text).input_ids for text in texts]
        chats = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
            for text in texts[::40]
        ]
        cut = tokenizer(chats, padding="max_length", max_length=PADDED, truncation=True).input_ids
        expected[folder.name] = {"ids": ids, "padded": cut, "size": len(tokenizer), "class": type(tokenizer).__name__}
    expected["padded_length"] = PADDED
    (TARGET / "expected.json").write_text(json.dumps(expected, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
