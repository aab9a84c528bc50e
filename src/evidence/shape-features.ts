// How alike the shapes of two drawings are, whatever their colours: histograms of the directions of edges.
//
// A drawing is reduced to the lightness of 32×32 pixels. Each pixel's gradient votes with its length for its direction, from 0
// to π, in the two nearest of 8 bins and of its cell of 8×8 pixels. All votes of a drawing are divided by their norm. It is the
// idea of Dalal & Triggs's histograms of oriented gradients (2005), without their overlapping blocks. The distance of two
// drawings is ½ |a − b|²: 0 for the same votes, 1 for votes that have nothing in common.

import type { DrawingFeatures } from "../demo/nearest.js";

const SIDE = 32;
const CELL = 8;
const CELLS = SIDE / CELL;
const BINS = 8;
/** Of a drawing without edges, so that noise of rounding is not blown up. */
const LEAST_NORM = 1e-3;

/** @param drawing - As `drawingFeatures` gives it: its first plane is lightness, `[32, 32]`. */
export function shapeFeatures(drawing: DrawingFeatures): Float32Array {
  const votes = new Float32Array(CELLS * CELLS * BINS);
  const at = (x: number, y: number) =>
    drawing[Math.min(SIDE - 1, Math.max(0, y)) * SIDE + Math.min(SIDE - 1, Math.max(0, x))]!;
  for (let y = 0; y < SIDE; y++) {
    for (let x = 0; x < SIDE; x++) {
      const across = at(x + 1, y) - at(x - 1, y);
      const down = at(x, y + 1) - at(x, y - 1);
      const length = Math.hypot(across, down);
      if (length === 0) continue;
      const direction = (((Math.atan2(down, across) / Math.PI) * BINS) % BINS) + BINS;
      const lower = Math.floor(direction);
      const share = direction - lower;
      const cell = (Math.floor(y / CELL) * CELLS + Math.floor(x / CELL)) * BINS;
      votes[cell + (lower % BINS)]! += length * (1 - share);
      votes[cell + ((lower + 1) % BINS)]! += length * share;
    }
  }
  const norm = Math.max(LEAST_NORM, Math.hypot(...votes));
  return votes.map((vote) => vote / norm);
}

/** The distance defined at the head of this file. */
export function shapeDistance(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i]! - b[i]!) ** 2;
  return sum / 2;
}
