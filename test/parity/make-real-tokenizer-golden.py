"""Makes test/reference/real-tokenizers.json: what transformers makes of 500 prompts with the tokenizers of published models.

Run from the repository root, with transformers installed, and the folder of tokenizers:

    pip download --no-deps diffsynth==1.1.9 && unzip diffsynth-1.1.9*.whl 'diffsynth/tokenizer_configs/*'
    python test/parity/make-real-tokenizer-golden.py diffsynth/tokenizer_configs

The vocabularies are megabytes and are not kept: the file holds, per folder, the SHA-256 of the ids of all prompts as
compact JSON, and the ids of every 50th prompt. The first prompts are those of test/reference/clip-tokenizer/expected.json;
`more` are the others. Ids are whole, with special tokens, without padding. SDXL's second tokenizer is cut off in that
package; Stable Diffusion 3 has the same one. `npm test` compares where FERA_TOKENIZERS names that folder.
"""

import hashlib
import json
import sys
from itertools import product
from pathlib import Path

import tokenizers
import transformers
from transformers import CLIPTokenizerFast, T5TokenizerFast

TARGET = Path("test/reference/real-tokenizers.json")
PROMPTS = Path("test/reference/clip-tokenizer/expected.json")
COUNT = 500
FOLDERS = {
    "stable_diffusion/tokenizer": CLIPTokenizerFast,
    "stable_diffusion_3/tokenizer_1": CLIPTokenizerFast,
    "stable_diffusion_3/tokenizer_2": CLIPTokenizerFast,
    "stable_diffusion_3/tokenizer_3": T5TokenizerFast,
    "flux/tokenizer_1": CLIPTokenizerFast,
    "flux/tokenizer_2": T5TokenizerFast,
    "cog/tokenizer": T5TokenizerFast,
}
SUBJECTS = [
    "an astronaut", "two red foxes", "a stained-glass window", "the Eiffel Tower", "a hand holding a sign that says \"OPEN\"",
    "eine alte Dame", "un café parisien", "旧い神社", "a 1967 Ford Mustang", "a bowl of ramen 🍜", "Москва зимой",
]  # fmt: skip
SCENES = [
    "in thick fog at dawn", "on the moon, Earth rising behind", "underwater; shafts of light", "at 5:30pm in Tōkyō",
    "reflected in a puddle -- shallow depth of field", "surrounded by 1,000 paper lanterns",
]  # fmt: skip
STYLES = ["35mm photograph, f/1.4", "ukiyo-e woodblock print", "low-poly 3D render (octane)", "pencil sketch; crosshatching"]


def main() -> None:
    root = Path(sys.argv[1])
    first = json.loads(PROMPTS.read_text())["prompts"]
    made = [f"{subject} {scene}, {style}" for style, scene, subject in product(STYLES, SCENES, SUBJECTS)]
    more = made[: COUNT - len(first)]
    prompts = [*first, *more]
    assert len(prompts) == COUNT, len(prompts)
    digests, samples = {}, {}
    for folder, kind in FOLDERS.items():
        ids = kind.from_pretrained(root / folder)(prompts).input_ids
        digests[folder] = hashlib.sha256(json.dumps(ids, separators=(",", ":")).encode()).hexdigest()
        samples[folder] = ids[::50]
    versions = {module.__name__: module.__version__ for module in (transformers, tokenizers)}
    golden = {
        "script": "test/parity/make-real-tokenizer-golden.py",
        "versions": {**versions, "diffsynth": "1.1.9"},
        "more": more,
        "digests": digests,
        "samples": samples,
    }
    TARGET.write_text(json.dumps(golden, separators=(",", ":"), ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
