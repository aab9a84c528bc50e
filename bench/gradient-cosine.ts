// How far gradients of the adapters turn when frozen weights are kept in another way: layer by layer.

import { readSafetensors } from "../src/storage/index.js";

/** By their names in the adapter's file. */
export type NamedGradients = ReadonlyMap<string, Float32Array>;

/** What `part: "gradients"` of a measured process wrote. */
export async function readGradients(path: string): Promise<NamedGradients> {
  const { tensors } = await readSafetensors(path);
  return new Map([...tensors].map(([name, { data }]) => [name, data as Float32Array]));
}

/** How gradients differ from the exact ones. */
export interface GradientDifference {
  /** Of the layer whose gradients, all its tensors together, have turned most, and which one it is. */
  gradientCosine: number;
  worstLayer: string;
  /** Relative L2 distance of all gradients together. */
  gradientError: number;
}

/** @throws {Error} If one of the exact gradients has no counterpart. */
export function compareGradients(gradients: NamedGradients, exact: NamedGradients): GradientDifference {
  let distance = 0;
  const sums = new Map<string, { product: number; own: number; exact: number }>();
  for (const [name, values] of exact) {
    const others = gradients.get(name);
    if (others?.length !== values.length) throw new Error(`the gradient of ${name} is missing.`);
    const layer = layerOf(name);
    const sum = sums.get(layer) ?? { product: 0, own: 0, exact: 0 };
    sums.set(layer, sum);
    for (let i = 0; i < values.length; i++) {
      distance += (others[i]! - values[i]!) ** 2;
      sum.product += others[i]! * values[i]!;
      sum.own += others[i]! ** 2;
      sum.exact += values[i]! ** 2;
    }
  }
  const norm = [...sums.values()].reduce((total, { exact }) => total + exact, 0);
  let worst = { gradientCosine: Number.POSITIVE_INFINITY, worstLayer: "" };
  for (const [layer, sum] of sums) {
    if (sum.exact === 0) continue;
    const cosine = sum.product / Math.sqrt(sum.own * sum.exact);
    if (!(cosine >= worst.gradientCosine)) worst = { gradientCosine: cosine, worstLayer: layer };
  }
  return { ...worst, gradientError: Math.sqrt(distance / norm) };
}

/** `base_model.LAYER.experts.0.lora_up.weight` belongs to LAYER, the router's tensors together to the router. */
const layerOf = (name: string): string =>
  /^base_model\.(.+?)\.experts\./.exec(name)?.[1] ?? (name.startsWith("router.") ? "router" : name);
