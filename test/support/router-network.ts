// A router's network with weights that are easy to differentiate, and its formula by hand.

import "../../src/runtime/node.js";
import { createRouter } from "../../src/adapters/fera/routers/index.js";
import type { FeRAConfig } from "../../src/adapters/index.js";
import type { Value } from "../../src/graph/index.js";
import { Generator, randn } from "../../src/tensor/random.js";
import { type Tensor, tensor } from "../../src/tensor/tensor.js";

/** Two rows of energies of three bands. */
export const ENERGIES = tensor(Float32Array.of(0.7, 0.2, 0.1, 0.15, 0.25, 0.6), [2, 3]);

/** Small weights, biases of ±1: hidden units stay on their side of relu's kink when a coordinate moves a little. */
export function networkOf({ numBands, numExperts }: FeRAConfig): Map<string, Tensor<"float32">> {
  const generator = new Generator(3);
  const small = (shape: number[], scale: number) =>
    tensor(
      randn(shape, { generator }).data.map((x) => x * scale),
      shape,
    );
  return new Map([
    ["net.0.weight", small([64, numBands], 0.1)],
    [
      "net.0.bias",
      tensor(
        Float32Array.from({ length: 64 }, (_, i) => (i % 2 ? 1 : -1)),
        [64],
      ),
    ],
    ["net.2.weight", small([numExperts, 64], 0.2)],
    ["net.2.bias", small([numExperts], 0.5)],
  ]);
}

/** Under the names of an adapter's state. */
export const stateOf = (network: ReadonlyMap<string, Tensor<"float32">>): Map<string, Tensor<"float32">> =>
  new Map([...network].map(([name, value]) => [`router.${name}`, value]));

/** softmax((W2 relu(W1 f + b1) + b2) / tau) in float64, row by row. */
export function gatesByHand(network: ReadonlyMap<string, Tensor<"float32">>, features: Tensor, tau: number): number[] {
  const [rows, count] = features.shape as [number, number];
  const product = (name: string, x: readonly number[]): number[] => {
    const weight = network.get(`${name}.weight`)!;
    return [...network.get(`${name}.bias`)!.data].map((bias, row) =>
      x.reduce((sum, value, column) => sum + weight.data[row * x.length + column]! * value, bias),
    );
  };
  return Array.from({ length: rows }, (_, row) => {
    const f = Array.from({ length: count }, (_, i) => Number(features.data[row * count + i]));
    const logits = product(
      "net.2",
      product("net.0", f).map((value) => Math.max(0, value)),
    ).map((value) => value / tau);
    const powers = logits.map((value) => Math.exp(value - Math.max(...logits)));
    const total = powers.reduce((sum, value) => sum + value);
    return powers.map((value) => value / total);
  }).flat();
}

/** A router's gates as a function of its parameters and the energies, and values of those whose names begin so. */
export function gatesCase(config: FeRAConfig) {
  const all = { energies: ENERGIES, ...Object.fromEntries(networkOf(config)) };
  return {
    of: (starts: readonly string[]) =>
      Object.fromEntries(Object.entries(all).filter(([name]) => starts.some((start) => name.startsWith(start)))),
    build: ({ energies, ...values }: Record<string, Value>) =>
      createRouter(config).gates({ energies: energies! }, new Map(Object.entries(values))),
  };
}
