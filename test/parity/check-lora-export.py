"""Checks `fera convert --to kohya|diffusers|peft` against the real loaders, and makes test/reference/lora-export.

Run from the repository root after `npm run build`, with torch, diffusers, peft and safetensors installed:

    python test/parity/check-lora-export.py

For a tiny UNet of Stable Diffusion 1.5 and of XL it draws an adapter on every linear layer, converts it with explicit
gates, loads each file as its program does, and compares the UNet's output with sum_k gate_k alpha/r up_k(down_k(x))
added by hooks. Where all agree, it writes the adapters, the inputs, that output and a digest of every file's tensors,
so that the TypeScript tests can tell, without Python, that these very files are still what is written.
"""

import hashlib
import json
import subprocess
import tempfile
from pathlib import Path

import diffusers
import peft
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from peft import PeftModel
from safetensors.torch import load_file, save_file

TARGET = Path("test/reference/lora-export")
TOLERANCE = 2e-4
RANK, EXPERTS, BANDS, ALPHA = 2, 2, 3, 3.0
GATES = [0.3, 0.7]
FAMILIES = {"sd15": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}


def unet_of(family: str) -> UNet2DConditionModel:
    return UNet2DConditionModel.from_pretrained(f"test/reference/unet-{family}/unet").eval()


def linear_layers(unet: torch.nn.Module) -> dict[str, torch.nn.Linear]:
    return {path: module for path, module in unet.named_modules() if isinstance(module, torch.nn.Linear)}


def make_adapter(unet: UNet2DConditionModel, generator: torch.Generator) -> dict[str, torch.Tensor]:
    def draw(*shape: int) -> torch.Tensor:
        return (torch.randn(shape, generator=generator) * shape[1] ** -0.5).half()

    state = {
        "router.net.0.weight": draw(64, BANDS),
        "router.net.0.bias": torch.zeros(64).half(),
        "router.net.2.weight": draw(EXPERTS, 64),
        "router.net.2.bias": torch.zeros(EXPERTS).half(),
    }
    for path, layer in linear_layers(unet).items():
        for expert in range(EXPERTS):
            name = f"base_model.{path}.experts.{expert}"
            state[f"{name}.lora_down.weight"] = draw(RANK, layer.in_features)
            state[f"{name}.lora_up.weight"] = draw(layer.out_features, RANK) * 0.2
    return state


def hooked(unet: UNet2DConditionModel, state: dict[str, torch.Tensor]) -> UNet2DConditionModel:
    for path, layer in linear_layers(unet).items():
        pairs = [
            [state[f"base_model.{path}.experts.{k}.lora_{side}.weight"].float() for side in ("down", "up")]
            for k in range(EXPERTS)
        ]

        def add(_module, inputs, output, pairs=pairs):
            return output + sum(g * ALPHA / RANK * (inputs[0] @ d.T @ u.T) for g, (d, u) in zip(GATES, pairs))

        layer.register_forward_hook(add)
    return unet


def run(unet: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    added = {key: inputs[key] for key in ("text_embeds", "time_ids") if key in inputs}
    with torch.no_grad():
        return unet(
            inputs["latents"],
            inputs["timesteps"],
            encoder_hidden_states=inputs["encoder_hidden_states"],
            added_cond_kwargs=added or None,
        ).sample


def make_inputs(config, generator: torch.Generator) -> dict[str, torch.Tensor]:
    inputs = {
        "latents": torch.randn((2, 4, 16, 12), generator=generator),
        "timesteps": torch.tensor([17, 801]),
        "encoder_hidden_states": torch.randn((2, 7, config.cross_attention_dim), generator=generator),
    }
    if config.addition_embed_type == "text_time":
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        inputs["text_embeds"] = torch.randn((2, pooled), generator=generator)
        inputs["time_ids"] = torch.tensor([[64.0, 48.0, 0.0, 0.0, 64.0, 48.0]] * 2)
    return inputs


def load_peft(path: Path, family: str) -> torch.nn.Module:
    return PeftModel.from_pretrained(unet_of(family), str(path)).eval()


def load_diffusers(path: Path, family: str) -> torch.nn.Module:
    """What `pipe.load_lora_weights(path)` does to the UNet; kohya's names go through the same door."""
    unet = unet_of(family)
    pipeline = FAMILIES[family]
    state, alphas = pipeline.lora_state_dict(str(path), unet_config=unet.config)
    pipeline.load_lora_into_unet(state, alphas, unet)
    return unet


def digest(path: Path) -> str:
    """SHA-256 over name, shape and bytes of every tensor, by name."""
    hasher = hashlib.sha256()
    for name, tensor in sorted(load_file(path).items()):
        hasher.update(f"{name}[{','.join(map(str, tensor.shape))}]".encode())
        hasher.update(tensor.contiguous().numpy().tobytes())
    return hasher.hexdigest()


def main() -> None:
    TARGET.mkdir(parents=True, exist_ok=True)
    golden: dict[str, torch.Tensor] = {}
    cases = {}
    for seed, family in enumerate(FAMILIES):
        generator = torch.Generator().manual_seed(seed)
        unet = unet_of(family)
        state = make_adapter(unet, generator)
        layers = list(linear_layers(unet))
        config = {"rank": RANK, "alpha": ALPHA, "num_bands": BANDS, "num_experts": EXPERTS, "target_modules": layers}
        adapter = TARGET / f"adapter-{family}.safetensors"
        save_file(state, adapter, {"fera_config": json.dumps(config)})
        inputs = make_inputs(unet.config, generator)
        base = run(unet, inputs)
        expected = run(hooked(unet, state), inputs)
        golden |= {f"{family}.{name}": value for name, value in (inputs | {"output": expected}).items()}
        digests = {}
        with tempfile.TemporaryDirectory() as folder:
            files = {
                "kohya": (Path(folder) / "kohya.safetensors", load_diffusers, ""),
                "diffusers": (Path(folder) / "diffusers", load_diffusers, "pytorch_lora_weights.safetensors"),
                "peft": (Path(folder) / "peft", load_peft, "adapter_model.safetensors"),
            }
            for to, (path, load, weights) in files.items():
                gates = ",".join(map(str, GATES))
                command = ["node", "dist/cli/main.js", "convert", str(adapter), str(path), "--to", to, "--gates", gates]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                loaded = load(path, family)
                adapted = [name for name, module in loaded.named_modules() if hasattr(module, "lora_A")]
                error = ((run(loaded, inputs) - expected).norm() / expected.norm()).item()
                print(f"{family} {to}: {len(adapted)} of {len(layers)} layers, relative error {error:.1e}")
                assert len(adapted) == len(layers) and error < TOLERANCE, (family, to)
                digests[to] = digest(path / weights if weights else path)
        effect = ((expected - base).norm() / expected.norm()).item()
        print(f"{family}: the adapter changes {effect:.0%} of the output")
        cases[family] = {"gates": GATES, "layers": len(layers), "digests": digests}
    versions = {"torch": torch.__version__, "diffusers": diffusers.__version__, "peft": peft.__version__}
    metadata = {"cases": json.dumps(cases), "versions": json.dumps(versions)}
    save_file(golden, TARGET / "expected.safetensors", metadata)


main()
