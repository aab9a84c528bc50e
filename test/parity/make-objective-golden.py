"""Makes test/reference/objective.safetensors: noise levels, targets, weights, losses, timesteps and noise of training.

Run from the repository root, with torch, diffusers and safetensors installed:

    python test/parity/make-objective-golden.py

What diffusers has (schedulers, `training_utils`, FLUX's shift) is called; the losses and weights that are only in kohya's
sd-scripts are written here as plain torch after their published formulas. Losses come with their gradients with respect to
the prediction, from torch's autograd. The metadata holds the settings and the versions that made the values.
"""

import json
import math
from pathlib import Path

import diffusers
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from diffusers.training_utils import (
    compute_density_for_timestep_sampling,
    compute_loss_weighting_for_sd3,
    compute_snr,
)
from safetensors.torch import save_file
from torch.nn import functional as F

TARGET = Path("test/reference/objective.safetensors")
LATENT = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ZERO_SNR = {**LATENT, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
GAMMA = 5.0
P2 = {"gamma": 0.5, "k": 1.0}
V_LIKE = 0.3
HUBER_C = 0.2
LOSS_TIMESTEPS = [10, 300, 700, 990]
DRAWS = 24
LOGIT = {"logit_mean": 0.5, "logit_std": 0.8}
MODE_SCALE = 1.29
SIZES = [[64, 64], [128, 128], [96, 160]]
MULTIRES = {"factors": [2.7, 3.1, 2.2, 3.9], "discount": 0.4, "shape": [2, 3, 9, 14]}

tensors: dict[str, torch.Tensor] = {}


def noise_levels() -> None:
    generator = torch.Generator().manual_seed(1)
    clean, noise = (torch.randn(3, 2, 3, 3, generator=generator) for _ in range(2))
    tensors["clean"], tensors["noise"] = clean, noise
    for name, config in {"sd": LATENT, "zero": ZERO_SNR}.items():
        scheduler = DDPMScheduler(**config)
        steps = torch.tensor([0, 431, 999])
        tensors[f"{name}.alphas_cumprod"] = scheduler.alphas_cumprod
        tensors[f"{name}.noisy"] = scheduler.add_noise(clean, noise, steps)
        tensors[f"{name}.velocity"] = scheduler.get_velocity(clean, noise, steps)
    flow = FlowMatchEulerDiscreteScheduler(shift=3.0)
    steps = flow.timesteps[[999, 431, 0]]
    tensors["flow.timesteps"] = steps
    tensors["flow.noisy"] = flow.scale_noise(clean, steps, noise)
    tensors["flow.target"] = noise - clean


def weights() -> None:
    every = torch.arange(1000)
    for name, config in {"sd": LATENT, "zero": ZERO_SNR}.items():
        snr = compute_snr(DDPMScheduler(**config), every)
        least = torch.minimum(snr, torch.full_like(snr, GAMMA))
        capped = torch.minimum(snr, torch.full_like(snr, 1000.0))
        tensors[f"{name}.snr"] = snr
        tensors[f"{name}.min_snr.v_prediction"] = least / (snr + 1)
        tensors[f"{name}.min_snr.sample"] = least
        tensors[f"{name}.debiased.v_prediction"] = 1 / (capped + 1)
        scale = capped / (capped + 1)
        tensors[f"{name}.scaled.v_prediction"] = least / (snr + 1) * scale
        if name == "sd":
            tensors[f"{name}.min_snr.epsilon"] = least / snr
            tensors[f"{name}.debiased.epsilon"] = 1 / torch.sqrt(capped)
            tensors[f"{name}.v_like.epsilon"] = 1 + V_LIKE / scale
            tensors[f"{name}.p2.epsilon"] = 1 / (P2["k"] + snr) ** P2["gamma"]
    sigmas = torch.arange(1, 1001) / 1000
    for scheme in ("sigma_sqrt", "cosmap"):
        tensors[f"flow.{scheme}"] = compute_loss_weighting_for_sd3(scheme, sigmas)


def threshold(schedule: str, scheduler: DDPMScheduler, steps: torch.Tensor) -> torch.Tensor:
    """kohya's get_huber_threshold_if_needed."""
    if schedule == "constant":
        return torch.full((len(steps),), HUBER_C)
    if schedule == "exponential":
        return torch.exp(math.log(HUBER_C) / scheduler.config.num_train_timesteps * steps)
    alphas = scheduler.alphas_cumprod[steps]
    sigmas = ((1 - alphas) / alphas) ** 0.5
    return (1 - HUBER_C) / (1 + sigmas) ** 2 + HUBER_C


def elements(kind: str, output: torch.Tensor, target: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """kohya's conditional_loss, not reduced."""
    c = c.view(-1, 1, 1, 1)
    if kind == "l1":
        return F.l1_loss(output, target, reduction="none")
    if kind == "huber":
        return 2 * c * (torch.sqrt((output - target) ** 2 + c**2) - c)
    if kind == "smooth_l1":
        return 2 * (torch.sqrt((output - target) ** 2 + c**2) - c)
    return F.mse_loss(output, target, reduction="none")


def losses() -> None:
    generator = torch.Generator().manual_seed(2)
    shape = (len(LOSS_TIMESTEPS), 2, 4, 4)
    output, target = (torch.randn(shape, generator=generator) for _ in range(2))
    mask = torch.rand((shape[0], 1, *shape[2:]), generator=generator)
    mask[:, :, 0] = 0
    sample_weights = torch.tensor([1.0, 0.5, 2.0, 0.0])
    tensors.update({"losses.output": output, "losses.target": target, "losses.mask": mask, "losses.weights": sample_weights})
    scheduler, steps = DDPMScheduler(**LATENT), torch.tensor(LOSS_TIMESTEPS)
    for kind in ("mse", "l1", "huber", "smooth_l1"):
        schedules = ("constant", "exponential", "snr") if kind in ("huber", "smooth_l1") else ("constant",)
        for schedule in schedules:
            c = threshold(schedule, scheduler, steps)
            for weighted in (False, True):
                prediction = output.clone().requires_grad_()
                each = elements(kind, prediction, target, c)
                samples = (each * mask if weighted else each).mean([1, 2, 3])
                loss = (samples * sample_weights if weighted else samples).mean()
                loss.backward()
                name = f"losses.{kind}.{schedule}.{'weighted' if weighted else 'plain'}"
                tensors[f"{name}.c"] = c
                tensors[f"{name}.samples"] = samples.detach()
                tensors[f"{name}.loss"] = loss.detach()
                tensors[f"{name}.gradient"] = prediction.grad


def timesteps() -> None:
    for scheme in ("logit_normal", "mode", "none"):
        tensors[f"density.{scheme}"] = compute_density_for_timestep_sampling(
            scheme, DRAWS, mode_scale=MODE_SCALE, generator=torch.Generator().manual_seed(3), **LOGIT
        )
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    for height, width in SIZES:
        mu = calculate_shift((height // 2) * (width // 2))
        tensors[f"shifted.{height}x{width}"] = scheduler.time_shift(mu, 1.0, tensors["density.none"])


def multires() -> None:
    """kohya's pyramid_noise_like with given random numbers."""
    generator = torch.Generator().manual_seed(4)
    batch, channels, height, width = MULTIRES["shape"]
    noise = torch.randn(MULTIRES["shape"], generator=generator)
    tensors["multires.noise"] = noise
    total = noise.clone()
    for i, factor in enumerate(MULTIRES["factors"]):
        h, w = max(1, int(height / factor**i)), max(1, int(width / factor**i))
        coarser = torch.randn(batch, channels, h, w, generator=generator)
        tensors[f"multires.coarser.{i}"] = coarser
        total += F.interpolate(coarser, size=(height, width), mode="bilinear") * MULTIRES["discount"] ** i
        if h == 1 or w == 1:
            break
    tensors["multires.result"] = total / total.std()


for make in (noise_levels, weights, losses, timesteps, multires):
    make()
settings = {
    "configs": {"sd": LATENT, "zero": ZERO_SNR},
    "gamma": GAMMA,
    "p2": P2,
    "vPredLikeLoss": V_LIKE,
    "huberC": HUBER_C,
    "timesteps": LOSS_TIMESTEPS,
    "logit": LOGIT,
    "modeScale": MODE_SCALE,
    "sizes": SIZES,
    "multires": MULTIRES,
    "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__},
}
TARGET.parent.mkdir(parents=True, exist_ok=True)
save_file({name: value.clone().contiguous() for name, value in tensors.items()}, TARGET, {"settings": json.dumps(settings)})
print(f"{len(tensors)} tensors, {TARGET.stat().st_size} bytes")
