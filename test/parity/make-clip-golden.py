"""Makes test/reference/clip-text: a tiny random CLIPTextModel and its outputs, computed by transformers.

Run from the repository root, with torch, transformers and safetensors installed:

    python test/parity/make-clip-golden.py

transformers 5 saves the weights without the names' prefix "text_model.", which every older checkpoint has; both forms
are kept. The versions that made the values are in the metadata of expected.safetensors.
"""

import json
import shutil
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

TARGET = Path("test/reference/clip-text")
ACTIVATIONS = ("quick_gelu", "gelu")


def randomize(model: CLIPTextModel, generator: torch.Generator) -> None:
    """Larger than a fresh model's weights, so that every part of the model shows in the output."""
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        is_norm_scale = "norm" in name and name.endswith("weight")
        parameter.data = 1 + 0.2 * noise if is_norm_scale else 0.2 * noise


def build(activation: str) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=16,
        hidden_act=activation,
        bos_token_id=98,
        eos_token_id=99,
        pad_token_id=99,
    )
    model = CLIPTextModel(config).eval()
    randomize(model, torch.Generator().manual_seed(0))
    return model


def save_both_forms(model: CLIPTextModel) -> None:
    model.save_pretrained(TARGET / "text_encoder_without_prefix")
    weights = load_file(TARGET / "text_encoder_without_prefix/model.safetensors")
    weights = {f"text_model.{name.removeprefix('text_model.')}": weight for name, weight in weights.items()}
    length = model.config.max_position_embeddings
    weights["text_model.embeddings.position_ids"] = torch.arange(length).unsqueeze(0)
    (TARGET / "text_encoder").mkdir(exist_ok=True)
    save_file(weights, TARGET / "text_encoder/model.safetensors", {"format": "pt"})
    shutil.copy(TARGET / "text_encoder_without_prefix/config.json", TARGET / "text_encoder/config.json")


def main() -> None:
    input_ids = torch.randint(0, 98, (2, 16), generator=torch.Generator().manual_seed(1))
    input_ids[:, 0] = 98
    input_ids[0, 9:] = 99
    input_ids[1, 15:] = 99
    expected = {"input_ids": input_ids}
    for activation in ACTIVATIONS:
        model = build(activation)
        with torch.no_grad():
            expected[activation] = model(input_ids).last_hidden_state.contiguous()
        if activation == ACTIVATIONS[0]:
            save_both_forms(model)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    script = "test/parity/make-clip-golden.py"
    save_file(expected, TARGET / "expected.safetensors", {"script": script, "versions": json.dumps(versions)})


if __name__ == "__main__":
    main()
