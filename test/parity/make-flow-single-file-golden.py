"""Makes test/reference/single-file/FAMILY.safetensors: tiny checkpoints as the original code and ComfyUI name them, and what
diffusers makes of them.

Run from the repository root, with torch, diffusers, transformers, accelerate and safetensors installed; it needs no network:

    python test/parity/make-flow-single-file-golden.py

The names and shapes are those of make-flow-names-golden.py, the configurations those of test/reference/pipelines, the values random.
FLUX.1 and FLUX.2 are transformers alone, FLUX.2 under ComfyUI's prefix; Stable Diffusion 3 has its text encoders and its
autoencoder beside it. Weights are bfloat16, FLUX.2's matrices float8. Every transformer goes through diffusers' converter and model: its inputs and output are tensors of
expected.safetensors, "FAMILY.input", and the text encoders' and the autoencoder's outputs "stable-diffusion-3.PART", from what diffusers' loaders
make of the same file. FLUX.1's converter runs with the tiny model's width. Stable Diffusion 3's configuration
is changed where `CHANGED` says so: such files go without the first text encoder's projection, for which diffusers takes the identity.
"""

import importlib.util
import json
import shutil
import tempfile
from pathlib import Path

import diffusers
import torch
import transformers
from diffusers.loaders import single_file_utils
from safetensors.torch import load_file, save_file

spec = importlib.util.spec_from_file_location("names", Path(__file__).with_name("make-flow-names-golden.py"))
names = importlib.util.module_from_spec(spec)
spec.loader.exec_module(names)

PIPELINES = Path("test/reference/pipelines")
TARGET = Path("test/reference/single-file")
VAE_ENDS = {"conv_norm_out": "norm_out"}
CHANGED = {"text_encoder": {"projection_dim": 8}, "transformer": {"pooled_projection_dim": 18}}

original_config = names.config_of
names.config_of = lambda family: original_config(family) | (CHANGED["transformer"] if family.startswith("SD3") else {})


def drawn(shapes: dict, generator: torch.Generator) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        norm = name.endswith(".scale") or ".ln_" in name
        fan_in = torch.Size(shape[1:]).numel() if len(shape) > 1 else 1
        tensors[name] = 1 + 0.2 * noise if norm else noise * (fan_in**-0.5 if len(shape) > 1 else 0.1)
    return tensors


def stored(tensors: dict, as_float8: bool) -> dict[str, torch.Tensor]:
    return {
        name: tensor.to(torch.float8_e4m3fn if as_float8 and tensor.dim() > 1 else torch.bfloat16).contiguous()
        for name, tensor in tensors.items()
    }


def changed_folder(target: Path) -> Path:
    """The configuration of Stable Diffusion 3's tiny pipeline, changed."""
    shutil.copytree(PIPELINES / "stable-diffusion-3", target)
    for part, changes in CHANGED.items():
        path = target / part / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return target


def vae_name(name: str, levels: int) -> str:
    """The original name of a tensor of diffusers' AutoencoderKL."""
    half, *rest = name.split(".")
    text = ".".join(rest)
    if rest[0] in ("down_blocks", "up_blocks"):
        side, level = rest[0].split("_")[0], int(rest[1])
        level = level if side == "down" else levels - 1 - level
        kind, which, *more = rest[2:]
        if kind in ("downsamplers", "upsamplers"):
            return f"{half}.{side}.{level}.{kind[:-2]}.{'.'.join(more)}"
        return f"{half}.{side}.{level}.block.{which}.{'.'.join(more)}".replace("conv_shortcut", "nin_shortcut")
    if rest[0] == "mid_block":
        kind, which, *more = rest[1:]
        if kind == "resnets":
            return f"{half}.mid.block_{int(which) + 1}.{'.'.join(more)}".replace("conv_shortcut", "nin_shortcut")
        inner = ".".join(more)
        for new, old in {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}.items():
            if inner.startswith(new):
                return f"{half}.mid.attn_1.{old}{inner[len(new):]}"
    for new, old in VAE_ENDS.items():
        text = text.replace(new, old)
    return f"{half}.{text}"


def around_sd3() -> dict[str, torch.Tensor]:
    folder, found = PIPELINES / "stable-diffusion-3", {}
    for part, prefix in (("text_encoder", "clip_l"), ("text_encoder_2", "clip_g"), ("text_encoder_3", "t5xxl")):
        for name, tensor in load_file(folder / part / "model.safetensors").items():
            if prefix == "clip_l" and name == "text_projection.weight":
                continue
            found[f"text_encoders.{prefix}.transformer.{name}"] = tensor
    config = json.loads((folder / "vae/config.json").read_text())
    levels = len(config["block_out_channels"])
    for name, tensor in load_file(folder / "vae/diffusion_pytorch_model.safetensors").items():
        old = vae_name(name, levels)
        pixels = ".attn_1." in old and old.endswith("weight") and ".norm." not in old
        found[f"first_stage_model.{old}"] = tensor[:, :, None, None] if pixels else tensor
    return found


