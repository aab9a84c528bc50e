// The published router's network, softmax((W2 relu(W1 f + b1) + b2) / tau), for whatever features it is fed.

import type { Value } from "../../../graph/index.js";
import * as ops from "../../../graph/index.js";
import { draw } from "../../../nn/index.js";
import type { Generator } from "../../../tensor/random.js";
import type { Tensor } from "../../../tensor/tensor.js";

const HIDDEN = 64;

/** The network's parameters by name, and their shapes. F features, E experts. */
export function networkShapes(features: number, numExperts: number): Map<string, readonly number[]> {
  return new Map([
    ["net.0.weight", [HIDDEN, features]],
    ["net.0.bias", [HIDDEN]],
    ["net.2.weight", [numExperts, HIDDEN]],
    ["net.2.bias", [numExperts]],
  ]);
}

/** Draws the parameters as torch's `nn.Linear` does: uniform in ±1/√fan_in, biases too. */
export function initialNetwork(
  features: number,
  numExperts: number,
  generator: Generator,
): Map<string, Tensor<"float32">> {
  const fanIn = (name: string): number => (name.startsWith("net.0") ? features : HIDDEN);
  const fresh = [...networkShapes(features, numExperts)].map(([name, shape]) => {
    const bound = 1 / Math.sqrt(fanIn(name));
    return [name, draw(shape, { kind: "uniform", bound }, generator)] as const;
  });
  return new Map(fresh);
}

/** relu(W1 f + b1). @param features - f, `[B, F]`. @returns `[B, 64]`. */
export function hiddenUnits(features: Value, parameters: ReadonlyMap<string, Value>): Value {
  return ops.relu(ops.linear(features, parameters.get("net.0.weight")!, parameters.get("net.0.bias")!));
}

/** W2 h + b2. @param hidden - h, `[B, 64]`. @returns `[B, E]`. */
export function outputLogits(hidden: Value, parameters: ReadonlyMap<string, Value>): Value {
  return ops.linear(hidden, parameters.get("net.2.weight")!, parameters.get("net.2.bias")!);
}

/**
 * softmax((W2 relu(W1 f + b1) + b2) / tau).
 *
 * @param features - f, `[B, F]`.
 * @param parameters - Under the names of {@link networkShapes}.
 * @param start - Added to what the softmax is of, `[B, E]`.
 * @returns `[B, E]`, each row summing to 1.
 */
export function softmaxNetwork(
  features: Value,
  parameters: ReadonlyMap<string, Value>,
  tau: number,
  start?: Value,
): Value {
  const logits = ops.div(outputLogits(hiddenUnits(features, parameters), parameters), tau);
  return ops.softmax(start ? ops.add(start, logits) : logits);
}
