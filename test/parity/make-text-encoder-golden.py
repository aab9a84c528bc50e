"""Makes test/reference/t5-text and test/reference/qwen3: tiny random text encoders and their outputs by transformers.

Run from the repository root, with torch, transformers and safetensors installed:

    python test/parity/make-text-encoder-golden.py

t5-text holds a T5EncoderModel of version 1.1 in `gated` and one of version 1.0 in `relu`; expected.safetensors has input_ids, the last hidden states `gated` and `relu`, and `buckets.NAME`, the
buckets of relative positions by distance −L+1 … L−1. qwen3 holds a Qwen3ForCausalLM; expected.safetensors has input_ids,
attention_mask, and the stacked hidden_states [num_hidden_layers + 1, B, L, C].
"""

import json
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import Qwen3Config, Qwen3ForCausalLM, T5Config, T5EncoderModel
from transformers.models.t5.modeling_t5 import T5Attention

T5 = Path("test/reference/t5-text")
QWEN = Path("test/reference/qwen3")
BUCKETS = {"t5": (600, 32, 128), "small": (64, 8, 20)}


def randomize(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Larger than a fresh model's weights, so that every part of the model shows in the output."""
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = 1 + 0.2 * noise if "norm" in name else 0.2 * noise


def metadata() -> dict[str, str]:
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    return {"script": "test/parity/make-text-encoder-golden.py", "versions": json.dumps(versions)}


@torch.no_grad()
def t5() -> None:
    generator = torch.Generator().manual_seed(0)
    input_ids = torch.randint(0, 60, (2, 45), generator=generator)
    input_ids[1, 20:] = 0
    expected = {"input_ids": input_ids}
    for name in ("gated", "relu"):
        config = T5Config(
            vocab_size=60,
            d_model=24,
            d_kv=6,
            d_ff=40,
            num_layers=2,
            num_heads=3,
            feed_forward_proj="gated-gelu" if name == "gated" else "relu",
        )
        model = T5EncoderModel(config).eval()
        randomize(model, generator)
        model.save_pretrained(T5 / name)
        expected[name] = model(input_ids).last_hidden_state
    for name, (tokens, buckets, distance) in BUCKETS.items():
        positions = torch.arange(-tokens + 1, tokens)
        found = T5Attention._relative_position_bucket(positions, num_buckets=buckets, max_distance=distance)
        expected[f"buckets.{name}"] = found.to(torch.int32)
    details = {**metadata(), "buckets": json.dumps(BUCKETS)}
    save_file({key: value.contiguous() for key, value in expected.items()}, T5 / "expected.safetensors", details)


@torch.no_grad()
def qwen() -> None:
    generator = torch.Generator().manual_seed(1)
    config = Qwen3Config(
        vocab_size=80,
        hidden_size=24,
        intermediate_size=36,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
        tie_word_embeddings=False,
        max_position_embeddings=64,
    )
    model = Qwen3ForCausalLM(config).eval()
    randomize(model, generator)
    model.save_pretrained(QWEN)
    (QWEN / "generation_config.json").unlink()
    input_ids = torch.randint(0, 80, (2, 30), generator=generator)
    attention_mask = torch.ones_like(input_ids)
    attention_mask[1, 17:] = 0
    states = model(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True).hidden_states
    expected = {"input_ids": input_ids, "attention_mask": attention_mask, "hidden_states": torch.stack(states)}
    save_file({key: value.contiguous() for key, value in expected.items()}, QWEN / "expected.safetensors", metadata())


if __name__ == "__main__":
    t5()
    qwen()
