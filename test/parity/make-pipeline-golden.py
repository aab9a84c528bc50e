"""Makes test/reference/pipeline-tiny and pipeline-tiny-xl: tiny random pipelines and their images, computed by diffusers.

Run from the repository root, with torch, diffusers, transformers and safetensors installed:

    python test/parity/make-pipeline-golden.py

Every case starts from its own generator on the CPU. The cases' options and the versions that made the values are in
the metadata of expected.safetensors. Cases with "fera" run with the adapters of adapters.safetensors, which this script
applies to the UNet's linear layers by hooks: gates from the latent that the UNet is given, anew in every step.
"""

import json
import math
import re
from pathlib import Path

import diffusers
import torch
import transformers
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

FOLDER = Path("test/reference")
TOKENS = 16
WORDS = ("red", "blue", "circle", "square", "star")
NOISE_SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}

PROMPTS = {"prompt": ["a red circle", "blue square, star!"], "negativePrompt": ["blue", ""]}
ONE_PROMPT = {"prompt": ["a red circle"], "negativePrompt": ["blue star"]}

# The options of fera's generate, but for "scheduler", "schedulerOptions", "images" (how many of the start images) and
# "fera" (whether with adapters).
SD_CASES = {
    "ddim": {**PROMPTS, "scheduler": "DDIMScheduler", "guidanceScale": 5.0, "seed": 3, "steps": 5},
    "unguided": {**PROMPTS, "scheduler": "DDIMScheduler", "guidanceScale": 1.0, "seed": 3, "steps": 5},
    "euler": {
        **PROMPTS, "scheduler": "EulerDiscreteScheduler", "guidanceScale": 3.0, "seed": 4, "steps": 6, "numImages": 2,
    },
    # Adds noise in every step: the order of the generator's draws shows.
    "ddpm": {**PROMPTS, "scheduler": "DDPMScheduler", "guidanceScale": 3.0, "seed": 5, "steps": 6},
    "pndm": {
        **PROMPTS, "scheduler": "PNDMScheduler", "schedulerOptions": {"skip_prk_steps": True}, "guidanceScale": 3.0,
        "seed": 6, "steps": 6,
    },
    "rescaled": {
        **ONE_PROMPT, "scheduler": "DDIMScheduler", "guidanceScale": 6.0, "guidanceRescale": 0.7, "seed": 7, "steps": 5,
        "numImages": 2,
    },
    "clip-skip": {**ONE_PROMPT, "scheduler": "DDIMScheduler", "guidanceScale": 5.0, "clipSkip": 1, "seed": 8, "steps": 4},
    # One image per prompt; noise is drawn for the image, for the start, and in every step.
    "image-ddpm": {
        **PROMPTS, "scheduler": "DDPMScheduler", "guidanceScale": 3.0, "images": 2, "strength": 0.65, "seed": 9,
        "steps": 6,
    },
    # One image for all prompts; the noise level of the start depends on where the run begins.
    "image-euler": {
        **ONE_PROMPT, "scheduler": "EulerDiscreteScheduler", "guidanceScale": 4.0, "images": 1, "strength": 0.5,
        "seed": 10, "steps": 7, "numImages": 2,
    },
    # Multistep samplers that begin in the middle.
    "image-dpm": {
        **ONE_PROMPT, "scheduler": "DPMSolverMultistepScheduler", "schedulerOptions": {"final_sigmas_type": "zero"},
        "guidanceScale": 4.0, "images": 1, "strength": 0.7, "seed": 13, "steps": 7,
    },
    "image-unipc": {
        **ONE_PROMPT, "scheduler": "UniPCMultistepScheduler", "guidanceScale": 4.0, "images": 1, "strength": 0.7,
        "seed": 14, "steps": 7,
    },
    "fera": {
        **ONE_PROMPT, "fera": True, "scheduler": "DDIMScheduler", "guidanceScale": 5.0, "guidanceRescale": 0.3,
        "seed": 11, "steps": 5, "numImages": 2,
    },
    "fera-image": {
        **ONE_PROMPT, "fera": True, "scheduler": "EulerDiscreteScheduler", "guidanceScale": 3.0, "images": 1,
        "strength": 0.8, "seed": 12, "steps": 5,
    },
}
XL_CASES = {
    # Without a negative prompt: zeros in its place, and the model's own sizes.
    "zeros": {
        "prompt": PROMPTS["prompt"], "scheduler": "DDIMScheduler", "guidanceScale": 5.0, "seed": 3, "steps": 4,
    },
    "unguided": {
        **ONE_PROMPT, "scheduler": "EulerDiscreteScheduler", "guidanceScale": 1.0, "seed": 4, "steps": 4,
    },
    # One image: diffusers 0.42 mixes up the rows of both sizes where there are more (not from images).
    "everything": {
        **ONE_PROMPT, "prompt2": ["square star"], "negativePrompt2": ["red"], "scheduler": "EulerDiscreteScheduler",
        "guidanceScale": 6.0, "guidanceRescale": 0.7, "clipSkip": 1, "originalSize": [60, 40],
        "cropsCoordsTopLeft": [4, 2], "targetSize": [48, 64], "negativeOriginalSize": [16, 20],
        "negativeCropsCoordsTopLeft": [1, 3], "negativeTargetSize": [30, 30], "seed": 5, "steps": 5,
    },
    "image": {
        **ONE_PROMPT, "scheduler": "EulerDiscreteScheduler", "guidanceScale": 6.0, "guidanceRescale": 0.5,
        "images": 1, "strength": 0.6, "originalSize": [60, 40], "cropsCoordsTopLeft": [4, 2],
        "negativeTargetSize": [30, 30], "seed": 6, "steps": 6, "numImages": 2,
    },
    "fera": {
        **ONE_PROMPT, "fera": True, "scheduler": "DDIMScheduler", "guidanceScale": 5.0, "guidanceRescale": 0.3,
        "seed": 7, "steps": 5, "numImages": 2,
    },
    "fera-image": {
        **ONE_PROMPT, "fera": True, "scheduler": "EulerDiscreteScheduler", "guidanceScale": 4.0, "images": 1,
        "strength": 0.8, "seed": 8, "steps": 5,
    },
}
SD_FERA = {
    "rank": 2, "alpha": 3.0, "num_bands": 3, "num_experts": 3, "router_tau": 0.7, "bands": "reference",
    "sigma": {"rule": "latent", "divisor": 16}, "target_modules": ["to_q", "to_k", "to_v", "to_out.0"],
}
XL_FERA = {
    "rank": 2, "alpha": 2.0, "num_bands": 2, "num_experts": 4, "router_tau": 0.5, "bands": "complete",
    "sigma": {"rule": "latent", "divisor": 8}, "target_modules": ["to_q", "to_v", "ff.net.2"],
}


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


