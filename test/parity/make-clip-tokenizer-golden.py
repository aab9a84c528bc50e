"""Makes test/reference/clip-tokenizer: tokenizer folders in the forms that models come in, and the token ids of many
prompts, computed by transformers.

Run from the repository root, with transformers installed:

    python test/parity/make-clip-tokenizer-golden.py

The folders share one small vocabulary, trained here, in the order of CLIP's own. `expected.json` holds the versions,
the prompts, and per folder: `ids` (whole prompts with start and end tokens, no limit), `padded` (the prompts that
`padded_prompts` indexes, cut and padded to model_max_length) and `overflow` (the text that diffusers reports as cut off).
"""

import json
import shutil
from pathlib import Path

import tokenizers
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

TARGET = Path("test/reference/clip-tokenizer")
ICONS = Path("assets/icons/tokenizer")
START, END = "<|startoftext|>", "<|endoftext|>"
MERGES = 360
MAX_LENGTH = 20

SENTENCES = """
a photo of a cat|A Photograph of an Astronaut Riding a Horse|grinning cat with smiling eyes|face with tears of joy
black cat|man juggling|woman juggling: medium-dark skin tone|flag: Côte d'Ivoire|keycap: 10|red heart|SOS button
a watercolor painting of a fox in a snowy forest, soft light|oil painting, impasto, by an unknown master, 1889
cinematic still, 35mm, f/1.8, bokeh, shallow depth of field|isometric voxel art of a tiny house --ar 16:9 --v 5
(masterpiece:1.2), best quality, ((ultra-detailed)), [blurry], {lowres}|lowres, bad anatomy, bad hands, text, error
8k uhd, dslr, film grain, Fujifilm XT3|portrait of a 35yo woman w/ freckles & green eyes|50% off! $19.99 or €17,49
it's a dog's life|they're here, we've won, I'm sure you'll agree he'd stay|don't can't won't shouldn't've|rock'n'roll
IT'S THE END|'s't're've'm'll'd|''quoted'' words|the '90s|O'Brien's o'clock|'tis the season|ain’t it “quoted” — so…
café|cafe\u0301|CAFÉ AU LAIT|naïve façade|Ångström|A\u030angstro\u0308m|ÀÉÎÕÜ àéîõü|Ærøskøbing|straße STRASSE ẞ|crème brûlée
São Paulo|Łódź, Gdańsk, Kraków|Dvořák háček|Žižkov|İstanbul ISTANBUL ıi|ΟΔΟΣ|Σίσυφος ΣΊΣΥΦΟΣ|Ὀδυσσεύς|Привет, мир!|ЁЛКА ёлка
Київ, Їжак|שלום עולם|مرحبا بالعالم|اَلْعَرَبِيَّةُ|हिन्दी में बिल्ली|สวัสดีชาวโลก|ภาษาไทย 123|தமிழ்|ქართული ᲥᲐᲠᲗᲣᲚᲘ|ᏣᎳᎩ ꮳꮃꭹ|Հայերեն
一只猫|一只 猫,坐在 窗台上。|日本語の文章です|カタカナ ひらがな 漢字|ﾊﾝｶｸ ｶﾀｶﾅ|ＦＵＬＬＷＩＤＴＨ ０１２３|한국어 고양이|\u1112\u1161\u11ab\u1100\u1173\u11af|东京 2020 年 7 月|㊗️ ㋿ ㍿|𠮷野家
🚀|🚀🚀🚀|a cat 🐈 and a dog 🐕|👩‍🚀|👨‍👩‍👧‍👦 family|👍🏽 thumbs|🇩🇪🇫🇷|❤️ love ❤|1️⃣ 2️⃣|🏴󠁧󠁢󠁥󠁮󠁧󠁿|😀😃😄😁|☕+🥐=♥|cat🐈cat|🐈‍⬛ noir|®️™©
1234567890|3.14159|1,000,000|12:30pm|2024-02-29|+49 (0)30 123456|0xDEADBEEF|1e-5|½ ¾ ⅓|x² + y³|Ⅷ Ⅻ ⅷ|٣٤٥|१२३|①②③|10km² 5µm 20°C n°5|1st 2nd 3rd
!|!!|!!!|! ! !|wow!|wow!!! really?!|cat!dog|?!|...|…|,,, ;;; :::|a.b.c|a,b;c:d|-- — – −|~ ` ^ | \\ /|@user #tag|$#@!%|<b>bold</b>
<|endoftext|>|cat<|endoftext|>dog|<|startoftext|> a cat|<|STARTOFTEXT|>|<|EndOfText|> x|<|ENDOFTEXT|>!|!!<|ENDOFTEXT|>!!|<| endoftext |>|<|endoftext
<my-style>|a cat in <my-style> style|<MY-STYLE>|<my-style><my-style>!|x<my-style>y|</w>|cat</w>|Ġcat|Ċ|[UNK] [CLS] <pad> <unk>
https://example.com/a_b?c=d&e=%20f#g|user@example.com|C:\\Users\\cat.png|snake_case camelCase kebab-case|a_b__c|__init__|foo(bar)[0]{x}|i=0;i<n;i++
supercalifragilisticexpialidocious|Donaudampfschifffahrtsgesellschaftskapitän|aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
pneumonoultramicroscopicsilicovolcanoconiosis smile|Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch|абвгдежзийклмнопрстуфхцчшщъыьэюя
ﬁ ﬂ ﬀ ligatures|Å K Ω compatibility|ǅ ǆ Ǆ|ŉ ǰ|Ⅳ ⅳ|ⒶⒷ ⓐⓑ|𝒞𝒶𝓉 𝐂𝐀𝐓|𐐀𐐨 Deseret|ꙮ|Z̷a̷l̷g̷o̷|n\u0303 ñ N\u0303|q\u0323\u0307 q\u0307\u0323|ᾳ ᾼ ͅ|ÿ Ÿ|ſ|ǲ
"""
SPACES = [
    "", " ", "   ", "\n", "\t\t", "  leading", "trailing  ", "two  spaces", "tab\tbetween", "line\nbreak", "line\r\nbreak",
    "a\n\n\nb", "\n cat \n", "no\u00a0break", "thin\u2009space", "ideographic\u3000space", "em\u2003space", "next\u0085line",
    "line\u2028separator", "paragraph\u2029separator", "zero\u200bwidth", "word\u2060joiner", "bom\ufeffinside", "\ufeffbom first",
    "mongolian\u180evowel", "soft\u00adhyphen", "right\u200fto\u200eleft", "null\u0000byte", "bell\u0007", "unit\u001fseparator",
    "file\u001cseparator", "escape\u001b[31m", "delete\u007f", "private\ue000use", "replacement\ufffd", "vertical\u000btab",
    "form\u000cfeed", "!\ufeff!", "!\u0085!", "a cat,\n a dog,\r\n\ta bird",
]  # fmt: skip
LONG = [
    "cat " * 30,
    "a highly detailed matte painting of a castle on a cliff above the sea at sunset, volumetric light, trending, 8k, " * 2,
    "Café au lait, crème brûlée, naïve façade, São Paulo, Łódź and Žižkov, then an endless list of words that won't fit",
    "🚀 1234567890 🚀 1234567890 🚀",
    "不" * 40,
    "!" * 50,
    "supercalifragilisticexpialidocious " * 5,
]


