// The ONNX form of every operator: one table.

import type { Node, Value } from "../graph/graph.js";
import type { OperatorName } from "../graph/operators.js";
import { tensor } from "../tensor/tensor.js";
import { int8Linear, int8MatMul } from "./cpu/int8-products.js";
import { fasterProduct } from "./cpu/linear-products.js";
import { lowerAttention, lowerAttentionGradient } from "./lower-attention.js";
import { lowerConv, lowerConvInputGradient, lowerConvWeightGradient } from "./lower-convolution.js";
import { lowerRotary } from "./lower-rotary.js";
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
  waitFor,
} from "./lowering-context.js";
import { elementType } from "./model-builder.js";

type LoweringTable = { [Op in OperatorName]: Lowering<Op> };

const MICROSOFT = "com.microsoft";
/** (1 + tanh u) / 2 = sigmoid(2u): twice √(2/π). */
const GELU_TANH = 2 * Math.sqrt(2 / Math.PI);

/** One standard ONNX node of the same name. */
const direct =
  (opType: string): Lowering<OperatorName> =>
  (node, context) =>
    produce(context, node.outputs[0]!, opType, names(node, context));

export const LOWERINGS: LoweringTable = {
  Add: direct("Add"),
  Sub: direct("Sub"),
  Mul: direct("Mul"),
  Div: direct("Div"),
  Neg: direct("Neg"),
  Exp: direct("Exp"),
  Log: direct("Log"),
  Sqrt: direct("Sqrt"),
  Sin: direct("Sin"),
  Cos: direct("Cos"),
  Sigmoid: direct("Sigmoid"),
  Tanh: direct("Tanh"),
  Relu: direct("Relu"),
  Erf: direct("Erf"),
  Greater: direct("Greater"),
  Where: direct("Where"),
  Gather: (node, context) => {
    const [table, indices] = node.inputs as [Value, Value];
    const half = halfTable(context, table);
    if (half === undefined) return direct("Gather")(node as Node, context);
    // Only the rows that are taken are widened.
    const rows = emit(context, "Gather", [half, context.name(indices)]);
    produce(context, node.outputs[0]!, "Cast", [rows], { to: { int: elementType("float32") } });
  },
  Silu: (node, context) => scaledSigmoid(node, context, 1),
  QuickGelu: (node, context) => scaledSigmoid(node, context, 1.702),
  Gelu: (node, context) => {
    if (context.target === "cpu") produce(context, node.outputs[0]!, "Gelu", names(node, context), {}, MICROSOFT);
    else produce(context, node.outputs[0]!, "Gelu", names(node, context));
  },
  GeluTanh: (node, context) => lowerGeluTanh(node, context),
  Cast: (node, context) =>
    produce(context, node.outputs[0]!, "Cast", names(node, context), { to: { int: elementType(node.attributes.to) } }),
  StopGradient: (node, context) => context.named(node.outputs[0]!, context.name(node.inputs[0]!)),
  After: (node, context) => {
    const [x, ...given] = node.inputs as [Value, ...Value[]];
    const output = context.nameFor(node.outputs[0]!);
    waitFor(context, { name: context.name(x), dtype: x.dtype, shape: x.shape }, given.map(context.name), output);
    context.named(node.outputs[0]!, output);
  },

  ReduceSum: (node, context) => lowerReduction("ReduceSum", node, context),
  ReduceMean: (node, context) => lowerReduction("ReduceMean", node, context),
  Softmax: (node, context) =>
    produce(context, node.outputs[0]!, "Softmax", names(node, context), { axis: { int: -1 } }),

  Reshape: (node, context) => {
    const [x] = node.inputs as [Value];
    produceReshaped(context, node.outputs[0]!, context.name(x), x.shape);
  },
  Expand: (node, context) => {
    const shape = context.builder.shape(node.attributes.shape);
    produce(context, node.outputs[0]!, "Expand", [context.name(node.inputs[0]!), shape]);
  },
  Transpose: (node, context) =>
    produce(context, node.outputs[0]!, "Transpose", names(node, context), {
      perm: { ints: node.attributes.permutation },
    }),
  Concat: (node, context) =>
    produce(context, node.outputs[0]!, "Concat", names(node, context), { axis: { int: node.attributes.axis } }),
  Slice: (node, context) => {
    const { axis, start, end } = node.attributes;
    withInts(node, context, "Slice", [start], [end], [axis]);
  },
  Pad: (node, context) => {
    const { axis, before, after } = node.attributes;
    const rank = node.inputs[0]!.rank;
    const pads = new Array<number>(2 * rank).fill(0);
    pads[axis] = before;
    pads[rank + axis] = after;
    withInts(node, context, "Pad", pads);
  },
  ScatterSum: (node, context) => {
    const [updates, indices] = node.inputs as [Value, Value];
    const { builder } = context;
    const empty = emit(context, "Expand", [builder.scalar(0), builder.shape(node.outputs[0]!.shape)]);
    const index = reshaped(context, indices, [indices.size, 1]);
    const index64 =
      indices.dtype === "int64" ? index : emit(context, "Cast", [index], { to: { int: elementType("int64") } });
    produce(context, node.outputs[0]!, "ScatterND", [empty, index64, context.name(updates)], {
      reduction: { string: "add" },
    });
  },

  MatMul: (node, context) => {
    const [a, b] = node.inputs as [Value, Value];
    const output = node.outputs[0]!;
    if (int8MatMul(node, context)) return;
    if (!node.attributes.transposeA && fasterProduct(context, [a, b], output, node.attributes)) return;
    lowerMatMul(context, [a, b], output, node.attributes);
  },
  Linear: (node, context) => {
    const [x, weight, bias] = node.inputs as [Value, Value, Value | undefined];
    const output = node.outputs[0]!;
    if (int8Linear(node, context)) return;
    if (fasterProduct(context, [x, weight, bias], output, { transposeB: true })) return;
    if (!bias && x.rank > 1) {
      lowerMatMul(context, [x, weight], output, { transposeA: false, transposeB: true });
      return;
    }
    const inputs = [reshaped(context, x, [x.size / weight.shape[1]!, weight.shape[1]!]), context.name(weight)];
    if (bias) inputs.push(context.name(bias));
    const rows = emit(context, "Gemm", inputs, { transB: { int: 1 } });
    produceReshaped(context, output, rows, [output.size / weight.shape[0]!, weight.shape[0]!]);
  },
  Geglu: (node, context) => {
    const [a, b] = names(node, context) as [string, string];
    const gate = emit(context, "Gelu", [b], {}, context.target === "cpu" ? MICROSOFT : "");
    produce(context, node.outputs[0]!, "Mul", [a, gate]);
  },

  Swiglu: (node, context) => {
    const [a, b] = names(node, context) as [string, string];
    produce(context, node.outputs[0]!, "Mul", [emitScaledSigmoid(context, a, 1), b]);
  },

  Conv: lowerConv,
  ConvInputGradient: lowerConvInputGradient,
  ConvWeightGradient: lowerConvWeightGradient,
  UpsampleNearest: (node, context) => {
    const { scale } = node.attributes;
    const scales = context.builder.constant(tensor(Float32Array.of(1, 1, scale, scale), [4]));
    produce(context, node.outputs[0]!, "Resize", [context.name(node.inputs[0]!), "", scales], {
      mode: { string: "nearest" },
      nearest_mode: { string: "floor" },
      coordinate_transformation_mode: { string: "asymmetric" },
    });
  },
  SumPool: (node, context) => {
    const { scale } = node.attributes;
    const square = { ints: [scale, scale] };
    const mean = emit(context, "AveragePool", names(node, context), { kernel_shape: square, strides: square });
    produce(context, node.outputs[0]!, "Mul", [mean, context.builder.scalar(scale * scale)]);
  },

  GroupNorm: (node, context) => lowerGroupNorm(node, context),
  LayerNorm: (node, context) => {
    const [x, weight, bias] = node.inputs as [Value, Value | undefined, Value | undefined];
    const { epsilon } = node.attributes;
    if (context.target === "cpu") {
      const outputs = outputNames(node, context);
      const attributes = { axis: { int: -1 }, epsilon: { float: epsilon } };
      const inputs = [context.name(x), weight ? context.name(weight) : ones(context, x.shape.at(-1)!)];
      if (bias) inputs.push(context.name(bias));
      context.builder.emit("LayerNormalization", inputs, { attributes, outputs });
      return;
    }
    const normalized = standardize(context, context.name(x), epsilon, node.outputs[1]!, node.outputs[2]!);
    const scaled = weight ? emit(context, "Mul", [normalized, context.name(weight)]) : normalized;
    if (bias) produce(context, node.outputs[0]!, "Add", [scaled, context.name(bias)]);
    else produce(context, node.outputs[0]!, "Identity", [scaled]);
  },
  RmsNorm: (node, context) => {
    const [x, weight] = node.inputs as [Value, Value | undefined];
    const { epsilon } = node.attributes;
    const [y, reciprocalRms] = node.outputs as [Value, Value];
    const { builder } = context;
    if (context.target === "cpu") {
      const outputs = outputNames(node, context);
      const attributes = { axis: { int: -1 }, epsilon: { float: epsilon } };
      const scale = weight ? context.name(weight) : ones(context, x.shape.at(-1)!);
      builder.emit("SimplifiedLayerNormalization", [context.name(x), scale], { attributes, outputs });
      return;
    }
    const name = context.name(x);
    const square = emit(context, "Mul", [name, name]);
    const mean = emit(context, "ReduceMean", [square, builder.ints([-1])], { keepdims: { int: 1 } });
    const rms = emit(context, "Sqrt", [emit(context, "Add", [mean, builder.scalar(epsilon)])]);
    produce(context, reciprocalRms, "Reciprocal", [rms]);
    const factors = [name, context.name(reciprocalRms)];
    if (!weight) produce(context, y, "Mul", factors);
    else produce(context, y, "Mul", [emit(context, "Mul", factors), context.name(weight)]);
  },

  Attention: lowerAttention,
  AttentionGradient: lowerAttentionGradient,
  Rotary: lowerRotary,
};

