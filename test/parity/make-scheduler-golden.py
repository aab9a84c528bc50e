"""Makes test/reference/samplers.safetensors: what diffusers' samplers do with given model outputs, step by step.

Run from the repository root, with torch, diffusers and safetensors installed:

    python test/parity/make-scheduler-golden.py

All cases share their inputs: `start`, a standard normal sample that is scaled by the sampler's init_noise_sigma;
`outputs[i]`, what the model says in step i; `noises[i]`, the i-th draw of the generator that stochastic samplers are
given. Per case there are `NAME.timesteps` and `NAME.samples`, the sample after every step; for samplers that scale the
model's input also `NAME.inputs`, what the model would see in every step. The metadata names each case's class, options,
number of steps and init_noise_sigma, and the versions that made the values.
"""

import json
import warnings
from pathlib import Path

import diffusers
import torch
from safetensors.torch import save_file

TARGET = Path("test/reference/samplers.safetensors")
SHAPE = (2, 3, 2, 2)
STEPS = 6
LONG = 16  # from 15 steps on, DPM-Solver does not lower its order at the end
NOISE_SEED = 7
LATENT = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PREDICTIONS = ("epsilon", "v_prediction", "sample")
SPACINGS = ("linspace", "leading", "trailing")

ZERO_SNR = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
KARRAS = {"use_karras_sigmas": True}
EXPONENTIAL = {"use_exponential_sigmas": True}
SIGMA_MIN = {"final_sigmas_type": "sigma_min"}
COSINE = {"beta_schedule": "squaredcos_cap_v2"}
LINEAR = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
V = {"prediction_type": "v_prediction"}
SAMPLE = {"prediction_type": "sample"}

LATENT_DDPM = {"clip_sample": False}
DPM = {"final_sigmas_type": "zero"}
SDE = {**DPM, "algorithm_type": "sde-dpmsolver++"}
SAMPLERS = {
    "ddpm": ("DDPMScheduler", LATENT_DDPM),
    "ddim": ("DDIMScheduler", LATENT_DDPM),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", DPM),
    "dpmpp_2m_sde": ("DPMSolverMultistepScheduler", SDE),
    "unipc": ("UniPCMultistepScheduler", {}),
    "lcm": ("LCMScheduler", {}),
}
# diffusers itself does not have these
MISSING_PREDICTIONS = {("pndm", "sample"), ("euler_a", "sample")}

