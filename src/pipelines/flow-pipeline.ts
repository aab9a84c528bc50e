// What the families of flow matching over transformers share beside what every family does: their sampler's kind, sizes that are
// whole tokens, and encoders beside CLIP's.

import type { Denoiser } from "../diffusion/index.js";
import { ConfigError } from "../errors.js";
import type { RunOptions, Scheduler } from "../schedulers/index.js";
import type { Releasable } from "./adapter-set.js";
import { type DiffusionComponents, DiffusionPipeline, type FamilyDefaults } from "./diffusion-pipeline.js";
import type { GenerateOptions } from "./generate-options.js";
import type { GenerationPlan } from "./generation-plan.js";

/** A pipeline whose denoiser is a transformer that predicts the flow from image to noise. */
export abstract class FlowPipeline<
  Options extends GenerateOptions = GenerateOptions,
  Model extends Denoiser = Denoiser,
> extends DiffusionPipeline<Options, Model> {
  protected constructor(components: DiffusionComponents<Model>, defaults: Omit<FamilyDefaults, "patch">) {
    const patch = components.denoiser.smallestShape.latentHeight;
    super(components, { roundsStepsUp: true, ...defaults, patch });
  }

  /** diffusers' name for the denoiser. */
  get transformer(): Model {
    return this.denoiser;
  }

  /** Encoders that have no adapters: T5, Qwen3. */
  protected abstract get otherEncoders(): readonly Releasable[];

  protected override async releaseTextEncoders(): Promise<void> {
    await Promise.all([super.releaseTextEncoders(), ...this.otherEncoders.map((encoder) => encoder.release())]);
  }

  /** @throws {ConfigError} If the scheduler is not of flow matching. */
  protected override runOptions(plan: GenerationPlan, scheduler: Scheduler): RunOptions {
    if (scheduler.predictionType === "flow_prediction") return super.runOptions(plan, scheduler);
    throw new ConfigError(
      `generate: this model is of flow matching, and ${scheduler.className ?? "the scheduler"} is not; ` +
        "take FlowMatchEulerDiscreteScheduler.",
    );
  }

  /** @throws {ConfigError} If an option is given that has no meaning for the family. */
  protected refuseOptions(options: Options, names: readonly (keyof Options & string)[]): void {
    const given = names.find((name) => options[name] !== undefined);
    if (given === undefined) return;
    throw new ConfigError(`generate: ${given} has no meaning for this family of models; leave it out.`);
  }
}

/** Noise levels that several families are sampled at, before they are shifted: 1, …, 1/steps. */
export const evenSigmas = (steps: number): number[] =>
  Array.from({ length: steps }, (_, i) => (steps === 1 ? 1 : 1 + ((1 / steps - 1) * i) / (steps - 1)));
