// Images that would not fit into memory go through an autoencoder tile by tile, blended where tiles overlap. Options
// and blending are those of diffusers, whose two autoencoders blend differently.

import { ConfigError } from "../../errors.js";
import { Graph, type Value } from "../../graph/index.js";
import { compile, type RuntimeOptions } from "../../runtime/index.js";
import { type Tensor, zeros } from "../../tensor/tensor.js";

/** Tiles of an autoencoder. */
export interface TilingOptions {
  /** Side of a tile in image pixels. Default: the `sample_size` of AutoencoderKL's configuration; AutoencoderTiny 512. */
  tileSampleMinSize?: number;
  /** Part of a tile that the next one covers too, in 0 … 1. Default: AutoencoderKL 0.25; AutoencoderTiny 0.125. */
  tileOverlapFactor?: number;
  /** What is done in tiles; the other stays as it is. Default: both. */
  direction?: TilingDirection | undefined;
}

/** What an autoencoder does in tiles. */
export type TilingDirection = "decode" | "encode";

/** Tiles by what is done in them. */
export type Tilings = Readonly<Partial<Record<TilingDirection, Tiling>>>;

/** The same with others for a direction, or for both. */
export const withTiling = (
  tilings: Tilings,
  direction: TilingDirection | undefined,
  tiling: Tiling | undefined,
): Tilings => {
  const both: Tilings = { encode: tiling, decode: tiling };
  return direction === undefined ? both : { ...tilings, [direction]: tiling };
};

/** Side and overlap of square tiles, in latent pixels. */
export interface Tiling {
  size: number;
  overlap: number;
  /** Image pixels per latent pixel. */
  downscale: number;
}

/**
 * Checks tiling options.
 *
 * @param leastOverlap - In latent pixels.
 * @throws {ConfigError} Unless tiles and their overlaps are whole latent pixels.
 */
export function resolveTiling(
  where: string,
  options: TilingOptions,
  defaults: Required<Omit<TilingOptions, "direction">>,
  downscale: number,
  leastOverlap: number,
): Tiling {
  const { tileSampleMinSize: side = defaults.tileSampleMinSize } = options;
  const { tileOverlapFactor: factor = defaults.tileOverlapFactor } = options;
  const size = side / downscale;
  if (!Number.isInteger(size) || size < 1) {
    throw new ConfigError(`${where}: tileSampleMinSize must be a multiple of ${downscale} pixels; got ${side}.`);
  }
  const overlap = Math.round(size * factor);
  if (!(factor >= 0 && factor < 1) || Math.abs(overlap - size * factor) > 1e-6 || overlap < leastOverlap) {
    throw new ConfigError(
      `${where}: tileOverlapFactor must give an overlap of whole latent pixels from ${leastOverlap} to ${size - 1} ` +
        `with tiles of ${size}; got ${factor}.`,
    );
  }
  return { size, overlap, downscale };
}

/** Runs tiles that all have one shape through a model, in their order. */
export type TileRunner = (tiles: Tensor<"float32">[]) => Promise<Tensor<"float32">[]>;

/** A runner that compiles for its tiles alone: no more than one such graph takes memory at a time. */
export function tileRunner(runtime: RuntimeOptions, build: (tile: Value) => Value): TileRunner {
  return async (tiles) => {
    const graph = new Graph();
    graph.output("result", build(graph.input("tile", "float32", tiles[0]!.shape)));
    const compiled = await compile(graph, runtime);
    try {
      const results: Tensor<"float32">[] = [];
      for (const tile of tiles) results.push((await compiled.run({ tile })).result as Tensor<"float32">);
      return results;
    } finally {
      await compiled.release();
    }
  };
}

/** What the tiles gave, and where it belongs. */
interface Grid {
  /** Results by row and column. */
  results: Tensor<"float32">[][];
  /** In pixels of the result. */
  step: number;
  overlap: number;
  height: number;
  width: number;
}

/**
 * Decodes or encodes with AutoencoderKL's blending: each tile fades linearly from the tile above and the tile on the left.
 *
 * @param x - `[B, C, H, W]`, latents or (their sides multiples of the downscale) images.
 */
export async function runTilesFaded(
  x: Tensor<"float32">,
  direction: TilingDirection,
  tiling: Tiling,
  run: TileRunner,
): Promise<Tensor<"float32">> {
  const grid = await runGrid(x, direction, tiling, run);
  const { results, step, overlap } = grid;
  return assembled(grid, (tile, result, i, j) => {
    const above = results[i - 1]?.[j];
    const left = results[i]![j - 1];
    if (above) fade(above, tile, 2, overlap);
    if (left) fade(left, tile, 3, overlap);
    paste(tile, result, i * step, j * step, (value) => value, step);
  });
}

/**
 * Decodes or encodes with AutoencoderTiny's blending: each tile is laid over what is there with a weight that rises
 * from 0 to 1 over the overlap, down and to the right.
 *
 * @param x - `[B, C, H, W]`, latents or (their sides multiples of the downscale) images.
 */
