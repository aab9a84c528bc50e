"""Makes test/reference/pipelines/FAMILY: tiny random pipelines of flow matching and their images, computed by diffusers.

Run from the repository root, with torch, diffusers, transformers, peft and safetensors installed:

    python test/parity/make-flow-pipeline-golden.py [FAMILY ...]

Every case starts from its own generator on the CPU. The cases' options, under the names of fera's `generate`, and the
versions that made the values are in the metadata of expected.safetensors, with "schedulerOptions", "images" (how many of
the start images) and "adapter" beside them: "lora" runs with lora.safetensors, which diffusers wrote, "fera" with
fera.safetensors, which is applied to the transformer's linear layers by hooks, its gates from the latents on their grid.
Latents are as the pipeline gives them, on their grid.

Z-Image's transformer, which has large layers for time whatever its configuration, is not stored: the metadata gives the seed
and the parameters, in the order in which `randomize` of make-pipeline-golden.py draws them.
"""

import copy
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
QWEN_TOKENIZER = Path("test/reference/qwen-tokenizer/fast")
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


def build_flux(folder: Path):
    text_encoder, tokenizer = clip_parts(
        folder, "tokenizer", transformers.CLIPTextModel, hidden_size=12, intermediate_size=16
    )
    text_encoder_2, tokenizer_2 = t5_parts(folder, "tokenizer_2", 16)
    transformer = diffusers.FluxTransformer2DModel(
        in_channels=32, num_layers=1, num_single_layers=1, attention_head_dim=12, num_attention_heads=2,
        joint_attention_dim=16, pooled_projection_dim=12, guidance_embeds=True, axes_dims_rope=(4, 4, 4),
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(**VAE, scaling_factor=0.3611, shift_factor=0.1159)
    return diffusers.FluxPipeline(
        scheduler=scheduler(use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, shift=3.0), vae=vae,
        text_encoder=text_encoder, tokenizer=tokenizer, text_encoder_2=text_encoder_2, tokenizer_2=tokenizer_2,
        transformer=transformer,
    )  # fmt: skip


def qwen_parts(layers: int, hidden: int):
    tokenizer = AutoTokenizer.from_pretrained(QWEN_TOKENIZER)
    config = transformers.Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=hidden, intermediate_size=20, num_hidden_layers=layers,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
    )  # fmt: skip
    return transformers.Qwen3ForCausalLM(config), tokenizer


