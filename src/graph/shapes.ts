// Shape rules shared by the operator families.

import { ShapeError } from "../errors.js";
import type { Value } from "./graph.js";

/** Throws a ShapeError that says where, the rule and what came. */
export function fail(where: string, rule: string, ...came: (Value | undefined)[]): never {
  throw new ShapeError(`${where}: ${rule}; got ${came.map((value) => value?.toString() ?? "nothing").join(", ")}.`);
}

/** Throws unless every value is float32. */
export function requireFloat32(where: string, ...values: (Value | undefined)[]): void {
  for (const value of values) if (value && value.dtype !== "float32") fail(where, "inputs must be float32", value);
}

/** The numpy broadcast of two shapes, or undefined where they do not fit. */
export function broadcastShapes(a: readonly number[], b: readonly number[]): number[] | undefined {
  const rank = Math.max(a.length, b.length);
  const shape: number[] = [];
  for (let i = 0; i < rank; i++) {
    const left = a[a.length - rank + i] ?? 1;
    const right = b[b.length - rank + i] ?? 1;
    if (left !== right && left !== 1 && right !== 1) return undefined;
    shape.push(left === 1 ? right : left);
  }
  return shape;
}

/** Resolves a possibly negative axis. */
export function resolveAxis(where: string, axis: number, value: Value): number {
  const resolved = axis < 0 ? axis + value.rank : axis;
  if (!Number.isInteger(resolved) || resolved < 0 || resolved >= value.rank) {
    fail(where, `axis ${axis} must lie within the rank ${value.rank}`, value);
  }
  return resolved;
}

/** Whether two shapes are the same. */
export function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((dimension, i) => dimension === b[i]);
}
