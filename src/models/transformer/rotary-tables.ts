// Angles of rotary embeddings over positions of several axes: rows and columns of an image, places in a text.

import type { Graph, Value } from "../../graph/index.js";
import * as ops from "../../graph/index.js";
import { tensor } from "../../tensor/tensor.js";
import type { Projections } from "./transformer-layers.js";

/** One token's place on every axis. */
export type Position = readonly number[];

/** How a head's pairs of features are shared among the axes. */
export interface RotaryAxes {
  /** Features of a head per axis, even; their sum is the head's. */
  features: readonly number[];
  theta: number;
  /** Angles are rounded to float32 before their cosine is taken. */
  roundsAngles?: boolean;
}

/** Cosines and sines of every token's angles, `[S, D/2]`. */
export interface RotaryTables {
  cos: Value;
  sin: Value;
}

const tables = new WeakMap<Graph, Map<string, RotaryTables>>();

/**
 * Angle i of an axis with d features: position · theta^(−2i / d).
 *
 * One pair of tables per graph and key, so that all passes share what they compute with them.
 *
 * @param key - Tells the positions apart.
 */
export function rotaryTables(
  graph: Graph,
  key: string,
  positions: () => readonly Position[],
  { features, theta, roundsAngles = false }: RotaryAxes,
): RotaryTables {
  let known = tables.get(graph);
  if (!known) {
    known = new Map();
    tables.set(graph, known);
  }
  const full = `${key} ${features} ${theta} ${roundsAngles}`;
  let made = known.get(full);
  if (!made) {
    const rates = features.flatMap((count, axis) =>
      Array.from({ length: count / 2 }, (_, i) => ({ axis, rate: 1 / theta ** ((2 * i) / count) })),
    );
    const all = positions();
    const angles = Float64Array.from({ length: all.length * rates.length }, (_, at) => {
      const { axis, rate } = rates[at % rates.length]!;
      const angle = all[Math.floor(at / rates.length)]![axis]! * rate;
      return roundsAngles ? Math.fround(angle) : angle;
    });
    const shape = [all.length, rates.length];
    const [cos, sin] = [Math.cos, Math.sin].map((of) => graph.constant(tensor(Float32Array.from(angles, of), shape)));
    made = { cos: cos!, sin: sin! };
    known.set(full, made);
  }
  return made;
}

/** Queries and keys turned by their tokens' angles, pairs being neighbours. */
export function turned({ q, k, v }: Projections, { cos, sin }: RotaryTables, heads: number): Projections {
  const [turnedQ, turnedK] = [q, k].map((x) => ops.rotary(x, cos, sin, { heads, pairs: "adjacent" }));
  return { q: turnedQ!, k: turnedK!, v };
}

/** Rows and columns of a grid, row by row, as `place` has them. */
export const gridPlaces = (
  [rows, columns]: readonly [number, number],
  place: (row: number, column: number) => Position,
): Position[] => Array.from({ length: rows * columns }, (_, i) => place(Math.floor(i / columns), i % columns));
