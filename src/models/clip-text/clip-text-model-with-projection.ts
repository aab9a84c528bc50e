// CLIPTextModelWithProjection: the text encoder whose pooled state is projected, SDXL's second one.

import type { z } from "zod";
import type { Value } from "../../graph/index.js";
import { linear, type Scope } from "../../nn/index.js";
import type { RuntimeOptions } from "../../runtime/index.js";
import { parseConfig } from "../../storage/parse-config.js";
import type { Generator } from "../../tensor/random.js";
import { width } from "../config-limits.js";
import { freshWeights } from "../model.js";
import { loadModel, type ModelClass, type PretrainedOptions } from "../pretrained.js";
import { CLIPTextModel, clipTextModel, clipTextSchema } from "./clip-text-model.js";

const schema = clipTextSchema.safeExtend({ projection_dim: width.default(512) });

/** transformers' CLIPTextConfig, as far as it is supported, with `projection_dim`. */
export type CLIPTextProjectionConfig = z.output<typeof schema>;

const CLASS: ModelClass<CLIPTextProjectionConfig> = {
  name: "CLIPTextModelWithProjection",
  subfolder: "text_encoder_2",
  weightsName: "model",
  parse: (config, source) => parseConfig(schema, config, source),
  build(scope, config) {
    project(scope, clipTextModel(scope, { inputIds: scope.graph.input("input_ids", "int64", [1, 1]) }, config), config);
  },
};

/**
 * CLIP's text encoder with its projection into the space that texts and images share.
 *
 * `encodeAll`'s `pooled` is what transformers calls `text_embeds`: x W^T, x the last hidden state at the end token, W
 * `text_projection.weight` `[projection_dim, hidden_size]`.
 *
 * @see Radford et al. 2021, arXiv:2103.00020
 */
export class CLIPTextModelWithProjection extends CLIPTextModel<CLIPTextProjectionConfig> {
  /**
   * Loads `config.json` and `model.safetensors` from a folder; `subfolder` is "text_encoder_2" unless given.
   *
   * @throws {ConfigError} If the configuration asks for what is not supported.
   * @throws {FormatError} If a file or a weight is missing or malformed, or a weight is there that the model does not use.
   */
  static override async fromPretrained(
    dir: string,
    options: PretrainedOptions = {},
  ): Promise<CLIPTextModelWithProjection> {
    const { config, weights, runtime } = await loadModel(dir, options, CLASS);
    return new CLIPTextModelWithProjection(config, weights, runtime);
  }

  /** A model with random weights. @throws {ConfigError} If the configuration asks for what is not supported. */
  static override fromConfig(
    config: unknown,
    generator: Generator,
    runtime: RuntimeOptions = {},
  ): CLIPTextModelWithProjection {
    const parsed = CLASS.parse(config, CLASS.name);
    const weights = freshWeights((scope) => CLASS.build(scope, parsed), generator);
    return new CLIPTextModelWithProjection(parsed, weights, runtime);
  }

  override build(scope: Scope, inputIds: Value): Value {
    const states = super.build(scope, inputIds);
    project(scope, states, this.config);
    return states;
  }

  protected override project(scope: Scope, pooled: Value): Value {
    return project(scope, pooled, this.config);
  }
}

function project(scope: Scope, x: Value, config: CLIPTextProjectionConfig): Value {
  return linear(scope.in("text_projection"), x, config.projection_dim, { bias: false });
}
