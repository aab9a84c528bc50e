// Graph, Node and Value: a static-shape intermediate representation. Building adds nodes; nothing executes here.

import { ShapeError } from "../errors.js";
import { checkShape, type DType, sizeOf, type Tensor, tensor, toBytes } from "../tensor/tensor.js";
import type { Attributes, OperatorName } from "./operators.js";

/** A narrower type that a float32 value's numbers are written as: a run widens them when they are used. */
export type StoredType = "float16" | "bfloat16";

/**
 * A weight `[out, in]` or `[out, in, kH, kW]` as two matrices of 8-bit integers, each with a float32 scale per column: one that
 * the forward product takes as it lies (the range that this belongs to), and one for the gradient of the input.
 *
 * Forward `[blocks, kH·kW·in, out / blocks]`: w[o, c, y, x] ≈ scale[o] · m[(y, x, c), o].
 * Gradient `[kH·kW·out, in]`: w[o, c, y, x] ≈ gradientScale[c] · m[(kH−1−y, kW−1−x, o), c].
 */
export interface Int8Matrices {
  type: "int8";
  /** Divides the rows of the weight: each block can be used alone. */
  blocks: number;
  /** `[out]`. */
  scale: FileRange;
  gradient: FileRange;
  /** `[in]`. */
  gradientScale: FileRange;
}

/** Values in a block of {@link Nf4Blocks}. */
export const NF4_BLOCK = 64;

/**
 * The levels of NormalFloat: quantiles of a normal distribution, scaled to reach from −1 to 1, with 0 among them.
 *
 * @see Dettmers et al. 2023, arXiv:2305.14314, appendix E
 */
export const NF4_LEVELS: readonly number[] = [
  -1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
  -0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
  0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1,
];

/**
 * A weight in 4 bits: in row-major order, two values in each byte, the first in its upper half; a value is its block's largest
 * magnitude times one of {@link NF4_LEVELS}.
 */
export interface Nf4Blocks {
  type: "nf4";
  /** float32, one per block. */
  absmax: FileRange;
}

/** A tensor that lies in a file as raw little-endian bytes, referenced in place. */
export interface FileRange {
  /** Real path of the file. */
  path: string;
  /** Absolute byte offset of the first element. */
  offset: number;
  /** Length in bytes. */
  length: number;
  /** Absent where the bytes are what the value's dtype says. */
  stored?: StoredType | Int8Matrices | Nf4Blocks;
}

/** Where the rows from `start` to `end` of a tensor with `rows` rows lie. */
export function rangeOfRows(range: FileRange, rows: number, start: number, end: number): FileRange {
  const part = (whole: FileRange): FileRange => {
    const rowBytes = whole.length / rows;
    return { ...whole, offset: whole.offset + start * rowBytes, length: (end - start) * rowBytes };
  };
  const { stored } = range;
  if (typeof stored !== "object") return part(range);
  if (stored.type === "nf4") return { ...part(range), stored: { ...stored, absmax: part(stored.absmax) } };
  const blocks = (stored.blocks * (end - start)) / rows;
  return { ...part(range), stored: { ...stored, blocks, scale: part(stored.scale), gradient: part(stored.gradient) } };
}

/** Whether some rows of a weight can be used without the others. */
export function canTakeRows({ stored, length }: FileRange, rows: number, start: number, end: number): boolean {
  if (typeof stored !== "object") return true;
  if (stored.type === "nf4") {
    const rowSize = (2 * length) / rows;
    return (start * rowSize) % NF4_BLOCK === 0 && (end * rowSize) % NF4_BLOCK === 0;
  }
  const blockRows = rows / stored.blocks;
  return start % blockRows === 0 && end % blockRows === 0;
}

/** Where a value comes from. */
export type ValueSource =
  | { kind: "input"; name: string }
  | { kind: "constant"; tensor: Tensor }
  | { kind: "file"; name: string; range: FileRange }
  | { kind: "node"; node: Node; output: number };

/** A tensor of known dtype and shape that exists once the graph runs. */
export class Value {
  constructor(
    readonly graph: Graph,
    /** Position among the graph's values; unique within it. */
    readonly id: number,
    readonly dtype: DType,
    readonly shape: readonly number[],
    readonly source: ValueSource,
  ) {}