VARIANTS = {
    "ddpm": {
        "clip": {"clip_sample": True},
        "clip_range": {"clip_sample": True, "clip_sample_range": 2.5},
        "large": {"variance_type": "fixed_large"},
        "small_log": {"variance_type": "fixed_small_log"},
        "zero_snr_v": {**ZERO_SNR, **V},
        "zero_snr_sample": {**ZERO_SNR, **SAMPLE},
        "cosine": COSINE,
        "linear": LINEAR,
    },
    "ddim": {
        "clip": {"clip_sample": True},
        "eta": {"eta": 0.7},
        "clip_eta": {"clip_sample": True, "eta": 1.0, "use_clipped_model_output": True},
        "first_alpha": {"set_alpha_to_one": False, "steps_offset": 1},
        "zero_snr_v": {**ZERO_SNR, **V},
        "zero_snr_sample": {**ZERO_SNR, **SAMPLE},
        "cosine": COSINE,
    },
    "pndm": {"alpha_one": {"set_alpha_to_one": True}, "cosine": COSINE},
    "euler": {
        "karras": KARRAS,
        "karras_v_trailing": {**KARRAS, **V, "timestep_spacing": "trailing"},
        "exponential": EXPONENTIAL,
        "exponential_leading": {**EXPONENTIAL, "timestep_spacing": "leading", "steps_offset": 1},
        "sigma_min": SIGMA_MIN,
        "karras_sigma_min": {**KARRAS, **SIGMA_MIN},
        "zero_snr_v": {**ZERO_SNR, **V},
        "zero_snr_epsilon": ZERO_SNR,
        "zero_snr_karras": {**ZERO_SNR, **V, **KARRAS},
        "cosine": COSINE,
    },
    "euler_a": {"zero_snr_v": {**ZERO_SNR, **V}, "zero_snr_epsilon": ZERO_SNR, "cosine": COSINE, "linear": LINEAR},
    "lcm": {
        "clip": {"clip_sample": True, "clip_sample_range": 1.5},
        "originally_20": {"original_inference_steps": 20},
        "scaling": {"timestep_scaling": 0.01},
        "zero_snr_v": {"rescale_betas_zero_snr": True, **V},
        "cosine": COSINE,
    },
}
SOLVER_VARIANTS = {
    "karras": KARRAS,
    "karras_v": {**KARRAS, **V},
    "karras_sigma_min": {**KARRAS, **SIGMA_MIN},
    "exponential": EXPONENTIAL,
    "exponential_v": {**EXPONENTIAL, **V},
    "exponential_linear": {**EXPONENTIAL, **LINEAR},
    "sigma_min": SIGMA_MIN,
    "zero_snr_v": {**ZERO_SNR, **V},
    "zero_snr_epsilon": ZERO_SNR,
    "zero_snr_exponential": {**ZERO_SNR, **V, **EXPONENTIAL},
    "zero_snr_karras": {**ZERO_SNR, **V, **KARRAS},
    "cosine": COSINE,
    "order_1": {"solver_order": 1},
    "long": {"steps": LONG},
    "long_sigma_min": {"steps": LONG, **SIGMA_MIN},
    "long_karras": {"steps": LONG, **KARRAS},
}
DPM_VARIANTS = {
    **SOLVER_VARIANTS,
    "heun": {"solver_type": "heun"},
    "long_heun_sigma_min": {"solver_type": "heun", "steps": LONG, **SIGMA_MIN},
    "euler_at_final": {"euler_at_final": True, "steps": LONG, **SIGMA_MIN},
    "full_order": {"lower_order_final": False, **SIGMA_MIN},
}
VARIANTS["dpmpp_2m"] = DPM_VARIANTS
VARIANTS["dpmpp_2m_sde"] = DPM_VARIANTS
VARIANTS["unipc"] = {
    **SOLVER_VARIANTS,
    "order_3": {"solver_order": 3},
    "order_3_long": {"solver_order": 3, "steps": LONG},
    "bh1": {"solver_type": "bh1", **SIGMA_MIN},
    "bh1_order_3": {"solver_type": "bh1", "solver_order": 3, **SIGMA_MIN},
    "full_order": {"lower_order_final": False, **SIGMA_MIN},
    "no_corrector": {"disable_corrector": [0, 2]},
    "noise": {"predict_x0": False, **SIGMA_MIN},
    "noise_v": {"predict_x0": False, **SIGMA_MIN, **V},
    "noise_sample_order_3": {"predict_x0": False, "solver_order": 3, **SIGMA_MIN, **SAMPLE},
}
# Of flow matching; "run" are options of set_timesteps.
HALF = [1.0, 0.83, 0.66, 0.5, 0.33, 0.16]
DYNAMIC = {"use_dynamic_shifting": True, "run": {"mu": 0.9}}
FLOW = {
    "flow.plain": {},
    "flow.shift": {"shift": 3.0},
    "flow.long_shift": {"shift": 3.0, "steps": LONG},
    "flow.sigmas": {"shift": 3.0, "run": {"sigmas": HALF, "mu": 0.7}},
    "flow.exponential_shift": DYNAMIC,
    "flow.exponential_shift_sigmas": {**DYNAMIC, "run": {"mu": 1.15, "sigmas": HALF}},
    "flow.linear_shift": {**DYNAMIC, "time_shift_type": "linear"},
    "flow.terminal": {**DYNAMIC, "shift_terminal": 0.02},
    "flow.terminal_karras": {**DYNAMIC, **KARRAS, "shift_terminal": 0.1},
    "flow.karras": {"shift": 3.0, **KARRAS},
    "flow.exponential": {"shift": 3.0, **EXPONENTIAL},
    "flow.beta": {"shift": 3.0, "use_beta_sigmas": True},
    "flow.beta_dynamic": {**DYNAMIC, "use_beta_sigmas": True, "steps": LONG},
    "flow.stochastic": {"shift": 3.0, "stochastic_sampling": True},
    "flow.one": {"shift": 3.0, "steps": 1},
    "flow.timesteps_500": {"num_train_timesteps": 500, "shift": 1.7},
}
STEP_OPTIONS = ("eta", "use_clipped_model_output")


