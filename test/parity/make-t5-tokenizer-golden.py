"""Makes test/reference/t5-tokenizer: a small T5 tokenizer in both forms, and what transformers makes of many prompts.

Run from the repository root, with transformers and sentencepiece installed:

    python test/parity/make-t5-tokenizer-golden.py

The vocabulary and the map of characters are made here, with a few rules that show how such a map is read. `spiece` has
spiece.model, `json` tokenizer.json; expected.json holds the versions and per folder the ids of the prompts of
test/reference/clip-tokenizer/expected.json, and `padded`, those of the prompts that its `padded_prompts` names, cut and
padded to PADDED.
"""

import io
import json
import shutil
from pathlib import Path

import sentencepiece
import tokenizers
import transformers
from transformers import T5TokenizerFast

TARGET = Path("test/reference/t5-tokenizer")
PROMPTS = Path("test/reference/clip-tokenizer/expected.json")
PADDED = 20
RULES = {
    "\u00a0": " ", "\u3000": " ", "\u200b": " ", "\t": " ", "\n": " ", "\r": " ", "\u0085": " ",
    "\ufb01": "fi", "\ufb02": "fl", "\u00bd": "1\u20442", "\u00b2": "2", "\u2460": "1", "\u2026": "...",
    "e\u0301": "\u00e9", "A\u030a": "\u00c5", "\u212b": "\u00c5", "\u2126": "\u03a9",
    "\uff26": "F", "\uff35": "U", "\uff2c": "L", "\ufeff": "", "\u00ad": "", "\u0000": "",
}  # fmt: skip


def train(prompts: list[str]) -> bytes:
    rules = "\n".join(
        f"{' '.join(f'{ord(c):X}' for c in before)}\t{' '.join(f'{ord(c):X}' for c in after)}"
        for before, after in RULES.items()
        if before != "\u0000"
    )
    path = TARGET / "rules.tsv"
    path.write_text(rules + "\n")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([p for p in prompts if p.strip() and all("\u0000" < c < "\u0250" for c in p)]),
        model_writer=model,
        vocab_size=400,
        character_coverage=1.0,
        normalization_rule_tsv=str(path),
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    path.unlink()
    return model.getvalue()


def main() -> None:
    golden = json.loads(PROMPTS.read_text())
    prompts, padded = golden["prompts"], golden["padded_prompts"]
    shutil.rmtree(TARGET, ignore_errors=True)
    spiece, fast = TARGET / "spiece", TARGET / "json"
    spiece.mkdir(parents=True)
    (spiece / "spiece.model").write_bytes(train(prompts))
    config = {"tokenizer_class": "T5Tokenizer", "model_max_length": 512, "eos_token": "</s>", "extra_ids": 100}
    (spiece / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    tokenizer = T5TokenizerFast.from_pretrained(spiece)
    tokenizer.save_pretrained(fast)
    versions = {module.__name__: module.__version__ for module in (transformers, tokenizers, sentencepiece)}
    expected = {"script": "test/parity/make-t5-tokenizer-golden.py", "versions": versions, "padded_length": PADDED}
    for folder in (spiece, fast):
        tokenizer = T5TokenizerFast.from_pretrained(folder)
        chosen = [prompts[i] for i in padded]
        cut = tokenizer(chosen, padding="max_length", max_length=PADDED, truncation=True).input_ids
        expected[folder.name] = {"ids": tokenizer(prompts).input_ids, "padded": cut, "size": len(tokenizer)}
    (TARGET / "expected.json").write_text(json.dumps(expected, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
