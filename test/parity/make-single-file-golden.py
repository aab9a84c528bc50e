"""Makes test/reference/single-file: how diffusers' own converters rename the tensors of single-file checkpoints, and a
state dict as torch.save pickles it.

Run from the repository root, with torch, diffusers, transformers and safetensors installed; it needs no network:

    python test/parity/make-single-file-golden.py

names.json holds, per model, its configuration and [checkpoint name, diffusers name] of every tensor. The checkpoint names
are written down here from the modules of CompVis's code; the script asserts that diffusers turns them into exactly the
names of the model's own state dict. state_dict.bin is a small module's state dict in float16 with `_metadata`, as
diffusers' and transformers' .bin files have it; state_dict.json has its values. The versions are in names.json.
"""

import json
from pathlib import Path

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

TARGET = Path("test/reference/single-file")
REFERENCE = Path("test/reference")

SD15_UNET = {
    "sample_size": 64,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
SD15_VAE = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 4,
}


def both(module: str) -> list[str]:
    return [f"{module}.weight", f"{module}.bias"]


def unet_names(config: dict, names: set[str]) -> list[str]:
    """The names of CompVis's UNetModel; `names` are diffusers', for what is inside a transformer and what is optional."""
    found = both("time_embed.0") + both("time_embed.2") + both("input_blocks.0.0") + both("out.0") + both("out.2")
    if "add_embedding.linear_1.weight" in names:
        found += both("label_emb.0.0") + both("label_emb.0.2")

    def resnet(old: str, new: str) -> None:
        for part in ("in_layers.0", "in_layers.2", "emb_layers.1", "out_layers.0", "out_layers.3"):
            found.extend(both(f"{old}.{part}"))
        if f"{new}.conv_shortcut.weight" in names:
            found.extend(both(f"{old}.skip_connection"))

    def transformer(old: str, new: str) -> None:
        found.extend(old + name[len(new) :] for name in sorted(names) if name.startswith(new + "."))

    resnet("middle_block.0", "mid_block.resnets.0")
    transformer("middle_block.1", "mid_block.attentions.0")
    resnet("middle_block.2", "mid_block.resnets.1")
    layers, blocks = config["layers_per_block"], len(config["block_out_channels"])
    i = 1
    for block in range(blocks):
        for layer in range(layers):
            resnet(f"input_blocks.{i}.0", f"down_blocks.{block}.resnets.{layer}")
            transformer(f"input_blocks.{i}.1", f"down_blocks.{block}.attentions.{layer}")
            i += 1
        if block < blocks - 1:
            found += both(f"input_blocks.{i}.0.op")
            i += 1
    i = 0
    for block in range(blocks):
        crosses = config["up_block_types"][block].startswith("CrossAttn")
        for layer in range(layers + 1):
            resnet(f"output_blocks.{i}.0", f"up_blocks.{block}.resnets.{layer}")
            transformer(f"output_blocks.{i}.1", f"up_blocks.{block}.attentions.{layer}")
            if layer == layers and block < blocks - 1:
                found += both(f"output_blocks.{i}.{2 if crosses else 1}.conv")
            i += 1
    return found


def vae_names(config: dict, names: set[str]) -> list[str]:
    """The names of CompVis's AutoencoderKL."""
    found = both("quant_conv") + both("post_quant_conv")
    levels, layers = len(config["block_out_channels"]), config["layers_per_block"]

    def resnet(old: str, new: str) -> None:
        for part in ("norm1", "conv1", "norm2", "conv2"):
            found.extend(both(f"{old}.{part}"))
        if f"{new}.conv_shortcut.weight" in names:
            found.extend(both(f"{old}.nin_shortcut"))

    for half, side, count in (("encoder", "down", layers), ("decoder", "up", layers + 1)):
        found += both(f"{half}.conv_in") + both(f"{half}.norm_out") + both(f"{half}.conv_out")
        resnet(f"{half}.mid.block_1", f"{half}.mid_block.resnets.0")
        resnet(f"{half}.mid.block_2", f"{half}.mid_block.resnets.1")
        for part in ("norm", "q", "k", "v", "proj_out"):
            found += both(f"{half}.mid.attn_1.{part}")
        for level in range(levels):
            block = level if half == "encoder" else levels - 1 - level
            for j in range(count):
                resnet(f"{half}.{side}.{level}.block.{j}", f"{half}.{side}_blocks.{block}.resnets.{j}")
            if half == "encoder" and level < levels - 1:
                found += both(f"encoder.down.{level}.downsample.conv")
            if half == "decoder" and level > 0:
                found += both(f"decoder.up.{level}.upsample.conv")
    return found


