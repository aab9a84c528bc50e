"""Makes test/reference/lora-files: plain LoRA and DoRA files in the formats that people have, for the tiny pipelines of
test/reference/pipeline-tiny (folder sd) and pipeline-tiny-xl (folder xl), and what the pipelines give with them.

Run from the repository root, with torch, diffusers, transformers, peft and safetensors installed:

    python test/parity/make-lora-golden.py

Every file's weights are drawn, written under the names of its format, loaded by the program that the format belongs to
(`pipe.load_lora_weights`, `unet.load_lora_adapter`, `PeftModel.from_pretrained`), and run. The same weights are also
added to the models here, W + scale * alpha / rank * up @ down, without going through names. Both must agree. Where the
program reads a file wrongly or not at all, the values are the latter's; the metadata say so (`loadedBy`, `note`).

`expected.safetensors` of either folder holds the inputs (`latents`, `timesteps`, `encoder_hidden_states`, for XL also
`text_embeds`, `time_ids`; `initial_latents`, which is randn of the generation's seed) and, per file F, and `base`
without any:

    F.unet [2, 4, 8, 12]            the UNet's output for those inputs
    F.prompt_embeds                 the text states of the generation's prompt, F.pooled_prompt_embeds for XL
    F.image_latents [1, 4, 16, 16]  the latents that the pipeline ends with
    F.half.unet, F.half.prompt_embeds, F.half.pooled_prompt_embeds    the same with the LoRA at half its strength

A name is missing where the file does not change that model, or where half the strength is not defined (kohya's DoRA; in
PEFT's the strength scales up @ down inside the norm). The metadata's `files` give format, layers, ranks and alphas;
`generation` the pipeline's options under diffusers' names.
"""

import json
import re
import shutil
import tempfile
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import diffusers
import torch
import transformers
from diffusers import DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file

TARGET = Path("test/reference/lora-files")
PIPELINES = {
    "sd": (StableDiffusionPipeline, Path("test/reference/pipeline-tiny")),
    "xl": (StableDiffusionXLPipeline, Path("test/reference/pipeline-tiny-xl")),
}
TOLERANCE = 2e-5
GENERATION = {
    "prompt": "a red circle", "negative_prompt": "blue star", "guidance_scale": 3.0, "num_inference_steps": 8,
    "height": 32, "width": 32,
}  # fmt: skip
SEED = 5

# Layers by the paths that they have in diffusers, and in transformers with the prefix "text_model.".
ATTENTION = r"\.to_(q|k|v|out\.0)$"
TRANSFORMERS = r"\.attentions\."
CONVOLUTIONS = rf"{TRANSFORMERS}|\.(resnets|downsamplers|upsamplers)\."
SOME_BLOCKS = rf"^(down_blocks|mid_block).*({CONVOLUTIONS})"
EVERYTHING = r"."
TEXT_ATTENTION = r"\.self_attn\."
TEXT = r"\.(self_attn|mlp)\."


@dataclass
class Layer:
    down: torch.Tensor
    up: torch.Tensor
    alpha: float
    # Whether the file says the alpha; without, it is the rank.
    says_alpha: bool = True
    # DoRA's magnitudes, [out, 1] or [1, in], for convolutions with more ones.
    magnitude: torch.Tensor | None = None
    # alpha / sqrt(rank) in place of alpha / rank.
    root_rank: bool = False

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    def adapted(self, weight: torch.Tensor, strength: float) -> torch.Tensor:
        product = self.up.float().flatten(1) @ self.down.float().flatten(1)
        scale = self.alpha / (self.rank**0.5 if self.root_rank else self.rank)
        result = weight + strength * scale * product.reshape(weight.shape)
        if self.magnitude is None:
            return result
        kept = 0 if self.magnitude.shape[0] == weight.shape[0] else 1
        norm = result.square().sum(dim=[d for d in range(weight.ndim) if d != kept], keepdim=True).sqrt()
        return result * self.magnitude.float() / norm


