"""Makes test/reference/transformers: the transformers of diffusers that denoise under flow matching, and training of
LoRA by PEFT and of FeRA on them.

Run from the repository root, with torch, diffusers, peft and safetensors installed:

    python test/parity/make-transformer-golden.py [FAMILY ...]

Every case is a tiny configuration with random weights, inputs, and a low-rank adapter on each layer that PEFT's users
adapt. Expected are the prediction and the gradients of mean((prediction - target)^2) by autograd: with respect to the
adapters, the latents and the conditioning. Latents are on their grid, [B, C, H, W]: packing, position ids, the scale and
the direction of time are done as diffusers' pipelines do them, timesteps are 1000 sigma, and the prediction is the flow,
noise minus image.

Weights and inputs are not stored: they are drawn from torch.Generator().manual_seed(seed), weights in the order of the
model's parameters and scaled by `scaled`, adapters (down, then up) in the order of named_modules, inputs in the order
of the case's `drawn`. The metadata gives, per case, everything needed to draw the same. What belongs to adapters is
joined to one vector in the order in which it is drawn.

The case named in `training` is also trained, eight steps of AdamW on its batch:

    lora    PEFT's LoRA. Drawn from seed + 100: per layer lora_A [r, in] scaled by 1/sqrt(in), lora_B [out, r] by 0.3.
    fera    FeRA over hooks on diffusers' modules: energies of the bands of the noisy latents, a router, experts, and
            the consistency loss. Drawn from seed + 200: router.net.0 weight [64, K] and bias, router.net.2 weight
            [E, 64] and bias, scaled by 0.5; then per layer and expert lora_down [r, in] scaled by 1/sqrt(in), lora_up
            [out, r] by 0.3.

    KIND.output             the prediction with it
    KIND.losses [8]         the loss before each step; fera also has mse and fecl, and gates [B, E] before the first
    KIND.grad, KIND.trained the gradient before the first step, and the values after the last, joined as drawn
    KIND.trained_output     the prediction then
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from diffusers import (
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    ZImageTransformer2DModel,
)
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

TARGET = Path("test/reference/transformers")
RANK = 2
STEPS = 8
OPTIMIZER = {"lr": 0.01, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01}
LORA = {"r": 2, "lora_alpha": 3}
FERA = {
    "rank": 2,
    "alpha": 3,
    "numExperts": 2,
    "numBands": 3,
    "routerTau": 0.7,
    "feclWeight": 0.1,
    "bands": "complete",
    "sigma": {"rule": "latent", "divisor": 4},
}
CLASSES = {
    "sd3": SD3Transformer2DModel,
    "flux": FluxTransformer2DModel,
    "flux2": Flux2Transformer2DModel,
    "z-image": ZImageTransformer2DModel,
}
JOINT = ["to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"]
FEED_FORWARD = ["ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"]
SD3 = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 2,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "joint_attention_dim": 12,
    "caption_projection_dim": 16,
    "pooled_projection_dim": 10,
    "pos_embed_max_size": 12,
}
FLUX = {
    "in_channels": 16,
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 12,
    "num_attention_heads": 2,
    "joint_attention_dim": 10,
    "pooled_projection_dim": 14,
    "axes_dims_rope": [4, 2, 6],
}
FLUX2 = {
    "in_channels": 16,
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 10,
    "timestep_guidance_channels": 32,
    "axes_dims_rope": [4, 4, 6, 2],
    "guidance_embeds": False,
}
Z_IMAGE = {
    "in_channels": 4,
    "dim": 24,
    "n_layers": 2,
    "n_refiner_layers": 1,
    "n_heads": 2,
    "n_kv_heads": 2,
    "cap_feat_dim": 10,
    "axes_dims": [4, 2, 6],
    "axes_lens": [80, 16, 16],
}
FLUX2_LAYERS = [*JOINT, "linear_in", "linear_out", "to_qkv_mlp_proj", "single_transformer_blocks.0.attn.to_out"]
FLUX2_LAYERS += ["single_transformer_blocks.1.attn.to_out"]

# Per family and case: configuration; batch, height, width and tokens; timesteps; further inputs; adapted layers.
CASES = {
    "sd3": {
        # Stable Diffusion 3: neither side is a multiple of 4.
        "sd3": (SD3, [3, 6, 10, 5], [3, 501.5, 999], {"pooled_projections": [3, 10]}, JOINT),
        # Stable Diffusion 3.5: norms of queries and keys, a second attention in some blocks.
        "sd3.5": (
            {**SD3, "num_layers": 3, "dual_attention_layers": [0, 1], "qk_norm": "rms_norm"},
            [2, 8, 6, 7],
            [250, 800.25],
            {"pooled_projections": [2, 10]},
            JOINT,
        ),
    },
    "flux": {
        "dev": (
            {**FLUX, "guidance_embeds": True},
            [2, 6, 8, 5],
            [17, 730.5],
            {"pooled_projections": [2, 14], "guidance": [3.5, 1.0]},
            [*JOINT, *FEED_FORWARD],
        ),
        "schnell": (FLUX, [3, 4, 10, 3], [1000, 500, 1.5], {"pooled_projections": [3, 14]}, [*JOINT, *FEED_FORWARD]),
    },
    "flux2": {
        "klein": (FLUX2, [2, 6, 8, 5], [17, 730.5], {}, FLUX2_LAYERS),
        "dev": (
            {**FLUX2, "guidance_embeds": True, "mlp_ratio": 2.5, "num_single_layers": 1},
            [1, 4, 10, 3],
            [400],
            {"guidance": [4.0]},
            FLUX2_LAYERS[:-1],
        ),
    },
    "z-image": {
        # 12 and 5 tokens, filled up to 32 each.
        "z-image": (Z_IMAGE, [2, 6, 8, 5], [17, 730.5], {}, ["to_q", "to_k", "to_v", "to_out.0", "w1", "w2", "w3"]),
        # 35 and 32 tokens: one filled up, the other whole.
        "long": (Z_IMAGE, [1, 10, 14, 32], [900], {}, ["to_q", "to_k", "to_v", "to_out.0"]),
    },
}
TRAINED = {"sd3": "sd3.5", "flux": "dev", "flux2": "klein", "z-image": "z-image"}


def scaled(name: str, noise: torch.Tensor) -> torch.Tensor:
    """Larger than a fresh model's weights, so that every part of the model shows in the output."""
    if noise.ndim == 1 and name.endswith("weight"):
        return 1 + 0.2 * noise
    if noise.ndim > 1:
        return noise * noise[0].numel() ** -0.5
    return 0.1 * noise


