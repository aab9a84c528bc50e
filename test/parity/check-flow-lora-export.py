"""Checks LoRA of flow transformers in the names of kohya, ComfyUI and diffusers against the real diffusers.

Run from the repository root after `npm run build`, with torch, diffusers, peft and safetensors installed:

    python test/parity/check-flow-lora-export.py

For a tiny Stable Diffusion 3, FLUX.1, FLUX.2 and Z-Image it draws a LoRA on every linear layer, which diffusers saves, and
`fera convert` writes it in kohya's and ComfyUI's names and from each back in diffusers'. Every file is checked twice:

- Its changes of weights are put under the original names into a checkpoint of zeros, which diffusers' own converter of
  checkpoints turns into its layers: the changes that the LoRA was drawn with. FLUX.1's converters have the width of the
  real model written into them; they run with that of the tiny one.
- `load_lora_weights` of the family's pipeline loads it, where diffusers reads such names, and the transformer's output is
  compared with that of the LoRA as drawn. There the LoRA is on the blocks' attention and feed-forward alone: diffusers leaves
  out, or does not turn around, some other layers of kohya's and ComfyUI's files. Z-Image keeps diffusers' names, so that this
  is its only check.
"""

import importlib.util
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import diffusers
import torch
from diffusers.loaders import lora_conversion_utils, lora_pipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file

spec = importlib.util.spec_from_file_location("names", Path(__file__).with_name("make-flow-names-golden.py"))
names = importlib.util.module_from_spec(spec)
spec.loader.exec_module(names)

TOLERANCE = 2e-4
RANK, ALPHA = 2, 3
# The names of other programs that diffusers reads.
READABLE = {
    "FluxTransformer2DModel": ("kohya",),
    "SD3Transformer2DModel": (),
    "Flux2Transformer2DModel": ("kohya", "comfyui"),
    "ZImageTransformer2DModel": ("kohya", "comfyui"),
}
PIPELINES = {
    "FluxTransformer2DModel": diffusers.FluxPipeline,
    "SD3Transformer2DModel": diffusers.StableDiffusion3Pipeline,
    "Flux2Transformer2DModel": diffusers.Flux2KleinPipeline,
    "ZImageTransformer2DModel": diffusers.ZImagePipeline,
}


def patch_flux_width() -> None:
    config = names.config_of("FluxTransformer2DModel")
    width = config["num_attention_heads"] * config["attention_head_dim"]
    name = "_convert_kohya_flux_lora_to_diffusers"
    function = getattr(lora_conversion_utils, name)
    setattr(lora_pipeline, name, names.with_width(function, width, vars(lora_conversion_utils)))


def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((found - wanted).norm() / wanted.norm()).item()


def changes_by_converter(family: str, path: Path) -> dict[str, torch.Tensor]:
    """The file's changes of the original checkpoint's weights, as diffusers' layers."""
    state = load_file(path)
    shapes = names.originals(family)
    checkpoint = {name: torch.zeros(shape) for name, shape in shapes.items()}
    flat = {f"lora_unet_{name.removesuffix('.weight').replace('.', '_')}": name for name in shapes}
    count = 0
    for key, down in state.items():
        if key.endswith(".lora_down.weight"):
            base = key.removesuffix(".lora_down.weight")
            up, scale, name = state[f"{base}.lora_up.weight"], (state[f"{base}.alpha"] / down.shape[0]).item(), flat[base]
        elif key.endswith(".lora_A.weight"):
            base = key.removesuffix(".lora_A.weight")
            up, scale, name = state[f"{base}.lora_B.weight"], 1.0, base.removeprefix("diffusion_model.") + ".weight"
        else:
            continue
        checkpoint[name] = (scale * (up @ down)).reshape(checkpoint[name].shape)
        count += 1
    assert count * (3 if ".alpha" in "".join(state) else 2) == len(state), "tensors are left over"
    return names.converter(family, names.config_of(family))(checkpoint)