Layers = dict[str, dict[str, Layer]]  # by part (unet, text_encoder, text_encoder_2) and path


@dataclass
class Case:
    format: str
    encode: object  # Layers -> the file's tensors
    targets: dict[str, str]  # a pattern of paths by part
    loader: str = "load_lora_weights"
    note: str = ""
    rank: int = 2
    alpha: float | None = 1.0  # None: the rank, which the file does not say
    dtype: torch.dtype = torch.float32
    convolution: tuple[int, float] | None = None  # rank and alpha of convolutions 3x3, where they have their own
    varied: bool = False  # ranks and alphas differ between layers
    dora: str = ""  # the axis that keeps its magnitudes: "out" or "in"
    peft: dict | None = None  # options of LoraConfig; the case is then a folder


# Names


def kohya(layers: Layers, *, xl: bool = False, naming=lambda path: path) -> dict[str, torch.Tensor]:
    prefixes = {"unet": "lora_unet_", "text_encoder": "lora_te1_" if xl else "lora_te_", "text_encoder_2": "lora_te2_"}
    tensors = {}
    for part, path, layer in each(layers):
        name = prefixes[part] + (naming(path) if part == "unet" else path).replace(".", "_")
        tensors[f"{name}.lora_down.weight"] = layer.down
        tensors[f"{name}.lora_up.weight"] = layer.up
        if layer.says_alpha:
            tensors[f"{name}.alpha"] = torch.tensor(layer.alpha).to(layer.down.dtype)
        if layer.magnitude is not None:
            tensors[f"{name}.dora_scale"] = layer.magnitude
    return tensors


def kohya_doubled(layers: Layers, separator: str) -> dict[str, torch.Tensor]:
    """The part's name once more behind the prefix, as converters have left it."""
    tensors = {}
    for _, path, layer in each(layers):
        name = "lora_unet_unet_" + path.replace(".", "_")
        tensors[f"{name}{separator}lora_down.weight"] = layer.down
        tensors[f"{name}{separator}lora_up.weight"] = layer.up
        tensors[f"{name}.alpha"] = torch.tensor(layer.alpha)
    return tensors


def original_path(path: str, layers_per_block: int = 1) -> str:
    """The path in the original code of SDXL, whose blocks are numbered through."""
    whole = {
        "conv_in": "input_blocks.0.0", "conv_out": "out.2",
        "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
    }  # fmt: skip
    if path in whole:
        return whole[path]
    side, block, kind, index, rest = re.fullmatch(
        r"(down|up|mid)_blocks?(?:\.(\d+))?\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)", path
    ).groups()
    if kind == "resnets":
        parts = {
            "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "conv2": "out_layers.3",
            "conv_shortcut": "skip_connection",
        }  # fmt: skip
        rest = parts[rest]
    if side == "mid":
        return f"middle_block.{2 * int(index) if kind == 'resnets' else 1}.{rest}"
    first = int(block) * (layers_per_block + 1)
    if kind == "downsamplers":
        return f"input_blocks.{first + layers_per_block + 1}.0.op"
    if kind == "upsamplers":
        return f"output_blocks.{first + layers_per_block}.2.{rest}"
    place = f"input_blocks.{first + int(index) + 1}" if side == "down" else f"output_blocks.{first + int(index)}"
    return f"{place}.{0 if kind == 'resnets' else 1}.{rest}"


def diffusers_peft(layers: Layers) -> dict[str, torch.Tensor]:
    tensors = {}
    for part, path, layer in each(layers):
        tensors[f"{part}.{path}.lora_A.weight"] = layer.down
        tensors[f"{part}.{path}.lora_B.weight"] = layer.up
        if layer.magnitude is not None:
            # [out]; of convolutions [1, out, 1, 1]
            tensors[f"{part}.{path}.lora_magnitude_vector"] = layer.magnitude.transpose(0, 1).squeeze(
                0 if layer.magnitude.ndim == 2 else ()
            )
    return tensors


