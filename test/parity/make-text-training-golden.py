"""Makes test/reference/text-training: training of text encoders, and of new tokens' vectors, beside LoRA on the UNet, by
PEFT on transformers' and diffusers' models, and torch.

Run from the repository root, with torch, transformers, diffusers, peft and safetensors installed:

    python test/parity/make-text-training-golden.py

The models are those of test/reference/pipeline-tiny (cases `sd`, `tokens`) and pipeline-tiny-xl (case `xl`). Token ids go
through the text encoders into the UNet; the loss is mean((output - target)^2). In `tokens` the embedding has two more rows,
which alone of it are trained, and the text encoder has no adapters. Each case's file holds, P being a layer's path (of a text
encoder behind `text_encoder.` or `text_encoder_2.`) and S one of lora_A.weight, lora_B.weight:

    latents, timesteps, input_ids, input_ids_2, time_ids, target     the batch
    initial.P.S, initial.text_encoder.token_vectors                  what is trained, before; lora_B is not zero
    grad.*              the loss's gradient there
    losses [8]          the loss before each of eight steps of AdamW on this batch
    trained.*           what is trained after those steps
    states              the text states at the beginning; in xl also `pooled`

The metadata's `config` gives LoraConfig's options, `text_targets` the text encoders' targets, `optimizer` AdamW's options of
the UNet's adapters, `text_lr` the learning rate of all else, `stop` the number of steps after which all else stays.
"""

import json
from importlib.metadata import version
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection

TARGET = Path("test/reference/text-training")
OPTIMIZER = {"lr": 0.01, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01}
TEXT_LR = 0.004
STEPS = 8
STOP = 6
LORA = {"r": 2, "lora_alpha": 3}
UNET_TARGETS = ["to_k", "to_v"]
TEXT_TARGETS = ["q_proj", "k_proj", "v_proj", "out_proj"]
CASES = {"sd": "pipeline-tiny", "xl": "pipeline-tiny-xl", "tokens": "pipeline-tiny"}
PROMPTS = [[530, 40, 41, 7, 531], [530, 12, 531]]
NEW = 2


def with_lora(model: torch.nn.Module, targets: list[str]) -> torch.nn.Module:
    return get_peft_model(model.eval(), LoraConfig(**LORA, target_modules=targets)).base_model.model


def trained_of(model: torch.nn.Module, prefix: str, generator: torch.Generator) -> dict[str, torch.nn.Parameter]:
    found = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        scale = parameter[0].numel() ** -0.5 if "lora_A" in name else 0.3
        parameter.data = scale * torch.randn(parameter.shape, generator=generator)
        found[prefix + named(name)] = parameter
    return found


def named(name: str) -> str:
    """transformers 5 has no text_model in front."""
    name = name.replace(".default", "")
    return f"text_model.{name}" if name.startswith(("encoder.", "embeddings.")) else name


def ids_of(case: str, pad: int) -> torch.Tensor:
    prompts = [[530, 40, 532, 533, 7, 531], [530, 532, 12, 533, 531]] if case == "tokens" else PROMPTS
    return torch.tensor([ids + [pad] * (16 - len(ids)) for ids in prompts])


