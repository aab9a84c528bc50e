"""Makes test/reference/unet-options: UNet2DConditionModel of diffusers under the options of SD 1.x, 2.x and XL.

Run from the repository root, with torch, diffusers and safetensors installed:

    python test/parity/make-unet-golden.py

Every case is a tiny configuration with random weights, inputs, and a low-rank adapter on each attention projection.
Expected are the prediction and the gradients of mean((prediction - target)^2) by autograd: with respect to the
adapters, the latents and the text states.

Weights and inputs are not stored: they are drawn from torch.Generator().manual_seed(seed), weights in the order of the
model's state dict and scaled by `scaled`, adapters (down, then up) in the order of named_modules, inputs in the order
of the case's `drawn`. The metadata gives, per case, everything needed to draw the same. The adapters' gradients are
joined to one vector in the order in which they are drawn.
"""

import json
from pathlib import Path

import diffusers
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

TARGET = Path("test/reference/unet-options")
RANK = 2
ADAPTED = ("to_q", "to_k", "to_v", "to_out.0")

BASE = {
    "sample_size": 8,
    "block_out_channels": [8, 16],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": 12,
    "attention_head_dim": 2,
}
THREE_LEVELS = {
    "block_out_channels": [8, 16, 16],
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
}
XL_LEVELS = {
    "block_out_channels": [8, 16, 16],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
}
SIZES = [[1024, 768, 0, 16, 1024, 512], [512, 640, 8, 0, 512, 1024]]


def drawn(*shape: int) -> dict:
    """An input of that shape, to be drawn; other inputs are given as they are."""
    return {"shape": list(shape)}


# Per case: the configuration's changes; batch, height, width and tokens; the timesteps; what else the model takes.
CASES = {
    # Stable Diffusion 1.x: convolutional projection; neither side is a multiple of 4, both are odd at some level.
    "sd1": (THREE_LEVELS, [3, 9, 13, 5], [3, 501, 999], {}),
    # Stable Diffusion 2.x: linear projection, heads per block, upcast attention.
    "sd2": (
        {**THREE_LEVELS, "use_linear_projection": True, "attention_head_dim": [1, 2, 4], "upcast_attention": True},
        [2, 12, 8, 7],
        [0, 731],
        {},
    ),
    # Stable Diffusion XL.
    "sdxl": (
        {
            **XL_LEVELS,
            "attention_head_dim": [1, 2, 4],
            "transformer_layers_per_block": [1, 2, 3],
            "projection_class_embeddings_input_dim": 6 + 6 * 4,
        },
        [2, 7, 10, 5],
        [250, 999],
        {"text_embeds": drawn(2, 6), "time_ids": SIZES},
    ),
    # SDXL's refiner: one text encoder, an aesthetic score instead of the target size.
    "sdxl-refiner": (
        {
            **XL_LEVELS,
            "block_out_channels": [8, 16, 16, 16],
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "projection_class_embeddings_input_dim": 12 + 5 * 4,
        },
        [2, 8, 16, 5],
        [17, 400],
        {"text_embeds": drawn(2, 12), "time_ids": [[1024, 1024, 0, 0, 6], [512, 768, 8, 0, 2.5]]},
    ),
    # Distilled SDXL (SSD-1B): transformer layers per attention, other ones on the way up, no attention in the middle.
    "sdxl-distilled": (
        {
            **XL_LEVELS,
            "layers_per_block": 2,
            "transformer_layers_per_block": [0, [1, 2], [2, 0]],
            "reverse_transformer_layers_per_block": [[1, 1, 2], [2, 1, 1], 1],
            "mid_block_type": "UNetMidBlock2D",
            "projection_class_embeddings_input_dim": 6 + 6 * 4,
        },
        [2, 8, 12, 5],
        [10, 600],
        {"text_embeds": drawn(2, 6), "time_ids": SIZES},
    ),
    # Distilled SD 1.x (small and tiny SD): no middle; layers by block.
    "no-middle": ({"mid_block_type": None, "layers_per_block": [2, 1]}, [2, 6, 9, 5], [42, 900], {}),
    # The x4 upscaler: noise levels as classes, attention to the text only in some blocks.
    "upscaler": (
        {**THREE_LEVELS, "in_channels": 7, "num_class_embeds": 20, "only_cross_attention": [True, False, False]},
        [3, 8, 12, 5],
        [999, 500, 20],
        {"class_labels": [0, 19, 7]},
    ),
    "only-cross-attention": ({"only_cross_attention": True}, [2, 8, 8, 5], [1, 2], {}),
    # unCLIP of SD 2.1: image embeddings as classes.
    "class-projection": (
        {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 10},
        [2, 8, 8, 5],
        [100, 200],
        {"class_labels": drawn(2, 10)},
    ),
    "class-simple-projection": (
        {"class_embed_type": "simple_projection", "projection_class_embeddings_input_dim": 10},
        [2, 8, 8, 5],
        [100, 200],
        {"class_labels": drawn(2, 10)},
    ),
    "class-timestep": ({"class_embed_type": "timestep"}, [2, 8, 8, 5], [100, 200], {"class_labels": [0.0, 350.0]}),
    "class-identity": ({"class_embed_type": "identity"}, [2, 8, 8, 5], [100, 200], {"class_labels": drawn(2, 32)}),
    # Guidance-distilled models (LCM).
    "guidance-embedding": ({"time_cond_proj_dim": 6}, [2, 8, 8, 5], [259, 999], {"timestep_cond": drawn(2, 6)}),
    "scale-shift": ({"resnet_time_scale_shift": "scale_shift"}, [2, 5, 8, 5], [30, 310], {}),
    # Inpainting's channels, and the numbers that configurations may set.
    "numbers": (
        {
            "in_channels": 9,
            "act_fn": "swish",
            "flip_sin_to_cos": False,
            "freq_shift": 1,
            "norm_eps": 1e-3,
            "time_embedding_dim": 20,
            "norm_num_groups": 2,
            "attention_head_dim": 1,
            "sample_size": [8, 6],
        },
        [2, 8, 6, 3],
        [5, 995],
        {},
    ),
    # DeepFloyd IF: the pooled text as part of the time embedding.
    "text-embedding": (
        {"addition_embed_type": "text", "addition_embed_type_num_heads": 3},
        [2, 6, 8, 5],
        [40, 700],
        {},
    ),
}


