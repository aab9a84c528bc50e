"""Makes test/reference/vae-options: tiling, sampling and half-precision checkpoints of diffusers' autoencoders.

Run from the repository root, with torch, diffusers and safetensors installed:

    python test/parity/make-vae-golden.py

Models are those of test/reference/vae-kl and vae-tiny. Inputs are not stored: each is torch.randn of the shape and
seed in the metadata. All computation is in float32.
"""

import json
from pathlib import Path

import diffusers
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import save_file

TARGET = Path("test/reference/vae-options")
# Neither is a whole number of tiles: the last row and column are narrower, one less than the blended strip.
INPUTS = {
    "kl.image": {"seed": 0, "shape": [2, 3, 26, 44]},
    "kl.latents": {"seed": 1, "shape": [2, 4, 13, 22]},
    "tiny.image": {"seed": 2, "shape": [1, 3, 48, 72]},
    "tiny.latents": {"seed": 3, "shape": [1, 4, 6, 9]},
    "sample.image": {"seed": 4, "shape": [2, 3, 8, 6]},
    # Eight latents: torch draws fewer than 16 values in another way.
    "small.image": {"seed": 5, "shape": [1, 3, 2, 4]},
}
TILING = {"kl": [16, 0.25], "tiny": [32, 0.5]}
NOISE_SEED = 7


def tiled(model: torch.nn.Module, name: str) -> torch.nn.Module:
    size, overlap = TILING[name]
    model.enable_tiling()
    model.tile_sample_min_size = size
    model.tile_latent_min_size = size // (2 ** (len(model.config.block_out_channels) - 1))
    model.tile_overlap_factor = overlap
    return model


@torch.no_grad()
def main() -> None:
    inputs = {
        name: torch.randn(value["shape"], generator=torch.Generator().manual_seed(value["seed"]))
        for name, value in INPUTS.items()
    }
    expected = {}
    kl = AutoencoderKL.from_pretrained("test/reference/vae-kl/vae").eval()
    for name in ("sample", "small"):
        distribution = kl.encode(inputs[f"{name}.image"]).latent_dist
        expected[f"{name}.latents"] = distribution.sample(generator=torch.Generator().manual_seed(NOISE_SEED))
    for dtype in ("float16", "bfloat16"):
        half = AutoencoderKL.from_pretrained("test/reference/vae-kl/vae").to(getattr(torch, dtype)).float().eval()
        expected[f"{dtype}.mean"] = half.encode(inputs["sample.image"]).latent_dist.mean
        expected[f"{dtype}.decoded"] = half.decode(expected[f"{dtype}.mean"]).sample
    tiled(kl, "kl")
    distribution = kl.encode(inputs["kl.image"]).latent_dist
    expected |= {"kl.mean": distribution.mean, "kl.logvar": distribution.logvar}
    expected["kl.decoded"] = kl.decode(inputs["kl.latents"]).sample
    tiny = tiled(AutoencoderTiny.from_pretrained("test/reference/vae-tiny/vae").eval(), "tiny")
    expected["tiny.encoded"] = tiny.encode(inputs["tiny.image"]).latents
    expected["tiny.decoded"] = tiny.decode(inputs["tiny.latents"]).sample
    metadata = {
        "script": "test/parity/make-vae-golden.py",
        "versions": json.dumps({"torch": torch.__version__, "diffusers": diffusers.__version__}),
        "inputs": json.dumps(INPUTS),
        "tiling": json.dumps(TILING),
        "noiseSeed": json.dumps(NOISE_SEED),
    }
    TARGET.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in expected.items()}, TARGET / "expected.safetensors", metadata)


if __name__ == "__main__":
    main()