def diffusers_down_up(layers: Layers) -> dict[str, torch.Tensor]:
    """As diffusers' training scripts wrote after 2023."""
    tensors = {}
    for part, path, layer in each(layers):
        name = f"{part}.{path}.{'lora' if part == 'unet' else 'lora_linear_layer'}"
        tensors[f"{name}.down.weight"] = layer.down
        tensors[f"{name}.up.weight"] = layer.up
    return tensors


def diffusers_processors(layers: Layers, prefix: bool) -> dict[str, torch.Tensor]:
    """As diffusers' training scripts wrote in 2023: the weights belong to attention processors."""
    text = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}
    tensors = {}
    for part, path, layer in each(layers):
        if part == "unet":
            module, projection = re.fullmatch(r"(.+)\.(to_(?:q|k|v|out))(?:\.0)?", path).groups()
            module += ".processor"
        else:
            module, projection = path.rsplit(".", 1)
            projection = text[projection]
        name = f"{part + '.' if prefix else ''}{module}.{projection}_lora"
        tensors[f"{name}.down.weight"] = layer.down
        tensors[f"{name}.up.weight"] = layer.up
    return tensors


def bare(layers: Layers) -> dict[str, torch.Tensor]:
    tensors = {}
    for _, path, layer in each(layers):
        tensors[f"{path}.lora_down.weight"] = layer.down
        tensors[f"{path}.lora_up.weight"] = layer.up
    return tensors


def cloneofsimo(layers: Layers) -> dict[str, torch.Tensor]:
    """Numbered in the order of the modules of diffusers 0.11: see `in_list_order`. The learned token comes along."""
    tensors = {}
    for part in layers:
        for number, path in enumerate(in_list_order(part, layers[part])):
            tensors[f"{part}:{number}:up"] = layers[part][path].up
            tensors[f"{part}:{number}:down"] = layers[part][path].down
    generator = torch.Generator().manual_seed(7)
    tensors["<s1>"] = torch.randn(24, generator=generator).half()
    return tensors


def cloneofsimo_metadata(layers: Layers, unet_targets: list[str]) -> dict[str, str]:
    metadata = {"unet": json.dumps(unet_targets), "text_encoder": json.dumps(["CLIPAttention"]), "<s1>": "<embed>"}
    for part in layers:
        for number, path in enumerate(in_list_order(part, layers[part])):
            metadata[f"{part}:{number}:rank"] = str(layers[part][path].rank)
    return metadata


def in_list_order(part: str, paths) -> list[str]:
    """
    The order in which modules were registered: in the UNet down, up, middle; in a block attentions, resnets; in a
    transformer block attn1, ff, attn2 (today ff is the last); in an attention q, k, v, out; in CLIP's k, v, q, out.
    """

    def key(path: str) -> tuple:
        if part != "unet":
            layer, projection = re.search(r"layers\.(\d+)\.self_attn\.(\w)", path).groups()
            return int(layer), "kvqo".index(projection)
        side, block, kind, index, rest = re.fullmatch(
            r"(down|up|mid)_blocks?(?:\.(\d+))?\.(attentions|resnets)\.(\d+)\.(.+)", path
        ).groups()
        order = (
            "attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "ff.net.0.proj", "attn2.to_q", "attn2.to_k",
            "attn2.to_v", "attn2.to_out.0", "conv1", "time_emb_proj", "conv2", "conv_shortcut",
        )  # fmt: skip
        place = next(i for i, name in enumerate(order) if rest.endswith(name))
        depth = int(re.search(r"transformer_blocks\.(\d+)", rest).group(1)) if kind == "attentions" else 0
        return ("down", "up", "mid").index(side), int(block or 0), kind, int(index), depth, place

    return sorted(paths, key=key)


def each(layers: Layers):
    return ((part, path, layer) for part in layers for path, layer in layers[part].items())


# Cases

