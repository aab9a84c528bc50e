// Where a file's metadata say other ranks and alphas than its tensors have: the tensors are taken, and it is said.

import type { LowRankConfig } from "../low-rank-config.js";

/** Ranks and alphas of all layers of a file. */
export interface FoundRanks {
  ranks: readonly number[];
  /** Of the layers that have one of their own in the file. */
  alphas: readonly number[];
}

/** Alphas are kept in 16 bits, too. */
const TOLERANCE = 0.01;

/**
 * What kohya's `ss_network_dim` and `ss_network_alpha` and fera's own configuration say that the tensors do not.
 *
 * kohya's hold for most layers only (convolutions can have others), so that they must be those of one layer at least.
 *
 * @param written - fera's configuration.
 * @returns One sentence each.
 */
export function metadataNotes(
  metadata: Readonly<Record<string, string>>,
  { ranks, alphas }: FoundRanks,
  written: LowRankConfig | undefined,
): string[] {
  const notes: string[] = [];
  const say = (key: string, said: string, what: string, found: readonly number[]) =>
    notes.push(
      `Its metadata disagree with its tensors, which are taken: ${key} is ${said}, ${what} ${[...new Set(found)]
        .sort((a, b) => a - b)
        .slice(0, 8)
        .join(", ")}`,
    );
  const rank = numberOf(metadata.ss_network_dim);
  if (rank !== undefined && ranks.length > 0 && !ranks.includes(rank)) {
    say("ss_network_dim", `${rank}`, "the rank of its matrices is", ranks);
  }
  const alpha = numberOf(metadata.ss_network_alpha);
  const isNear = (value: number, other: number) => Math.abs(value - other) <= TOLERANCE * Math.abs(other);
  if (alpha !== undefined && alphas.length > 0 && !alphas.some((value) => isNear(value, alpha))) {
    say("ss_network_alpha", `${alpha}`, "its alphas are", alphas);
  }
  if (!written) return notes;
  const known = new Set([written.rank, ...Object.values(written.rankPattern)]);
  const odd = ranks.filter((value) => !known.has(value));
  if (odd.length > 0) say("fera's configuration", `of rank ${[...known].join(", ")}`, "ranks of its matrices are", odd);
  return notes;
}

function numberOf(text: string | undefined): number | undefined {
  const value = Number(text?.trim() || Number.NaN);
  return Number.isFinite(value) ? value : undefined;
}
