// Captions of several lengths in one batch of Z-Image: those that fill the same multiple of 32 tokens are predicted together.

import type { RoutedGates, StackPrediction } from "../../adapters/adapter-stack.js";
import { conditioningOf, type DenoiserInputs, takeConditioning } from "../../diffusion/index.js";
import { filledUp } from "../../models/z-image-transformer-2d/z-image-transformer-2d.js";
import { concatRows, takeRows } from "../../tensor/rows.js";
import { type Tensor, tensor } from "../../tensor/tensor.js";

/** Text states and which of them are tokens. */
interface CaptionStates {
  /** `[B, T, D]`. */
  encoderHiddenStates: Tensor<"float32">;
  /** `[B, T]`. */
  encoderAttentionMask: Tensor<"float32">;
}

/** The same rows with so many tokens each: cut, or zeros behind them. */
export function tokenRows(states: CaptionStates, tokens: number): { [Name in keyof CaptionStates]: Tensor<"float32"> } {
  return {
    encoderHiddenStates: resized(states.encoderHiddenStates, tokens),
    encoderAttentionMask: resized(states.encoderAttentionMask, tokens),
  };
}

function resized(x: Tensor<"float32">, tokens: number): Tensor<"float32"> {
  const [rows, own, ...rest] = x.shape as [number, number, ...number[]];
  if (own === tokens) return x;
  const width = rest.reduce((product, size) => product * size, 1);
  const data = new Float32Array(rows * tokens * width);
  for (let row = 0; row < rows; row++) {
    const from = row * own * width;
    data.set(x.data.subarray(from, from + Math.min(own, tokens) * width), row * tokens * width);
  }
  return tensor(data, [rows, tokens, ...rest]);
}

/**
 * Predicts each group of rows whose captions fill as many tokens, and puts the rows in their order again.
 *
 * @param predict - Of some of the rows, or of all.
 */
export async function predictByLength(
  inputs: DenoiserInputs,
  predict: (inputs: DenoiserInputs, isWhole: boolean) => Promise<StackPrediction>,
): Promise<StackPrediction> {
  const { latents, timesteps, ...beside } = inputs;
  const conditioning = conditioningOf(beside);
  const { encoderAttentionMask: mask } = conditioning as unknown as CaptionStates;
  const [count, width] = mask.shape as [number, number];
  const groups = new Map<number, number[]>();
  for (let row = 0; row < count; row++) {
    const length = mask.data.subarray(row * width, (row + 1) * width).reduce((sum, value) => sum + value, 0);
    const filled = filledUp(length);
    groups.set(filled, [...(groups.get(filled) ?? []), row]);
  }
  const isWhole = groups.size === 1;
  const parts: StackPrediction[] = [];
  for (const [tokens, rows] of groups) {
    const own = takeConditioning(conditioning, rows) as unknown as CaptionStates;
    const part = {
      ...own,
      ...tokenRows(own, tokens),
      latents: takeRows(latents, rows),
      timesteps: takeRows(timesteps, rows),
    };
    parts.push(await predict(part as unknown as DenoiserInputs, isWhole));
  }
  if (isWhole) return parts[0]!;
  const order = [...groups.values()].flat();
  const inOrder = (values: Tensor<"float32">[]) =>
    takeRows(
      concatRows(values),
      Array.from({ length: count }, (_, row) => order.indexOf(row)),
    ) as Tensor<"float32">;
  const routing = new Map<string, RoutedGates>();
  for (const name of parts[0]!.routing.keys()) {
    const of = (key: keyof RoutedGates) => inOrder(parts.map((part) => part.routing.get(name)![key]));
    routing.set(name, { energies: of("energies"), gates: of("gates") });
  }
  return { output: inOrder(parts.map(({ output }) => output)), routing };
}