def prompts() -> list[str]:
    sentences = [text for line in SENTENCES.strip().splitlines() for text in line.split("|") if text]
    # The marks below contain the separator.
    marks = [
        END, f"cat{END}dog", f"{START} a cat", START.upper(), "<|EndOfText|> x", "<|ENDOFTEXT|>!", "!!<|ENDOFTEXT|>!!",
        "<|ENDOFTEXT|><|EndOfText|>", "<| endoftext |>", "<|endoftext", "a | b", "cat||dog",
    ]  # fmt: skip
    return list(dict.fromkeys([*sentences, *marks, *SPACES, *LONG]))


def byte_symbols() -> list[str]:
    """Bytes that are visible in Latin-1 first, as in CLIP's vocabulary."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(byte) for byte in visible] + [chr(0x100 + index) for index in range(256 - len(visible))]


def train(texts: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    symbols = byte_symbols()
    trainer = trainers.BpeTrainer(
        vocab_size=3000, initial_alphabet=symbols, end_of_word_suffix="</w>", min_frequency=2, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    learned = json.loads(tokenizer.to_str())["model"]["merges"]
    merges = [tuple(pair) for pair in learned if "Ġ" not in "".join(pair)][:MERGES]
    tokens = [*symbols, *(f"{symbol}</w>" for symbol in symbols), *("".join(pair) for pair in merges), START, END]
    assert len(set(tokens)) == len(tokens)
    return {token: index for index, token in enumerate(tokens)}, merges


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False) + "\n", encoding="utf-8")


def write_vocabulary(folder: Path, vocab: dict[str, int], merges: list[tuple[str, str]]) -> None:
    write_json(folder / "vocab.json", vocab)
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def added(content: str, normalized: bool, **more: object) -> dict[str, object]:
    flags = {"lstrip": False, "normalized": normalized, "rstrip": False, "single_word": False}
    return {"content": content, **flags, **more}


def write_folders(vocab: dict[str, int], merges: list[tuple[str, str]]) -> None:
    common = {"add_prefix_space": False, "do_lower_case": True, "errors": "replace", "model_max_length": MAX_LENGTH}
    common |= {"tokenizer_class": "CLIPTokenizer"}
    typed = {"__type": "AddedToken"}
    full = {key: added(token, True) for key, token in (("bos_token", START), ("eos_token", END), ("unk_token", END))}
    older = common | {key: typed | token for key, token in full.items()} | {"pad_token": END}

    # Stable Diffusion 1 and SDXL's first: special tokens are matched after lower-casing.
    write_vocabulary(TARGET / "sd1", vocab, merges)
    write_json(TARGET / "sd1/tokenizer_config.json", older)
    write_json(TARGET / "sd1/special_tokens_map.json", full | {"pad_token": END})

    # Stable Diffusion 2: the special tokens map names another pad token than the configuration.
    write_vocabulary(TARGET / "sd2", vocab, merges)
    write_json(TARGET / "sd2/tokenizer_config.json", older)
    write_json(TARGET / "sd2/special_tokens_map.json", full | {"pad_token": "!"})

    # SDXL's second: the configuration lists its added tokens; a special tokens map is then not read.
    write_vocabulary(TARGET / "sdxl2", vocab, merges)
    listed = {"0": added("!", False, special=True)}
    listed |= {str(vocab[token]): added(token, True, special=True) for token in (START, END)}
    names = {"bos_token": START, "eos_token": END, "pad_token": "!", "unk_token": END}
    write_json(TARGET / "sdxl2/tokenizer_config.json", common | {"added_tokens_decoder": listed} | names)
    write_json(TARGET / "sdxl2/special_tokens_map.json", names | {"pad_token": END})

    # A textual inversion's folder.
    write_vocabulary(TARGET / "inversion", vocab, merges)
    write_json(TARGET / "inversion/tokenizer_config.json", older)
    write_json(TARGET / "inversion/special_tokens_map.json", full | {"pad_token": END})
    write_json(TARGET / "inversion/added_tokens.json", {"<my-style>": len(vocab)})

    # tokenizer.json as transformers 5 writes it, and with merges and marks as older versions did.
    tokenizer = CLIPTokenizer.from_pretrained(TARGET / "sd2")
    tokenizer.save_pretrained(TARGET / "fast")
    description = json.loads((TARGET / "fast/tokenizer.json").read_text(encoding="utf-8"))
    description["model"]["merges"] = [" ".join(pair) for pair in description["model"]["merges"]]
    for token in description["added_tokens"]:
        token["normalized"] = token["content"] == START
    pattern = description["pre_tokenizer"]["pretokenizers"][0]["pattern"]
    pattern["Regex"] = pattern["Regex"].replace(r"<\|startoftext\|>|<\|endoftext\|>|", "")
    write_json(TARGET / "fast-older/tokenizer.json", description)
    write_json(TARGET / "fast-older/tokenizer_config.json", common)
    write_json(TARGET / "fast-older/special_tokens_map.json", full | {"pad_token": "!"})


def expect(folder: Path, texts: list[str], padded: list[int]) -> dict[str, object]:
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    limit = tokenizer.model_max_length
    ids = [tokenizer(text).input_ids for text in texts]
    chosen = [texts[index] for index in padded]
    cut = tokenizer(chosen, padding="max_length", truncation=True, max_length=limit).input_ids
    overflow = [tokenizer.decode(ids[index][limit - 1 : -1]) if len(ids[index]) > limit else None for index in padded]
    return {"pad": tokenizer.pad_token_id, "max_length": limit, "ids": ids, "padded": cut, "overflow": overflow}


def main() -> None:
    shutil.rmtree(TARGET, ignore_errors=True)
    texts = prompts()
    write_folders(*train(texts * 2))
    padded = [0, 1, 2, texts.index(""), texts.index("!!!"), texts.index("cat!dog"), *range(len(texts) - len(LONG), len(texts))]
    folders = {path.name: path for path in sorted(TARGET.iterdir())} | {"icons": ICONS}
    record = {
        "script": "test/parity/make-clip-tokenizer-golden.py",
        "versions": {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__},
        "prompts": texts,
        "padded_prompts": padded,
        "folders": {name: expect(path, texts, padded) for name, path in folders.items()},
    }
    write_json(TARGET / "expected.json", record)
    print(f"{len(texts)} prompts, folders {', '.join(folders)}")


if __name__ == "__main__":
    main()
