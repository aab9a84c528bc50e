// Shape rules shared by the operator families.

import { ShapeError } from "../errors.js";
import type { Value } from "./graph.js";

/** What an operator was given, by name; an absent optional input is undefined. */
export type Given = Readonly<Record<string, Value | number | undefined>>;

/**
 * Throws a ShapeError that says where, the rule, what came and what to do:
 * `groupNorm "down_blocks.0.resnets.0.norm1": groups must divide channels; got x=float32[1,320,64,64], groups=48.`
 *
 * @param where - Operator or layer function; the path of the layer that is being built is added.
 * @param advice - A sentence that says what to do, where the rule does not.
 */
export function fail(where: string, rule: string, came: Given, advice = ""): never {
  const values = Object.values(came).filter((value) => typeof value === "object");
  const layer = values[0]?.graph.layerOf(values) ?? "";
  const got = Object.entries(came).map(([name, value]) => `${name}=${value ?? "nothing"}`);
  throw new ShapeError(`${where}${layer && ` "${layer}"`}: ${rule}; got ${got.join(", ")}.${advice && ` ${advice}`}`);
}

/** Throws unless every value is float32. */
export function requireFloat32(where: string, values: Readonly<Record<string, Value | undefined>>): void {
  for (const [name, value] of Object.entries(values)) {
    if (value && value.dtype !== "float32") fail(where, "inputs must be float32", { [name]: value });
  }
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
    fail(where, `axis ${axis} must lie within the rank ${value.rank}`, { x: value });
  }
  return resolved;
}

/** Whether two shapes are the same. */
export function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((dimension, i) => dimension === b[i]);
}
