// ONNX forms of convolutions and of their gradients.

import type { Node, Value } from "../graph/graph.js";
import type { ConvolutionAttributes } from "../graph/operators.js";
import { sizeOf, tensor } from "../tensor/tensor.js";
import { isFlippingWorthwhile } from "./cpu/convolution-costs.js";
import { int8Conv, int8ConvInputGradient } from "./cpu/int8-products.js";
import { winogradConv, winogradConvPair, winogradInputGradient } from "./cpu/winograd.js";
import {
  emit,
  emitMatMul,
  type Lowering,
  type LoweringContext,
  names,
  produce,
  produceReshaped,
  reshaped,
  reshapedName,
} from "./lowering-context.js";

function window({ stride, padding }: ConvolutionAttributes) {
  return { strides: { ints: [stride, stride] }, pads: { ints: padding } };
}

/** Winograd's algorithm where that is faster, else one node. */
export const lowerConv: Lowering<"Conv"> = (node, context) => {
  if (int8Conv(node, context)) return;
  const [output] = node.outputs as [Value];
  const bias = node.inputs[2];
  const name = context.nameFor(output);
  const fast = winogradConv(node, context, bias ? undefined : name);
  if (fast === undefined) produce(context, output, "Conv", names(node, context), window(node.attributes));
  else if (bias) produce(context, output, "Add", [fast, reshaped(context, bias, [bias.size, 1, 1])]);
  else context.named(output, name);
};

/** Two convolutions with the same weight and bias: one batch, split again. */
export function lowerConvPair(nodes: readonly [Node<"Conv">, Node<"Conv">], context: LoweringContext): void {
  const bias = nodes[0].inputs[2];
  const both = winogradConvPair(nodes, context);
  const shifted = bias ? emit(context, "Add", [both, reshaped(context, bias, [bias.size, 1, 1])]) : both;
  const outputs = nodes.map(({ outputs: [y] }) => context.nameFor(y!));
  context.builder.emit("Split", [shifted], {
    attributes: { axis: { int: 0 }, num_outputs: { int: 2 } },
    outputs,
  });
  nodes.forEach(({ outputs: [y] }, i) => {
    context.named(y!, outputs[i]!);
  });
}

/** Winograd's algorithm where that is faster; else Conv with a flipped weight, or ConvTranspose on the stored one. */
export const lowerConvInputGradient: Lowering<"ConvInputGradient"> = (node, context) => {
  const [dy, weight] = node.inputs as [Value, Value];
  const [output] = node.outputs as [Value];
  if (int8ConvInputGradient(node, context)) return;
  if (winogradInputGradient(node, context, context.nameFor(output)) !== undefined) {
    context.named(output, context.nameFor(output));
    return;
  }
  const { stride, padding, inputShape } = node.attributes;
  const [top, left, bottom, right] = padding;
  if (context.target === "cpu" && stride === 1 && isFlippingWorthwhile(dy.shape)) {
    const [, , height, width] = weight.shape as [number, number, number, number];
    const around = [height - 1 - top, width - 1 - left, height - 1 - bottom, width - 1 - right] as const;
    const inputs = [context.name(dy), flippedWeight(context, weight)];
    produce(context, output, "Conv", inputs, window({ stride, padding: around }));
    return;
  }
  const rest = (axis: number, before: number, after: number): number =>
    inputShape[axis]! - ((dy.shape[axis]! - 1) * stride + weight.shape[axis]! - before - after);
  produce(context, output, "ConvTranspose", [context.name(dy), context.name(weight)], {
    ...window(node.attributes),
    output_padding: { ints: [rest(2, top, bottom), rest(3, left, right)] },
  });
};

/** The kernels flipped along both axes, input and output channels exchanged: `[Cin, Cout, kH, kW]`. */
function flippedWeight(context: LoweringContext, weight: Value): string {
  const { builder } = context;
  // Backwards from the last element of both spatial axes to before their first.
  const { shape } = weight;
  const bounds = [
    [-1, -1],
    [-shape[2]! - 1, -shape[3]! - 1],
    [2, 3],
    [-1, -1],
  ].map((values) => builder.ints(values));
  const flipped = emit(context, "Slice", [context.name(weight), ...bounds]);
  return emit(context, "Transpose", [flipped], { perm: { ints: [1, 0, 2, 3] } });
}

/**
 * Unfolds x into columns `[B, Cin·kH·kW, H'W']` with a grouped convolution of one-hot kernels, then dy · columnsᵀ, summed over
 * the batch: per sample where images are large; where they have fewer pixels than channels, which makes such products thin and
 * their sum expensive, in one product over all samples' pixels.
 */
export const lowerConvWeightGradient: Lowering<"ConvWeightGradient"> = (node, context) => {
  const [dy, x] = node.inputs as [Value, Value];
  const { stride, padding, weightShape } = node.attributes;
  const [out, channels, kernelHeight, kernelWidth] = weightShape as [number, number, number, number];
  const batch = dy.shape[0]!;
  const pixels = dy.shape[2]! * dy.shape[3]!;
  const taps = kernelHeight * kernelWidth;
  let columns = context.name(x);
  const isPointwise = taps === 1 && stride === 1 && padding.every((side) => side === 0);
  if (!isPointwise) {
    const oneHot = new Float32Array(sizeOf([channels, taps, taps]));
    for (let i = 0; i < channels * taps; i++) oneHot[i * taps + (i % taps)] = 1;
    const kernel = context.builder.constant(tensor(oneHot, [channels * taps, 1, kernelHeight, kernelWidth]));
    columns = emit(context, "Conv", [columns, kernel], { ...window(node.attributes), group: { int: channels } });
  }
  const rows = channels * taps;
  if (context.target === "cpu" && batch > 1 && pixels < out) {
    const left = sideBySide(context, reshaped(context, dy, [batch, out, pixels]), [batch, out, pixels]);
    const right = sideBySide(context, reshapedName(context, columns, [batch, rows, pixels]), [batch, rows, pixels]);
    produceReshaped(context, node.outputs[0]!, emitMatMul(context, left, right, { transposeB: true }));
    return;
  }
  const left = { name: reshaped(context, dy, [batch, out, pixels]), rank: 3 };
  const right = { name: reshapedName(context, columns, [batch, rows, pixels]), rank: 3 };
  const perSample = emitMatMul(context, left, right, { transposeB: true });
  const summed = emit(context, "ReduceSum", [perSample, context.builder.ints([0])], { keepdims: { int: 0 } });
  produceReshaped(context, node.outputs[0]!, summed);
};

/** `[B, R, P]` as `[R, B·P]`: the samples' columns beside each other, so that one product sums over them all. */
function sideBySide(
  context: LoweringContext,
  name: string,
  [batch, rows, pixels]: readonly [number, number, number],
): { name: string; rank: number } {
  const transposed = emit(context, "Transpose", [name], { perm: { ints: [1, 0, 2] } });
  return { name: reshapedName(context, transposed, [rows, batch * pixels]), rank: 2 };
}