def make(case: str, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    source = Path("test/reference") / CASES[case]
    is_xl = case == "xl"
    unet = UNet2DConditionModel.from_pretrained(source / "unet")
    encoders = [CLIPTextModel.from_pretrained(source / "text_encoder")]
    if is_xl:
        encoders.append(CLIPTextModelWithProjection.from_pretrained(source / "text_encoder_2"))
    unet = with_lora(unet, UNET_TARGETS)
    trained = trained_of(unet, "", generator)
    vectors = None
    if case == "tokens":
        encoder = encoders[0].eval().requires_grad_(False)
        embedding = encoder.get_input_embeddings()
        width = embedding.weight.shape[1]
        vectors = torch.nn.Parameter(0.1 * torch.randn(NEW, width, generator=generator))
        table = embedding.weight.detach().clone()
        # Rows of the table, and the new ones behind it: the only ones with a gradient.
        embedding.forward = lambda ids: torch.nn.functional.embedding(ids, torch.cat([table, vectors]))
        trained["text_encoder.token_vectors"] = vectors
    else:
        encoders = [with_lora(encoder, TEXT_TARGETS) for encoder in encoders]
        for i, encoder in enumerate(encoders):
            trained |= trained_of(encoder, "text_encoder." if i == 0 else f"text_encoder_{i + 1}.", generator)
    size = unet.config.sample_size // 2
    batch = {
        "latents": torch.randn(2, 4, size, size, generator=generator),
        "timesteps": torch.tensor([17, 803]),
        "target": torch.randn(2, 4, size, size, generator=generator),
        "input_ids": ids_of(case, 531),
    }
    if is_xl:
        batch["input_ids_2"] = ids_of(case, 0)
        batch["time_ids"] = torch.tensor([[64.0, 64, 0, 0, 64, 64], [96, 64, 8, 0, 64, 64]])

    def told() -> tuple[torch.Tensor, torch.Tensor | None]:
        if not is_xl:
            return encoders[0](batch["input_ids"])[0], None
        first = encoders[0](batch["input_ids"], output_hidden_states=True)
        second = encoders[1](batch["input_ids_2"], output_hidden_states=True)
        return torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1), second.text_embeds

    def loss() -> torch.Tensor:
        states, pooled = told()
        added = {"text_embeds": pooled, "time_ids": batch["time_ids"]} if is_xl else None
        output = unet(
            batch["latents"], batch["timesteps"], encoder_hidden_states=states, added_cond_kwargs=added
        ).sample
        return (output - batch["target"]).square().mean()

    expected = {**batch, **{f"initial.{name}": value.detach().clone() for name, value in trained.items()}}
    with torch.no_grad():
        states, pooled = told()
    expected["states"] = states
    if is_xl:
        expected["pooled"] = pooled
    of_unet = [value for name, value in trained.items() if not name.startswith("text_encoder")]
    of_text = [value for name, value in trained.items() if name.startswith("text_encoder")]
    assert of_unet and of_text
    optimizer = torch.optim.AdamW(
        [{"params": of_unet}, {"params": of_text, "lr": TEXT_LR}], **OPTIMIZER, foreach=False
    )
    losses = []
    for step in range(STEPS):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        if step == 0:
            # XL takes the next to last states of its first encoder: nothing depends on the last layer.
            for name in [name for name, each in trained.items() if each.grad is None]:
                assert is_xl and name.startswith("text_encoder.text_model.encoder.layers.2."), name
                del trained[name], expected[f"initial.{name}"]
            expected |= {f"grad.{name}": each.grad.clone() for name, each in trained.items()}
        losses.append(value.detach())
        if step >= STOP:
            for each in of_text:
                each.grad = None
        optimizer.step()
    expected |= {f"trained.{name}": value.detach().clone() for name, value in trained.items()}
    expected["losses"] = torch.stack(losses)
    assert losses[-1] < losses[0] and all(value.isfinite().all() for value in expected.values())
    assert all(value.norm() > 1e-8 for name, value in expected.items() if name.startswith("grad."))
    metadata = {
        "script": "test/parity/make-text-training-golden.py",
        "versions": json.dumps({name: version(name) for name in ("torch", "transformers", "diffusers", "peft")}),
        "config": json.dumps(LORA | {"target_modules": UNET_TARGETS}),
        "text_targets": json.dumps(TEXT_TARGETS),
        "optimizer": json.dumps({"name": "AdamW", **OPTIMIZER}),
        "text_lr": json.dumps(TEXT_LR),
        "stop": json.dumps(STOP),
    }
    path = TARGET / f"{case}.safetensors"
    save_file({name: value.contiguous() for name, value in expected.items()}, path, metadata)
    print(f"{path} {path.stat().st_size / 1000:.0f} kB, {len(trained)} tensors, losses {losses[0]:.5f} to {losses[-1]:.5f}")


def main() -> None:
    torch.set_num_threads(1)
    TARGET.mkdir(parents=True, exist_ok=True)
    for seed, case in enumerate(CASES):
        make(case, seed)


if __name__ == "__main__":
    main()
