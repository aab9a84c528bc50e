// What a lowering is given, and the steps that several lowerings share.

import {
  canTakeRows,
  type FileRange,
  type Int8Matrices,
  NF4_BLOCK,
  NF4_LEVELS,
  type Nf4Blocks,
  type Node,
  rangeOfRows,
  type Value,
} from "../graph/graph.js";
import type { OperatorName } from "../graph/operators.js";
import { sameShape } from "../graph/shapes.js";
import { type DType, sizeOf, tensor } from "../tensor/tensor.js";
import { elementType, type OnnxAttribute, type OnnxModelBuilder } from "./model-builder.js";

/**
 * Which set of kernels a model is written for: `cpu` uses ONNX Runtime's fused CPU operators (also in WebAssembly);
 * `portable` only standard operators, which GPU providers run without falling back.
 */
export type Target = "cpu" | "portable";

export interface LoweringContext {
  readonly target: Target;
  readonly builder: OnnxModelBuilder;
  /** Whether anything consumes the value. */
  isUsed(value: Value): boolean;
  /** Whether the value is an output of the graph, and so must be written under its name. */
  isOutput(value: Value): boolean;
  /** The ONNX name that a computed value must get. */
  nameFor(value: Value): string;
  /** The ONNX name of an existing value. */
  name(value: Value): string;
  /** Records that a value lies under a name. */
  named(value: Value, name: string): void;
  /** What `make` made the first time in this phase of the graph, such as its gradients. */
  oncePerPhase(key: string, make: () => string): string;
}

/** Writes one IR node as ONNX nodes. */
export type Lowering<Op extends OperatorName> = (node: Node<Op>, context: LoweringContext) => void;

/** Emits the node that makes `value`, under its name. */
export function produce(
  context: LoweringContext,
  value: Value,
  opType: string,
  inputs: readonly string[],
  attributes: Record<string, OnnxAttribute> = {},
  domain = "",
): void {
  const name = context.nameFor(value);
  context.builder.emit(opType, inputs, { attributes, outputs: [name], domain });
  context.named(value, name);
}

/** Names of the inputs; an absent trailing input is left out. */
export function names(node: Node, context: LoweringContext): string[] {
  const result = node.inputs.map((input) => (input ? context.name(input) : ""));
  while (result.at(-1) === "") result.pop();
  return result;
}

/** The name of `value` under another shape; weights and constants are aliased, anything else passes through Reshape. */
export function reshaped(context: LoweringContext, value: Value, shape: readonly number[]): string {
  if (sameShape(value.shape, shape)) return context.name(value);
  const { source } = value;
  if (source.kind === "constant") return context.builder.constant(source.tensor.reshape(shape));
  if (source.kind === "file") return rowsOf(context, value, 0, value.shape[0]!, shape);
  return context.builder.reshape(context.name(value), shape, value.shape);
}

/** A computed tensor under another shape; `from` is its own, where it is known. */
export function reshapedName(
  context: LoweringContext,
  name: string,
  shape: readonly number[],
  from?: readonly number[],
): string {
  return context.builder.reshape(name, shape, from);
}

/** Makes `value`, of another shape than the tensor that holds it. */
export function produceReshaped(context: LoweringContext, value: Value, name: string, from?: readonly number[]): void {
  if (context.isOutput(value)) produce(context, value, "Reshape", [name, context.builder.shape(value.shape)]);
  else context.named(value, context.builder.reshape(name, value.shape, from));
}

/**
 * The rows from `start` to `end` of a value under another shape. A weight in a file is referenced there, and one that is
 * embedded is embedded in such parts; values that a run computes are cut.
 */
export function rowsOf(
  context: LoweringContext,
  value: Value,
  start: number,
  end: number,
  shape: readonly number[],
): string {
  const { source } = value;
  const { builder } = context;
  const rows = value.shape[0]!;
  if (source.kind === "file" && isPlainPart(source.range, rows, start, end)) {
    const range = rangeOfRows(source.range, rows, start, end);
    return fileWeight(context, `${source.name}:${start}-${end}:${shape.join(",")}`, shape, range);
  }
  if (source.kind === "constant") {
    const rowSize = value.size / rows;
    const part = source.tensor.data.subarray(start * rowSize, end * rowSize);
    return builder.constant(tensor(part, shape, value.dtype), `${value.id}:${start}-${end}:${shape.join(",")}`);
  }
  const name = context.name(value);
  const isAll = start === 0 && end === rows;
  const part = isAll ? name : cutAxis(context, name, 0, start, end);
  return reshapedName(context, part, shape);
}

/** Whether some rows of a weight in a file can be taken out of it under any shape; matrices of integers have their own layout. */
const isPlainPart = (range: FileRange, rows: number, start: number, end: number): boolean =>
  !(typeof range.stored === "object" && range.stored.type === "int8") && canTakeRows(range, rows, start, end);

/**
 * A float32 weight in a file.
 *
 * One of half precision is widened where it is used, once in each pass and once for the gradients, so that no float32 copy
 * outlives its use: shared by the passes, copies of whole levels of a network were alive at a time.
 */
export function fileWeight(context: LoweringContext, name: string, shape: readonly number[], range: FileRange): string {
  const { builder } = context;
  const { stored } = range;
  if (stored === undefined) return builder.file(name, "float32", shape, range);
  if (typeof stored === "object") {
    return context.oncePerPhase(name, () =>
      stored.type === "int8"
        ? fromInt8(context, name, shape, range, stored)
        : fromNf4(context, name, shape, range, stored),
    );
  }
  // One tensor for all shapes under which it is used, where widening gives it one.
  const own = context.target === "cpu" ? [sizeOf(shape)] : shape;
  return context.oncePerPhase(name, () => widened(context, builder.file(name, stored, own, range), shape, "float32"));
}