SD_TARGETS = {"unet": TRANSFORMERS, "text_encoder": TEXT}
XL_TARGETS = {"unet": TRANSFORMERS, "text_encoder": TEXT, "text_encoder_2": TEXT}
SD_LOCON = {"unet": CONVOLUTIONS, "text_encoder": TEXT}
CLONEOFSIMO = ["CrossAttention", "Attention", "GEGLU"]

SD_CASES = {
    "kohya": Case("kohya: linear layers and convolutions 1x1", kohya, SD_TARGETS),
    "kohya-float16": Case(
        "kohya: weights and alphas in float16", kohya, SD_TARGETS, rank=4, alpha=3.0, dtype=torch.float16
    ),
    "kohya-locon": Case(
        "kohya: also convolutions 3x3, with their own rank and alpha, and time projections (LoCon)", kohya, SD_LOCON,
        convolution=(3, 2.0),
    ),
    "kohya-varied": Case(
        "kohya: ranks and alphas differ between layers, some layers without alpha (so the rank), bfloat16", kohya,
        SD_LOCON, "by hand",
        "diffusers gives most layers the most frequent alpha: it loses those of attentions, and looks for no rank",
        varied=True, dtype=torch.bfloat16,
    ),
    "kohya-doubled": Case(
        "kohya: lora_unet_unet_", lambda layers: kohya_doubled(layers, "."), {"unet": ATTENTION}, "by hand",
        "diffusers finds no such layers",
    ),
    "kohya-doubled-underscore": Case(
        "kohya: lora_unet_unet_, an underscore before lora_down", lambda layers: kohya_doubled(layers, "_"),
        {"unet": ATTENTION}, "by hand", "diffusers does not take these names",
    ),
    "diffusers": Case(
        "diffusers: unet., text_encoder., lora_A", diffusers_peft, SD_TARGETS, alpha=None
    ),
    "diffusers-down-up": Case(
        "diffusers: unet. with lora.down, text_encoder. with lora_linear_layer.down", diffusers_down_up,
        {"unet": ATTENTION, "text_encoder": TEXT}, alpha=None,
    ),
    "diffusers-metadata": Case(
        "diffusers: lora_A, ranks and alphas in the metadata's lora_adapter_metadata", diffusers_peft,
        {"unet": ATTENTION, "text_encoder": TEXT_ATTENTION}, rank=4, alpha=6.0,
    ),
    "diffusers-processors": Case(
        "diffusers of 2023: unet. with processor.to_q_lora.down, text_encoder. with to_q_lora.down",
        lambda layers: diffusers_processors(layers, prefix=True),
        {"unet": ATTENTION, "text_encoder": TEXT_ATTENTION}, alpha=None,
    ),
    "diffusers-processors-bare": Case(
        "diffusers of 2023: processor.to_q_lora.down without a prefix",
        lambda layers: diffusers_processors(layers, prefix=False), {"unet": ATTENTION}, "load_lora_adapter", alpha=None,
    ),
    "bare": Case(
        "the UNet's paths without a prefix, lora_down", bare, {"unet": ATTENTION}, "by hand",
        "diffusers finds no such layers", alpha=None,
    ),
    "peft": Case(
        "PEFT: a folder, rank_pattern and alpha_pattern", None, {"unet": rf"({ATTENTION})|conv[12]$|proj_in$"}, "peft",
        rank=4, alpha=2.0,
        peft={
            "target_modules": ["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2", "proj_in"],
            "rank_pattern": {"attn1.to_q": 2, r"^mid_block\.resnets\.0\.conv1": 3},
            "alpha_pattern": {"attn1.to_q": 5, "proj_in": 1},
        },
    ),
    "peft-rslora": Case(
        "PEFT: use_rslora, so alpha / sqrt(rank)", None, {"unet": ATTENTION}, "peft", rank=4, alpha=1.0,
        peft={"target_modules": r".*attn[12]\.(to_q|to_k|to_v|to_out\.0)", "use_rslora": True},
    ),
    "peft-dora": Case(
        "PEFT: use_dora", None, {"unet": rf"({ATTENTION})|conv1$"}, "peft", rank=4, alpha=2.0, dora="out",
        peft={"target_modules": ["to_q", "to_k", "to_v", "to_out.0", "conv1"], "use_dora": True},
    ),
    "diffusers-dora": Case(
        "diffusers: lora_A with lora_magnitude_vector", diffusers_peft, {"unet": rf"({ATTENTION})|conv2$"}, alpha=None,
        dora="out",
    ),
    "kohya-dora": Case(
        "kohya: dora_scale [out, 1, ...], DoRA as in its paper", kohya, {"unet": SOME_BLOCKS}, "by hand",
        "diffusers drops dora_scale", dora="out",
    ),
    "kohya-dora-input": Case(
        "kohya: dora_scale [1, in, ...], DoRA as LyCORIS has it by default", kohya, {"unet": SOME_BLOCKS}, "by hand",
        "diffusers drops dora_scale", dora="in",
    ),
    "cloneofsimo": Case(
        "cloneofsimo/lora: unet:N:up, text_encoder:N:up, a learned token", cloneofsimo,
        {"unet": rf"({ATTENTION})|ff\.net\.0\.proj$", "text_encoder": TEXT_ATTENTION}, "by hand",
        "the token is in no prompt", alpha=None, dtype=torch.float16,
    ),
    "cloneofsimo-extended": Case(
        "cloneofsimo/lora: with the layers of resnets", cloneofsimo,
        {"unet": rf"({ATTENTION})|ff\.net\.0\.proj$|\.resnets\.", "text_encoder": TEXT_ATTENTION}, "by hand",
        "the token is in no prompt", alpha=None, dtype=torch.float16,
    ),
}  # fmt: skip
XL_CASES = {
    "kohya-original": Case(
        "kohya: lora_unet_input_blocks_, lora_te1_, lora_te2_",
        lambda layers: kohya(layers, xl=True, naming=original_path), XL_TARGETS,
    ),
    "kohya-original-locon": Case(
        "kohya: lora_unet_input_blocks_, every layer of the UNet",
        lambda layers: kohya(layers, xl=True, naming=original_path), {**XL_TARGETS, "unet": EVERYTHING}, alpha=1.5,
    ),
    "kohya-diffusers": Case(
        "kohya: lora_unet_down_blocks_, lora_te1_, lora_te2_", lambda layers: kohya(layers, xl=True), XL_TARGETS,
        dtype=torch.float16,
    ),
    "diffusers": Case(
        "diffusers: unet., text_encoder., text_encoder_2. with its projection, lora_A", diffusers_peft,
        {**XL_TARGETS, "text_encoder_2": rf"{TEXT}|^text_projection$"}, alpha=None,
    ),
}  # fmt: skip


