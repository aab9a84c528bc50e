// Adapters in the weights that they adapt, so that a model runs as fast as without.

import { ConfigError } from "../../errors.js";
import type * as ops from "../../graph/index.js";
import { Graph } from "../../graph/index.js";
import { ModelWeights, type Weight } from "../../nn/index.js";
import { compile, type RuntimeOptions } from "../../runtime/index.js";
import type { Tensor } from "../../tensor/tensor.js";
import type { AttachableAdapter } from "../adapter.js";

const OUTPUT = "fused ";

/** A model whose weights can be replaced. */
export interface FusableModel {
  readonly weights: ModelWeights;
  readonly runtime: RuntimeOptions;
  replaceWeights(weights: ModelWeights): Promise<void>;
}

/**
 * The weights with adapters in them, one after the other, for every adapted layer; all other weights as they are.
 *
 * @param adapters - With their names, for messages.
 * @throws {ConfigError} If no weight can hold what one adds, because that depends on the latents or the timestep; it is
 *   named.
 */
export async function fusedWeights(
  { weights, runtime }: Pick<FusableModel, "weights" | "runtime">,
  adapters: readonly (AttachableAdapter & { name: string; scale: number })[],
): Promise<ModelWeights> {
  const graph = new Graph();
  const fused = new Map<string, ops.Value>();
  for (const { adapter, parameters, name, scale } of adapters) {
    if (!adapter.fuse) throw new ConfigError(`fuseLora: ${unfusable(name, adapter.config)}`);
    const values = new Map([...parameters].map(([key, value]) => [key, graph.constant(value)]));
    for (const { path } of adapter.layers) {
      const key = `${path}.weight`;
      const frozen = weights.parameter(graph, key, weights.weights.get(key)?.shape ?? []);
      const current = fused.get(key) ?? frozen;
      fused.set(key, adapter.fuse({ path, frozen, current, parameters: values, scale }));
    }
  }
  // Weights in files keep their names in the graph, so that outputs need others.
  for (const [name, value] of fused) graph.output(OUTPUT + name, value);
  if (fused.size === 0) return weights;
  const compiled = await compile(graph, runtime);
  const results = (await compiled.run({}).finally(() => compiled.release())) as Record<string, Tensor<"float32">>;
  const replaced = Object.entries(results).map(([name, value]): [string, Weight] => [
    name.slice(OUTPUT.length),
    { shape: value.shape, tensor: value },
  ]);
  return new ModelWeights(new Map([...weights.weights, ...replaced]), weights.source);
}

function unfusable(name: string, { adapterType }: { adapterType: string }): string {
  const start = `the adapter "${name}" is of the kind ${adapterType} and cannot be fused`;
  if (adapterType === "t-lora") return `${start}: how many of its ranks act depends on the timestep. Leave it active.`;
  if (adapterType !== "fera") return `${start}; plain LoRA can.`;
  return (
    `${start}: its experts are routed by the latents of every step. Leave it active, or write it as plain LoRA with ` +
    "frozen gates first (writePlainLora)."
  );
}