/** A weight of 8-bit integers, for what takes no integers: out of its forward matrix. */
function fromInt8(
  context: LoweringContext,
  name: string,
  shape: readonly number[],
  range: FileRange,
  { blocks, scale: scales, gradientScale }: Int8Matrices,
): string {
  const { builder } = context;
  const [out, channels] = [scales.length / 4, gradientScale.length / 4];
  const terms = range.length / out;
  const integers = builder.file(`${name}:blocks`, "int8", [blocks, terms, out / blocks], range);
  const scale = builder.file(`${name}:scales`, "float32", [blocks, 1, out / blocks], scales);
  const scaled = emit(context, "Mul", [widened(context, integers, [blocks, terms, out / blocks], "float32"), scale]);
  const byRow = emit(context, "Transpose", [scaled], { perm: { ints: [0, 2, 1] } });
  if (terms === channels) return reshapedName(context, byRow, shape);
  const byTap = reshapedName(context, byRow, [out, terms / channels, channels]);
  return reshapedName(context, emit(context, "Transpose", [byTap], { perm: { ints: [0, 2, 1] } }), shape);
}

/** Both levels that a byte of codes stands for. */
const NF4_PAIRS = tensor(
  Float32Array.from({ length: 512 }, (_, i) => NF4_LEVELS[i % 2 === 0 ? i >> 5 : (i >> 1) & 15]!),
  [256, 2],
);

/** A weight in 4 bits: a byte at a time looked up in a table, then scaled block by block. */
function fromNf4(
  context: LoweringContext,
  name: string,
  shape: readonly number[],
  range: FileRange,
  { absmax }: Nf4Blocks,
): string {
  const { builder } = context;
  const blocks = absmax.length / 4;
  const codes = builder.file(`${name}:codes`, "uint8", [range.length], range);
  const indices = widened(context, codes, [range.length], "int32");
  const pairs = emit(context, "Gather", [builder.constant(NF4_PAIRS, "nf4"), indices]);
  const scale = builder.file(`${name}:absmax`, "float32", [blocks, 1], absmax);
  const scaled = emit(context, "Mul", [reshapedName(context, pairs, [blocks, NF4_BLOCK]), scale]);
  return reshapedName(context, scaled, shape);
}

/** A tensor in a file, of a wider type. */
function widened(context: LoweringContext, name: string, shape: readonly number[], to: DType): string {
  // Else the shape were known: see hidesShapes of the builder.
  const hidden = context.target === "cpu" ? context.builder.reshape(name, shape) : name;
  return emit(context, "Cast", [hidden], { to: { int: elementType(to) } });
}

/** What lies from `start` to `end` along an axis of a computed tensor: a copy. */
export function cutAxis(context: LoweringContext, name: string, axis: number, start: number, end: number): string {
  return emit(context, "Slice", [name, ...[start, end, axis].map((value) => context.builder.ints([value]))]);
}

/** Emits one node with one fresh output. */
export function emit(
  context: LoweringContext,
  opType: string,
  inputs: readonly string[],
  attributes: Record<string, OnnxAttribute> = {},
  domain = "",
): string {
  return context.builder.emit(opType, inputs, { attributes, domain })[0]!;
}

/**
 * A tensor itself, available only once all of `given` are.
 *
 * A Reshape to the same shape, which shares its input's memory; its shape waits for the given tensors. The result's shape is
 * recorded, so that all stays static where shapes are not hidden.
 */
export function waitFor(
  { builder }: LoweringContext,
  tensor: { name: string; dtype: DType; shape: readonly number[] },
  given: readonly string[],
  output = builder.fresh("late"),
): string {
  builder.emit("Reshape", [tensor.name, builder.shapeAfter(tensor.shape, given)], { outputs: [output] });
  builder.shaped(output, tensor.dtype, tensor.shape);
  return output;
}

/** op(a) · op(b) over the last two axes; FusedMatMul on the CPU, Transpose and MatMul elsewhere. */
export function emitMatMul(
  context: LoweringContext,
  a: { name: string; rank: number },
  b: { name: string; rank: number },
  options: { transposeA?: boolean; transposeB?: boolean; alpha?: number; output?: string } = {},
): string {
  const { transposeA = false, transposeB = false, alpha = 1 } = options;
  const { builder } = context;
  const outputs = options.output === undefined ? undefined : [options.output];
  if (!transposeA && !transposeB && alpha === 1) return builder.emit("MatMul", [a.name, b.name], { outputs })[0]!;
  const attributes = { transA: { int: +transposeA }, transB: { int: +transposeB }, alpha: { float: alpha } };
  if (context.target === "cpu") {
    return builder.emit("FusedMatMul", [a.name, b.name], { attributes, outputs, domain: "com.microsoft" })[0]!;
  }
  if (a.rank === 2 && b.rank === 2 && (transposeA || transposeB)) {
    return builder.emit("Gemm", [a.name, b.name], { attributes, outputs })[0]!;
  }
  const left = transposeA ? swapLastAxes(context, a) : a.name;
  const right = transposeB ? swapLastAxes(context, b) : b.name;
  if (alpha === 1) return builder.emit("MatMul", [left, right], { outputs })[0]!;
  const product = emit(context, "MatMul", [left, right]);
  return builder.emit("Mul", [product, builder.scalar(alpha)], { outputs })[0]!;
}

function swapLastAxes(context: LoweringContext, value: { name: string; rank: number }): string {
  const axes = Array.from({ length: value.rank }, (_, i) => i);
  axes.splice(value.rank - 2, 2, value.rank - 1, value.rank - 2);
  return emit(context, "Transpose", [value.name], { perm: { ints: axes } });
}
