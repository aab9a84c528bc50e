"""Makes test/reference/clip-text and clip-text-projection: a tiny random CLIPTextModel, a tiny random
CLIPTextModelWithProjection, and their outputs, computed by transformers.

Run from the repository root, with torch, transformers and safetensors installed:

    python test/parity/make-clip-golden.py

transformers 5 saves the weights without the names' prefix "text_model.", which every older checkpoint has; both forms
are kept. The versions that made the values are in the metadata of expected.safetensors.

expected.safetensors of clip-text holds input_ids, each activation's last hidden state under the activation's name, and
`ACTIVATION.hidden_states` [num_hidden_layers + 1, B, L, C], the same after the final normalization, `ACTIVATION.pooled`
[B, C], and `ACTIVATION.pooled_legacy` with eos_token_id 2. clip-text-projection has the same names; its pooled states
are text_embeds.
"""

import json
import shutil
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

TARGET = Path("test/reference/clip-text")
PROJECTION_TARGET = Path("test/reference/clip-text-projection")
ACTIVATIONS = ("quick_gelu", "gelu")


def randomize(model: CLIPTextModel, generator: torch.Generator) -> None:
    """Larger than a fresh model's weights, so that every part of the model shows in the output."""
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        is_norm_scale = "norm" in name and name.endswith("weight")
        parameter.data = 1 + 0.2 * noise if is_norm_scale else 0.2 * noise


def build(activation: str, kind: type = CLIPTextModel, eos_token_id: int = 99) -> torch.nn.Module:
    config = CLIPTextConfig(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2 if kind is CLIPTextModel else 3,
        num_attention_heads=4,
        max_position_embeddings=16,
        hidden_act=activation,
        bos_token_id=98,
        eos_token_id=eos_token_id,
        pad_token_id=99,
        **({} if kind is CLIPTextModel else {"projection_dim": 24}),
    )
    model = kind(config).eval()
    randomize(model, torch.Generator().manual_seed(0))
    return model


def outputs(kind: type, activation: str, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
    pooled = "pooler_output" if kind is CLIPTextModel else "text_embeds"
    with torch.no_grad():
        model = build(activation, kind)
        result = model(input_ids, output_hidden_states=True)
        norm = getattr(model, "text_model", model).final_layer_norm
        normed = torch.stack([norm(state) for state in result.hidden_states])
        legacy = build(activation, kind, eos_token_id=2)(input_ids)
    return {
        activation: result.last_hidden_state.contiguous(),
        f"{activation}.hidden_states": torch.stack(result.hidden_states),
        f"{activation}.normed_hidden_states": normed,
        f"{activation}.pooled": result[pooled].contiguous(),
        f"{activation}.pooled_legacy": legacy[pooled].contiguous(),
    }


def save_both_forms(model: CLIPTextModel) -> None:
    model.save_pretrained(TARGET / "text_encoder_without_prefix")
    weights = load_file(TARGET / "text_encoder_without_prefix/model.safetensors")
    weights = {f"text_model.{name.removeprefix('text_model.')}": weight for name, weight in weights.items()}
    length = model.config.max_position_embeddings
    weights["text_model.embeddings.position_ids"] = torch.arange(length).unsqueeze(0)
    (TARGET / "text_encoder").mkdir(exist_ok=True)
    save_file(weights, TARGET / "text_encoder/model.safetensors", {"format": "pt"})
    shutil.copy(TARGET / "text_encoder_without_prefix/config.json", TARGET / "text_encoder/config.json")


def prompts() -> torch.Tensor:
    input_ids = torch.randint(0, 98, (2, 16), generator=torch.Generator().manual_seed(1))
    input_ids[:, 0] = 98
    input_ids[0, 9:] = 99
    input_ids[1, 15:] = 99
    return input_ids


def prompts_of_second_tokenizer() -> torch.Tensor:
    """Padded with id 0, as SDXL's second tokenizer does; the last prompt fills all the room."""
    input_ids = torch.randint(3, 98, (3, 16), generator=torch.Generator().manual_seed(2))
    input_ids[:, 0] = 98
    for row, end in enumerate((5, 1, 15)):
        input_ids[row, end] = 99
        input_ids[row, end + 1 :] = 0
    return input_ids


def main() -> None:
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    metadata = {"script": "test/parity/make-clip-golden.py", "versions": json.dumps(versions)}

    expected = {"input_ids": prompts()}
    for activation in ACTIVATIONS:
        expected |= outputs(CLIPTextModel, activation, expected["input_ids"])
    save_both_forms(build(ACTIVATIONS[0]))
    save_file(expected, TARGET / "expected.safetensors", metadata)

    expected = {"input_ids": prompts_of_second_tokenizer()}
    for activation in ACTIVATIONS:
        expected |= outputs(CLIPTextModelWithProjection, activation, expected["input_ids"])
    build(ACTIVATIONS[1], CLIPTextModelWithProjection).save_pretrained(PROJECTION_TARGET / "text_encoder_2")
    save_file(expected, PROJECTION_TARGET / "expected.safetensors", metadata)


if __name__ == "__main__":
    main()