def build_klein(folder: Path):
    text_encoder, tokenizer = qwen_parts(4, 12)
    transformer = diffusers.Flux2Transformer2DModel(
        in_channels=32, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=36, timestep_guidance_channels=16, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=False,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLFlux2(**{**VAE, "use_quant_conv": True, "use_post_quant_conv": True})
    return diffusers.Flux2KleinPipeline(
        scheduler=scheduler(use_dynamic_shifting=True, shift=3.0), vae=vae, text_encoder=text_encoder,
        tokenizer=tokenizer, transformer=transformer, is_distilled=False,
    )  # fmt: skip


def build_z_image(folder: Path):
    text_encoder, tokenizer = qwen_parts(3, 16)
    transformer = diffusers.ZImageTransformer2DModel(
        in_channels=8, dim=24, n_layers=1, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=16,
        axes_dims=[4, 4, 4], axes_lens=[256, 32, 32],
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(**VAE, scaling_factor=0.3611, shift_factor=0.1159)
    return diffusers.ZImagePipeline(
        scheduler=scheduler(shift=3.0), vae=vae, text_encoder=text_encoder, tokenizer=tokenizer,
        transformer=transformer,
    )  # fmt: skip


def unpack_flux(_pipeline, result: dict) -> torch.Tensor:
    height, width = result["images"].shape[2:]
    return diffusers.FluxPipeline._unpack_latents(result["latents"], height, width, 2)


def grid_of_tokens(unpack):
    """Of packed tokens; position ids say how many rows and columns there are."""

    def grid(args, named):
        tokens, ids = named["hidden_states"], named["img_ids"]
        ids = ids[0] if ids.ndim == 3 else ids
        rows, columns = int(ids[:, 1].max()) + 1, int(ids[:, 2].max()) + 1
        return unpack(tokens, rows, columns)

    return grid


def klein_from_image(pipeline, start: torch.Tensor, options: dict, generator, output_type: str):
    """What image to image means for FLUX.2 here: its own pipeline from latents that are noised as others noise theirs."""
    strength, steps = options.pop("strength"), options["num_inference_steps"]
    image, height, width = options.pop("image"), options["height"], options["width"]
    clean = pipeline._encode_vae_image(image * 2 - 1, generator)
    noise = torch.randn(clean.shape, generator=generator)
    skipped = int(max(steps - min(steps * strength, steps), 0))
    flow = pipeline.scheduler
    set_timesteps = flow.set_timesteps

    def later_ones(num_inference_steps=None, device=None, sigmas=None, mu=None):
        set_timesteps(num_inference_steps, device, sigmas=sigmas, mu=mu)
        flow.timesteps, flow.sigmas = flow.timesteps[skipped:], flow.sigmas[skipped:]

    tokens = clean.shape[2] * clean.shape[3]
    mu = diffusers.pipelines.flux2.pipeline_flux2_klein.compute_empirical_mu(tokens, steps)
    sigmas = torch.linspace(1, 1 / steps, steps).tolist()
    later_ones(sigmas=sigmas, mu=mu)
    sigma = flow.sigmas[0]
    flow.set_timesteps = later_ones
    # The pipeline packs what it is given.
    latents = sigma * noise + (1 - sigma) * clean
    try:
        return pipeline(**options, latents=latents, output_type=output_type)
    finally:
        flow.set_timesteps = set_timesteps


SHORT = {"maxSequenceLength": 24}
CHAT = {"maxSequenceLength": 48, "textEncoderOutLayers": [1, 2, 3]}
LONG_PROMPT = "a red circle, a blue square and a star, side by side on a table of wood, 35mm"
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
    "flux": {
        "build": build_flux,
        "image": diffusers.FluxImg2ImgPipeline,
        "grid": grid_of_tokens(lambda tokens, rows, columns: diffusers.FluxPipeline._unpack_latents(
            tokens, 4 * rows, 4 * columns, 2
        )),
        "finish": unpack_flux,
        "t5": "tokenizer_2",
        "cases": {
            "dev": {"prompt": PROMPTS["prompt"], **SIZE, **SHORT, "guidanceScale": 3.5, "seed": 1, "steps": 4},
            "true-guidance": {
                **ONE, **SIZE, **SHORT, "negativePrompt": ["blue"], "trueCfgScale": 3.0, "guidanceScale": 2.0, "seed": 2,
                "steps": 3, "numImages": 2,
            },
            "texts": {**ONE, **SIZE, "prompt2": ["a square, and more"], "seed": 3, "steps": 2},
            "karras": {
                **ONE, **SIZE, **SHORT, "seed": 4, "steps": 4,
                "schedulerOptions": {"use_karras_sigmas": True, "time_shift_type": "linear"},
            },
            "image": {**ONE, **SHORT, "images": 1, "strength": 0.55, "guidanceScale": 3.0, "seed": 5, "steps": 5, "numImages": 2},
            "lora": {**ONE, **SIZE, **SHORT, "adapter": "lora", "seed": 6, "steps": 3},
            "fera": {**ONE, **SIZE, **SHORT, "adapter": "fera", "seed": 7, "steps": 3},
        },
    },
    "flux2-klein": {
        "build": build_klein,
        "from_image": klein_from_image,
        "grid": grid_of_tokens(lambda tokens, rows, columns: diffusers.Flux2KleinPipeline._unpatchify_latents(
            tokens.mT.reshape(tokens.shape[0], -1, rows, columns)
        )),
        "cases": {
            "guided": {"prompt": PROMPTS["prompt"], **SIZE, **CHAT, "guidanceScale": 3.0, "seed": 1, "steps": 4},
            "unguided": {**ONE, **SIZE, **CHAT, "guidanceScale": 1.0, "seed": 2, "steps": 3, "numImages": 2},
            "image": {**ONE, **CHAT, "images": 1, "strength": 0.55, "guidanceScale": 1.0, "seed": 3, "steps": 5},
            "lora": {**ONE, **SIZE, **CHAT, "adapter": "lora", "guidanceScale": 1.0, "seed": 4, "steps": 3},
            "fera": {**ONE, **SIZE, **CHAT, "adapter": "fera", "guidanceScale": 1.0, "seed": 5, "steps": 3},
        },
    },
    "z-image": {
        "build": build_z_image,
        "image": diffusers.ZImageImg2ImgPipeline,
        "grid": lambda args, named: torch.stack(args[0]).squeeze(2),
        "draws_transformer": True,
        "cases": {
            "guided": {
                "prompt": ["a red circle", "a blue star"], "negativePrompt": ["blue", "a red star"], **SIZE,
                "guidanceScale": 3.0, "seed": 1, "steps": 3,
            },
            # Prompts of other multiples of 32 tokens than each other's, and than the negative ones'.
            "lengths": {"prompt": ["a red circle", LONG_PROMPT], **SIZE, "guidanceScale": 2.0, "seed": 2, "steps": 3},
            "turbo": {**ONE, **SIZE, "guidanceScale": 0.0, "seed": 3, "steps": 4, "numImages": 2},
            "image": {**ONE, "images": 1, "strength": 0.55, "guidanceScale": 2.0, "seed": 4, "steps": 5},
            "lora": {**ONE, **SIZE, "adapter": "lora", "guidanceScale": 0.0, "seed": 5, "steps": 3},
            "fera": {"prompt": ["a red circle", LONG_PROMPT], **SIZE, "adapter": "fera", "guidanceScale": 0.0, "seed": 6, "steps": 3},
        },
    },
}  # fmt: skip


def options_of(case: dict, start: torch.Tensor) -> dict:
    own = ("schedulerOptions", "adapter", "images")
    # A copy: ZImagePipeline writes its chats into the list of prompts.
    given = copy.deepcopy({key: value for key, value in case.items() if key not in own})
    options = tiny.diffusers_options(given)
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


def run(pipeline, case: dict, start: torch.Tensor, finish, from_image) -> dict[str, torch.Tensor]:
    result = {}
    for key, output_type in (("latents", "latent"), ("images", "pt")):
        generator = torch.Generator("cpu").manual_seed(case["seed"])
        options = options_of(case, start)
        call = pipeline if not (from_image and "images" in case) else None
        if call:
            result[key] = call(**options, generator=generator, output_type=output_type).images
        else:
            result[key] = from_image(pipeline, start, options, generator, output_type).images
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
    drawn = {}
    if family.get("draws_transformer"):
        (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
        parameters = [[key, list(value.shape)] for key, value in pipeline.transformer.named_parameters()]
        seed = 100 + sorted(pipeline.components).index("transformer")
        drawn = {"transformer": json.dumps({"seed": seed, "parameters": parameters})}
    pipelines = {"text": pipeline}
    if family.get("image"):
        pipelines["image"] = family["image"](**pipeline.components)
    start = torch.tanh(torch.randn(2, 3, 8, 4, generator=torch.Generator().manual_seed(99)))
    start = start.repeat_interleave(4, 2).repeat_interleave(4, 3)
    expected = {"startImages": start}
    config = dict(pipeline.scheduler.config)
    for case_name, case in family["cases"].items():
        run_with = pipelines["image" if "images" in case and "image" in pipelines else "text"]
        options = {key: value for key, value in config.items() if not key.startswith("_")}
        run_with.scheduler = scheduler(**{**options, **case.get("schedulerOptions", {})})
        run_with.set_progress_bar_config(disable=True)
        adapter = case.get("adapter")
        adapters = FlowAdapters(pipeline.transformer, family["grid"]) if adapter == "fera" else None
        if adapter == "lora":
            add_lora(pipeline.transformer, folder, pipeline)
        result = run(run_with, case, start, family.get("finish"), family.get("from_image"))
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
        **drawn,
    }
    save_file(expected, folder / "expected.safetensors", metadata)
    print(folder, sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) // 1000, "kB")


if __name__ == "__main__":
    for wanted in sys.argv[1:] or FAMILIES:
        make(wanted, FAMILIES[wanted])
