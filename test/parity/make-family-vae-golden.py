"""Makes test/reference/vae-families: the autoencoders of Stable Diffusion 3, FLUX.1, Z-Image and FLUX.2, tiny and random.

Run from the repository root, with torch, diffusers and safetensors installed:

    python test/parity/make-family-vae-golden.py

Inputs are not stored: each is torch.randn of the shape and seed in the metadata. Per model NAME there are NAME.mean and
NAME.logvar (or NAME.latents of AutoencoderTiny), what its pipelines make of the mean (NAME.scaled; of FLUX.2 packed
2x2, as its transformer takes it), what they make of NAME.scaled again (NAME.unscaled), and NAME.decoded of that.
"""

import json
from pathlib import Path

import diffusers
import torch
from diffusers import AutoencoderKL, AutoencoderKLFlux2, AutoencoderTiny, Flux2KleinPipeline
from safetensors.torch import save_file

TARGET = Path("test/reference/vae-families")
SHAPE = [2, 3, 24, 16]
KL = {
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "block_out_channels": [4, 8],
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
MODELS = {
    # Stable Diffusion 3 has no attention less than this; FLUX.1 and Z-Image are alike but for the factors.
    "kl16": (AutoencoderKL, {**KL, "latent_channels": 16, "scaling_factor": 1.5305, "shift_factor": 0.0609}),
    "kl16-plain": (
        AutoencoderKL,
        {**KL, "latent_channels": 16, "scaling_factor": 0.3611, "shift_factor": 0.1159, "mid_block_add_attention": False},
    ),
    "flux2": (
        AutoencoderKLFlux2,
        {
            **KL,
            "latent_channels": 6,
            "use_quant_conv": True,
            "use_post_quant_conv": True,
            "decoder_block_out_channels": [6, 10],
            "sample_size": 32,
        },
    ),
    "tiny16": (
        AutoencoderTiny,
        {
            "encoder_block_out_channels": [4, 4],
            "decoder_block_out_channels": [4, 4],
            "num_encoder_blocks": [1, 1],
            "num_decoder_blocks": [1, 1],
            "latent_channels": 16,
            "latent_magnitude": 2,
            "latent_shift": 0.25,
            "scaling_factor": 0.8,
            "shift_factor": 0.1,
        },
    ),
}


@torch.no_grad()
def main() -> None:
    expected = {}
    for seed, (name, (model_class, config)) in enumerate(MODELS.items()):
        torch.manual_seed(seed)
        model = model_class(**config).eval()
        if name == "flux2":
            model.bn.running_mean.normal_()
            model.bn.running_var.uniform_(0.3, 2)
        model.save_pretrained(TARGET / name)
        image = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))
        encoded = model.encode(image)
        if name.startswith("tiny"):
            z = encoded.latents
            expected[f"{name}.latents"] = z
        else:
            z = encoded.latent_dist.mean
            expected |= {f"{name}.mean": z, f"{name}.logvar": encoded.latent_dist.logvar}
        if name == "flux2":
            mean = model.bn.running_mean.view(1, -1, 1, 1)
            std = torch.sqrt(model.bn.running_var.view(1, -1, 1, 1) + model.config.batch_norm_eps)
            scaled = (Flux2KleinPipeline._patchify_latents(z) - mean) / std
            unscaled = Flux2KleinPipeline._unpatchify_latents(scaled * std + mean)
        else:
            scaled = (z - model.config.shift_factor) * model.config.scaling_factor
            unscaled = scaled / model.config.scaling_factor + model.config.shift_factor
        expected |= {f"{name}.scaled": scaled, f"{name}.unscaled": unscaled, f"{name}.decoded": model.decode(unscaled).sample}
    metadata = {
        "script": "test/parity/make-family-vae-golden.py",
        "versions": json.dumps({"torch": torch.__version__, "diffusers": diffusers.__version__}),
        "shape": json.dumps(SHAPE),
        "models": json.dumps(list(MODELS)),
    }
    save_file({name: value.contiguous() for name, value in expected.items()}, TARGET / "expected.safetensors", metadata)


if __name__ == "__main__":
    main()