def cases() -> dict[str, dict]:
    """Every sampler with every spacing and prediction type, and its own variants on top of its defaults."""
    found = {}
    for sampler, (class_name, base) in SAMPLERS.items():
        variants = {
            f"{spacing}_{prediction}": {
                "timestep_spacing": spacing,
                "prediction_type": prediction,
                "steps_offset": 1 if spacing == "leading" else 0,
            }
            for spacing in SPACINGS
            for prediction in PREDICTIONS
            if (sampler, prediction) not in MISSING_PREDICTIONS
        }
        for name, options in {**variants, **VARIANTS[sampler]}.items():
            options = {**LATENT, **base, **options}
            found[f"{sampler}.{name}"] = {
                "class": class_name,
                "steps": options.pop("steps", STEPS),
                "stepOptions": {key: options.pop(key) for key in STEP_OPTIONS if key in options},
                "config": options,
            }
    for name, options in FLOW.items():
        options = dict(options)
        found[name] = {
            "class": "FlowMatchEulerDiscreteScheduler",
            "steps": options.pop("steps", STEPS),
            "stepOptions": {},
            "run": options.pop("run", {}),
            "config": options,
        }
    return found


def run(case: dict, start: torch.Tensor, outputs: torch.Tensor) -> dict[str, torch.Tensor]:
    scheduler = getattr(diffusers, case["class"])(**case["config"])
    scheduler.set_timesteps(case["steps"], **case.get("run", {}))
    is_flow = case["class"].startswith("Flow")
    # A flow starts in noise of variance 1, and its model sees the sample as it is.
    sigma = 1.0 if is_flow else scheduler.init_noise_sigma
    case["initNoiseSigma"] = float(sigma)
    stochastic = case["class"] in ("DDPMScheduler", "DDIMScheduler", "EulerAncestralDiscreteScheduler", "LCMScheduler")
    stochastic |= case["config"].get("algorithm_type") == "sde-dpmsolver++"
    stochastic |= case["config"].get("stochastic_sampling", False)
    options = {"generator": torch.Generator().manual_seed(NOISE_SEED)} if stochastic else {}
    sample = start * sigma
    inputs, samples = [], []
    for i, t in enumerate(scheduler.timesteps):
        inputs.append(sample if is_flow else scheduler.scale_model_input(sample, t))
        sample = scheduler.step(outputs[i], t, sample, **options, **case["stepOptions"]).prev_sample
        samples.append(sample)
    result = {"timesteps": scheduler.timesteps.to(torch.float32), "samples": torch.stack(samples)}
    if case["class"].startswith("Euler"):
        result["inputs"] = torch.stack(inputs)
    return result


def main() -> None:
    warnings.filterwarnings("ignore")
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(SHAPE, generator=generator)
    outputs = torch.randn((LONG, *SHAPE), generator=generator)
    noise_generator = torch.Generator().manual_seed(NOISE_SEED)
    noises = torch.stack([torch.randn(SHAPE, generator=noise_generator) for _ in range(LONG)])
    expected = {"start": start, "outputs": outputs, "noises": noises}
    all_cases = cases()
    for name, case in all_cases.items():
        result = run(case, start, outputs)
        if not all(value.isfinite().all() for value in result.values()):
            raise ValueError(f"{name}: diffusers' own samples are not finite")
        expected.update({f"{name}.{key}": value.contiguous() for key, value in result.items()})
    metadata = {
        "script": "test/parity/make-scheduler-golden.py",
        "versions": json.dumps({"torch": torch.__version__, "diffusers": diffusers.__version__}),
        "noiseSeed": str(NOISE_SEED),
        "cases": json.dumps(all_cases, separators=(",", ":")),
    }
    save_file(expected, TARGET, metadata)


if __name__ == "__main__":
    main()
