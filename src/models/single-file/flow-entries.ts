// The weights of a flow transformer's original checkpoint under diffusers' names: a table of where in the file each one lies. Layers
// that are several of diffusers' are split by their rows; nothing is read or copied.

import { FormatError } from "../../errors.js";
import { FlowNames, type OriginalModule } from "../../storage/flow-names.js";
import type { SafetensorsEntry } from "../../storage/safetensors.js";
import type { FlowLayout } from "./flow-layout.js";

/** Where weights lie. */
export interface FlowEntries {
  /** By diffusers' names, and {@link halfNames} of what is swapped. */
  entries: Map<string, SafetensorsEntry>;
  /** Weights whose halves stand in the other order in the file: scale and shift of a norm. */
  swapped: readonly string[];
}

/** What the halves of a weight are called until they are put together, in diffusers' order. */
export const halfNames = (name: string): readonly [string, string] => [`${name} (scale)`, `${name} (shift)`];

/**
 * @param own - The transformer's tensors by the original names, without a prefix.
 * @throws {FormatError} If one has no place in the model, or cannot be split as it must be.
 */
export function flowEntries(
  own: ReadonlyMap<string, SafetensorsEntry>,
  { family, words }: Pick<FlowLayout, "family" | "words">,
  path: string,
): FlowEntries {
  const table = new FlowNames(family);
  const last = Math.max(...[...own.keys()].map((name) => Number(/^joint_blocks\.(\d+)\./.exec(name)?.[1] ?? -1)));
  const entries = new Map<string, SafetensorsEntry>();
  const swapped: string[] = [];
  for (const [original, entry] of own) {
    const { module, parameter } = moduleOf(table, original, path) ?? {};
    if (!module) {
      if (family === "ZImageTransformer2DModel") {
        // diffusers drops what is computed and not used.
        if (original !== "norm_final.weight") entries.set(original, entry);
        continue;
      }
      throw new FormatError(path, `has the tensor "${original}", which a ${words} has no place for.`);
    }
    const end = parameter === "" ? "" : `.${parameter}`;
    if (isSwapped(module, last)) {
      const name = `${module.parts[0]}${end}`;
      swapped.push(name);
      const [scale, shift] = halfNames(name);
      const [first, second] = rowsOf(entry, [1, 1], original, path);
      entries.set(scale, second!);
      entries.set(shift, first!);
    } else {
      const rows = module.parts.length === 1 ? [entry] : rowsOf(entry, module.shares, original, path);
      for (const [i, part] of module.parts.entries()) entries.set(part + end, rows[i]!);
    }
  }
  return { entries, swapped };
}

/** A tensor may be named like a module, as SD3's `pos_embed`; RMS norms of the original code call their weight `scale`. */
function moduleOf(table: FlowNames, name: string, path: string) {
  const whole = table.byOriginal(name);
  if (whole) return { module: whole, parameter: "" };
  const dot = name.lastIndexOf(".");
  const [start, parameter] = [name.slice(0, dot), name.slice(dot + 1)];
  const module = table.byOriginal(start);
  if (!module) return undefined;
  if (parameter === "weight" || parameter === "bias") return { module, parameter };
  if (parameter === "scale" && start.endsWith("_norm")) return { module, parameter: "weight" };
  throw new FormatError(path, `has the tensor "${name}"; of ${start} there can be a weight and a bias.`);
}

function isSwapped({ swapped, original }: OriginalModule, last: number): boolean {
  return swapped === "always" || (swapped === "lastBlock" && original.startsWith(`joint_blocks.${last}.`));
}

/** Where the rows of a fused tensor's parts lie. */
function rowsOf(entry: SafetensorsEntry, shares: readonly number[], name: string, path: string): SafetensorsEntry[] {
  const [rows = 0, ...rest] = entry.shape;
  const sum = shares.reduce((total, share) => total + share, 0);
  if (rows === 0 || rows % sum !== 0) {
    throw new FormatError(path, `"${name}" must have a multiple of ${sum} rows; got [${entry.shape.join(",")}].`);
  }
  const rowBytes = entry.length / rows;
  let from = 0;
  return shares.map((share) => {
    const count = (rows / sum) * share;
    const part = {
      ...entry,
      shape: [count, ...rest],
      offset: entry.offset + from * rowBytes,
      length: count * rowBytes,
    };
    from += count;
    return part;
  });
}
