// 2-D convolution over [B, C, H, W], its two adjoints, and nearest resampling.

import type { Value } from "./graph.js";
import type { ConvolutionAttributes } from "./operators.js";
import { fail, requireFloat32, sameShape } from "./shapes.js";

/** Stride and zero padding; a single padding number means all four sides. */
export interface ConvolutionOptions {
  stride?: number;
  /** All sides, or top, left, bottom, right. */
  padding?: number | readonly [number, number, number, number];
}

/**
 * Cross-correlation with a `[Cout, Cin, kH, kW]` kernel.
 *
 * @param x - `[B, Cin, H, W]`.
 * @param bias - `[Cout]`.
 * @returns `[B, Cout, H', W']` with H' = floor((H + top + bottom − kH) / stride) + 1.
 */
export function conv(x: Value, weight: Value, bias?: Value, options: ConvolutionOptions = {}): Value {
  requireFloat32("Conv", { x, weight, bias });
  const attributes = attributesOf(options);
  if (x.rank !== 4 || weight.rank !== 4 || x.shape[1] !== weight.shape[1]) {
    fail("Conv", "x must be [B, C, H, W] and the weight [out, C, kH, kW]", { x, weight });
  }
  const out = weight.shape[0]!;
  if (bias && !sameShape(bias.shape, [out])) fail("Conv", `the bias must be [${out}]`, { bias });
  const [height, width] = outputSize(x.shape, weight.shape, attributes);
  if (height < 1 || width < 1) fail("Conv", "the kernel must fit into the padded image", { x, weight });
  const shape = [x.shape[0]!, out, height, width];
  return x.graph.node("Conv", [x, weight, bias], attributes, [{ dtype: "float32", shape }]).outputs[0]!;
}

/** The adjoint of {@link conv} in x: `dy [B, Cout, H', W']` to `inputShape`. */
export function convInputGradient(
  dy: Value,
  weight: Value,
  attributes: ConvolutionAttributes,
  inputShape: readonly number[],
): Value {
  return dy.graph.node("ConvInputGradient", [dy, weight], { ...attributes, inputShape: [...inputShape] }, [
    { dtype: "float32", shape: inputShape },
  ]).outputs[0]!;
}

/** The adjoint of {@link conv} in its weight. */
export function convWeightGradient(
  dy: Value,
  x: Value,
  attributes: ConvolutionAttributes,
  weightShape: readonly number[],
): Value {
  return dy.graph.node("ConvWeightGradient", [dy, x], { ...attributes, weightShape: [...weightShape] }, [
    { dtype: "float32", shape: weightShape },
  ]).outputs[0]!;
}

/** Repeats every pixel `scale` × `scale` times. */
export function upsampleNearest(x: Value, scale = 2): Value {
  requireFloat32("UpsampleNearest", { x });
  if (x.rank !== 4 || !Number.isInteger(scale) || scale < 1) {
    fail("UpsampleNearest", "x must be [B, C, H, W] and scale a positive integer", { x, scale });
  }
  const [batch, channels, height, width] = x.shape as [number, number, number, number];
  const shape = [batch, channels, height * scale, width * scale];
  return x.graph.node("UpsampleNearest", [x], { scale }, [{ dtype: "float32", shape }]).outputs[0]!;
}

/** Sum over every `scale` × `scale` block: the adjoint of {@link upsampleNearest}. */
export function sumPool(x: Value, scale = 2): Value {
  requireFloat32("SumPool", { x });
  const [batch, channels, height, width] = x.shape as [number, number, number, number];
  if (x.rank !== 4 || height % scale !== 0 || width % scale !== 0) {
    fail("SumPool", "x must be [B, C, H, W] with height and width multiples of scale", { x, scale });
  }
  const shape = [batch, channels, height / scale, width / scale];
  return x.graph.node("SumPool", [x], { scale }, [{ dtype: "float32", shape }]).outputs[0]!;
}

function attributesOf({ stride = 1, padding = 0 }: ConvolutionOptions): ConvolutionAttributes {
  const sides = typeof padding === "number" ? ([padding, padding, padding, padding] as const) : padding;
  return { stride, padding: sides };
}

function outputSize(
  x: readonly number[],
  weight: readonly number[],
  { stride, padding: [top, left, bottom, right] }: ConvolutionAttributes,
): [number, number] {
  return [
    Math.floor((x[2]! + top + bottom - weight[2]!) / stride) + 1,
    Math.floor((x[3]! + left + right - weight[3]!) / stride) + 1,
  ];
}