# Drawing, applying, loading


def modules_of(pipeline: DiffusionPipeline, part: str) -> dict[str, torch.nn.Module]:
    model = getattr(pipeline, part, None)
    found = {} if model is None else dict(model.named_modules())
    prefix = "text_model." if part == "text_encoder" else ""
    return {
        prefix + path.removeprefix(prefix): module
        for path, module in found.items()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
    }


def draw_layers(pipeline: DiffusionPipeline, case: Case, seed: int) -> Layers:
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(shape, generator=generator)
    layers: Layers = {}
    for part, pattern in case.targets.items():
        layers[part] = {}
        for path, module in modules_of(pipeline, part).items():
            if not re.search(pattern, path):
                continue
            weight, number = module.weight, len(layers[part])
            rank = 1 + number % 3 if case.varied else case.rank
            alpha = rank if case.alpha is None else case.alpha
            if case.varied:
                alpha = rank if number % 4 == 3 else (0.5, 1.0, 3.0, 2.0, 1.0)[number % 5]
            if case.convolution and weight.shape[2:] == (3, 3):
                rank, alpha = case.convolution
            if case.peft:
                rank, alpha = pattern_values(case, path)
            says_alpha = case.alpha is not None and not (case.varied and number % 4 == 3)
            inputs = weight[0].numel()
            down = draw(rank, *weight.shape[1:]) * inputs**-0.5
            up = draw(weight.shape[0], rank, *[1] * (weight.ndim - 2)) * (0.6 * rank**0.5 / alpha)
            magnitude = None
            if case.dora:
                kept = 0 if case.dora == "out" else 1
                norm = weight.detach().square().sum(dim=[d for d in range(weight.ndim) if d != kept], keepdim=True)
                magnitude = norm.sqrt() * (1 + 0.2 * draw(*norm.shape)).abs()
            root_rank = bool(case.peft and case.peft.get("use_rslora"))
            down, up = down.to(case.dtype), up.to(case.dtype)
            layers[part][path] = Layer(down, up, float(alpha), says_alpha, magnitude, root_rank)
        assert layers[part], (part, pattern)
    return layers


