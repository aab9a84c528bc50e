// Many tensors in one vector, and many scalars in another: in main memory, and in a graph. A device then updates all
// tensors with a few operators instead of a few for each.

import type { Graph, Value } from "../graph/index.js";
import * as ops from "../graph/index.js";
import { sizeOf, type Tensor, tensor, zeros } from "../tensor/tensor.js";

/** The vector's length is a multiple of this, so that a reduction over it can go row by row. */
export const PACKED_ROW = 1024;

/** Where each tensor lies in the vector: one after another, then zeros up to a whole row. */
export class Packing {
  /** Length of the vector. */
  readonly size: number;
  private readonly ranges = new Map<string, { start: number; end: number; shape: readonly number[] }>();
  private readonly used: number;

  constructor(shapes: ReadonlyMap<string, readonly number[]>) {
    let start = 0;
    for (const [name, shape] of shapes) {
      const end = start + sizeOf(shape);
      this.ranges.set(name, { start, end, shape });
      start = end;
    }
    this.used = start;
    this.size = Math.ceil(start / PACKED_ROW) * PACKED_ROW;
  }

  /** Copies every tensor's values into one vector. */
  pack(values: ReadonlyMap<string, Float32Array>): Tensor<"float32"> {
    const packed = zeros([this.size]);
    for (const [name, { start }] of this.ranges) packed.data.set(values.get(name)!, start);
    return packed;
  }

  /** Every tensor's values, as parts of the vector. */
  unpack(packed: Float32Array): Map<string, Float32Array> {
    return new Map([...this.ranges].map(([name, { start, end }]) => [name, packed.subarray(start, end)]));
  }

  /** Every tensor as a slice of the vector, still flat. */
  split(packed: Value): Map<string, Value> {
    return new Map([...this.ranges].map(([name, { start, end }]) => [name, ops.slice(packed, 0, start, end)]));
  }

  /** Gives tensors that {@link split} made their shapes. */
  withShapes(flat: ReadonlyMap<string, Value>): Map<string, Value> {
    return new Map([...this.ranges].map(([name, { shape }]) => [name, ops.reshape(flat.get(name)!, shape)]));
  }

  /** Flat tensors, in the order of the names, as one vector. */
  concat(flat: readonly Value[]): Value {
    const rest = this.size - this.used;
    const { graph } = flat[0]!;
    return ops.concat(rest === 0 ? flat : [...flat, graph.constant(tensor(new Float32Array(rest)))], 0);
  }
}

/** Scalars by name that a run of a graph is fed as one vector, so that one upload brings them all. */
export class PackedScalars<Name extends string = string> {
  constructor(private readonly names: readonly Name[]) {}

  /** Declares the vector as an input. @returns `[1]` each, by name. */
  input(graph: Graph, name: string): Record<Name, Value> {
    const vector = graph.input(name, "float32", [this.names.length]);
    const entries = this.names.map((scalar, i) => [scalar, ops.slice(vector, 0, i, i + 1)] as const);
    return Object.fromEntries(entries) as Record<Name, Value>;
  }

  /** The vector to feed. */
  pack(values: Readonly<Record<Name, number>>): Tensor<"float32"> {
    return tensor(
      this.names.map((name) => values[name]),
      [this.names.length],
    );
  }
}