def write_tokenizer(folder: Path, pad_token: str = "<|endoftext|>") -> CLIPTokenizer:
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
    config = {"model_max_length": TOKENS, "tokenizer_class": "CLIPTokenizer", "pad_token": pad_token}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return CLIPTokenizer.from_pretrained(folder)


def text_config(tokenizer: CLIPTokenizer, **options: object) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **options,
    )


def tiny_vae(*widths: int) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=widths,
        norm_num_groups=4,
        scaling_factor=0.7,
    )


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(**NOISE_SCHEDULE, clip_sample=False, set_alpha_to_one=False, steps_offset=1)


def build_sd(folder: Path) -> StableDiffusionPipeline:
    tokenizer = write_tokenizer(folder / "tokenizer")
    text_encoder = CLIPTextModel(
        text_config(tokenizer, hidden_size=24, intermediate_size=48, num_hidden_layers=2)
    )
    # transformers 5 has put the layers of text_model into the model itself; diffusers 0.42 still looks for their norm there.
    object.__setattr__(text_encoder, "text_model", text_encoder)
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
    vae = tiny_vae(8, 16)
    for seed, model in enumerate((text_encoder, unet, vae)):
        randomize(model.eval(), seed)
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def build_xl(folder: Path) -> StableDiffusionXLPipeline:
    tokenizer = write_tokenizer(folder / "tokenizer")
    tokenizer_2 = write_tokenizer(folder / "tokenizer_2", pad_token="!")
    text_encoder = CLIPTextModel(
        text_config(tokenizer, hidden_size=16, intermediate_size=32, num_hidden_layers=3)
    )
    text_encoder_2 = CLIPTextModelWithProjection(
        text_config(
            tokenizer_2, hidden_size=24, intermediate_size=32, num_hidden_layers=3, hidden_act="gelu", projection_dim=20
        )
    )
    unet = UNet2DConditionModel(
        sample_size=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(8, 12),
        layers_per_block=1,
        transformer_layers_per_block=(1, 2),
        norm_num_groups=4,
        cross_attention_dim=16 + 24,
        attention_head_dim=(2, 3),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=20 + 6 * 8,
    )
    vae = tiny_vae(8, 8)
    for seed, model in enumerate((text_encoder, text_encoder_2, unet, vae)):
        randomize(model.eval(), 10 + seed)
    return StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=text_encoder,
        text_encoder_2=text_encoder_2,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        unet=unet,
        scheduler=scheduler(),
        add_watermarker=False,
    )


