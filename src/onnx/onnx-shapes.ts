// Static shapes of every name in a model that this library wrote: ONNX shape inference for the operators that the
// lowerings emit, and no others.

import type { ModelProto, NodeProto } from "onnx-buf";
import { ShapeError } from "../errors.js";
import { broadcastShapes } from "../graph/shapes.js";
import { sizeOf } from "../tensor/tensor.js";

/** Shape and element size of one name. */
export interface TensorSize {
  readonly shape: readonly number[];
  /** Bytes per element. */
  readonly itemBytes: number;
}

interface Known {
  node: NodeProto;
  /** Shapes of the inputs; an absent optional input is undefined. */
  x: readonly (readonly number[])[];
  /** Elements of an int64 or float32 constant that the node takes as that input. */
  constant: (input: number) => number[];
}

type Infer = (known: Known) => readonly (readonly number[])[];

const ITEM_BYTES: Record<number, number> = { 1: 4, 6: 4, 7: 8, 9: 1, 10: 2 };
const FLOAT = 1;
const INT64 = 7;
const BOOL = 9;
/** Bytes of a constant that may be a shape, axes or scales. */
const LARGEST_PARAMETER = 256;

const same: Infer = ({ x }) => [x[0]!];
const broadcast: Infer = ({ x }) => [x.reduce((a, b) => broadcastShapes(a, b)!)];
const reduce: Infer = ({ node, x, constant }) => {
  const axes = new Set(constant(1).map((axis) => (axis < 0 ? axis + x[0]!.length : axis)));
  const keep = intAttribute(node, "keepdims", 1) === 1;
  return [x[0]!.flatMap((size, axis) => (axes.has(axis) ? (keep ? [1] : []) : [size]))];
};
const product: Infer = ({ node, x }) => {
  const [a, b] = [x[0]!.slice(), x[1]!.slice()];
  // The first axis becomes the rows, the axes after it the batch.
  if (intAttribute(node, "transBatchB", 0)) b.splice(0, b.length - 1, ...b.slice(1, -1), b[0]!);
  if (intAttribute(node, "transA", 0)) a.splice(-2, 2, a.at(-1)!, a.at(-2)!);
  if (intAttribute(node, "transB", 0)) b.splice(-2, 2, b.at(-1)!, b.at(-2)!);
  return [[...broadcastShapes(a.slice(0, -2), b.slice(0, -2))!, a.at(-2)!, b.at(-1)!]];
};
const statistics: Infer = ({ node, x }) => {
  const mean = [...x[0]!.slice(0, -1), 1];
  return node.output.map((_, i) => (i === 0 ? x[0]! : mean));
};

const INFER: Record<string, Infer> = {
  ...Object.fromEntries(
    ["Add", "Sub", "Mul", "Div", "Greater", "Where", "Min", "Max"].map((name) => [name, broadcast]),
  ),
  ...Object.fromEntries(
    "Neg Exp Log Sqrt Sin Cos Sigmoid Tanh Relu Erf Reciprocal QuickGelu Gelu Cast Identity Softmax ScatterND MultiHeadAttention RotaryEmbedding"
      .split(" ")
      .map((name) => [name, same]),
  ),
  ReduceSum: reduce,
  ReduceMean: reduce,
  MatMul: product,
  FusedMatMul: product,
  Gemm: product,
  LayerNormalization: statistics,
  SimplifiedLayerNormalization: statistics,
  Gather: ({ x }) => [[...x[1]!, ...x[0]!.slice(1)]],
  Reshape: ({ constant }) => [constant(1)],
  Expand: ({ x, constant }) => [broadcastShapes(x[0]!, constant(1))!],
  Transpose: ({ node, x }) => [intsAttribute(node, "perm").map((axis) => x[0]![axis]!)],
  Concat: ({ node, x }) => {
    const axis = intAttribute(node, "axis", 0);
    const at = axis < 0 ? axis + x[0]!.length : axis;
    return [
      x[0]!.with(
        at,
        x.reduce((sum, shape) => sum + shape[at]!, 0),
      ),
    ];
  },
  Slice: ({ node, x, constant }) => {
    const [starts, ends] = [constant(1), constant(2)];
    const steps = node.input.length > 4 ? constant(4) : starts.map(() => 1);
    const shape = x[0]!.slice();
    constant(3).forEach((axis, i) => {
      const at = axis < 0 ? axis + shape.length : axis;
      const size = shape[at]!;
      const lowest = steps[i]! < 0 ? -1 : 0;
      const [start, end] = [starts[i]!, ends[i]!].map((bound) =>
        Math.min(Math.max(bound < 0 ? bound + size : bound, lowest), size),
      ) as [number, number];
      shape[at] = Math.ceil((end - start) / steps[i]!);
    });
    return [shape];
  },
  DepthToSpace: ({ node, x }) => {
    const side = intAttribute(node, "blocksize", 1);
    const [batch, channels, height, width] = x[0]! as [number, number, number, number];
    return [[batch, channels / side ** 2, height * side, width * side]];
  },
  Split: ({ node, x, constant }) => {
    const at = intAttribute(node, "axis", 0);
    const axis = at < 0 ? at + x[0]!.length : at;
    const sizes = node.input.length > 1 ? constant(1) : undefined;
    return node.output.map((_, i) => x[0]!.with(axis, sizes?.[i] ?? x[0]![axis]! / node.output.length));
  },
  Pad: ({ x, constant }) => {
    const pads = constant(1);
    return [x[0]!.map((size, axis) => size + pads[axis]! + pads[axis + x[0]!.length]!)];
  },
  Shape: ({ node, x }) => [
    [x[0]!.slice(intAttribute(node, "start", 0), intAttribute(node, "end", x[0]!.length)).length],
  ],
  Size: () => [[]],
  Resize: ({ x, constant }) => [x[0]!.map((size, axis) => Math.floor(size * constant(2)[axis]!))],
  AveragePool: (known) => [pooled(known, known.x[0]![1]!, intsAttribute(known.node, "kernel_shape"))],
  Conv: (known) => [pooled(known, known.x[1]![0]!, known.x[1]!.slice(2))],
  ConvTranspose: ({ node, x }) => {
    const [stride, pads] = [intsAttribute(node, "strides"), intsAttribute(node, "pads")];
    const extra = intsAttribute(node, "output_padding");
    const size = (i: number) =>
      (x[0]![2 + i]! - 1) * stride[i]! + x[1]![2 + i]! + (extra[i] ?? 0) - pads[i]! - pads[i + 2]!;
    return [[x[0]![0]!, x[1]![1]! * intAttribute(node, "group", 1), size(0), size(1)]];
  },
};

