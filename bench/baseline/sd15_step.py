"""FeRA's training step in PyTorch and diffusers: the bench's baseline. Started by bench/baseline.ts.

    python sd15_step.py --model FOLDER --inputs FILE --runs N --threads N [--mode eager|channels-last|compile|bf16]

FOLDER holds `unet/` in diffusers' layout, Stable Diffusion's or SDXL's; FILE the batch, the adapters and, in its metadata,
FeRA's configuration (bench/step-inputs.ts). Written to be fast: one low-rank product of rank experts·rank per adapted layer, the base pass
without gradients, diffusers' fused attention, a fused AdamW. In bf16, frozen weights are bfloat16 and both passes run under
autocast; adapters, their gradients and the optimizer's state, indicator and losses are float32, as here. Prints its phases and its result as bench/measured-process.ts
reads them.
"""

import argparse
import json
import re
import resource
import sys
import time
from pathlib import Path

import diffusers
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn

EXPERT_KEY = re.compile(r"adapters\.base_model\.(.+)\.experts\.(\d+)\.lora_(down|up)\.weight")


def say(**message):
    print("@bench " + json.dumps(message), flush=True)


class Routing:
    """The gates that all adapted layers share during a pass; None switches the experts off."""

    def __init__(self):
        self.gates = None


class RoutedLayer(nn.Module):
    """base(x) + ((x Dᵀ) ⊙ g) Uᵀ, with the experts stacked into D [E·r, in] and U [out, E·r], g [B, E·r].

    Of a convolution D is [E·r, in, h, w], with the base's stride and padding, and U [out, E·r, 1, 1].
    """

    def __init__(self, base, down, up, routing):
        super().__init__()
        self.base = base
        self.down = nn.Parameter(down)
        self.up = nn.Parameter(up)
        self.routing = routing

    def forward(self, x):
        y = self.base(x)
        gates = self.routing.gates
        if gates is None:
            return y
        if self.down.dim() == 4:
            base = self.base
            low = F.conv2d(x, self.down, None, base.stride, base.padding, base.dilation)
            return y + F.conv2d(low * gates[:, :, None, None], self.up)
        if x.dim() == 3:
            gates = gates.unsqueeze(1)
        return y + F.linear(F.linear(x, self.down) * gates, self.up)


class Indicator(nn.Module):
    """Bands of a latent, low to high, and their squared norms; the blurs are separable and padded with zeros."""

    def __init__(self, config, channels, height, width):
        super().__init__()
        sigma = config["sigma"]
        divisor = 128 if sigma["rule"] == "reference" else sigma["divisor"]
        self.reference = config["bands"] == "reference"
        self.levels = config["num_bands"] if self.reference else config["num_bands"] - 1
        self.channels = channels
        for level in range(self.levels):
            scale = min(height, width) / divisor * 2**level
            half = int(8 * scale + 1) // 2
            offsets = torch.arange(-half, half + 1, dtype=torch.float64)
            taps = torch.exp(-(offsets**2) / (2 * scale * scale))
            taps = (taps / taps.sum()).float()
            self.register_buffer(f"taps{level}", taps.view(1, 1, 1, -1).repeat(channels, 1, 1, 1))

    def bands(self, z):
        blurred = [z]
        for level in range(self.levels):
            taps = getattr(self, f"taps{level}")
            half = taps.shape[-1] // 2
            across = F.conv2d(z, taps, padding=(0, half), groups=self.channels)
            blurred.append(F.conv2d(across, taps.transpose(2, 3), padding=(half, 0), groups=self.channels))
        finest = 2 if self.reference else 1
        differences = [blurred[k - 1] - blurred[k] for k in range(self.levels, finest - 1, -1)]
        return torch.stack([blurred[-1], *differences], dim=1)

    def forward(self, z):
        energies = self.bands(z).square().sum(dim=(2, 3, 4))
        return energies / (energies.sum(dim=1, keepdim=True) + 1e-8)


class Router(nn.Module):
    def __init__(self, state, temperature):
        super().__init__()
        self.weights = nn.ParameterList(
            [state[f"router.net.{name}"] for name in ("0.weight", "0.bias", "2.weight", "2.bias")]
        )
        self.temperature = temperature

    def forward(self, energies):
        hidden = F.relu(F.linear(energies, self.weights[0], self.weights[1]))
        return F.softmax(F.linear(hidden, self.weights[2], self.weights[3]) / self.temperature, dim=-1)


def norms(x):
    return torch.linalg.vector_norm(x.flatten(2), dim=2)


def consistency_loss(indicator, base, fera, target):
    delta, residual = fera - base, fera - target
    delta_norms = norms(indicator.bands(delta))
    residual_norms = norms(indicator.bands(residual))
    energies = residual_norms.square()
    weights = energies / (energies.sum(dim=1, keepdim=True) + 1e-8)
    whole = lambda x: norms(x.unsqueeze(1)) + 1e-8  # noqa: E731
    difference = delta_norms / whole(delta) - residual_norms / whole(residual)
    return (weights * difference.square()).sum(dim=1).mean()