/** The name of a weight of half precision as its file has it; undefined of anything else. */
function halfTable({ builder }: LoweringContext, { source, shape }: Value): string | undefined {
  if (source.kind !== "file" || typeof source.range.stored !== "string") return undefined;
  return builder.file(source.name, source.range.stored, shape, source.range);
}

/** The CPU's kernels take all leading axes of a left factor as rows where the right one is a matrix; elsewhere it is reshaped. */
function lowerMatMul(
  context: LoweringContext,
  [a, b]: readonly [Value, Value],
  output: Value,
  transposed: { transposeA: boolean; transposeB: boolean },
): void {
  const right = { name: context.name(b), rank: b.rank };
  if (context.target === "portable" && a.rank > 2 && b.rank === 2 && !transposed.transposeA) {
    const [rows, columns] = [output.size / output.shape.at(-1)!, output.shape.at(-1)!];
    const left = { name: reshaped(context, a, [rows, a.shape.at(-1)!]), rank: 2 };
    produceReshaped(context, output, emitMatMul(context, left, right, transposed), [rows, columns]);
    return;
  }
  const name = context.nameFor(output);
  emitMatMul(context, { name: context.name(a), rank: a.rank }, right, { ...transposed, output: name });
  context.named(output, name);
}

/** Names of all outputs; those that nothing uses are left out with an empty name. */
function outputNames(node: Node, context: LoweringContext): string[] {
  const result = node.outputs.map((output, i) => {
    if (i > 0 && !context.isUsed(output)) return "";
    const name = context.nameFor(output);
    context.named(output, name);
    return name;
  });
  while (result.at(-1) === "") result.pop();
  return result;
}