  /** Number of dimensions. */
  get rank(): number {
    return this.shape.length;
  }

  /** Number of elements. */
  get size(): number {
    return sizeOf(this.shape);
  }

  /** `float32[2,4,64,64]`, for messages. */
  toString(): string {
    return `${this.dtype}[${this.shape.join(",")}]`;
  }
}

/** One operator applied to values. An absent optional input is `undefined`. */
export interface Node<Op extends OperatorName = OperatorName> {
  readonly op: Op;
  readonly inputs: readonly (Value | undefined)[];
  readonly attributes: Attributes[Op];
  readonly outputs: readonly Value[];
  /** Position among the graph's nodes: creation order, which is a topological order. */
  readonly index: number;
  /** Path of the layer or module that it belongs to, as in the checkpoint; empty where there is none. */
  readonly layer: string;
  /** What kind of work it is part of, such as `gradient`; empty for a plain forward pass. */
  readonly phase: string;
}

/** Dtype and shape of a node's output. */
export interface OutputType {
  dtype: DType;
  shape: readonly number[];
}

/**
 * A computation under construction.
 *
 * Equal nodes (same operator, inputs and attributes) are built once: a base pass and an adapted pass over the same
 * latents share everything before the first adapted layer.
 */
export class Graph {
  readonly inputs = new Map<string, Value>();
  readonly outputs = new Map<string, Value>();
  readonly nodes: Node[] = [];
  private valueCount = 0;
  private readonly constants = new Map<string, Value>();
  private readonly constantRows = new Map<string, Value>();
  private readonly files = new Map<string, Value>();
  private readonly fileNames = new Set<string>();
  private readonly known = new Map<string, Node>();
  private layer: string | undefined;
  private phase = "";

  /** Declares an input that every run must feed. */
  input(name: string, dtype: DType, shape: readonly number[]): Value {
    if (this.inputs.has(name)) throw new ShapeError(`Graph: there is already an input named "${name}".`);
    checkShape(`Graph input "${name}"`, shape);
    const value = this.makeValue(dtype, shape, { kind: "input", name });
    this.inputs.set(name, value);
    return value;
  }

  /** Declares a named result. */
  output(name: string, value: Value): void {
    if (this.outputs.has(name)) throw new ShapeError(`Graph: there is already an output named "${name}".`);
    this.owns(value, `output "${name}"`);
    this.outputs.set(name, value);
  }

  /** A tensor baked into the graph. Small equal constants are stored once. */
  constant(value: Tensor): Value {
    const make = () => this.makeValue(value.dtype, value.shape, { kind: "constant", tensor: value });
    if (value.size > 256) return make();
    const key = `${value.dtype}[${value.shape.join(",")}]${Array.from(toBytes(value)).join(",")}`;
    let known = this.constants.get(key);
    if (!known) {
      known = make();
      this.constants.set(key, known);
    }
    return known;
  }

  /** A float32 scalar constant of shape `[]`. */
  scalar(value: number): Value {
    return this.constant(tensor(Float32Array.of(value), []));
  }

  /**
   * A tensor that stays in its file.
   *
   * @param name - Unique name of the weight; the same name gives the same value.
   */
  file(name: string, dtype: DType, shape: readonly number[], range: FileRange): Value {
    const key = `${name}:${shape.join(",")}`;
    let value = this.files.get(key);
    if (!value) {
      checkShape(`Graph weight "${name}"`, shape);
      value = this.makeValue(dtype, shape, { kind: "file", name: this.fileNames.has(name) ? key : name, range });
      this.fileNames.add(name);
      this.files.set(key, value);
    }
    return value;
  }

  /**
   * The rows from `start` to `end` of a weight in a file or of a constant; undefined for what a run computes or is fed, and
   * where a weight of integers is not divided there.
   */
  frozenRows(value: Value, start: number, end: number): Value | undefined {
    const { source, dtype, shape } = value;
    const [count, ...rest] = shape as [number, ...number[]];
    if (source.kind === "file") {
      if (!canTakeRows(source.range, count, start, end)) return undefined;
      const range = rangeOfRows(source.range, count, start, end);
      return this.file(`${source.name}:${start}-${end}`, dtype, [end - start, ...rest], range);
    }
    if (source.kind !== "constant") return undefined;
    const key = `${value.id}:${start}-${end}`;
    let part = this.constantRows.get(key);
    if (!part) {
      const rowSize = value.size / count;
      const data = source.tensor.data.subarray(start * rowSize, end * rowSize);
      part = this.constant(tensor(data, [end - start, ...rest], dtype));
      this.constantRows.set(key, part);
    }
    return part;
  }