class Step(nn.Module):
    """Both passes and both losses."""

    def __init__(self, unet, tensors, config, half=False):
        super().__init__()
        self.half = half
        self.routing = Routing()
        self.unet = unet
        self.rank, self.alpha, self.weight = config["rank"], config["alpha"], config["fecl_weight"]
        adapters = {name: value for name, value in tensors.items() if name.startswith("adapters.")}
        self.router = Router(
            {name[len("adapters."):]: value for name, value in adapters.items() if name.startswith("adapters.router.")},
            config["router_tau"],
        )
        self.indicator = Indicator(config, *tensors["latents"].shape[1:])
        layers = {}
        for name, value in adapters.items():
            if match := EXPERT_KEY.fullmatch(name):
                path, expert, side = match.groups()
                layers.setdefault(path, {})[side, int(expert)] = value
        experts = range(config["num_experts"])
        for path, parts in layers.items():
            down = torch.cat([parts["down", expert] for expert in experts], dim=0)
            up = torch.cat([parts["up", expert] for expert in experts], dim=1)
            owner, _, name = path.rpartition(".")
            routed = RoutedLayer(unet.get_submodule(path), down, up, self.routing)
            setattr(unet.get_submodule(owner), name, routed)

    def base(self, latents, timesteps, states, added):
        self.routing.gates = None
        with torch.no_grad():
            return self.denoise(latents, timesteps, states, added)

    def denoise(self, latents, timesteps, states, added):
        if not self.half:
            return self.unet(latents, timesteps, states, added_cond_kwargs=added, return_dict=False)[0]
        added = added and {name: value.bfloat16() for name, value in added.items()}
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = self.unet(
                latents.bfloat16(), timesteps, states.bfloat16(), added_cond_kwargs=added, return_dict=False
            )[0]
        return output.float()

    def forward(self, latents, timesteps, states, added, target):
        gates = self.router(self.indicator(latents))
        self.routing.gates = gates.repeat_interleave(self.rank, dim=1) * (self.alpha / self.rank)
        fera = self.denoise(latents, timesteps, states, added)
        base = self.base(latents, timesteps, states, added)
        return F.mse_loss(fera, target) + self.weight * consistency_loss(self.indicator, base, fera, target)


def read_inputs(path):
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["config"])


def peak_bytes():
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def seconds(work):
    return both_times(work)[0]


def both_times(work):
    """Seconds, and those that the processors worked, of all threads together."""
    started, worked = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - started, time.process_time() - worked


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--inputs", required=True)
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--mode", choices=["eager", "channels-last", "compile", "bf16"], default="eager")
    options = parser.parse_args()

    say(phase="load")
    torch.set_num_threads(options.threads)
    unet = diffusers.UNet2DConditionModel.from_pretrained(options.model, subfolder="unet", local_files_only=True)
    unet.requires_grad_(False).eval()
    tensors, config = read_inputs(options.inputs)
    if config["dropout"] != 0:
        raise SystemExit("the baseline has no dropout")
    if options.mode == "bf16":
        unet.to(torch.bfloat16)
    step = Step(unet, tensors, config, half=options.mode == "bf16")
    latents, target = tensors["latents"], tensors["target"]
    if options.mode == "channels-last":
        unet.to(memory_format=torch.channels_last)
        latents = latents.to(memory_format=torch.channels_last)
    added = None
    if "timeIds" in tensors:
        added = {"text_embeds": tensors["textEmbeds"], "time_ids": tensors["timeIds"]}
    batch = (latents, tensors["timesteps"], tensors["encoderHiddenStates"], added)
    parameters = [parameter for parameter in step.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
    compute = torch.compile(step) if options.mode == "compile" else step
    losses = []

    def run():
        optimizer.zero_grad(set_to_none=True)
        loss = compute(*batch, target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    say(phase="first step")
    first = seconds(run)
    say(phase="settling step")
    run()
    say(phase="steps")
    steps = [both_times(run) for _ in range(options.runs)]
    step_peak = peak_bytes()
    say(phase="base")
    base = torch.compile(step.base) if options.mode == "compile" else step.base
    base(*batch)
    base_steps = [both_times(lambda: base(*batch)) for _ in range(options.runs)]
    say(
        result={
            "firstSeconds": first,
            "seconds": [wall for wall, _ in steps],
            "cpuSeconds": [worked for _, worked in steps],
            "baseSeconds": [wall for wall, _ in base_steps],
            "baseCpuSeconds": [worked for _, worked in base_steps],
            "losses": losses,
            "peakBytes": step_peak,
            "trained": sum(parameter.numel() for parameter in parameters),
            "versions": {
                "python": sys.version.split()[0],
                "torch": torch.__version__,
                "diffusers": diffusers.__version__,
            },
        }
    )


if __name__ == "__main__":
    main()