function withInts(node: Node, context: LoweringContext, opType: string, ...lists: (readonly number[])[]): void {
  const extra = lists.map((list) => context.builder.ints(list));
  produce(context, node.outputs[0]!, opType, [context.name(node.inputs[0]!), ...extra]);
}

function lowerReduction(opType: string, node: Node<"ReduceSum"> | Node<"ReduceMean">, context: LoweringContext): void {
  const { axes, keepDims } = node.attributes;
  const inputs = [context.name(node.inputs[0]!), context.builder.ints(axes)];
  produce(context, node.outputs[0]!, opType, inputs, { keepdims: { int: +keepDims } });
}

function scaledSigmoid(node: Node, context: LoweringContext, alpha: number): void {
  const [output] = node.outputs as [Value];
  const name = context.nameFor(output);
  emitScaledSigmoid(context, context.name(node.inputs[0]!), alpha, name);
  context.named(output, name);
}

/** x · sigmoid(alpha·x): one fused kernel on the CPU. */
function emitScaledSigmoid({ builder, target }: LoweringContext, x: string, alpha: number, output?: string): string {
  const outputs = output === undefined ? undefined : [output];
  if (target === "cpu") {
    const attributes = { alpha: { float: alpha } };
    return builder.emit("QuickGelu", [x], { attributes, outputs, domain: MICROSOFT })[0]!;
  }
  const scaled = alpha === 1 ? x : builder.emit("Mul", [x, builder.scalar(alpha)])[0]!;
  return builder.emit("Mul", [x, builder.emit("Sigmoid", [scaled])[0]!], { outputs })[0]!;
}

