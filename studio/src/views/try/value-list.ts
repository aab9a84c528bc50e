// Lists of values as they are typed for a grid: "0, 0.5, 1", "1-4", "10-30 step 5", texts between semicolons. Pure.

import type { GridAxis } from "../../../../src/studio/protocol.js";

export type GridOption = GridAxis["option"];

/** More pictures than these are no grid that is looked at. */
export const MOST_VALUES = 64;

/** What the values of an option are. */
export const GRID_OPTIONS: Readonly<
  Record<GridOption, { label: string; kind: "integer" | "number" | "text"; minimum?: number }>
> = {
  adapterScale: { label: "adapter scale", kind: "number" },
  seed: { label: "seed", kind: "integer", minimum: 0 },
  steps: { label: "steps", kind: "integer", minimum: 1 },
  guidanceScale: { label: "guidance", kind: "number" },
  sampler: { label: "sampler", kind: "text" },
  prompt: { label: "prompt", kind: "text" },
};

const NUMBER = String.raw`[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?`;
const RANGE = new RegExp(`^(${NUMBER})\\s*(?:-|–|\\.\\.)\\s*(${NUMBER})(?:\\s+step\\s+(${NUMBER}))?$`, "i");
const ONE = new RegExp(`^${NUMBER}$`, "i");

/**
 * The values that a text lists.
 *
 * @param known - Where only these may come: samplers.
 * @returns A sentence where it lists none.
 */
export function parseValues(text: string, option: GridOption, known?: readonly string[]): (string | number)[] | string {
  const { kind, label, minimum } = GRID_OPTIONS[option];
  // Prompts have commas of their own.
  const parts = text
    .split(option === "prompt" ? /[;\n]/ : /[,;\n]/)
    .map((part) => part.trim())
    .filter((part) => part !== "");
  if (parts.length === 0) return `List the values of ${label}, ${exampleOf(option)}.`;
  const values: (string | number)[] = [];
  for (const part of parts) {
    if (kind === "text") {
      if (known && !known.includes(part)) return `“${part}” is no ${label}; there are ${known.join(", ")}.`;
      values.push(part);
    } else {
      const numbers = numbersIn(part);
      if (typeof numbers === "string") return numbers;
      for (const value of numbers) {
        if (kind === "integer" && !Number.isSafeInteger(value))
          return `Values of ${label} are whole numbers; got ${value}.`;
        if (minimum !== undefined && value < minimum) return `Values of ${label} are ${minimum} or more; got ${value}.`;
        values.push(value);
      }
    }
    if (values.length > MOST_VALUES) return `At most ${MOST_VALUES} values fit along a side; these are more.`;
  }
  return [...new Set(values)];
}

/** How the values may be typed. */
export function exampleOf(option: GridOption): string {
  if (option === "prompt") return "such as “a cat; a dog”: a semicolon between two";
  if (option === "sampler") return "such as “ddim, euler”";
  return GRID_OPTIONS[option].kind === "integer"
    ? "such as “1-4” or “10-30 step 10”"
    : "such as “0, 0.5, 1” or “0-1 step 0.25”";
}

function numbersIn(part: string): number[] | string {
  if (ONE.test(part)) return [Number(part)];
  const [, first, last, every] = RANGE.exec(part) ?? [];
  if (first === undefined || last === undefined) return `“${part}” is neither a number nor a range such as 1-4.`;
  const [from, to, step] = [Number(first), Number(last), Number(every ?? 1)];
  if (!(step > 0)) return `The step of “${part}” must be above 0.`;
  if (to < from) return `The range “${part}” goes down; type ${last}-${first}.`;
  const count = Math.floor((to - from) / step + 1e-9) + 1;
  if (count > MOST_VALUES) return `“${part}” has ${count} values; at most ${MOST_VALUES} fit along a side.`;
  // Without the noise of adding up: 0.1 + 0.2 is 0.3.
  return Array.from({ length: count }, (_, i) => Number((from + i * step).toPrecision(12)));
}
