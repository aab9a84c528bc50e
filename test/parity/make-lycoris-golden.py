"""Makes test/reference/lycoris: LoKr and LoHa on the tiny UNet of test/reference/unet-sd15 as PEFT and LyCORIS compute them.

Run from the repository root, with torch, diffusers, peft, lycoris-lora and safetensors installed:

    python test/parity/make-lycoris-golden.py

The batch is that of test/reference/unet-sd15/expected.safetensors; the loss is mean((output - target)^2). Each case's
file holds

    file.NAME    the adapter's tensors under the names that its program saves them with; no product of them is zero
    grad.NAME    the loss's gradient for each that is trained
    output       the UNet's output with it

The metadata's `layers` gives the adapted layers' paths, `config` PEFT's adapter_config.json (cases of PEFT) or the
arguments of LyCORIS's module, `deviations` how far output and gradients lie from the same in float64.

PEFT 0.21's own backward of LoHa on "effective" convolutions (HadaWeightCP) forms the gradient of each w_a with the other
product's factors; here torch differentiates the same forward.
"""

import json
from importlib.metadata import version
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from peft import LoHaConfig, LoKrConfig, get_peft_model, get_peft_model_state_dict
from peft.tuners.loha import layer as peft_loha
from safetensors.torch import load_file, save_file

SOURCE = Path("test/reference/unet-sd15")
TARGET = Path("test/reference/lycoris")
LINEAR = ["to_q", "to_out.0", "ff.net.2"]
# The downsampler's convolution has stride 2, proj_in a kernel of 1.
CONVOLUTIONS = ["conv1", "proj_in", "downsamplers.0.conv"]
BOTH = ["to_k", "conv1", "proj_in", "downsamplers.0.conv"]

PEFT_CASES = {
    "peft-lokr-linear": LoKrConfig(r=2, alpha=3, target_modules=LINEAR),
    "peft-lokr-convolution": LoKrConfig(
        r=1, alpha=2, target_modules=BOTH, decompose_both=True, decompose_factor=4, rank_pattern={"conv1": 2}
    ),
    "peft-lokr-tucker": LoKrConfig(r=2, alpha=2, target_modules=CONVOLUTIONS, use_effective_conv2d=True),
    "peft-lokr-whole": LoKrConfig(r=64, alpha=16, target_modules=["to_v", "conv2"]),
    "peft-loha": LoHaConfig(r=2, alpha=3, target_modules=BOTH, alpha_pattern={"to_k": 1}),
    "peft-loha-tucker": LoHaConfig(r=2, alpha=3, target_modules=CONVOLUTIONS, use_effective_conv2d=True),
}
LYCORIS_CASES = {
    "lycoris-lokr": (LokrModule, BOTH, {"lora_dim": 1, "alpha": 2, "factor": 4, "decompose_both": True}),
    "lycoris-lokr-tucker": (LokrModule, CONVOLUTIONS, {"lora_dim": 2, "alpha": 1, "use_tucker": True}),
    # Both factors whole: LyCORIS leaves alpha out of account.
    "lycoris-lokr-whole": (LokrModule, ["to_v", "conv2"], {"lora_dim": 4, "alpha": 1, "full_matrix": True, "factor": 8}),
    "lycoris-loha": (LohaModule, BOTH, {"lora_dim": 2, "alpha": 3}),
    "lycoris-loha-tucker": (LohaModule, CONVOLUTIONS, {"lora_dim": 2, "alpha": 3, "use_tucker": True}),
}


def hadamard_of_tucker(t1, w1a, w1b, t2, w2a, w2b, scale):
    first, second = (torch.einsum("ijkl,jr,ip->prkl", t, b, a) for t, a, b in ((t1, w1a, w1b), (t2, w2a, w2b)))
    return first * second * scale


peft_loha.make_weight_cp = hadamard_of_tucker


def redraw(parameters: dict, generator: torch.Generator) -> None:
    for parameter in parameters.values():
        parameter.data = 0.5 * torch.randn(parameter.shape, generator=generator) * parameter.shape[-1] ** -0.25