/** x · sigmoid(x (c + k x²)), which is that formula: kernels of GPUs need not have ONNX's attribute for it. */
function lowerGeluTanh(node: Node<"GeluTanh">, context: LoweringContext): void {
  const x = context.name(node.inputs[0]!);
  const [output] = node.outputs as [Value];
  const { builder } = context;
  if (context.target === "cpu") {
    produce(context, output, "Gelu", [x], { approximate: { string: "tanh" } });
    return;
  }
  const cubic = emit(context, "Mul", [emit(context, "Mul", [x, x]), builder.scalar(0.044715 * GELU_TANH)]);
  const inner = emit(context, "Mul", [x, emit(context, "Add", [cubic, builder.scalar(GELU_TANH)])]);
  produce(context, output, "Mul", [x, emit(context, "Sigmoid", [inner])]);
}

/** A scale that changes nothing, for kernels that want one. */
const ones = ({ builder }: LoweringContext, size: number): string =>
  builder.constant(tensor(new Float32Array(size).fill(1), [size]), `ones ${size}`);

/** On the CPU: LayerNormalization over `[B, G, C/G·HW]` with unit scale, then scale and shift per channel. */
function lowerGroupNorm(node: Node<"GroupNorm">, context: LoweringContext): void {
  const [x, weight, bias] = node.inputs as [Value, Value, Value];
  const { groups, epsilon } = node.attributes;
  const [output, mean, reciprocalStd] = node.outputs as [Value, Value, Value];
  const batch = x.shape[0]!;
  const channels = x.shape[1]!;
  const perGroup = x.size / (batch * groups);
  const grouped = reshaped(context, x, [batch, groups, perGroup]);
  let normalized: string;
  if (context.target === "cpu") {
    const [, ...statistics] = outputNames(node, context);
    normalized = context.builder.emit("LayerNormalization", [grouped, ones(context, perGroup)], {
      attributes: { axis: { int: -1 }, epsilon: { float: epsilon } },
      outputs: [context.builder.fresh("group_normalized"), ...statistics],
    })[0]!;
  } else {
    normalized = standardize(context, grouped, epsilon, mean, reciprocalStd);
  }
  const perChannel = reshapedName(context, normalized, [batch, channels, perGroup / (channels / groups)]);
  const scaled = emit(context, "Mul", [perChannel, reshaped(context, weight, [channels, 1])]);
  const shifted = emit(context, "Add", [scaled, reshaped(context, bias, [channels, 1])]);
  produceReshaped(context, output, shifted);
}

/** (x − mean) · rstd over the last axis from plain operators; the statistics are recorded as the given values. */
function standardize(context: LoweringContext, x: string, epsilon: number, mean: Value, reciprocalStd: Value): string {
  const { builder } = context;
  const axis = builder.ints([-1]);
  const keep = { keepdims: { int: 1 } };
  produce(context, mean, "ReduceMean", [x, axis], keep);
  const centred = emit(context, "Sub", [x, context.name(mean)]);
  const variance = emit(context, "ReduceMean", [emit(context, "Mul", [centred, centred]), axis], keep);
  const std = emit(context, "Sqrt", [emit(context, "Add", [variance, builder.scalar(epsilon)])]);
  produce(context, reciprocalStd, "Reciprocal", [std]);
  return emit(context, "Mul", [centred, context.name(reciprocalStd)]);
}
