// Learned-looking, fixed positions of Stable Diffusion 3: a table of waves for a square grid, of which the middle is used.

import type { Value } from "../../graph/index.js";
import * as ops from "../../graph/index.js";
import type { Scope } from "../../nn/index.js";
import type { SD3TransformerConfig } from "./sd3-config.js";

/**
 * The positions of a grid, from the middle of the table that the checkpoint has.
 *
 * @param grid - Tokens down and across.
 * @returns `[1, tokens, features]`.
 */
export function gridPositions(scope: Scope, config: SD3TransformerConfig, grid: readonly [number, number]): Value {
  const { pos_embed_max_size: size, innerFeatures: features } = config;
  const make = () => positionTable(config);
  const table = scope.parameter("pos_embed", [1, size * size, features], { kind: "values", make });
  const [rows, columns] = grid;
  const [top, left] = [Math.floor((size - rows) / 2), Math.floor((size - columns) / 2)];
  return scope.build(() => {
    const all = ops.reshape(table, [size * size, features]);
    // Row by row out of the file: as a whole, the table of 3.5 medium is 900 MB.
    const parts = Array.from({ length: rows }, (_, row) => {
      const start = (top + row) * size + left;
      return scope.graph.frozenRows(all, start, start + columns) ?? ops.slice(all, 0, start, start + columns);
    });
    // A table, not trained.
    return ops.stopGradient(ops.reshape(ops.concat(parts, 0), [1, rows * columns, features]));
  });
}

/**
 * [sin(x ω), cos(x ω), sin(y ω), cos(y ω)], ω_i = 10000^(−4i / features), with x and y in tokens of the size that the model
 * was first trained at.
 *
 * @see diffusers' get_2d_sincos_pos_embed
 */
function positionTable(config: SD3TransformerConfig): Float32Array {
  const { pos_embed_max_size: size, innerFeatures: features, sample_size, patch_size } = config;
  const base = Math.floor(sample_size / patch_size);
  const quarter = features / 4;
  const step = Math.fround(size / base);
  const table = new Float32Array(size * size * features);
  let at = 0;
  for (let row = 0; row < size; row++) {
    for (let column = 0; column < size; column++) {
      for (const place of [column, row]) {
        const position = Math.fround(place / step);
        for (const wave of [Math.sin, Math.cos]) {
          for (let i = 0; i < quarter; i++) table[at++] = wave(position * 10000 ** (-i / quarter));
        }
      }
    }
  }
  return table;
}
