"""Makes test/reference/optimizers.safetensors: steps of published optimizers on given gradients.

Run from the repository root, with torch, transformers, lion-pytorch, prodigyopt, schedulefree, bitsandbytes, numpy and
safetensors installed:

    python test/parity/make-optimizer-golden.py

Every optimizer starts from the same parameters and sees the same gradients, which do not depend on the parameters.
`initial.P` and `gradients.P` [steps, ...] are a parameter P and its gradients; per case C, `C.P` [steps, ...] is P
after each step, `C.P.S` [steps, ...] the optimizer's state S of P after each step, `C.S` [steps] a number that belongs
to the whole optimizer. The metadata's `cases` give class, options, parameters and names of states.

Of the parameters, `up` starts at zero as a LoRA's up matrix does, and the first gradient of `bias` is always zero.
Adafactor averages over the last two axes of `conv`. torch's Muon takes matrices only and orthogonalizes in bfloat16;
`muon_float32` is the same with the iteration in float32. Schedule-free AdamW trains at the point `C.P` and delivers the
average, `C.P.averaged`, which is given after the last step only. bitsandbytes' AdamW runs on the CPU, but with the
nearest codes, as on GPUs: the CPU's own table is too coarse for small values (it codes 1e-9 as 8e-6). `wide` has three blocks, the
last of which is not full, and is in its cases only. Codes are given as float32.
"""

import inspect
import json
import math
from importlib.metadata import version
from pathlib import Path

import bitsandbytes.backends.cpu.ops as bitsandbytes_cpu
import torch
import torch.optim._muon as torch_muon
from bitsandbytes.optim import AdamW8bit
from lion_pytorch import Lion
from prodigyopt import Prodigy
from safetensors import safe_open
from safetensors.torch import save_file
from schedulefree import AdamWScheduleFree
from torch.optim import AdamW, Muon
from transformers import Adafactor

TARGET = Path("test/reference/optimizers.safetensors")
STEPS = 20
SHAPES = {"down": (3, 5), "up": (6, 3), "tall": (7, 2), "bias": (7,), "conv": (4, 2, 3, 3), "wide": (24, 25)}
MATRICES = ("down", "up", "tall")
IN_ALL = tuple(name for name in SHAPES if name != "wide")
IMPLEMENTATION = (
    "params", "args", "is_paged", "optim_bits", "foreach", "fused", "capturable", "differentiable", "maximize", "use_triton", "fsdp_in_use", "slice_p",
)  # fmt: skip

