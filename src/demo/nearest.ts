// How alike two drawings are, and whether a drawing is nearest to the one that it should be.
//
// A drawing is reduced to 32×32 pixels, in CIE Lab (D65), each coordinate divided by 100, and to the edges of its lightness: its
// differences to the right and downwards. The distance of two drawings is the mean squared difference of the three colour
// coordinates, summed, plus EDGE_WEIGHT times that of the edges. Colours alone would favour blobs of the right hue, edges
// alone shapes of any colour.

import { ConfigError } from "../errors.js";
import { type ImageLike, toRgbImage } from "../images/pixels.js";

const SIDE = 32;
const EDGE_WEIGHT = 2;
const PLANES = 5;

/** What is compared: Lab and two edges, `[5, 32, 32]`, scaled so that the distance is the mean over pixels of squared differences. */
export type DrawingFeatures = Float32Array;

/**
 * Reduces a drawing to what is compared.
 *
 * @param image - A square whose side is a multiple of 32 pixels.
 * @throws {ConfigError} If it is not.
 */
export function drawingFeatures(image: ImageLike): DrawingFeatures {
  const { width, height, data } = toRgbImage(image);
  if (width !== height || width % SIDE !== 0) {
    throw new ConfigError(
      `drawingFeatures: the image must be square with a side that ${SIDE} divides; got ${width}×${height}.`,
    );
  }
  const step = width / SIDE;
  const plane = SIDE * SIDE;
  const features = new Float32Array(PLANES * plane);
  for (let y = 0; y < SIDE; y++) {
    for (let x = 0; x < SIDE; x++) {
      const mean = [0, 0, 0];
      for (let dy = 0; dy < step; dy++) {
        for (let dx = 0; dx < step; dx++) {
          const from = ((y * step + dy) * width + x * step + dx) * 3;
          for (let c = 0; c < 3; c++) mean[c]! += data[from + c]! / (255 * step * step);
        }
      }
      const lab = toLab(mean as [number, number, number]);
      for (let c = 0; c < 3; c++) features[c * plane + y * SIDE + x] = lab[c]! / 100;
    }
  }
  const weight = Math.sqrt(EDGE_WEIGHT);
  for (let y = 0; y < SIDE; y++) {
    for (let x = 0; x < SIDE; x++) {
      const at = y * SIDE + x;
      const right = x + 1 < SIDE ? features[at + 1]! : features[at]!;
      const below = y + 1 < SIDE ? features[at + SIDE]! : features[at]!;
      features[3 * plane + at] = weight * (right - features[at]!);
      features[4 * plane + at] = weight * (below - features[at]!);
    }
  }
  return features;
}

/** sRGB in 0 … 1 to CIE Lab under D65: L in 0 … 100. */
function toLab(rgb: readonly [number, number, number]): [number, number, number] {
  const [r, g, b] = rgb.map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)) as [
    number,
    number,
    number,
  ];
  const f = (t: number) => (t > 216 / 24389 ? Math.cbrt(t) : ((24389 / 27) * t + 16) / 116);
  const x = f((0.4124564 * r + 0.3575761 * g + 0.1804375 * b) / 0.95047);
  const y = f(0.2126729 * r + 0.7151522 * g + 0.072175 * b);
  const z = f((0.0193339 * r + 0.119192 * g + 0.9503041 * b) / 1.08883);
  return [116 * y - 16, 500 * (x - y), 200 * (y - z)];
}

/** The distance defined at the head of this file; 0 for the same drawing. */
export function drawingDistance(a: DrawingFeatures, b: DrawingFeatures): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i]! - b[i]!) ** 2;
  return sum / (SIDE * SIDE);
}

/** The index of the nearest of some drawings; of equally near ones the first. */
export function nearestOf(drawing: DrawingFeatures, candidates: readonly DrawingFeatures[]): number {
  let best = 0;
  let least = Number.POSITIVE_INFINITY;
  candidates.forEach((candidate, i) => {
    const distance = drawingDistance(drawing, candidate);
    if (distance < least) [best, least] = [i, distance];
  });
  return best;
}

/**
 * The share of drawings whose nearest true drawing is their own.
 *
 * @param drawn - One for each of `owners`.
 * @param owners - Index of each drawing's own among the true ones.
 */
export function ownNearestShare(
  drawn: readonly DrawingFeatures[],
  truths: readonly DrawingFeatures[],
  owners: readonly number[] = drawn.map((_, i) => i),
): number {
  return drawn.filter((drawing, i) => nearestOf(drawing, truths) === owners[i]).length / drawn.length;
}

/** What an adaptation is measured by, on names that the adapter never saw. Shares of 1. */
export interface AdaptationScore {
  /** Adapted drawings whose nearest, among the true drawings of all these names in the new style, is their own. */
  adaptedNearest: number;
  /** Adapted drawings that are closer to their true drawing than what the base draws from the same prompt and noise. */
  closerThanBase: number;
}

/** @param drawings - One each for every name, in the same order. */
export function adaptationScore(drawings: {
  base: readonly DrawingFeatures[];
  adapted: readonly DrawingFeatures[];
  truths: readonly DrawingFeatures[];
}): AdaptationScore {
  const { base, adapted, truths } = drawings;
  if (base.length !== truths.length || adapted.length !== truths.length || truths.length === 0) {
    throw new ConfigError(
      "adaptationScore: base, adapted and true drawings must be as many, and at least one; " +
        `got ${base.length}, ${adapted.length}, ${truths.length}.`,
    );
  }
  const closer = truths.filter(
    (truth, i) => drawingDistance(adapted[i]!, truth) < drawingDistance(base[i]!, truth),
  ).length;
  return { adaptedNearest: ownNearestShare(adapted, truths), closerThanBase: closer / truths.length };
}
