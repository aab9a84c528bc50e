// Medians, and numbers as the bench's tables show them.

import { formatBytes } from "../src/storage/file-descriptions.js";

/** The middle value; the mean of the two middle ones of an even number. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** 12.345 → "12.3 s"; 0.01234 → "12.3 ms". */
export const formatSeconds = (seconds: number): string =>
  seconds >= 0.9995 ? `${seconds.toPrecision(3)} s` : `${(seconds * 1000).toPrecision(3)} ms`;

/** As `formatBytes`; "?" where the platform does not tell. */
export const formatMemory = (bytes: number | undefined): string => (bytes === undefined ? "?" : formatBytes(bytes));

/** "± 3 %": half the range over the median. */
export const formatSpread = (values: readonly number[]): string =>
  `± ${((50 * (Math.max(...values) - Math.min(...values))) / median(values)).toFixed(0)} %`;

export const formatRatio = (ratio: number): string => ratio.toFixed(2);

export const formatPercent = (share: number): string => `${(100 * share).toFixed(1)} %`;
