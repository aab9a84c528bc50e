"""Makes test/reference/lora-training: training of plain LoRA, DoRA and T-LoRA on the tiny UNet of
test/reference/unet-sd15 by PEFT and torch.

Run from the repository root, with torch, diffusers, peft and safetensors installed:

    python test/parity/make-lora-training-golden.py

The batch (latents, timesteps, encoder_hidden_states, target) is that of test/reference/unet-sd15/expected.safetensors;
the loss is mean((output - target)^2). Each case's file holds, P being a layer's path and S one of lora_A.weight,
lora_B.weight and, for DoRA, lora_magnitude_vector:

    initial.P.S         the adapter before training; lora_B is not zero
    output              the UNet's output with it
    grad.P.S            the loss's gradient there
    losses [8]          the loss before each of eight steps of AdamW on this batch
    trained.P.S         the adapter after those steps
    trained_output      the UNet's output with it

lora_A of a convolution is [rank, in, height, width], lora_B [out, rank, 1, 1], the magnitudes [1, out, 1, 1] (of a
linear layer [out]). The metadata's `config` gives LoraConfig's options, `optimizer` AdamW's, `layers` the paths,
`deviations` how far each kind of values lies from the same computed in float64. DoRA follows its paper: the norm of W +
scale B A is a constant to the gradient.

PEFT has no T-LoRA (arXiv 2507.05964); a hook multiplies the result of lora_A by the mask of its timestep: of `max_rank`
ranks the first floor(((1000 - t) / 1000)^power * (max_rank - min_rank)) + min_rank. `tlora` in the metadata gives the
numbers, the tensor `mask` [2, rank] the masks of the batch.
"""

import json
from importlib.metadata import version
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

SOURCE = Path("test/reference/unet-sd15")
TARGET = Path("test/reference/lora-training")
OPTIMIZER = {"lr": 0.01, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01}
STEPS = 8
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
CONVOLUTIONS = ["conv1", "conv2", "proj_in", "proj_out"]
TLORA = {"max_timestep": 1000, "min_rank": 1, "power": 1.0}

CASES = {
    "linear": {"r": 4, "lora_alpha": 4, "target_modules": ATTENTION},
    # The downsampler's convolution has stride 2.
    "convolution": {"r": 2, "lora_alpha": 3, "target_modules": [*CONVOLUTIONS, "downsamplers.0.conv"]},
    "dora": {"r": 2, "lora_alpha": 3, "target_modules": [*ATTENTION, "conv1", "proj_in"], "use_dora": True},
    "tlora": {"r": 4, "lora_alpha": 4, "target_modules": ATTENTION},
}


def build(case: str, generator: torch.Generator) -> tuple[torch.nn.Module, dict[str, torch.nn.Parameter]]:
    unet = UNet2DConditionModel.from_pretrained(SOURCE / "unet").eval()
    model = get_peft_model(unet, LoraConfig(**CASES[case])).base_model.model
    trained = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        name = name.replace(".default", "")
        if "magnitude" in name:
            name = name.removesuffix(".weight")
            parameter.data *= 1 + 0.1 * torch.randn(parameter.shape, generator=generator)
        else:
            scale = parameter[0].numel() ** -0.5 if "lora_A" in name else 0.3
            parameter.data = scale * torch.randn(parameter.shape, generator=generator)
        trained[name] = parameter
    return model, trained


def rank_mask(timesteps: torch.Tensor, rank: int) -> torch.Tensor:
    share = ((TLORA["max_timestep"] - timesteps) / TLORA["max_timestep"]) ** TLORA["power"]
    kept = (share * (rank - TLORA["min_rank"])).int() + TLORA["min_rank"]
    return (torch.arange(rank) < kept[:, None]).float()


def hook_masks(model: torch.nn.Module, mask: torch.Tensor) -> None:
    for name, module in model.named_modules():
        if name.endswith("lora_A.default"):
            module.register_forward_hook(lambda _module, _inputs, output: output * mask[:, None].to(output.dtype))


def run(model: torch.nn.Module, batch: dict) -> torch.Tensor:
    return model(batch["latents"], batch["timesteps"], encoder_hidden_states=batch["encoder_hidden_states"]).sample


