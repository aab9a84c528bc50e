// Samplers by name, as options name them, with the names that other programs have for them. Pure: what makes schedulers is samplers.ts.

import type { SchedulerConfig } from "../../schedulers/scheduler.js";

/** Euler's method for models of flow matching, under the same name as that for others. */
export const FLOW_EULER = "FlowMatchEulerDiscreteScheduler";

interface SamplerNames {
  /** In diffusers' configuration. */
  className: string;
  /** In A1111's texts. */
  a1111: string;
  /** In ComfyUI's graphs; PNDM is none of its samplers, so that its name there is one that ComfyUI asks to replace. */
  comfyUI: string;
  /** Further names that mean the same when they are read. */
  aliases?: readonly string[];
}

/** Every sampler that can be asked for. */
export const SAMPLERS = {
  ddim: { className: "DDIMScheduler", a1111: "DDIM", comfyUI: "ddim" },
  euler: { className: "EulerDiscreteScheduler", a1111: "Euler", comfyUI: "euler" },
  euler_a: { className: "EulerAncestralDiscreteScheduler", a1111: "Euler a", comfyUI: "euler_ancestral" },
  dpmpp_2m: { className: "DPMSolverMultistepScheduler", a1111: "DPM++ 2M", comfyUI: "dpmpp_2m" },
  dpmpp_2m_sde: {
    className: "DPMSolverMultistepScheduler",
    a1111: "DPM++ 2M SDE",
    comfyUI: "dpmpp_2m_sde",
    aliases: ["dpmpp_2m_sde_gpu"],
  },
  // bh2 is the variant that diffusers takes by default.
  unipc: { className: "UniPCMultistepScheduler", a1111: "UniPC", comfyUI: "uni_pc_bh2", aliases: ["uni_pc"] },
  pndm: { className: "PNDMScheduler", a1111: "PLMS", comfyUI: "pndm" },
  ddpm: { className: "DDPMScheduler", a1111: "DDPM", comfyUI: "ddpm" },
  lcm: { className: "LCMScheduler", a1111: "LCM", comfyUI: "lcm" },
} as const satisfies Record<string, SamplerNames>;

export type SamplerName = keyof typeof SAMPLERS;

/** All of them. */
export const SAMPLER_NAMES = Object.keys(SAMPLERS) as SamplerName[];

const BY_ANY_NAME: ReadonlyMap<string, SamplerName> = new Map(
  SAMPLER_NAMES.flatMap((name) => {
    const { a1111, comfyUI, aliases = [] }: SamplerNames = SAMPLERS[name];
    return [name, a1111, comfyUI, ...aliases].map((any) => [any.toLowerCase(), name] as const);
  }),
);

/** The sampler that any of its names means. */
export const samplerNamed = (name: string): SamplerName | undefined => BY_ANY_NAME.get(name.toLowerCase());

/** How the steps are spread, in A1111's words; undefined for the sampler's own way. */
export function scheduleTypeOf(config: SchedulerConfig): string | undefined {
  if (config.use_karras_sigmas) return "Karras";
  if (config.use_exponential_sigmas) return "Exponential";
  return config.use_beta_sigmas ? "Beta" : undefined;
}

/** The name of a scheduler of diffusers; undefined where it is none of these. */
export function samplerOf(className: string | undefined, config: SchedulerConfig): SamplerName | undefined {
  if (className === SAMPLERS.dpmpp_2m.className) {
    const { algorithm_type: algorithm } = config;
    if (algorithm === "sde-dpmsolver++") return "dpmpp_2m_sde";
    return algorithm === "dpmsolver++" ? "dpmpp_2m" : undefined;
  }
  if (className === FLOW_EULER) return "euler";
  return SAMPLER_NAMES.find((name) => SAMPLERS[name].className === className);
}