def pairs(old_names: list[str], prefix: str, convert, expected: set[str]) -> list[list[str]]:
    assert len(set(old_names)) == len(old_names)
    shape = lambda name: [1, 1, 1, 1] if ".attn_1." in name and name.endswith("weight") else [1]
    checkpoint = {prefix + name: torch.full(shape(name), float(i)) for i, name in enumerate(old_names)}
    converted = convert(checkpoint)
    assert set(converted) == expected, set(converted) ^ expected
    return [[old_names[int(value.flatten()[0])], name] for name, value in converted.items()]


def on_meta(kind: type, config: dict) -> set[str]:
    with torch.device("meta"):
        return set(kind.from_config(config).state_dict())


golden = {"versions": {module.__name__: module.__version__ for module in (torch, diffusers, transformers)}}
for key, config in (
    ("unet sd15", SD15_UNET),
    ("unet sdxl", json.loads((REFERENCE / "unet-sdxl/unet/config.json").read_text())),
):
    names = on_meta(UNet2DConditionModel, config)
    # The converter asks for these two, which a short configuration leaves out.
    full = {"class_embed_type": None, "addition_embed_type": None, **config}
    convert = lambda checkpoint, full=full: convert_ldm_unet_checkpoint(checkpoint, full)
    golden[key] = {"config": config, "names": pairs(unet_names(config, names), "model.diffusion_model.", convert, names)}
names = on_meta(AutoencoderKL, SD15_VAE)
golden["vae sd15"] = {
    "config": SD15_VAE,
    "names": pairs(
        vae_names(SD15_VAE, names), "first_stage_model.", lambda c: convert_ldm_vae_checkpoint(c, SD15_VAE), names
    ),
}

clip_config = json.loads((REFERENCE / "clip-text-projection/text_encoder_2/config.json").read_text())
text_model = CLIPTextModelWithProjection(CLIPTextConfig(**clip_config))
width = clip_config["hidden_size"]
checkpoint: dict[str, torch.Tensor] = {}
for name in ["positional_embedding", "token_embedding.weight", "text_projection", *both("ln_final")]:
    checkpoint[name] = torch.full([width, width] if name == "text_projection" else [1], float(len(checkpoint)))
for i in range(clip_config["num_hidden_layers"]):
    for part in ("ln_1", "ln_2", "mlp.c_fc", "mlp.c_proj", "attn.out_proj"):
        for name in both(f"transformer.resblocks.{i}.{part}"):
            checkpoint[name] = torch.full([1], float(len(checkpoint)))
    for kind, shape in (("weight", [3 * width, width]), ("bias", [3 * width])):
        checkpoint[f"transformer.resblocks.{i}.attn.in_proj_{kind}"] = torch.full(shape, float(len(checkpoint)))
prefix = "conditioner.embedders.1.model."
converted = convert_open_clip_checkpoint(text_model, {prefix + k: v for k, v in checkpoint.items()}, prefix=prefix)
old_names = list(checkpoint)
golden["openclip"] = {
    "config": clip_config,
    "names": [[old_names[int(value.flatten()[0])], name] for name, value in converted.items()],
}

TARGET.mkdir(parents=True, exist_ok=True)
(TARGET / "names.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")
torch.manual_seed(0)
module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.GroupNorm(1, 2)).half()
torch.save(module.state_dict(), TARGET / "state_dict.bin")
values = {name: value.float().flatten().tolist() for name, value in module.state_dict().items()}
(TARGET / "state_dict.json").write_text(json.dumps(values) + "\n")
print({key: len(value.get("names", [])) for key, value in golden.items()})