def loss_of(output: torch.Tensor, batch: dict) -> torch.Tensor:
    return (output - batch["target"]).square().mean()


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


def make(case: str, seed: int, batch: dict, base_output: torch.Tensor) -> None:
    model, trained = build(case, torch.Generator().manual_seed(seed))
    expected = {}
    if case == "tlora":
        expected["mask"] = rank_mask(batch["timesteps"], CASES[case]["r"])
        assert expected["mask"].sum(1).tolist() == [3, 2]
        hook_masks(model, expected["mask"])
    expected |= train(model, trained, batch)
    losses = expected["losses"].tolist()
    change = difference(expected["output"], base_output)
    assert change > 1e-2 and losses[-1] < losses[0] and all(value.isfinite().all() for value in expected.values())
    assert all(value.norm() > 1e-7 for name, value in expected.items() if name.startswith("grad."))
    deviation = deviations(model, trained, expected, batch)
    layers = sorted({name.split(".lora_")[0] for name in trained})
    metadata = {
        "script": "test/parity/make-lora-training-golden.py",
        "versions": json.dumps({name: version(name) for name in ("torch", "diffusers", "peft")}),
        "config": json.dumps(CASES[case]),
        "optimizer": json.dumps({"name": "AdamW", **OPTIMIZER}),
        "layers": json.dumps(layers),
        "deviations": json.dumps(deviation),
        **({"tlora": json.dumps(TLORA | {"max_rank": CASES[case]["r"]})} if case == "tlora" else {}),
    }
    path = TARGET / f"{case}.safetensors"
    save_file({name: value.contiguous() for name, value in expected.items()}, path, metadata)
    assert all(torch.equal(value, expected[name]) for name, value in load_file(path).items())
    print(
        f"{path} {path.stat().st_size / 1000:.0f} kB, {len(layers)} layers, changes the output by {change:.2f}, "
        f"losses {losses[0]:.4f} to {losses[-1]:.4f}, from float64 {deviation}"
    )


def train(model: torch.nn.Module, trained: dict, batch: dict) -> dict[str, torch.Tensor]:
    """Everything that the training gives, from the adapter as it is."""
    keep = lambda prefix: {f"{prefix}.{name}": value.detach().clone() for name, value in trained.items()}
    found = keep("initial")
    optimizer = torch.optim.AdamW(trained.values(), **OPTIMIZER, foreach=False)
    losses = []
    for step in range(STEPS):
        optimizer.zero_grad()
        output = run(model, batch)
        loss = loss_of(output, batch)
        loss.backward()
        if step == 0:
            found["output"] = output.detach().clone()
            found |= {f"grad.{name}": value.grad.clone() for name, value in trained.items()}
        losses.append(loss.detach())
        optimizer.step()
    found |= keep("trained")
    return found | {"losses": torch.stack(losses), "trained_output": run(model, batch).detach()}


def deviations(model: torch.nn.Module, trained: dict, found: dict, batch: dict) -> dict[str, float]:
    """Per kind of values the largest relative difference from the same in float64: a test tolerates more."""
    for name, parameter in trained.items():
        parameter.data = found[f"initial.{name}"].clone()
    model.double()
    doubles = {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}
    worst: dict[str, float] = {}
    for name, value in train(model, trained, doubles).items():
        kind = name.split(".")[0]
        worst[kind] = max(worst.get(kind, 0), difference(found[name].double(), value))
    assert worst["output"] < 1e-5 and worst["grad"] < 1e-4 and worst["losses"] < 1e-4, worst
    return {kind: float(f"{value:.1e}") for kind, value in worst.items()}


def main() -> None:
    torch.set_num_threads(1)
    TARGET.mkdir(parents=True, exist_ok=True)
    source = load_file(SOURCE / "expected.safetensors")
    batch = {name: source[name] for name in ("latents", "timesteps", "encoder_hidden_states", "target")}
    unet = UNet2DConditionModel.from_pretrained(SOURCE / "unet").eval()
    with torch.no_grad():
        assert difference(run(unet, batch), source["base_output"]) < 1e-5
    for seed, case in enumerate(CASES):
        make(case, seed, batch, source["base_output"])


if __name__ == "__main__":
    main()