def pattern_values(case: Case, path: str) -> tuple[int, float]:
    """The layer's rank and alpha, by PEFT's rule: a key of a pattern is the end of a path, at a dot."""
    found = {}
    for name, default in (("rank_pattern", case.rank), ("alpha_pattern", case.alpha)):
        patterns = case.peft.get(name, {})
        found[name] = next((patterns[key] for key in patterns if re.search(rf"(^|.*\.)({key})$", path)), default)
    return found["rank_pattern"], found["alpha_pattern"]


def load_base(family: str) -> DiffusionPipeline:
    kind, folder = PIPELINES[family]
    pipeline = kind.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def apply_by_hand(family: str, layers: Layers, strength: float) -> DiffusionPipeline:
    pipeline = load_base(family)
    for part, path, layer in each(layers):
        module = modules_of(pipeline, part)[path]
        module.weight.data = layer.adapted(module.weight.data, strength)
    return pipeline


def load_by_program(family: str, case: Case, path: Path, strength: float) -> DiffusionPipeline:
    pipeline = load_base(family)
    if case.loader == "peft":
        model = PeftModel.from_pretrained(pipeline.unet, path).eval()
        for module in model.modules():
            if isinstance(module, LoraLayer):
                module.set_scale("default", strength)
        pipeline.unet = model.base_model.model
        return pipeline
    if case.loader == "load_lora_adapter":
        pipeline.unet.load_lora_adapter(path, prefix=None, adapter_name="default")
    else:
        pipeline.load_lora_weights(path, adapter_name="default")
    pipeline.set_adapters(["default"], [strength])
    return pipeline


def write(family: str, name: str, case: Case, layers: Layers) -> Path:
    if case.peft:
        folder = TARGET / family / name
        write_peft(family, case, layers, folder)
        return folder
    path = TARGET / family / f"{name}.safetensors"
    metadata = {"format": "pt"}
    if name == "diffusers-metadata":
        # Written by diffusers itself.
        parts = {part: {f"{p}.lora_{s}.weight": getattr(layer, n) for p, layer in layers[part].items()
                        for s, n in (("A", "down"), ("B", "up"))} for part in layers}  # fmt: skip
        configs = {
            part: {"r": case.rank, "lora_alpha": case.alpha, "target_modules": targets, "peft_type": "LORA"}
            for part, targets in (
                ("unet", ["to_k", "to_out.0", "to_q", "to_v"]),
                ("text_encoder", ["k_proj", "out_proj", "q_proj", "v_proj"]),
            )
        }
        StableDiffusionPipeline.save_lora_weights(
            path.parent, unet_lora_layers=parts["unet"], text_encoder_lora_layers=parts["text_encoder"],
            weight_name=path.name, unet_lora_adapter_metadata=configs["unet"],
            text_encoder_lora_adapter_metadata=configs["text_encoder"],
        )  # fmt: skip
        assert load_file(path).keys() == case.encode(layers).keys()
        return path
    if name.startswith("cloneofsimo"):
        metadata = cloneofsimo_metadata(layers, (["ResnetBlock2D"] if "extended" in name else []) + CLONEOFSIMO)
    if name.startswith("kohya"):
        metadata |= {"ss_network_module": "networks.lora", "ss_network_dim": str(case.rank)}
    save_file({key: value.detach().contiguous() for key, value in case.encode(layers).items()}, path, metadata)
    return path