def flow(family: str, model: torch.nn.Module, inputs: dict) -> torch.Tensor:
    """The predicted flow on the latents' grid, with the calls of diffusers' pipelines."""
    latents, text, time = inputs["latents"], inputs["encoder_hidden_states"], inputs["timesteps"]
    batch, channels, height, width = latents.shape
    if family == "sd3":
        return model(latents, text, inputs["pooled_projections"], time).sample
    if family == "flux":
        output = model(
            hidden_states=FluxPipeline._pack_latents(latents, batch, channels, height, width),
            encoder_hidden_states=text,
            pooled_projections=inputs["pooled_projections"],
            timestep=time / 1000,
            img_ids=FluxPipeline._prepare_latent_image_ids(batch, height // 2, width // 2, "cpu", latents.dtype),
            txt_ids=torch.zeros(text.shape[1], 3, dtype=latents.dtype),
            guidance=inputs.get("guidance"),
        ).sample
        return FluxPipeline._unpack_latents(output, 8 * height, 8 * width, 8)
    if family == "flux2":
        packed = Flux2KleinPipeline._patchify_latents(latents)
        ids = Flux2KleinPipeline._prepare_latent_ids(packed)
        output = model(
            hidden_states=Flux2KleinPipeline._pack_latents(packed),
            encoder_hidden_states=text,
            timestep=time / 1000,
            img_ids=ids,
            txt_ids=Flux2KleinPipeline._prepare_text_ids(text),
            guidance=inputs.get("guidance"),
        ).sample
        grid = output.reshape(batch, height // 2, width // 2, 4 * channels).permute(0, 3, 1, 2)
        return Flux2KleinPipeline._unpatchify_latents(grid)
    parts = model(list(latents.unsqueeze(2).unbind(0)), (1000 - time) / 1000, list(text.unbind(0))).sample
    return -torch.stack(parts).squeeze(2)


def mean_square(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a - b).square().mean()


def drawn_model(family: str, config: dict, generator: torch.Generator) -> torch.nn.Module:
    model = CLASSES[family](**config).eval()
    for name, parameter in model.named_parameters():
        parameter.data = scaled(name, torch.randn(parameter.shape, generator=generator))
        parameter.requires_grad_(False)
    return model


def targets(model: torch.nn.Module, adapted: list[str]) -> dict[str, torch.nn.Linear]:
    """The layers whose path ends in one of the names, at a dot, as PEFT finds them."""
    return {
        path: layer
        for path, layer in model.named_modules()
        if any(path == name or path.endswith(f".{name}") for name in adapted) and isinstance(layer, torch.nn.Linear)
    }


def drawn_adapters(layers: dict[str, torch.nn.Linear], generator: torch.Generator) -> dict[str, torch.nn.Parameter]:
    """Down [rank, in] and up [out, rank] by path."""
    adapters = {}
    for path, layer in layers.items():
        down = torch.randn(RANK, layer.in_features, generator=generator) * layer.in_features**-0.5
        up = torch.randn(layer.out_features, RANK, generator=generator) * RANK**-0.5
        adapters[f"{path}.down"], adapters[f"{path}.up"] = map(torch.nn.Parameter, (down, up))
    return adapters


def adapt(layers: dict[str, torch.nn.Linear], adapters: dict[str, torch.nn.Parameter]) -> None:
    """Adds y += up(down(x)) to every adapted layer."""
    for path, layer in layers.items():

        def add(_, inputs, output, path=path):
            return output + inputs[0] @ adapters[f"{path}.down"].T @ adapters[f"{path}.up"].T

        layer.register_forward_hook(add)


def drawn_inputs(config: dict, size: list[int], further: dict, family: str, generator: torch.Generator):
    """Inputs by name, the shapes of those that are drawn, and those that are given."""
    batch, height, width, tokens = size
    channels = config["in_channels"] // (4 if family.startswith("flux") else 1)
    features = config.get("joint_attention_dim") or config["cap_feat_dim"]
    shapes = {"latents": [batch, channels, height, width], "encoder_hidden_states": [batch, tokens, features]}
    given = {name: value for name, value in further.items() if name == "guidance"}
    shapes |= {name: value for name, value in further.items() if name not in given}
    shapes["target"] = shapes["latents"]
    inputs = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return inputs | {name: torch.tensor(value) for name, value in given.items()}, shapes, given


def joined(values) -> torch.Tensor:
    return torch.cat([value.detach().flatten() for value in values])


def make(family: str, name: str, seed: int) -> tuple[dict, dict]:
    """Expected tensors of one case, and what is needed to draw its weights and inputs."""
    config, size, timesteps, further, adapted = CASES[family][name]
    generator = torch.Generator().manual_seed(seed)
    model = drawn_model(family, config, generator)
    parameters = [[name, list(parameter.shape)] for name, parameter in model.named_parameters()]
    layers = targets(model, adapted)
    adapters = drawn_adapters(layers, generator)
    adapt(layers, adapters)
    inputs, shapes, given = drawn_inputs(config, size, further, family, generator)
    inputs["timesteps"] = torch.tensor(timesteps)
    wanted = [key for key in shapes if key != "target"]
    for key in wanted:
        inputs[key].requires_grad_(True)
    output = flow(family, model, inputs)
    mean_square(output, inputs["target"]).backward()
    expected = {"output": output.detach(), **{f"grad.{key}": inputs[key].grad for key in wanted}}
    expected["grad.adapters"] = joined(parameter.grad for parameter in adapters.values())
    case = {
        "seed": seed,
        "config": config,
        "parameters": parameters,
        "adapters": [[key, list(parameter.shape)] for key, parameter in adapters.items()],
        "timesteps": timesteps,
        "drawn": list(shapes.items()),
        "given": given,
    }
    return expected, case


def batch_of(family: str, name: str, seed: int) -> tuple[torch.nn.Module, dict]:
    """The case's model and batch, drawn as before, without its adapters."""
    config, size, timesteps, further, adapted = CASES[family][name]
    generator = torch.Generator().manual_seed(seed)
    model = drawn_model(family, config, generator)
    drawn_adapters(targets(model, adapted), generator)
    inputs, _, _ = drawn_inputs(config, size, further, family, generator)
    return model, inputs | {"timesteps": torch.tensor(timesteps)}


def fit(trained: list[torch.nn.Parameter], losses) -> dict[str, torch.Tensor]:
    """Eight steps of AdamW on what `losses` gives: the prediction and the terms of the loss by name."""
    found: dict[str, torch.Tensor] = {}
    terms: dict[str, list[torch.Tensor]] = {}
    optimizer = torch.optim.AdamW(trained, **OPTIMIZER, foreach=False)
    for step in range(STEPS):
        optimizer.zero_grad()
        output, parts = losses()
        parts["losses"].backward()
        if step == 0:
            found |= {"output": output.detach().clone(), "grad": joined(value.grad for value in trained)}
        for key, value in parts.items():
            terms.setdefault(key, []).append(value.detach())
        optimizer.step()
    with torch.no_grad():
        found["trained_output"] = losses()[0]
    found |= {key: torch.stack(values) for key, values in terms.items()}
    return found | {"trained": joined(trained)}


def train_lora(family: str, name: str, seed: int) -> tuple[dict, dict]:
    model, inputs = batch_of(family, name, seed)
    adapted = CASES[family][name][4]
    layers = list(targets(model, adapted))
    peft = get_peft_model(model, LoraConfig(**LORA, target_modules=adapted)).base_model.model
    generator = torch.Generator().manual_seed(seed + 100)
    modules = dict(peft.named_modules())
    trained = []
    for path in layers:
        down, up = modules[path].lora_A.default.weight, modules[path].lora_B.default.weight
        down.data = torch.randn(down.shape, generator=generator) * down.shape[1] ** -0.5
        up.data = torch.randn(up.shape, generator=generator) * 0.3
        trained += [down, up]
    assert sum(parameter.requires_grad for parameter in peft.parameters()) == len(trained)

    def losses():
        output = flow(family, peft, inputs)
        return output, {"losses": mean_square(output, inputs["target"])}

    return fit(trained, losses), {"config": LORA, "targets": adapted, "layers": layers}


def blurred(z: torch.Tensor, sigma: float) -> torch.Tensor:
    size = int(8 * sigma + 1) | 1
    distances = torch.arange(size, dtype=torch.float32) - size // 2
    taps = torch.exp(-distances.square() / (2 * sigma**2))
    kernel = torch.outer(taps, taps) / taps.sum() ** 2
    channels = z.shape[1]
    return torch.nn.functional.conv2d(
        z, kernel.expand(channels, 1, size, size), padding=size // 2, groups=channels
    )


def bands_of(z: torch.Tensor) -> list[torch.Tensor]:
    base = min(z.shape[2:]) / FERA["sigma"]["divisor"]
    levels = [z] + [blurred(z, base * 2**k) for k in range(FERA["numBands"] - 1)]
    return [levels[-1]] + [levels[k] - levels[k + 1] for k in reversed(range(len(levels) - 1))]


def norms(bands: list[torch.Tensor]) -> torch.Tensor:
    """[B, K]"""
    return torch.stack([band.flatten(1).norm(dim=1) for band in bands], 1)


def shares(values: torch.Tensor) -> torch.Tensor:
    return values / (values.sum(1, keepdim=True) + 1e-8)


def consistency(adapted: torch.Tensor, base: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    delta, residual = adapted - base, adapted - target
    delta_bands, residual_bands = norms(bands_of(delta)), norms(bands_of(residual))
    whole = [each.flatten(1).norm(dim=1, keepdim=True) + 1e-8 for each in (delta, residual)]
    gap = delta_bands / whole[0] - residual_bands / whole[1]
    return (shares(residual_bands.square()) * gap.square()).sum(1).mean()


def train_fera(family: str, name: str, seed: int) -> tuple[dict, dict]:
    model, inputs = batch_of(family, name, seed)
    adapted = CASES[family][name][4]
    layers = targets(model, adapted)
    generator = torch.Generator().manual_seed(seed + 200)
    draw = lambda *shape, by: torch.nn.Parameter(torch.randn(shape, generator=generator) * by)
    experts, bands = FERA["numExperts"], FERA["numBands"]
    trained = {
        "router.net.0.weight": draw(64, bands, by=0.5),
        "router.net.0.bias": draw(64, by=0.5),
        "router.net.2.weight": draw(experts, 64, by=0.5),
        "router.net.2.bias": draw(experts, by=0.5),
    }
    gates: list[torch.Tensor] = []  # empty in the base pass
    for path, layer in layers.items():
        for k in range(experts):
            prefix = f"base_model.{path}.experts.{k}"
            trained[f"{prefix}.lora_down.weight"] = draw(FERA["rank"], layer.in_features, by=layer.in_features**-0.5)
            trained[f"{prefix}.lora_up.weight"] = draw(layer.out_features, FERA["rank"], by=0.3)

        def add(_, given, output, path=path):
            for k, weight in enumerate(gates[0].unbind(1) if gates else []):
                prefix = f"base_model.{path}.experts.{k}"
                x = given[0]
                added = x @ trained[f"{prefix}.lora_down.weight"].T @ trained[f"{prefix}.lora_up.weight"].T
                output = output + weight[:, None, None] * (FERA["alpha"] / FERA["rank"]) * added
            return output

        layer.register_forward_hook(add)
    energies = shares(norms(bands_of(inputs["latents"])).square())
    with torch.no_grad():
        base = flow(family, model, inputs)

    def losses():
        hidden = torch.relu(energies @ trained["router.net.0.weight"].T + trained["router.net.0.bias"])
        logits = hidden @ trained["router.net.2.weight"].T + trained["router.net.2.bias"]
        weights = torch.softmax(logits / FERA["routerTau"], 1)
        gates[:] = [weights]
        output = flow(family, model, inputs)
        gates.clear()
        mse, fecl = mean_square(output, inputs["target"]), consistency(output, base, inputs["target"])
        return output, {"losses": mse + FERA["feclWeight"] * fecl, "mse": mse, "fecl": fecl, "gates": weights}

    found = fit(list(trained.values()), losses)
    found["gates"] = found["gates"][0]
    return found, {"config": FERA, "targets": adapted, "names": [[k, list(v.shape)] for k, v in trained.items()]}


def main() -> None:
    torch.set_num_threads(1)
    TARGET.mkdir(parents=True, exist_ok=True)
    for family in sys.argv[1:] or CASES:
        expected, cases = {}, {}
        for seed, name in enumerate(CASES[family]):
            tensors, cases[name] = make(family, name, seed)
            expected |= {f"{name}.{key}": value for key, value in tensors.items()}
        name = TRAINED[family]
        seed = list(CASES[family]).index(name)
        training = {"case": name, "optimizer": OPTIMIZER}
        for kind, train in (("lora", train_lora), ("fera", train_fera)):
            tensors, training[kind] = train(family, name, seed)
            expected |= {f"{kind}.{key}": value for key, value in tensors.items()}
            losses = tensors["losses"].tolist()
            assert losses[-1] < losses[0]
            print(family, kind, f"losses {losses[0]:.4f} to {losses[-1]:.4f}")
        assert all(value.isfinite().all() for value in expected.values())
        assert all(value.norm() > 1e-6 for value in expected.values())
        metadata = {
            "script": "test/parity/make-transformer-golden.py",
            "versions": json.dumps({key: version(key) for key in ("torch", "diffusers", "peft")}),
            "cases": json.dumps(cases, separators=(",", ":")),
            "training": json.dumps(training, separators=(",", ":")),
        }
        path = TARGET / f"{family}.safetensors"
        save_file({key: value.contiguous() for key, value in expected.items()}, path, metadata)
        print(path, f"{path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
