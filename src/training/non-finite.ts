// A loss or gradient that is not finite: where it comes from, as far as batch and parameters tell.

import { quoted, TrainingError } from "../errors.js";
import { allFinite, type Tensor } from "../tensor/tensor.js";
import type { DiffusionBatch } from "./trainable.js";

/** A step whose loss or gradient is not finite; it has changed nothing. */
export class NonFiniteError extends TrainingError {}

/** Most images that a message names. */
const NAMED = 8;

/**
 * What a step worked on: the batch's images, those whose numbers are bad, and the first trained tensor that is.
 *
 * @param nameOf - An image's name by its row; without it no image is named.
 */
export function describeStepInputs(
  batches: readonly DiffusionBatch[],
  parameters: ReadonlyMap<string, Tensor<"float32">>,
  nameOf?: (row: number) => string,
): string {
  const parts: string[] = [];
  const named = (rows: readonly number[]): string => {
    const names = [...new Set(rows)].map((row) => quoted(nameOf!(row)));
    return names.slice(0, NAMED).join(", ") + (names.length > NAMED ? ` and ${names.length - NAMED} more` : "");
  };
  if (nameOf) {
    const rows = batches.flatMap((batch) => batch.rows ?? []);
    if (rows.length > 0) parts.push(`The batch is ${named(rows)}.`);
    for (const input of ["latents", "target"] as const) {
      const bad = batches.flatMap((batch) => (batch.rows ?? []).filter((_, i) => !isRowFinite(batch[input], i)));
      if (bad.length > 0) parts.push(`The ${input} of ${named(bad)} are not finite.`);
    }
  }
  const parameter = [...parameters].find(([, { data }]) => !allFinite(data))?.[0];
  if (parameter !== undefined) parts.push(`The trained tensor "${parameter}" is not finite.`);
  return parts.join(" ");
}

function isRowFinite({ data, shape }: Tensor<"float32">, row: number): boolean {
  const size = data.length / shape[0]!;
  return allFinite(data.subarray(row * size, (row + 1) * size));
}
