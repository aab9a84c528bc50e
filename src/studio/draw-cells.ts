// What a request to draw comes to: its check, and the pictures that it asks for, one by one. Pure.

import { z } from "zod";
import { quoted } from "../errors.js";
import type { DrawRequest } from "./protocol.js";
import { StudioError } from "./studio-error.js";

/** Most pictures of one request. */
const MOST_PICTURES = 256;
const MOST_PIXELS = 4096;
const SEEDS = 2 ** 32;

const axis = z.strictObject({
  option: z.enum(["prompt", "seed", "steps", "guidanceScale", "sampler", "adapterScale"]),
  values: z
    .array(z.union([z.string(), z.number()]))
    .min(1)
    .max(MOST_PICTURES),
});
const side = z.int().min(1).max(MOST_PIXELS);
const request = z.strictObject({
  model: z.string().min(1),
  prompt: z.string(),
  negativePrompt: z.string().optional(),
  seed: z
    .int()
    .min(0)
    .max(SEEDS - 1)
    .optional(),
  steps: z.int().min(1).max(1000),
  guidanceScale: z.number().min(0).max(100),
  sampler: z.string().optional(),
  width: side.optional(),
  height: side.optional(),
  adapters: z.array(z.strictObject({ id: z.string().min(1), scale: z.number().min(-10).max(10) })).max(16),
  compare: z.boolean(),
  grid: z.strictObject({ x: axis.optional(), y: axis.optional() }).optional(),
});

/** One picture: the request with what its place in the grid says. */
export interface DrawCell {
  x: number;
  y: number;
  withoutAdapters: boolean;
  prompt: string;
  negativePrompt?: string | undefined;
  seed: number;
  steps: number;
  guidanceScale: number;
  sampler?: string | undefined;
  width?: number | undefined;
  height?: number | undefined;
  adapters: { id: string; scale: number }[];
}

/** @throws {StudioError} If something is missing or out of range. */
export function checkedRequest(value: unknown, samplers: readonly string[]): DrawRequest {
  const parsed = request.safeParse(value);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw new StudioError(400, `${issue!.path.join(".") || "The request"}: ${issue!.message}.`);
  }
  const { sampler } = parsed.data;
  if (sampler !== undefined && !samplers.includes(sampler)) {
    throw new StudioError(400, `The sampler must be one of ${samplers.join(", ")}; got ${quoted(sampler)}.`);
  }
  return parsed.data as DrawRequest;
}

/**
 * The pictures of a request, row by row.
 *
 * @param anySeed - The seed of all pictures where none is given.
 * @throws {StudioError} If they are too many, or an axis has a value that its option cannot have.
 */
export function drawCells(wanted: DrawRequest, anySeed: number, samplers: readonly string[]): DrawCell[] {
  const { grid = {}, compare, model: _, ...base } = wanted;
  const kinds = compare && wanted.adapters.length > 0 ? [false, true] : [false];
  const columns = grid.x?.values ?? [undefined];
  const rows = grid.y?.values ?? [undefined];
  const count = columns.length * rows.length * kinds.length;
  if (count > MOST_PICTURES) {
    throw new StudioError(400, `These are ${count} pictures; ${MOST_PICTURES} are drawn at once. Give fewer values.`);
  }
  return rows.flatMap((row, y) =>
    columns.flatMap((column, x) => {
      const changes = { ...changeBy(grid.x?.option, column), ...changeBy(grid.y?.option, row) };
      const { adapterScale, ...options } = changes;
      const adapters =
        adapterScale === undefined
          ? base.adapters
          : base.adapters.map(({ id }) => ({ id, scale: Number(adapterScale) }));
      const {
        grid: _grid,
        compare: _compare,
        model: _model,
        ...cell
      } = checkedRequest(
        { ...base, seed: base.seed ?? anySeed, compare, model: "any", ...options, adapters },
        samplers,
      );
      return kinds.map((withoutAdapters) => ({ ...cell, seed: cell.seed!, x, y, withoutAdapters }));
    }),
  );
}

/** A value of an axis; numbers may come as texts. */
function changeBy(option: string | undefined, value: string | number | undefined): Record<string, unknown> {
  if (option === undefined || value === undefined) return {};
  const isText = option === "prompt" || option === "sampler";
  return {
    [option]: isText ? String(value) : typeof value === "string" && value.trim() !== "" ? Number(value) : value,
  };
}