  /** Adds a node, or returns the equal one that exists. Operators call this after checking their inputs. */
  node<Op extends OperatorName>(
    op: Op,
    inputs: readonly (Value | undefined)[],
    attributes: Attributes[Op],
    outputs: readonly OutputType[],
  ): Node<Op> {
    const key = `${op}(${inputs.map((input) => input?.id ?? "").join(",")})${JSON.stringify(attributes)}`;
    const known = this.known.get(key);
    if (known) return known as Node<Op>;
    for (const input of inputs) if (input) this.owns(input, op);
    const values: Value[] = [];
    const { phase } = this;
    const layer = this.layerOf(inputs);
    const node: Node<Op> = { op, inputs, attributes, outputs: values, index: this.nodes.length, layer, phase };
    outputs.forEach(({ dtype, shape }, output) => {
      values.push(this.makeValue(dtype, shape, { kind: "node", node: node as unknown as Node, output }));
    });
    this.nodes.push(node as unknown as Node);
    this.known.set(key, node as unknown as Node);
    return node;
  }

  /**
   * Names what `build` makes after a layer, so that ONNX nodes, profiles and messages lead back to it. Layers inside
   * others name their own.
   *
   * @param path - As in the checkpoint, e.g. `mid_block.attentions.0.proj_in`.
   */
  inLayer<Result>(path: string, build: () => Result): Result {
    const outer = this.layer;
    this.layer = path;
    try {
      return build();
    } finally {
      this.layer = outer;
    }
  }

  /**
   * Names what `build` makes after the kind of work that it is, in front of the layer: `gradient`, `recompute`, … It begins
   * outside all layers.
   */
  inPhase<Result>(name: string, build: () => Result): Result {
    const { phase, layer } = this;
    this.phase = name;
    this.layer = undefined;
    try {
      return build();
    } finally {
      this.phase = phase;
      this.layer = layer;
    }
  }

  /**
   * The layer that an operator on these values belongs to: the one that is being built; between layers, the innermost
   * module that the layers which made the values share (attention over `attn1.to_q`, `attn1.to_k` and `attn1.to_v`
   * belongs to `attn1`).
   */
  layerOf(values: readonly (Value | undefined)[]): string {
    if (this.layer !== undefined) return this.layer;
    let shared: string | undefined;
    for (const value of values) {
      if (value?.source.kind !== "node") continue;
      const { layer } = value.source.node;
      if (layer !== "") shared = shared === undefined ? layer : sharedModule(shared, layer);
    }
    return shared ?? "";
  }

  /**
   * Forgets the nodes made since there were `count` of them: for a construction on trial, of which nothing is kept.
   *
   * @throws {ShapeError} If a declared output needs one of them.
   */
  discard(count: number): void {
    for (const [name, { source }] of this.outputs) {
      if (source.kind === "node" && source.node.index >= count)
        throw new ShapeError(`Graph discard: the output "${name}" needs a node that would be forgotten.`);
    }
    for (const [key, node] of this.known) if (node.index >= count) this.known.delete(key);
    this.nodes.length = Math.min(this.nodes.length, count);
  }

  private owns(value: Value, where: string): void {
    if (value.graph !== this) throw new ShapeError(`${where}: the value ${value} belongs to another graph.`);
  }

  private makeValue(dtype: DType, shape: readonly number[], source: ValueSource): Value {
    return new Value(this, this.valueCount++, dtype, [...shape], source);
  }
}

/** The innermost module that holds both paths. */
function sharedModule(a: string, b: string): string {
  if (a === b) return a;
  const [left, right] = [a.split("."), b.split(".")];
  const differs = left.findIndex((name, i) => name !== right[i]);
  return left.slice(0, differs < 0 ? left.length : differs).join(".");
}