# Per case: the class, its options other than the defaults, the states of every parameter, those of the whole optimizer.
CASES = {
    "lion": (Lion, {"lr": 0.01, "betas": (0.9, 0.99), "weight_decay": 0.1}, ["exp_avg"], []),
    "lion_other_betas": (Lion, {"lr": 0.003, "betas": (0.95, 0.98), "weight_decay": 0.0}, ["exp_avg"], []),
    "adamw": (
        AdamW,
        {"lr": 0.01, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1},
        ["exp_avg", "exp_avg_sq"],
        [],
    ),
    "adamw_other_betas": (
        AdamW,
        {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.0},
        ["exp_avg", "exp_avg_sq"],
        [],
    ),
    # A relative learning rate, as the optimizer is used without one.
    "adafactor": (
        Adafactor,
        {"lr": None, "scale_parameter": True, "relative_step": True, "warmup_init": False},
        ["exp_avg_sq", "exp_avg_sq_row", "exp_avg_sq_col"],
        [],
    ),
    # As LoRA trainers set it.
    "adafactor_fixed": (
        Adafactor,
        {"lr": 0.01, "scale_parameter": False, "relative_step": False, "warmup_init": False, "weight_decay": 0.1},
        ["exp_avg_sq", "exp_avg_sq_row", "exp_avg_sq_col"],
        [],
    ),
    "adafactor_momentum": (
        Adafactor,
        {"lr": 0.1, "scale_parameter": True, "relative_step": False, "beta1": 0.9, "clip_threshold": 0.5},
        ["exp_avg", "exp_avg_sq", "exp_avg_sq_row", "exp_avg_sq_col"],
        [],
    ),
    "prodigy": (
        Prodigy,
        {"lr": 1.0, "betas": (0.9, 0.999), "weight_decay": 0.01, "d0": 1e-4},
        ["exp_avg", "exp_avg_sq", "s"],
        ["d"],
    ),
    # As LoRA trainers set it.
    "prodigy_safeguard": (
        Prodigy,
        {
            "lr": 1.0, "betas": (0.9, 0.99), "weight_decay": 0.01, "use_bias_correction": True,
            "safeguard_warmup": True, "d0": 1e-3, "d_coef": 0.8,
        },
        ["exp_avg", "exp_avg_sq", "s"],
        ["d"],
    ),
    "schedulefree": (
        AdamWScheduleFree,
        {"lr": 0.02, "betas": (0.9, 0.999), "weight_decay": 0.1, "warmup_steps": 0},
        ["z", "exp_avg_sq"],
        [],
    ),
    "schedulefree_warmup": (
        AdamWScheduleFree,
        {"lr": 0.02, "betas": (0.95, 0.99), "weight_decay": 0.0, "warmup_steps": 4},
        ["z", "exp_avg_sq"],
        [],
    ),
    "adamw_8bit": (
        AdamW8bit,
        {"lr": 0.01, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1, "min_8bit_size": 64},
        ["state1", "state2", "absmax1", "absmax2"],
        [],
    ),
    "muon": (Muon, {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.95, "nesterov": True}, ["momentum_buffer"], []),
    "muon_float32": (
        Muon, {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.95, "nesterov": True}, ["momentum_buffer"], [],
    ),
    "muon_float32_match_rms": (
        Muon,
        {"lr": 0.01, "weight_decay": 0.0, "momentum": 0.9, "nesterov": False, "adjust_lr_fn": "match_rms_adamw"},
        ["momentum_buffer"],
        [],
    ),
}  # fmt: skip


def orthogonalize(matrix: torch.Tensor, coefficients: tuple, steps: int, eps: float) -> torch.Tensor:
    """Newton-Schulz in float32: X = M / |M|, then X = a X + (b XX' + c (XX')^2) X, on the side that has fewer rows."""
    a, b, c = coefficients
    x = matrix / matrix.norm().clamp(min=eps)
    flip = matrix.shape[0] > matrix.shape[1]
    x = x.T if flip else x
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if flip else x


def quantize_nearest(values, code, absmax_out, codes_out, blocksize) -> None:
    """The nearest code of every value, relative to the largest of its block."""
    flat, codes = values.flatten(), codes_out.view(-1)
    for block, start in enumerate(range(0, flat.numel(), blocksize)):
        part = flat[start : start + blocksize]
        absmax_out[block] = part.abs().max()
        scaled = part * (1 / absmax_out[block])
        codes[start : start + blocksize] = (scaled[:, None] - code).abs().argmin(1).to(torch.uint8)


def run(case: str, initial: dict, gradients: dict) -> dict[str, torch.Tensor]:
    kind, options, states, numbers = CASES[case]
    names = names_of(kind)
    parameters = {name: initial[name].clone().requires_grad_() for name in names}
    extra = {"foreach": False} if kind in (AdamW, AdamWScheduleFree) else {}
    optimizer = kind(parameters.values(), **options, **extra)
    if kind is AdamWScheduleFree:
        optimizer.train()
    found: dict[str, list[torch.Tensor]] = {}

    def keep(name: str, value: torch.Tensor) -> None:
        found.setdefault(f"{case}.{name}", []).append(value.detach().clone())

    for step in range(STEPS):
        for name, parameter in parameters.items():
            parameter.grad = gradients[name][step].clone()
        optimizer.step()
        for name, parameter in parameters.items():
            keep(name, parameter)
            state = optimizer.state[parameter]
            for key in states:
                if key in state:
                    keep(f"{name}.{key}", state[key].reshape(parameter.shape) if key == "s" else state[key].float())
        for key in numbers:
            keep(key, torch.tensor(optimizer.param_groups[0][key]))
    result = {name: torch.stack(values) for name, values in found.items()}
    if kind is AdamWScheduleFree:
        optimizer.eval()
        result |= {f"{case}.{name}.averaged": parameter.detach() for name, parameter in parameters.items()}
    return result