def parts_of(path: Path, config: Path) -> dict[str, torch.nn.Module]:
    """What diffusers loads of Stable Diffusion 3's file. T5 goes through its converter alone: with transformers 5, the loader
    around it leaves the second name of the embeddings without values."""
    whole = {name: tensor.float() for name, tensor in load_file(path).items()}
    t5 = transformers.T5EncoderModel(transformers.T5Config.from_pretrained(config / "text_encoder_3")).eval()
    missing, strange = t5.load_state_dict(single_file_utils.convert_sd3_t5_checkpoint_to_diffusers(dict(whole)), strict=False)
    assert set(missing) <= {"encoder.embed_tokens.weight"} and not strange
    t5.encoder.embed_tokens.weight = t5.shared.weight
    clip = lambda part: single_file_utils.create_diffusers_clip_model_from_ldm(  # noqa: E731
        transformers.CLIPTextModelWithProjection, dict(whole), part, str(config), torch.float32
    )
    load = lambda kind, part: kind.from_single_file(  # noqa: E731
        dict(whole), config=str(config), subfolder=part, torch_dtype=torch.float32
    )
    return {
        "transformer": load(diffusers.SD3Transformer2DModel, "transformer"),
        "vae": load(diffusers.AutoencoderKL, "vae"),
        "text_encoder": clip("text_encoder"),
        "text_encoder_2": clip("text_encoder_2"),
        "text_encoder_3": t5,
    }


def inputs_of(family: str, config: dict, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """On the grid, as fera takes them."""
    channels = config["in_channels"] // (1 if family.startswith("SD3") else 4)
    draw = lambda *shape: torch.randn(shape, generator=generator)  # noqa: E731
    inputs = {"latents": draw(1, channels, 4, 6), "encoderHiddenStates": draw(1, 5, config["joint_attention_dim"])}
    if "pooled_projection_dim" in config:
        inputs["pooledProjections"] = draw(1, config["pooled_projection_dim"])
    return inputs


def predicted(family: str, model: torch.nn.Module, config: dict, inputs: dict) -> torch.Tensor:
    """diffusers' prediction on the grid, at timestep 600 and guidance 3.5."""
    latents, states = inputs["latents"], inputs["encoderHiddenStates"]
    pooled = inputs.get("pooledProjections")
    if family.startswith("SD3"):
        return model(latents, states, pooled, torch.tensor([600.0])).sample
    _, channels, height, width = latents.shape
    rows, columns, tokens = height // 2, width // 2, states.shape[1]
    second = family.startswith("Flux2")
    cells = latents.view(1, channels, rows, 2, columns, 2)
    packed = cells.permute(0, 2, 4, 1, 3, 5).reshape(1, rows * columns, channels * 4)
    grid = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).float()
    zeros = torch.zeros(rows * columns, 1)
    if second:
        text = torch.zeros(tokens, 4)
        text[:, 3] = torch.arange(tokens)
        image = torch.cat([zeros, grid, zeros], dim=1)
    else:
        text, image = torch.zeros(tokens, 3), torch.cat([zeros, grid], dim=1)
    more = {} if second else {"pooled_projections": pooled}
    guidance = torch.tensor([3.5]) if config["guidance_embeds"] else None
    flow = model(
        hidden_states=packed, encoder_hidden_states=states, timestep=torch.tensor([0.6]), img_ids=image, txt_ids=text,
        guidance=guidance, **more,
    ).sample  # fmt: skip
    return flow.view(1, rows, columns, channels, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(latents.shape)


def main() -> None:
    expected = {}
    with torch.no_grad():
        for seed, (family, prefix) in enumerate(
            (("FluxTransformer2DModel", ""), ("Flux2Transformer2DModel", "model.diffusion_model."),
             ("SD3Transformer2DModel", "model.diffusion_model.")),
        ):  # fmt: skip
            folder = names.FAMILIES[family][0]
            config, generator = names.config_of(family), torch.Generator().manual_seed(seed)
            own = stored(drawn(names.originals(family), generator), family.startswith("Flux2"))
            model = names.transformer_of(family)
            model.load_state_dict(names.converter(family, config)({name: each.float() for name, each in own.items()}))
            inputs = inputs_of(family, config, generator)
            inputs["output"] = predicted(family, model, config, inputs)
            expected |= {f"{folder}.{name}": tensor.contiguous() for name, tensor in inputs.items()}
            checkpoint = {prefix + name: tensor for name, tensor in own.items()}
            if family.startswith("SD3"):
                checkpoint |= stored(around_sd3(), as_float8=False)
            path = TARGET / f"{folder}.safetensors"
            save_file(checkpoint, path)
            if family.startswith("SD3"):
                ids = torch.tensor([[1, 5, 7, 2]])
                with tempfile.TemporaryDirectory() as temporary:
                    parts = parts_of(path, changed_folder(Path(temporary) / "sd3"))
                again = predicted(family, parts["transformer"], config, inputs)
                assert torch.equal(again, inputs["output"])
                for part in ("text_encoder", "text_encoder_2"):
                    expected[f"{folder}.{part}"] = parts[part](ids).text_embeds
                expected[f"{folder}.text_encoder_3"] = parts["text_encoder_3"](ids).last_hidden_state
                latents = torch.randn([1, 8, 4, 4], generator=generator)
                expected[f"{folder}.latents.vae"] = latents
                expected[f"{folder}.vae"] = parts["vae"].decode(latents).sample
    versions = {each.__name__: each.__version__ for each in (torch, diffusers, transformers)}
    save_file(expected, TARGET / "flow-expected.safetensors", metadata={"versions": json.dumps(versions)})
    print({name: tuple(tensor.shape) for name, tensor in expected.items()})


if __name__ == "__main__":
    main()