def write_peft(family: str, case: Case, layers: Layers, folder: Path) -> None:
    config = LoraConfig(r=case.rank, lora_alpha=case.alpha, init_lora_weights=False, **case.peft)
    model = get_peft_model(load_base(family).unet, config)
    adapted = {name: module for name, module in model.base_model.model.named_modules() if isinstance(module, LoraLayer)}
    assert adapted.keys() == layers["unet"].keys(), adapted.keys() ^ layers["unet"].keys()
    for path, layer in layers["unet"].items():
        module = adapted[path]
        assert module.r["default"] == layer.rank, path
        module.lora_A["default"].weight.data = layer.down
        module.lora_B["default"].weight.data = layer.up
        if layer.magnitude is not None:
            vector = module.lora_magnitude_vector["default"].weight
            vector.data = layer.magnitude.reshape(vector.shape)
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    written = json.loads((folder / "adapter_config.json").read_text())
    written["base_model_name_or_path"] = None
    for key, value in written.items():
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            written[key] = sorted(value)  # a set's order differs from run to run
    (folder / "adapter_config.json").write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")


# Running


def make_inputs(unet: UNet2DConditionModel) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    inputs = {
        "latents": torch.randn((2, 4, 8, 12), generator=generator),
        "timesteps": torch.tensor([17, 801]),
        "encoder_hidden_states": torch.randn((2, 7, unet.config.cross_attention_dim), generator=generator),
    }
    if unet.config.addition_embed_type == "text_time":
        pooled = unet.config.projection_class_embeddings_input_dim - 6 * unet.config.addition_time_embed_dim
        inputs["text_embeds"] = torch.randn((2, pooled), generator=generator)
        inputs["time_ids"] = torch.tensor([[32.0, 24.0, 0.0, 4.0, 32.0, 24.0], [16.0, 24.0, 2.0, 0.0, 32.0, 32.0]])
    return inputs


def initial_latents() -> torch.Tensor:
    return torch.randn((1, 4, 16, 16), generator=torch.Generator().manual_seed(SEED))


