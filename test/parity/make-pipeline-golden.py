"""Makes test/reference/pipeline-tiny: a tiny random StableDiffusionPipeline and its images, computed by diffusers.

Run from the repository root, with torch, diffusers, transformers and safetensors installed:

    python test/parity/make-pipeline-golden.py

Every case starts from its own generator on the CPU. The cases' options and the versions that made the values are in
the metadata of expected.safetensors.
"""

import json
from pathlib import Path

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

TARGET = Path("test/reference/pipeline-tiny")
TOKENS = 16
WORDS = ("red", "blue", "circle", "square", "star")
NOISE_SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}

CASES = {
    "ddim": {"scheduler": "DDIMScheduler", "guidanceScale": 5.0, "seed": 3, "steps": 5, "numImages": 1},
    "unguided": {"scheduler": "DDIMScheduler", "guidanceScale": 1.0, "seed": 3, "steps": 5, "numImages": 1},
    "euler": {"scheduler": "EulerDiscreteScheduler", "guidanceScale": 3.0, "seed": 4, "steps": 6, "numImages": 2},
    # Adds noise in every step: the order of the generator's draws shows.
    "ddpm": {"scheduler": "DDPMScheduler", "guidanceScale": 3.0, "seed": 5, "steps": 6, "numImages": 1},
    "pndm": {"scheduler": "PNDMScheduler", "guidanceScale": 3.0, "seed": 6, "steps": 6, "numImages": 1},
}
SCHEDULER_OPTIONS = {"pndm": {"skip_prk_steps": True}}
PROMPTS = ["a red circle", "blue square, star!"]
NEGATIVE_PROMPTS = ["blue", ""]


def randomize(model: torch.nn.Module, seed: int) -> None:
    """Larger than a fresh model's weights, so that every part of the model shows in the output."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "norm" in name and name.endswith("weight"):
            parameter.data = 1 + 0.2 * noise
        elif parameter.ndim > 1:
            parameter.data = noise * parameter[0].numel() ** -0.5
        else:
            parameter.data = 0.1 * noise


def write_tokenizer(folder: Path) -> None:
    """Bytes, bytes that end a word, merges that spell WORDS from the left, and the two special tokens."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in printable]
    symbols = [chr(byte) for byte in printable] + [chr(0x100 + i) for i in range(len(hidden))]
    merges = []
    for word in WORDS:
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            if (parts[0], parts[1]) not in merges:
                merges.append((parts[0], parts[1]))
            parts[:2] = [parts[0] + parts[1]]
    tokens = [*symbols, *(symbol + "</w>" for symbol in symbols), *("".join(pair) for pair in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    config = {"model_max_length": TOKENS, "tokenizer_class": "CLIPTokenizer", "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def build() -> StableDiffusionPipeline:
    write_tokenizer(TARGET / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(TARGET / "tokenizer")
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=24,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=16,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=24,
        attention_head_dim=2,
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        scaling_factor=0.7,
    )
    for seed, model in enumerate((text_encoder, unet, vae)):
        randomize(model.eval(), seed)
    scheduler = DDIMScheduler(**NOISE_SCHEDULE, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def main() -> None:
    pipeline = build()
    pipeline.save_pretrained(TARGET)
    pipeline.set_progress_bar_config(disable=True)
    # From the file: a configuration in memory knows which options were left to DDIM's defaults, and loses them.
    config = DDIMScheduler.load_config(TARGET / "scheduler")
    expected = {}
    for name, case in CASES.items():
        pipeline.scheduler = getattr(diffusers, case["scheduler"]).from_config(config, **SCHEDULER_OPTIONS.get(name, {}))
        options = {
            "prompt": PROMPTS,
            "negative_prompt": NEGATIVE_PROMPTS,
            "num_inference_steps": case["steps"],
            "guidance_scale": case["guidanceScale"],
            "num_images_per_prompt": case["numImages"],
        }
        for key, output_type in (("latents", "latent"), ("images", "pt")):
            generator = torch.Generator("cpu").manual_seed(case["seed"])
            result = pipeline(**options, generator=generator, output_type=output_type).images
            expected[f"{name}.{key}"] = result.contiguous()
    metadata = {
        "script": "test/parity/make-pipeline-golden.py",
        "versions": json.dumps(
            {"torch": torch.__version__, "diffusers": diffusers.__version__, "transformers": transformers.__version__}
        ),
        "cases": json.dumps(CASES),
        "schedulerOptions": json.dumps(SCHEDULER_OPTIONS),
        "prompts": json.dumps(PROMPTS),
        "negativePrompts": json.dumps(NEGATIVE_PROMPTS),
    }
    save_file(expected, TARGET / "expected.safetensors", metadata)


if __name__ == "__main__":
    main()
