"""Makes test/reference/pipelines/FAMILY: tiny random pipelines of flow matching and their images, computed by diffusers.

Run from the repository root, with torch, diffusers, transformers, peft and safetensors installed:

    python test/parity/make-flow-pipeline-golden.py [FAMILY ...]

Every case starts from its own generator on the CPU. The cases' options, under the names of fera's `generate`, and the
versions that made the values are in the metadata of expected.safetensors, with "schedulerOptions", "images" (how many of
the start images) and "adapter" beside them: "lora" runs with lora.safetensors, which diffusers wrote, "fera" with
fera.safetensors, which is applied to the transformer's linear layers by hooks, its gates from the latents on their grid.
Latents are as the pipeline gives them, on their grid.
"""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import diffusers
import peft
import torch
import transformers
from diffusers import FlowMatchEulerDiscreteScheduler
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import AutoTokenizer, CLIPTextModelWithProjection, T5Config, T5EncoderModel, T5TokenizerFast

spec = importlib.util.spec_from_file_location("tiny", Path(__file__).with_name("make-pipeline-golden.py"))
tiny = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)

FOLDER = Path("test/reference/pipelines")
T5_TOKENIZER = Path("test/reference/t5-tokenizer/spiece")
PROMPTS = {"prompt": ["a red circle", "blue square, star!"], "negativePrompt": ["blue", ""]}
ONE = {"prompt": ["a red circle"]}
SIZE = {"height": 16, "width": 24}
FERA = {
    "rank": 2, "alpha": 3.0, "num_bands": 3, "num_experts": 2, "router_tau": 0.7, "bands": "complete",
    "sigma": {"rule": "latent", "divisor": 8}, "target_modules": ["to_q", "to_v", "to_out.0"],
}  # fmt: skip
LORA_TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "block_out_channels": (4, 8),
    "norm_num_groups": 2,
    "latent_channels": 8,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}


class FlowAdapters(tiny.FeraAdapters):
    """FeRA on a transformer that is called by names; `grid` puts its latents onto their grid."""

    def __init__(self, transformer: torch.nn.Module, grid) -> None:
        super().__init__(transformer, FERA, seed=1)
        self.handles[0].remove()
        before = lambda _module, args, named: self.before(_module, (grid(args, named),))
        self.handles[0] = transformer.register_forward_pre_hook(before, with_kwargs=True)


def t5_parts(folder: Path, name: str, features: int):
    tokenizer = T5TokenizerFast.from_pretrained(T5_TOKENIZER)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=features, d_kv=6, d_ff=24, num_layers=2, num_heads=2,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    return T5EncoderModel(config), tokenizer


def clip_parts(folder: Path, name: str, kind: type, **options):
    tokenizer = tiny.write_tokenizer(folder / name)
    return kind(tiny.text_config(tokenizer, num_hidden_layers=3, **options)), tokenizer


def scheduler(**options) -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(**options)


def build_sd3(folder: Path):
    projected = CLIPTextModelWithProjection
    text_encoder, tokenizer = clip_parts(
        folder, "tokenizer", projected, hidden_size=8, intermediate_size=16, projection_dim=6
    )
    text_encoder_2, tokenizer_2 = clip_parts(
        folder, "tokenizer_2", projected, hidden_size=12, intermediate_size=16, projection_dim=10, hidden_act="gelu"
    )
    text_encoder_3, tokenizer_3 = t5_parts(folder, "tokenizer_3", 24)
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=16, patch_size=2, in_channels=8, out_channels=8, num_layers=2, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=24, caption_projection_dim=16, pooled_projection_dim=16,
        pos_embed_max_size=12, dual_attention_layers=(0,), qk_norm="rms_norm",
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(**VAE, scaling_factor=1.5305, shift_factor=0.0609)
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer, scheduler=scheduler(shift=3.0), vae=vae, text_encoder=text_encoder,
        tokenizer=tokenizer, text_encoder_2=text_encoder_2, tokenizer_2=tokenizer_2, text_encoder_3=text_encoder_3,
        tokenizer_3=tokenizer_3,
    )  # fmt: skip


SHORT = {"maxSequenceLength": 24}
FAMILIES = {
    "stable-diffusion-3": {
        "build": build_sd3,
        "image": diffusers.StableDiffusion3Img2ImgPipeline,
        "grid": lambda args, named: named["hidden_states"],
        "t5": "tokenizer_3",
        "cases": {
            "guided": {**PROMPTS, **SHORT, "guidanceScale": 4.0, "seed": 1, "steps": 4},
            "unguided": {
                **ONE, "prompt2": ["blue star"], "prompt3": ["a square, and more"], "guidanceScale": 1.0, "seed": 2,
                "steps": 3, "numImages": 2,
            },
            "dynamic": {
                **ONE, **SIZE, **SHORT, "negativePrompt": ["blue"], "negativePrompt2": ["star"],
                "negativePrompt3": ["red"], "guidanceScale": 3.0, "seed": 3, "steps": 4,
                "schedulerOptions": {"use_dynamic_shifting": True, "shift": 1.0},
            },
            "clip-skip": {**ONE, **SHORT, "clipSkip": 1, "guidanceScale": 2.0, "seed": 4, "steps": 2},
            "image": {
                **ONE, **SHORT, "guidanceScale": 3.0, "images": 1, "strength": 0.55, "seed": 5, "steps": 5,
                "numImages": 2,
            },
            "lora": {**ONE, **SHORT, "adapter": "lora", "guidanceScale": 3.0, "seed": 6, "steps": 3},
            "fera": {**ONE, **SHORT, "adapter": "fera", "guidanceScale": 3.0, "seed": 7, "steps": 3},
        },
    },
}  # fmt: skip


