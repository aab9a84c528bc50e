// FeRAModel: a frozen denoiser with routed experts on some of its linear layers.

import type { Denoiser } from "../../diffusion/index.js";
import { FormatError, ShapeError } from "../../errors.js";
import type { Graph, Value } from "../../graph/index.js";
import { type Tensor, tensor } from "../../tensor/tensor.js";
import type { LoadedAdapter } from "../adapter-format.js";
import { AdapterModel, type AdapterModelInputs } from "../adapter-model.js";
import type { FeRAAdapter } from "./fera-adapter.js";
import { FeRAConfig, type FeRAOptions } from "./fera-config.js";
import { ROUTER } from "./fera-state.js";
import { createRouter } from "./routers/index.js";

/** Inputs of {@link FeRAModel.predict}. */
export type FeRAInputs = AdapterModelInputs;

/** What the latents of a batch route to. B batch, K bands, E experts. */
export interface Routing {
  /** `[B, K]`, low to high. */
  energies: Tensor<"float32">;
  /** `[B, E]`. */
  gates: Tensor<"float32">;
  /** The gates, under the reference's name. */
  weights: Tensor<"float32">;
}

/**
 * A denoiser with experts whose gates follow the latent's frequency energies.
 *
 * @see arXiv:2511.17979
 */
export class FeRAModel extends AdapterModel<FeRAConfig> {
  /**
   * Fresh adapters: `lora_down` uniform in ±1/√in, `lora_up` 0 (so that nothing changes yet), the router as torch's.
   *
   * @param options - Defaults as in {@link FeRAOptions}.
   * @param random.seed - Default 0.
   * @throws {ConfigError} If the model is none, the configuration is invalid, its targets name no layer of the model, or
   *   its rank is larger than any of these layers can have.
   */
  constructor(model: Denoiser, options: FeRAConfig | FeRAOptions = {}, random: { seed?: number } = {}) {
    super(model, options instanceof FeRAConfig ? options : new FeRAConfig(options), random);
  }

  override copy(): FeRAModel {
    const copied = new FeRAModel(this.model, this.config);
    copied.useAdapter({ config: this.config, state: this.stateDict() });
    return copied;
  }

  /**
   * Energies and gates of latents `[B, C, H, W]`.
   *
   * @param timesteps - `[B]`, or one for all; needed where the gates depend on them (`router: "timestep"` and
   *   `"relative-energies"`).
   * @throws {ShapeError} If timesteps are neither one nor B.
   */
  async route(latents: Tensor, timesteps?: Tensor): Promise<Routing> {
    const adapter = this.adapter as FeRAAdapter;
    const takesTime = createRouter(this.config).takesTimesteps === true && timesteps !== undefined;
    const batch = latents.shape[0]!;
    const build = (graph: Graph, parameters: Map<string, Value>) => {
      const time = takesTime ? graph.input("timesteps", "float32", [batch]) : undefined;
      const routed = adapter.route(graph.input("latents", "float32", latents.shape), parameters, time);
      graph.output("energies", routed.energies);
      graph.output("gates", routed.gates);
    };
    const feeds = { latents, ...(takesTime && { timesteps: perSample(timesteps, batch) }) };
    const key = `route ${latents.shape.join(",")} ${takesTime}`;
    const ran = await this.runGraph(key, build, feeds, (name) => name.startsWith(ROUTER));
    const result = ran as Record<string, Tensor<"float32">>;
    return { energies: result.energies!, gates: result.gates!, weights: result.gates! };
  }

  /**
   * As {@link AdapterModel.useAdapter}; the adapter must be FeRA's.
   *
   * @throws {FormatError} If it is for another model, or of another kind.
   */
  override useAdapter(loaded: Pick<LoadedAdapter, "config" | "state" | "resolve">, source = "useAdapter"): void {
    const { adapterType } = loaded.config;
    if (!(loaded.config instanceof FeRAConfig)) {
      throw new FormatError(
        source,
        `is a ${adapterType} adapter; FeRAModel needs FeRA's, whose gates are routed. ` +
          "Load it into an AdapterModel, or into a pipeline.",
      );
    }
    super.useAdapter(loaded, source);
  }

  /** As {@link predict}, with the routing that made it. */
  async predictWithRoute(inputs: FeRAInputs): Promise<Routing & { output: Tensor<"float32"> }> {
    if (inputs.adapters === false) {
      return { ...(await this.route(inputs.latents, inputs.timesteps)), output: await this.model.predict(inputs) };
    }
    const { output, energies, gates } = await this.predictWithReports(inputs);
    return { output, energies: energies!, gates: gates!, weights: gates! };
  }
}

/** One timestep for each of a batch, float32 `[B]`. */
function perSample(timesteps: Tensor, batch: number): Tensor<"float32"> {
  const { data, size } = timesteps;
  if (size !== 1 && size !== batch) {
    throw new ShapeError(`route: timesteps must be one, or ${batch} like the latents; got ${size}.`);
  }
  return tensor(Float32Array.from({ length: batch }, (_, i) => Number(data[size === 1 ? 0 : i])));
}