@torch.no_grad()
def run(family: str, transformer: torch.nn.Module) -> torch.Tensor:
    config, draw = transformer.config, torch.Generator().manual_seed(5)
    r = lambda *shape: torch.randn(shape, generator=draw)  # noqa: E731
    if family == "ZImageTransformer2DModel":
        return transformer([r(config.in_channels, 1, 8, 8)], torch.tensor([0.3]), [r(32, config.cap_feat_dim)]).sample[0]
    if family == "SD3Transformer2DModel":
        return transformer(
            hidden_states=r(1, config.in_channels, 8, 8), timestep=torch.tensor([300.0]),
            encoder_hidden_states=r(1, 5, config.joint_attention_dim), pooled_projections=r(1, config.pooled_projection_dim),
        ).sample  # fmt: skip
    axes = len(config.axes_dims_rope)
    ids = torch.stack([torch.zeros(16), torch.arange(16) // 4, torch.arange(16) % 4, *[torch.zeros(16)] * (axes - 3)], 1)
    given = {
        "hidden_states": r(1, 16, config.in_channels), "timestep": torch.tensor([0.3]), "img_ids": ids,
        "encoder_hidden_states": r(1, 5, config.joint_attention_dim), "txt_ids": torch.zeros(5, axes),
        "guidance": torch.tensor([3.5]) if config.guidance_embeds else None,
    }  # fmt: skip
    if family == "FluxTransformer2DModel":
        given["pooled_projections"] = r(1, config.pooled_projection_dim)
    return transformer(**given).sample


def fresh(family: str, folder: Path) -> torch.nn.Module:
    return getattr(diffusers, family).from_pretrained(folder, subfolder="transformer").eval()


def convert(*arguments: str | Path) -> None:
    subprocess.run(["node", "dist/cli/main.js", "convert", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def check(family: str, temporary: Path, blocks: bool) -> None:
    folder = temporary / str(blocks) / names.FAMILIES[family][0]
    shutil.copytree(names.PIPELINES / names.FAMILIES[family][0], folder)
    names.transformer_of(family).save_pretrained(folder / "transformer")
    transformer = fresh(family, folder)
    layers = [name for name, module in transformer.named_modules() if isinstance(module, torch.nn.Linear)]
    if blocks:
        layers = [name for name in layers if re.search(r"[.](attn|attention|ff|ff_context|feed_forward|proj_mlp|proj_out)\b", name)]
    transformer.add_adapter(LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=layers))
    draw = torch.Generator().manual_seed(1)
    for name, parameter in transformer.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=draw) * parameter.shape[1] ** -0.5
    state = get_peft_model_state_dict(transformer)
    pipeline_class = PIPELINES[family]
    adapter = transformer.peft_config["default"].to_dict() | {"target_modules": layers}
    lora = folder / "drawn.safetensors"
    pipeline_class.save_lora_weights(
        folder, transformer_lora_layers=state, transformer_lora_adapter_metadata=adapter, weight_name=lora.name
    )
    wanted = {
        name: ALPHA / RANK * (state[f"{name}.lora_B.weight"] @ state[f"{name}.lora_A.weight"]).detach() for name in layers
    }
    expected, without = run(family, transformer), run(family, fresh(family, folder))
    assert error(without, expected) > 1e-2

    files = {"drawn": lora}
    for to in ("kohya", "comfyui"):
        files[to] = folder / f"{to}.safetensors"
        convert(lora, files[to], "--to", to, "--model", folder)
        back = files[f"{to}, back"] = folder / f"{to}-back.safetensors"
        convert(files[to], back, "--to", "diffusers", "--model", folder)
        if blocks or family.startswith("Z"):
            continue
        found = changes_by_converter(family, files[to])
        worst = max(error(found[f"{name}.weight"].reshape(value.shape), value) for name, value in wanted.items())
        others = [name for name, value in found.items() if name.removesuffix(".weight") not in wanted and value.any()]
        print(f"{family} {to}: changes of {len(wanted)} layers through diffusers' converter differ by {worst:.0e}")
        assert worst < 1e-5 and not others, others
    for name, path in files.items():
        if name in ("kohya", "comfyui") and not (blocks and name in READABLE[family]):
            continue
        own = fresh(family, folder)
        loaded = pipeline_class.lora_state_dict(str(path), return_lora_metadata=True)
        alphas = {"network_alphas": None} if family == "FluxTransformer2DModel" else {}
        pipeline_class.load_lora_into_transformer(loaded[0], transformer=own, metadata=loaded[-1], **alphas)
        adapted = sum(hasattr(module, "lora_A") for module in own.modules())
        off = error(run(family, own), expected)
        print(f"{family} {name}: load_lora_weights adapts {adapted} of {len(layers)}; output differs by {off:.0e}")
        assert adapted == len(layers) and off < TOLERANCE


def main() -> None:
    diffusers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    patch_flux_width()
    with tempfile.TemporaryDirectory() as temporary:
        for family in PIPELINES:
            for blocks in (False, True):
                check(family, Path(temporary), blocks)
    print(json.dumps({"torch": torch.__version__, "diffusers": diffusers.__version__}))


if __name__ == "__main__":
    main()