def options_of(case: dict, start: torch.Tensor) -> dict:
    own = ("schedulerOptions", "adapter", "images")
    options = tiny.diffusers_options({key: value for key, value in case.items() if key not in own})
    options = {key.replace("prompt3", "prompt_3"): value for key, value in options.items()}
    if "images" in case:
        height, width = start.shape[2:]
        options |= {"image": start[: case["images"]] / 2 + 0.5, "height": height, "width": width}
    return options


def add_lora(transformer: torch.nn.Module, folder: Path, pipeline) -> None:
    transformer.add_adapter(LoraConfig(r=2, lora_alpha=3, target_modules=LORA_TARGETS))
    generator = torch.Generator().manual_seed(5)
    for name, parameter in transformer.named_parameters():
        if "lora_" in name:
            scale = parameter.shape[1] ** -0.5 if "lora_A" in name else 0.5
            parameter.data = torch.randn(parameter.shape, generator=generator) * scale
    state = get_peft_model_state_dict(transformer)
    config = transformer.peft_config["default"].to_dict()
    type(pipeline).save_lora_weights(
        folder, transformer_lora_layers=state, transformer_lora_adapter_metadata=config, weight_name="lora.safetensors"
    )


def run(pipeline, case: dict, start: torch.Tensor, finish) -> dict[str, torch.Tensor]:
    result = {}
    for key, output_type in (("latents", "latent"), ("images", "pt")):
        generator = torch.Generator("cpu").manual_seed(case["seed"])
        options = options_of(case, start)
        result[key] = pipeline(**options, generator=generator, output_type=output_type).images
    if finish:
        result["latents"] = finish(pipeline, result)
    assert all(tensor.isfinite().all() for tensor in result.values())
    return result


@torch.no_grad()
def make(name: str, family: dict) -> None:
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(0)
    pipeline = family["build"](folder)
    for seed, (key, part) in enumerate(sorted(pipeline.components.items())):
        if isinstance(part, torch.nn.Module):
            tiny.randomize(part.eval(), 100 + seed)
    pipeline.save_pretrained(folder)
    for generated in folder.rglob("generation_config.json"):
        generated.unlink()
    if "t5" in family:
        # The smaller form of the same tokenizer.
        shutil.rmtree(folder / family["t5"])
        shutil.copytree(T5_TOKENIZER, folder / family["t5"])
    pipelines = {"text": pipeline}
    if family.get("image"):
        pipelines["image"] = family["image"](**pipeline.components)
    start = torch.tanh(torch.randn(2, 3, 8, 4, generator=torch.Generator().manual_seed(99)))
    start = start.repeat_interleave(4, 2).repeat_interleave(4, 3)
    expected = {"startImages": start}
    config = dict(pipeline.scheduler.config)
    for case_name, case in family["cases"].items():
        run_with = pipelines["image" if "images" in case else "text"]
        options = {key: value for key, value in config.items() if not key.startswith("_")}
        run_with.scheduler = scheduler(**{**options, **case.get("schedulerOptions", {})})
        run_with.set_progress_bar_config(disable=True)
        adapter = case.get("adapter")
        adapters = FlowAdapters(pipeline.transformer, family["grid"]) if adapter == "fera" else None
        if adapter == "lora":
            add_lora(pipeline.transformer, folder, pipeline)
        result = run(run_with, case, start, family.get("finish"))
        expected |= {f"{case_name}.{key}": value.contiguous() for key, value in result.items()}
        if adapters:
            adapters.remove()
            save_file(adapters.state, folder / "fera.safetensors", {"fera_config": json.dumps(FERA)})
        if adapter == "lora":
            pipeline.transformer.delete_adapters("default")
    versions = {module.__name__: module.__version__ for module in (torch, diffusers, transformers, peft)}
    metadata = {
        "script": "test/parity/make-flow-pipeline-golden.py",
        "versions": json.dumps(versions),
        "cases": json.dumps(family["cases"]),
    }
    save_file(expected, folder / "expected.safetensors", metadata)
    print(folder, sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) // 1000, "kB")


if __name__ == "__main__":
    for wanted in sys.argv[1:] or FAMILIES:
        make(wanted, FAMILIES[wanted])
