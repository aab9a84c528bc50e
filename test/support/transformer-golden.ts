// Golden values of a family of transformers (test/parity/make-transformer-golden.py): the model, its inputs and adapters drawn
// as the script drew them, and what is expected of them.

import type { PretrainedOptions } from "../../src/models/pretrained.js";
import type { TransformerDenoiser } from "../../src/models/transformer/transformer-denoiser.js";
import { ModelWeights, type Weight } from "../../src/nn/index.js";
import { readSafetensors } from "../../src/storage/index.js";
import "../../src/storage/node.js";
import { Generator, randn } from "../../src/tensor/random.js";
import { type Tensor, tensor } from "../../src/tensor/tensor.js";

/** A class of the family. */
export interface TransformerClass {
  new (config: never, weights: ModelWeights): TransformerDenoiser<unknown>;
  fromConfig(config: unknown, generator: Generator): TransformerDenoiser<unknown>;
  fromPretrained(dir: string, options?: PretrainedOptions): Promise<TransformerDenoiser<unknown>>;
}

type Named<T> = readonly (readonly [name: string, value: T])[];

interface CaseSettings {
  seed: number;
  config: Record<string, unknown>;
  parameters: Named<number[]>;
  adapters: Named<number[]>;
  timesteps: number[];
  drawn: Named<number[]>;
  given: Record<string, number[]>;
}

/** A case as drawn. */
export interface DrawnCase {
  config: Record<string, unknown>;
  model: TransformerDenoiser<unknown>;
  parameterNames: readonly string[];
  adapters: ReadonlyMap<string, Tensor<"float32">>;
  inputs: { latents: Tensor; timesteps: Tensor; [name: string]: Tensor };
  target: Tensor<"float32">;
}

/** How a kind of adapter was trained. */
export interface TrainingSettings {
  config: Record<string, unknown>;
  targets: string[];
  /** LoRA: the adapted layers' paths. */
  layers: string[];
  /** FeRA: trained tensors by name. */
  names: Named<number[]>;
}

const camelCase = (name: string) => name.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase());

function scaled(name: string, shape: readonly number[]): (noise: number) => number {
  if (shape.length === 1) return name.endsWith("weight") ? (noise) => 1 + 0.2 * noise : (noise) => 0.1 * noise;
  const fanIn = shape.slice(1).reduce((size, dimension) => size * dimension, 1);
  return (noise) => noise * fanIn ** -0.5;
}

/** Draws a tensor of that shape, times a factor. */
export function drawnBy(generator: Generator, shape: readonly number[], factor: number): Tensor<"float32"> {
  const { data } = randn(shape, { generator });
  return tensor(
    data.map((value) => value * factor),
    shape,
  );
}

/** Opens a family's file. */
export async function transformerGolden(family: string, of: TransformerClass) {
  const { tensors, metadata } = await readSafetensors(`test/reference/transformers/${family}.safetensors`);
  const cases = JSON.parse(metadata.cases!) as Record<string, CaseSettings>;
  const training = JSON.parse(metadata.training!) as {
    case: string;
    optimizer: { lr: number; betas: [number, number]; eps: number; weight_decay: number };
    lora: TrainingSettings;
    fera: TrainingSettings;
  };
  const expected = (key: string) => tensors.get(key)!.data as Float32Array;

  /** A case's weights, adapters and inputs. What is no parameter, such as a table of positions, is as a fresh model has it. */
  function draw(name: string): DrawnCase {
    const { seed, config, parameters, adapters, timesteps, drawn, given } = cases[name]!;
    const generator = new Generator(seed);
    const fresh = of.fromConfig(config, new Generator(0));
    const weights = new Map<string, Weight>(fresh.weights.weights);
    for (const [path, shape] of parameters) {
      const { data } = randn(shape, { generator });
      weights.set(path, { shape, tensor: tensor(data.map(scaled(path, shape)), shape) });
    }
    const drawnAdapters = new Map(
      adapters.map(([path, shape]) => [path, drawnBy(generator, shape, shape[1]! ** -0.5)] as const),
    );
    const all = drawn.map(([key, shape]) => [camelCase(key), randn(shape, { generator })] as const);
    const { target, ...inputs } = Object.fromEntries(all) as Record<string, Tensor<"float32">>;
    for (const [key, value] of Object.entries(given)) inputs[key] = tensor(value, [value.length]);
    return {
      config,
      model: new of(fresh.config as never, new ModelWeights(weights, "golden")),
      parameterNames: parameters.map(([path]) => path),
      adapters: drawnAdapters,
      inputs: { ...inputs, latents: inputs.latents!, timesteps: tensor(timesteps, [timesteps.length]) },
      target: target!,
    };
  }
  return { cases, training, expected, draw };
}