class FeraAdapters(torch.nn.Module):
    """Routed low-rank experts on a UNet's linear layers, and what they were routed by."""

    def __init__(self, unet: UNet2DConditionModel, config: dict, seed: int) -> None:
        super().__init__()
        self.config = config
        generator = torch.Generator().manual_seed(seed)
        draw = lambda *shape: torch.randn(shape, generator=generator)
        experts, rank, bands = config["num_experts"], config["rank"], config["num_bands"]
        # Large weights, so that the gates follow small changes of the energies.
        self.state = {
            "router.net.0.weight": 3 * draw(64, bands),
            "router.net.0.bias": draw(64),
            "router.net.2.weight": 0.5 * draw(experts, 64),
            "router.net.2.bias": 0.1 * draw(experts),
        }
        self.gates = None
        self.trace = []
        self.handles = [unet.register_forward_pre_hook(self.before)]
        for path, layer in unet.named_modules():
            if not any(path.endswith("." + target) for target in config["target_modules"]):
                continue
            for k in range(experts):
                key = f"base_model.{path}.experts.{k}"
                self.state[f"{key}.lora_down.weight"] = draw(rank, layer.in_features) * layer.in_features**-0.5
                self.state[f"{key}.lora_up.weight"] = draw(layer.out_features, rank) * 0.5
            self.handles.append(layer.register_forward_hook(self.after(path)))

    def before(self, _unet: UNet2DConditionModel, inputs: tuple) -> None:
        energies = self.energies(inputs[0])
        hidden = torch.relu(energies @ self.state["router.net.0.weight"].T + self.state["router.net.0.bias"])
        logits = hidden @ self.state["router.net.2.weight"].T + self.state["router.net.2.bias"]
        self.gates = torch.softmax(logits / self.config["router_tau"], dim=-1)
        self.trace.append((energies, self.gates))

    def after(self, path: str):
        def hook(_layer: torch.nn.Linear, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
            (x,) = inputs[:1]
            for k in range(self.config["num_experts"]):
                key = f"base_model.{path}.experts.{k}"
                low = x @ self.state[f"{key}.lora_down.weight"].T
                gate = self.gates[:, k].reshape(-1, *[1] * (x.ndim - 1))
                scale = self.config["alpha"] / self.config["rank"]
                output = output + gate * scale * (low @ self.state[f"{key}.lora_up.weight"].T)
            return output

        return hook

    def energies(self, latents: torch.Tensor) -> torch.Tensor:
        count, complete = self.config["num_bands"], self.config["bands"] == "complete"
        sigma = min(latents.shape[-2:]) / self.config["sigma"]["divisor"]
        levels = [latents] + [blur(latents, sigma * 2**k) for k in range(count - 1 if complete else count)]
        bands = [levels[-1]] + [levels[k - 1] - levels[k] for k in range(len(levels) - 1, 0, -1)]
        energies = torch.stack([band.square().sum(dim=(1, 2, 3)) for band in bands[:count]], dim=1)
        return energies / (energies.sum(dim=1, keepdim=True) + 1e-8)

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()


def blur(x: torch.Tensor, sigma: float) -> torch.Tensor:
    size = int(8 * sigma + 1) | 1
    offsets = torch.arange(size, dtype=torch.float64) - size // 2
    line = torch.exp(-offsets.square() / (2 * sigma**2))
    kernel = (line[:, None] * line[None, :] / line.sum() ** 2).to(x.dtype)
    channels = x.shape[1]
    weight = kernel.expand(channels, 1, size, size)
    return torch.nn.functional.conv2d(x, weight, padding=size // 2, groups=channels)


def diffusers_options(case: dict) -> dict:
    """A case's options under diffusers' names."""
    renamed = {"steps": "num_inference_steps", "numImages": "num_images_per_prompt"}
    own = ("scheduler", "schedulerOptions", "seed", "fera", "images")
    snake = lambda name: re.sub(r"[A-Z]|2$", lambda found: "_" + found.group().lower(), name)
    return {
        renamed.get(key) or snake(key): tuple(value) if re.search("Size|Coords", key) else value
        for key, value in case.items()
        if key not in own
    }


def run_case(pipelines: dict, case: dict, images: torch.Tensor, adapters: FeraAdapters | None) -> dict:
    options = diffusers_options(case)
    pipeline: DiffusionPipeline = pipelines["image" if "images" in case else "text"]
    if "images" in case:
        options["image"] = images[: case["images"]] / 2 + 0.5
    result = {}
    for key, output_type in (("latents", "latent"), ("images", "pt")):
        if adapters:
            adapters.trace = []
        generator = torch.Generator("cpu").manual_seed(case["seed"])
        result[key] = pipeline(**options, generator=generator, output_type=output_type).images.contiguous()
    if adapters:
        # Of the half that saw the prompt.
        count = result["latents"].shape[0]
        result["energies"] = torch.stack([energies[-count:] for energies, _ in adapters.trace])
        result["gates"] = torch.stack([gates[-count:] for _, gates in adapters.trace])
        changes = result["gates"].diff(dim=0).abs().amax(dim=(1, 2))
        assert changes.min() > 1e-3, changes
        print("gates change by", [round(change, 4) for change in changes.tolist()])
    assert all(tensor.isfinite().all() for tensor in result.values())
    return result


def make(folder: Path, build, image_class, cases: dict, fera_config: dict) -> None:
    pipeline = build(folder)
    pipeline.save_pretrained(folder)
    extra = {"add_watermarker": False} if "xl" in folder.name else {"requires_safety_checker": False}
    pipelines = {"text": pipeline, "image": image_class(**pipeline.components, **extra)}
    # From the file: a configuration in memory knows which options were left to DDIM's defaults, and loses them.
    config = DDIMScheduler.load_config(folder / "scheduler")
    generator = torch.Generator().manual_seed(99)
    images = torch.tanh(torch.randn(2, 3, 8, 8, generator=generator)).repeat_interleave(4, 2).repeat_interleave(4, 3)
    expected = {"startImages": images}
    for name, case in cases.items():
        scheduler_class = getattr(diffusers, case["scheduler"])
        for each in pipelines.values():
            each.scheduler = scheduler_class.from_config(config, **case.get("schedulerOptions", {}))
            each.set_progress_bar_config(disable=True)
        adapters = FeraAdapters(pipeline.unet, fera_config, seed=1) if case.get("fera") else None
        result = run_case(pipelines, case, images, adapters)
        expected |= {f"{name}.{key}": value.contiguous() for key, value in result.items()}
        if adapters:
            adapters.remove()
            save_file(adapters.state, folder / "adapters.safetensors", {"fera_config": json.dumps(fera_config)})
    metadata = {
        "script": "test/parity/make-pipeline-golden.py",
        "versions": json.dumps(
            {"torch": torch.__version__, "diffusers": diffusers.__version__, "transformers": transformers.__version__}
        ),
        "cases": json.dumps(cases),
    }
    save_file(expected, folder / "expected.safetensors", metadata)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(folder, f"{math.ceil(size / 1000)} kB")


@torch.no_grad()
def main() -> None:
    make(FOLDER / "pipeline-tiny", build_sd, StableDiffusionImg2ImgPipeline, SD_CASES, SD_FERA)
    make(FOLDER / "pipeline-tiny-xl", build_xl, StableDiffusionXLImg2ImgPipeline, XL_CASES, XL_FERA)


if __name__ == "__main__":
    main()