def names_of(kind: type) -> tuple[str, ...]:
    return MATRICES if kind is Muon else tuple(SHAPES) if kind is AdamW8bit else IN_ALL


def every_option(kind: type, options: dict) -> dict:
    """With the class's defaults, less those that choose an implementation; an infinite limit is left out."""
    defaults = {name: each.default for name, each in inspect.signature(kind).parameters.items()}
    found = {name: value for name, value in (defaults | options).items() if name not in IMPLEMENTATION}
    return {name: value for name, value in found.items() if not (isinstance(value, float) and math.isinf(value))}


def check_lion(expected: dict) -> None:
    """The paper's algorithm (arXiv 2302.06675, algorithm 2) in float64."""
    for case in ("lion", "lion_other_betas"):
        options = CASES[case][1]
        (beta1, beta2), rate, decay = options["betas"], options["lr"], options["weight_decay"]
        for name in IN_ALL:
            weight = expected[f"initial.{name}"].double()
            momentum = torch.zeros_like(weight)
            for step, gradient in enumerate(expected[f"gradients.{name}"].double()):
                direction = torch.sign(beta1 * momentum + (1 - beta1) * gradient)
                weight = weight - rate * (direction + decay * weight)
                momentum = beta2 * momentum + (1 - beta2) * gradient
                assert torch.allclose(expected[f"{case}.{name}"][step].double(), weight, atol=1e-6), (case, name, step)
                assert torch.allclose(expected[f"{case}.{name}.exp_avg"][step].double(), momentum, atol=1e-7)


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=generator)
    expected = {}
    for name, shape in SHAPES.items():
        expected[f"initial.{name}"] = torch.zeros(shape) if name == "up" else 0.5 * draw(*shape)
        # A direction that lasts, so that Prodigy finds its distance, and noise that turns signs.
        gradients = 0.1 * (draw(*shape) + draw(STEPS, *shape))
        if name == "bias":
            gradients[:, 0] = 0
        expected[f"gradients.{name}"] = gradients
    initial = {name: expected[f"initial.{name}"] for name in SHAPES}
    gradients = {name: expected[f"gradients.{name}"] for name in SHAPES}
    bitsandbytes_cpu._quant_blockwise_fp32_direct = quantize_nearest
    in_bfloat16 = torch_muon._zeropower_via_newtonschulz
    for case in CASES:
        torch_muon._zeropower_via_newtonschulz = orthogonalize if "float32" in case else in_bfloat16
        expected |= run(case, initial, gradients)

    check_lion(expected)
    for name in MATRICES:
        step = expected[f"muon.{name}"][0] - expected[f"muon_float32.{name}"][0]
        assert 0 < step.norm() < 0.05 * (expected[f"muon.{name}"][0] - initial[name]).norm(), name
    for case in ("prodigy", "prodigy_safeguard"):
        assert expected[f"{case}.d"][-1] > 1.2 * CASES[case][1]["d0"], expected[f"{case}.d"]
    for case, (kind, *_) in CASES.items():
        for name in names_of(kind):
            change = (expected[f"{case}.{name}"][-1] - initial[name]).norm()
            assert change > 1e-4, (case, name, change)

    packages = ("torch", "transformers", "lion-pytorch", "prodigyopt", "schedulefree", "bitsandbytes")
    cases = {
        case: {
            "class": f"{kind.__module__}.{kind.__qualname__}",
            "options": every_option(kind, options),
            "parameters": list(names_of(kind)),
            "states": states,
            "numbers": numbers,
        }
        for case, (kind, options, states, numbers) in CASES.items()
    }
    metadata = {
        "script": "test/parity/make-optimizer-golden.py",
        "versions": json.dumps({name: version(name) for name in packages}),
        "steps": json.dumps(STEPS),
        "cases": json.dumps(cases),
    }
    save_file({name: value.contiguous() for name, value in expected.items()}, TARGET, metadata)
    with safe_open(TARGET, "pt") as file:
        assert all(file.get_tensor(name).isfinite().all() for name in file.keys())
        print(TARGET, f"{TARGET.stat().st_size / 1000:.0f} kB, {len(file.keys())} tensors, cases", *CASES)


if __name__ == "__main__":
    main()