export async function runTilesMasked(
  x: Tensor<"float32">,
  direction: TilingDirection,
  tiling: Tiling,
  run: TileRunner,
): Promise<Tensor<"float32">> {
  const grid = await runGrid(x, direction, tiling, run);
  const { step, overlap } = grid;
  const rise = (at: number): number => Math.min(at / (overlap - 1), 1);
  return assembled(grid, (tile, result, i, j) => {
    paste(tile, result, i * step, j * step, (value, before, y, x) => {
      const weight = (i === 0 ? 1 : rise(y)) * (j === 0 ? 1 : rise(x));
      return weight * value + (1 - weight) * before;
    });
  });
}

/** The whole, with every tile laid into it, row by row from the upper left. */
function assembled(
  { results, height, width }: Grid,
  lay: (tile: Tensor<"float32">, result: Tensor<"float32">, row: number, column: number) => void,
): Tensor<"float32"> {
  const [batch, channels] = results[0]![0]!.shape as [number, number];
  const result = zeros([batch, channels, height, width]);
  for (const [i, row] of results.entries()) for (const [j, tile] of row.entries()) lay(tile, result, i, j);
  return result;
}

/** Cuts x into tiles and runs them, those of one shape together. */
async function runGrid(
  x: Tensor<"float32">,
  direction: TilingDirection,
  { size, overlap, downscale }: Tiling,
  run: TileRunner,
): Promise<Grid> {
  const [, , height, width] = x.shape as [number, number, number, number];
  const [from, to] = direction === "decode" ? [1, downscale] : [downscale, 1];
  const step = (size - overlap) * from;
  const rows = Math.ceil(height / step);
  const columns = Math.ceil(width / step);
  const groups = new Map<string, { at: number; tile: Tensor<"float32"> }[]>();
  for (let at = 0; at < rows * columns; at++) {
    const tile = crop(x, Math.floor(at / columns) * step, (at % columns) * step, size * from);
    const key = tile.shape.join("x");
    groups.set(key, [...(groups.get(key) ?? []), { at, tile }]);
  }
  const results: Tensor<"float32">[][] = Array.from({ length: rows }, () => []);
  for (const group of groups.values()) {
    const outputs = await run(group.map(({ tile }) => tile));
    for (const [i, { at }] of group.entries()) results[Math.floor(at / columns)]![at % columns] = outputs[i]!;
  }
  const scaled = (pixels: number): number => (pixels * to) / from;
  return {
    results,
    step: scaled(step),
    overlap: overlap * to,
    height: scaled(height),
    width: scaled(width),
  };
}

/** The square of that side from there, or what of it lies within x. */
function crop(x: Tensor<"float32">, top: number, left: number, side: number): Tensor<"float32"> {
  const [batch, channels, height, width] = x.shape as [number, number, number, number];
  const [rows, columns] = [Math.min(side, height - top), Math.min(side, width - left)];
  const result = zeros([batch, channels, rows, columns]);
  for (let plane = 0; plane < batch * channels; plane++) {
    for (let row = 0; row < rows; row++) {
      const start = (plane * height + top + row) * width + left;
      result.data.set(x.data.subarray(start, start + columns), (plane * rows + row) * columns);
    }
  }
  return result;
}

/** Writes `blend(tile, what is there, row and column in the tile)`, as far as it lies within `limit` and the target. */
function paste(
  tile: Tensor<"float32">,
  target: Tensor<"float32">,
  top: number,
  left: number,
  blend: (value: number, before: number, y: number, x: number) => number,
  limit = Number.POSITIVE_INFINITY,
): void {
  const [batch, channels, rows, columns] = tile.shape as [number, number, number, number];
  const [, , height, width] = target.shape as [number, number, number, number];
  const [lastRow, lastColumn] = [Math.min(rows, height - top, limit), Math.min(columns, width - left, limit)];
  for (let plane = 0; plane < batch * channels; plane++) {
    for (let row = 0; row < lastRow; row++) {
      for (let column = 0; column < lastColumn; column++) {
        const at = (plane * height + top + row) * width + left + column;
        const value = tile.data[(plane * rows + row) * columns + column]!;
        target.data[at] = blend(value, target.data[at]!, row, column);
      }
    }
  }
}

/**
 * Fades the first pixels of `next` in from the last ones of `previous`, along an axis, in place: 0 … 1 in steps of
 * 1/n over n pixels, fewer than `extent` where a tile is narrower.
 */
function fade(previous: Tensor<"float32">, next: Tensor<"float32">, axis: 2 | 3, extent: number): void {
  const length = next.shape[axis]!;
  const pixels = Math.min(previous.shape[axis]!, length, extent);
  // Elements between neighbours along the axis, and lines of them.
  const stride = axis === 2 ? next.shape[3]! : 1;
  const lines = next.size / length;
  for (let line = 0; line < lines; line++) {
    const [outer, inner] = [Math.floor(line / stride), line % stride];
    const start = (tile: Tensor<"float32">) => outer * tile.shape[axis]! * stride + inner;
    for (let i = 0; i < pixels; i++) {
      const weight = i / pixels;
      const at = start(next) + i * stride;
      const before = previous.data[start(previous) + (previous.shape[axis]! - pixels + i) * stride]!;
      next.data[at] = before * (1 - weight) + next.data[at]! * weight;
    }
  }
}