def scaled(name: str, noise: torch.Tensor) -> torch.Tensor:
    """Larger than a fresh model's weights, so that every part of the model shows in the output."""
    if "norm" in name and name.endswith("weight"):
        return 1 + 0.2 * noise
    if noise.ndim > 1:
        return noise * noise[0].numel() ** -0.5
    return 0.1 * noise


def adapt(model: torch.nn.Module, generator: torch.Generator) -> dict[str, torch.nn.Parameter]:
    """Adds y += up(down(x)) to every adapted layer. Gives down [rank, in] and up [out, rank] by path."""
    adapters = {}
    for path, layer in model.named_modules():
        if not path.endswith(ADAPTED):
            continue
        down = torch.randn(RANK, layer.in_features, generator=generator) * layer.in_features**-0.5
        up = torch.randn(layer.out_features, RANK, generator=generator) * RANK**-0.5
        adapters[f"{path}.down"], adapters[f"{path}.up"] = map(torch.nn.Parameter, (down, up))

        def add(_, inputs, output, path=path):
            return output + inputs[0] @ adapters[f"{path}.down"].T @ adapters[f"{path}.up"].T

        layer.register_forward_hook(add)
    return adapters


def make(seed: int, changes: dict, size: list[int], timesteps: list[int], extra: dict) -> tuple[dict, dict]:
    """Expected tensors of one case, and what is needed to draw its weights and inputs."""
    config = {**BASE, **changes}
    model = UNet2DConditionModel(**config).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        parameter.data = scaled(name, torch.randn(parameter.shape, generator=generator))
        parameter.requires_grad_(False)
    adapters = adapt(model, generator)
    batch, height, width, tokens = size
    channels = config.get("in_channels", 4)
    shapes = {
        "latents": [batch, channels, height, width],
        "encoder_hidden_states": [batch, tokens, config["cross_attention_dim"]],
        "target": [batch, 4, height, width],
    }
    shapes |= {name: value["shape"] for name, value in extra.items() if isinstance(value, dict)}
    given = {name: value for name, value in extra.items() if name not in shapes}
    inputs = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    for name in ("latents", "encoder_hidden_states"):
        inputs[name].requires_grad_(True)
    tensors = {**inputs, **{name: torch.tensor(value) for name, value in given.items()}}
    added = {name: tensors[name] for name in ("text_embeds", "time_ids") if name in tensors}
    output = model(
        tensors["latents"],
        torch.tensor(timesteps),
        tensors["encoder_hidden_states"],
        class_labels=tensors.get("class_labels"),
        timestep_cond=tensors.get("timestep_cond"),
        added_cond_kwargs=added or None,
    ).sample
    ((output - tensors["target"]) ** 2).mean().backward()
    expected = {"output": output.detach()}
    for name in ("latents", "encoder_hidden_states"):
        expected[f"grad.{name}"] = inputs[name].grad
    expected["grad.adapters"] = torch.cat([parameter.grad.flatten() for parameter in adapters.values()])
    case = {
        "seed": seed,
        "config": config,
        "parameters": [[name, list(parameter.shape)] for name, parameter in model.named_parameters()],
        "adapters": [[name, list(parameter.shape)] for name, parameter in adapters.items()],
        "timesteps": timesteps,
        "drawn": list(shapes.items()),
        "given": given,
    }
    return expected, case


def main() -> None:
    TARGET.mkdir(parents=True, exist_ok=True)
    expected = {}
    cases = {}
    for seed, (name, case) in enumerate(CASES.items()):
        tensors, cases[name] = make(seed, *case)
        expected |= {f"{name}.{key}": value.contiguous() for key, value in tensors.items()}
    metadata = {
        "script": "test/parity/make-unet-golden.py",
        "versions": json.dumps({"torch": torch.__version__, "diffusers": diffusers.__version__}),
        "cases": json.dumps(cases, separators=(",", ":")),
    }
    save_file(expected, TARGET / "expected.safetensors", metadata)


if __name__ == "__main__":
    main()