/**
 * The shape of every value in a model.
 *
 * @throws {ShapeError} At an operator that no lowering emitted when this was written; the message names it.
 */
export function tensorSizes(model: ModelProto): Map<string, TensorSize> {
  const { graph } = model;
  const sizes = new Map<string, TensorSize>();
  const constants = new Map<string, number[]>();
  for (const { name, dims, dataType, rawData } of graph!.initializer) {
    sizes.set(name, { shape: dims.map(Number), itemBytes: ITEM_BYTES[dataType]! });
    const { buffer } = rawData.length <= LARGEST_PARAMETER ? rawData.slice() : new Uint8Array();
    if (dataType === INT64) constants.set(name, Array.from(new BigInt64Array(buffer), Number));
    if (dataType === FLOAT) constants.set(name, Array.from(new Float32Array(buffer)));
  }
  for (const { name, type } of [...graph!.input, ...graph!.output, ...graph!.valueInfo]) {
    if (type?.value.case !== "tensorType") continue;
    const { elemType, shape } = type.value.value;
    const dimensions = shape!.dim.map(({ value }) => (value.case === "dimValue" ? Number(value.value) : 0));
    sizes.set(name, { shape: dimensions, itemBytes: ITEM_BYTES[elemType]! });
  }
  for (const node of graph!.node) {
    if (node.output.every((name) => sizes.has(name))) continue;
    const infer = INFER[node.opType];
    if (!infer) throw new ShapeError(`tensorSizes: no shape rule for the operator ${node.opType}.`);
    const x = node.input.map((name) => sizes.get(name)?.shape as readonly number[]);
    const shapes = infer({ node, x, constant: (input) => constants.get(node.input[input]!)! });
    const value = constantResult(node, constants);
    if (value) constants.set(node.output[0]!, value);
    node.output.forEach((name, i) => {
      if (name !== "" && !sizes.has(name)) sizes.set(name, { shape: shapes[i]!, itemBytes: itemBytes(node, sizes) });
    });
  }
  return sizes;
}

/** Elements of a shape that nodes make from constants, in the ways of `shape` and `shapeAfter` of the model builder. */
function constantResult(node: NodeProto, constants: ReadonlyMap<string, number[]>): number[] | undefined {
  const parts = node.input.map((name) => constants.get(name));
  if (node.opType === "Shape" && intAttribute(node, "end", -1) === 0) return [];
  if (node.opType === "Concat") return parts.every((part) => part !== undefined) ? parts.flat() : undefined;
  if (node.opType === "Identity" || node.opType === "Reshape") return parts[0];
  return node.opType === "Min" ? parts.at(-1) : undefined;
}

/** Bytes of a tensor. */
export const bytesOf = ({ shape, itemBytes }: TensorSize): number => sizeOf(shape) * itemBytes;

function itemBytes(node: NodeProto, sizes: ReadonlyMap<string, TensorSize>): number {
  if (node.opType === "Greater") return ITEM_BYTES[BOOL]!;
  if (node.opType === "Shape" || node.opType === "Size") return ITEM_BYTES[INT64]!;
  if (node.opType === "Cast") return ITEM_BYTES[intAttribute(node, "to", 1)]!;
  return sizes.get(node.input[node.opType === "Where" ? 1 : 0]!)!.itemBytes;
}

function pooled({ node, x }: Known, channels: number, kernel: readonly number[]): number[] {
  const strides = intsAttribute(node, "strides");
  const pads = intsAttribute(node, "pads");
  const size = (i: number) =>
    Math.floor((x[0]![2 + i]! + (pads[i] ?? 0) + (pads[i + 2] ?? 0) - kernel[i]!) / strides[i]!) + 1;
  return [x[0]![0]!, channels, size(0), size(1)];
}

function intAttribute(node: NodeProto, name: string, otherwise: number): number {
  const found = node.attribute.find((attribute) => attribute.name === name);
  return found ? Number(found.i) : otherwise;
}

function intsAttribute(node: NodeProto, name: string): number[] {
  return (node.attribute.find((attribute) => attribute.name === name)?.ints ?? []).map(Number);
}