@torch.no_grad()
def outputs(pipeline: DiffusionPipeline, inputs: dict, with_images: bool) -> dict[str, torch.Tensor]:
    added = {key: inputs[key] for key in ("text_embeds", "time_ids") if key in inputs}
    result = {
        "unet": pipeline.unet(
            inputs["latents"],
            inputs["timesteps"],
            encoder_hidden_states=inputs["encoder_hidden_states"],
            added_cond_kwargs=added or None,
        ).sample
    }
    encoded = pipeline.encode_prompt(
        prompt=GENERATION["prompt"], device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    result["prompt_embeds"] = encoded[0]
    if "text_embeds" in inputs:
        result["pooled_prompt_embeds"] = encoded[2]
    if with_images:
        generator = torch.Generator().manual_seed(SEED)
        result["image_latents"] = pipeline(**GENERATION, generator=generator, output_type="latent").images
        given = pipeline(**GENERATION, latents=initial_latents(), output_type="latent").images
        assert torch.equal(given, result["image_latents"])
    assert all(value.isfinite().all() for value in result.values())
    return {name: value.detach().contiguous() for name, value in result.items()}


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


def check_dora(layers: Layers, values: dict, inputs: dict) -> None:
    """kohya's dora_scale along the outputs is PEFT's magnitude vector."""
    targets = [re.escape(path) for path in layers["unet"]]
    case = Case("", None, {}, "peft", alpha=1.0, peft={"target_modules": "|".join(targets), "use_dora": True})
    with tempfile.TemporaryDirectory() as folder:
        write_peft("sd", case, layers, Path(folder) / "adapter")
        found = outputs(load_by_program("sd", case, Path(folder) / "adapter", 1.0), inputs, with_images=False)
    assert difference(found["unet"], values["unet"]) < TOLERANCE, difference(found["unet"], values["unet"])


def make(family: str, cases: dict[str, Case]) -> None:
    (TARGET / family).mkdir(parents=True, exist_ok=True)
    base = load_base(family)
    inputs = make_inputs(base.unet)
    expected = {**inputs, "initial_latents": initial_latents()}
    without = outputs(base, inputs, with_images=True)
    expected |= {f"base.{key}": value for key, value in without.items()}
    files = {}
    for seed, (name, case) in enumerate(cases.items(), start=100):
        layers = draw_layers(base, case, seed)
        path = write(family, name, case, layers)
        strengths = {"": 1.0} if case.dora and case.loader == "by hand" else {"": 1.0, "half.": 0.5}
        loaded_by, note, found = case.loader, case.note, {}
        for prefix, strength in strengths.items():
            wanted = outputs(apply_by_hand(family, layers, strength), inputs, with_images=not prefix)
            if case.dora and case.loader == "by hand" and case.dora == "out":
                check_dora(layers, wanted, inputs)
            if case.loader != "by hand":
                values = outputs(load_by_program(family, case, path, strength), inputs, with_images=not prefix)
                off = max(difference(values[key], wanted[key]) for key in wanted)
                print(f"  {family} {name} {prefix or 'full.'} {case.loader} differs by {off:.1e}")
                if off < TOLERANCE:
                    wanted = values
                else:
                    loaded_by, note = "by hand", f"{case.loader} differs by {off:.1%}; {case.note}".rstrip("; ")
            found |= {prefix + key: value for key, value in wanted.items()}
        changed = {key: difference(found[key], without[key]) for key in without}
        for key, value in changed.items():
            touched = key in ("unet", "image_latents") or "text_encoder" in layers
            assert value > 1e-2 if touched else value == 0, (name, key, value)
        for key, value in found.items():
            if changed[key.removeprefix("half.")] > 0:
                expected[f"{name}.{key}"] = value
        files[name] = describe(path, case, layers, loaded_by, note)
        print(f"{family} {name}: {({key: round(value, 3) for key, value in changed.items()})}, {loaded_by} {note}")
    packages = ("torch", "diffusers", "transformers", "peft")
    metadata = {
        "script": "test/parity/make-lora-golden.py",
        "versions": json.dumps({name: version(name) for name in packages}),
        "files": json.dumps(files),
        "generation": json.dumps({**GENERATION, "seed": SEED, "scheduler": "DDIMScheduler"}),
    }
    save_file(expected, TARGET / family / "expected.safetensors", metadata)
    size = sum(file.stat().st_size for file in (TARGET / family).rglob("*") if file.is_file())
    print(TARGET / family, f"{size / 1000:.0f} kB")


def describe(path: Path, case: Case, layers: Layers, loaded_by: str, note: str) -> dict:
    everything = [layer for *_, layer in each(layers)]
    return {
        "path": path.name,
        "format": case.format,
        "loadedBy": loaded_by,
        "note": note,
        "layers": {part: len(layers[part]) for part in layers},
        "ranks": sorted({layer.rank for layer in everything}),
        "alphas": sorted({layer.alpha for layer in everything if layer.says_alpha}),
        "dora": case.dora,
    }


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # the models are tiny
    diffusers.logging.set_verbosity_error()
    transformers.logging.set_verbosity_error()
    shutil.rmtree(TARGET, ignore_errors=True)
    make("sd", SD_CASES)
    make("xl", XL_CASES)


if __name__ == "__main__":
    main()