def with_peft(unet: torch.nn.Module, config, generator: torch.Generator):
    model = get_peft_model(unet, config)
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    redraw(trained, generator)
    # Saved names lack the adapter's.
    named = {name.replace(".default", ""): value for name, value in trained.items()}
    saved = get_peft_model_state_dict(model)
    assert set(saved) == set(named), (set(saved) ^ set(named))
    layers = sorted({name.removeprefix("base_model.model.").rsplit(".", 1)[0] for name in named})
    return model.base_model.model, named, {}, layers, {
        key: sorted(value) if isinstance(value, set) else value
        for key, value in config.to_dict().items()
        if key != "runtime_config"
    }


def with_lycoris(unet: torch.nn.Module, case, generator: torch.Generator):
    kind, targets, arguments = case
    trained, fixed, layers = {}, {}, []
    for path, module in list(unet.named_modules()):
        if not any(path.endswith(f".{target}") for target in targets):
            continue
        name = f"lora_unet_{path.replace('.', '_')}"
        adapter = kind(name, module, **arguments)
        adapter.apply_to()
        layers.append(path)
        own = {f"{name}.{key}": value for key, value in adapter.named_parameters(recurse=False)}
        redraw(own, generator)
        trained |= own
        state = adapter.custom_state_dict() if hasattr(adapter, "custom_state_dict") else adapter.state_dict()
        state = state if state is not None else adapter.state_dict()
        fixed[f"{name}.alpha"] = torch.as_tensor(state["alpha"]).clone().float()
        unet.add_module(name, adapter)
    return unet, trained, fixed, sorted(layers), arguments


def run(model: torch.nn.Module, batch: dict) -> torch.Tensor:
    return model(batch["latents"], batch["timesteps"], encoder_hidden_states=batch["encoder_hidden_states"]).sample


def compute(model: torch.nn.Module, trained: dict, batch: dict) -> dict[str, torch.Tensor]:
    model.zero_grad()
    output = run(model, batch)
    (output - batch["target"]).square().mean().backward()
    return {"output": output.detach().clone()} | {
        f"grad.{name}": value.grad.clone() for name, value in trained.items()
    }


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


def make(name: str, seed: int, batch: dict, base_output: torch.Tensor) -> None:
    generator = torch.Generator().manual_seed(seed)
    unet = UNet2DConditionModel.from_pretrained(SOURCE / "unet").eval()
    is_peft = name in PEFT_CASES
    attach = with_peft if is_peft else with_lycoris
    model, trained, fixed, layers, config = attach(unet, (PEFT_CASES if is_peft else LYCORIS_CASES)[name], generator)
    found = compute(model, trained, batch)
    file = {f"file.{key}": value.detach().clone() for key, value in (trained | fixed).items()}
    model.double()
    doubles = {key: value.double() if value.is_floating_point() else value for key, value in batch.items()}
    exact = compute(model, trained, doubles)
    deviation = {
        "output": difference(found["output"], exact["output"]),
        "grad": max(difference(found[key], exact[key]) for key in found if key.startswith("grad.")),
    }
    assert deviation["output"] < 1e-5 and deviation["grad"] < 2e-4, deviation
    change = difference(found["output"], base_output)
    assert change > 1e-2 and all(value.norm() > 1e-8 for value in found.values()), change
    metadata = {
        "script": "test/parity/make-lycoris-golden.py",
        "versions": json.dumps({key: version(key) for key in ("torch", "diffusers", "peft", "lycoris-lora")}),
        "config": json.dumps(config),
        "layers": json.dumps(layers),
        "deviations": json.dumps(deviation),
    }
    path = TARGET / f"{name}.safetensors"
    tensors = {key: value.contiguous() for key, value in (file | found).items()}
    save_file(tensors, path, metadata)
    assert all(torch.equal(value, tensors[key]) for key, value in load_file(path).items())
    print(f"{path} {path.stat().st_size / 1000:.0f} kB, {len(layers)} layers, change {change:.2f}, {deviation}")


def main() -> None:
    torch.set_num_threads(1)
    TARGET.mkdir(parents=True, exist_ok=True)
    source = load_file(SOURCE / "expected.safetensors")
    batch = {name: source[name] for name in ("latents", "timesteps", "encoder_hidden_states", "target")}
    unet = UNet2DConditionModel.from_pretrained(SOURCE / "unet").eval()
    with torch.no_grad():
        base_output = run(unet, batch)
    for seed, name in enumerate([*PEFT_CASES, *LYCORIS_CASES]):
        make(name, seed, batch, base_output)


if __name__ == "__main__":
    main()
