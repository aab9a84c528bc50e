// Kernel time by operator, family, phase and layer, from an ONNX Runtime trace (`profilePrefix` of compile()).

import { readdirSync, readFileSync, rmSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { formatTable } from "../src/cli/format.js";
import { formatPercent } from "./statistics.js";

interface TraceEvent {
  cat: string;
  name: string;
  dur: number;
  args: { op_name: string };
}

/** One operator, family of operators, phase or layer. */
export interface KernelTime {
  name: string;
  calls: number;
  milliseconds: number;
  /** Of all kernel time. */
  share: number;
}

const FAMILIES: Readonly<Record<string, readonly string[]>> = {
  convolution: ["Conv", "ConvTranspose"],
  "matrix products": ["Gemm", "MatMul", "FusedMatMul"],
  attention: ["MultiHeadAttention", "Softmax"],
  normalization: ["LayerNormalization"],
  activations: ["QuickGelu", "Gelu", "Sigmoid", "Tanh", "Relu", "Erf", "Exp"],
  elementwise: ["Add", "Sub", "Mul", "Div", "Neg", "Sqrt", "Reciprocal", "Where", "Greater", "Cast", "Sin", "Cos"],
  reductions: ["ReduceSum", "ReduceMean", "AveragePool"],
  "moving data": ["Reshape", "Transpose", "Concat", "Slice", "Split", "Pad", "Expand", "Resize", "Identity", "Gather"],
};

/** Kernel times in several sums, the longest first. */
export interface Profile {
  operators: KernelTime[];
  families: KernelTime[];
  /** `forward`, `gradient`, `recompute`, … */
  phases: KernelTime[];
  /** By path, all phases of a layer together. */
  layers: KernelTime[];
}

/** First parts of node names that are no layers; anything else runs forward. */
const PHASES: ReadonlySet<string> = new Set(["base", "gradient", "recompute", "optimizer", "shapes"]);

/**
 * Reads a trace: the last of its runs, since the first ones also bring memory in.
 *
 * @param runs - How many runs it holds.
 */
export function readProfile(path: string, runs: number): Profile {
  const all = (JSON.parse(readFileSync(path, "utf8")) as TraceEvent[]).filter(
    (event) => event.cat === "Node" && event.name.endsWith("_kernel_time"),
  );
  const events = all.slice(Math.round(all.length * (1 - 1 / runs)));
  const familyOf = new Map(Object.entries(FAMILIES).flatMap(([family, names]) => names.map((name) => [name, family])));
  return {
    operators: total(events, ({ args }) => args.op_name),
    families: total(events, ({ args }) => familyOf.get(args.op_name) ?? "others"),
    phases: total(events, ({ name }) => originOf(name).phase),
    layers: total(events, ({ name }) => originOf(name).layer),
  };
}

/** Of a node named `PHASE/LAYER/OPERATOR`, where either of the first two may be absent. */
function originOf(name: string): { phase: string; layer: string } {
  const [first, second] = name.split("/").slice(0, -1);
  if (first !== undefined && PHASES.has(first)) return { phase: first, layer: second ?? "(none)" };
  return { phase: "forward", layer: first ?? "(none)" };
}

/** Takes the trace that begins with a prefix, and removes the file. */
export function takeProfile(prefix: string, runs: number): Profile {
  const folder = dirname(prefix);
  const file = readdirSync(folder).find((name) => name.startsWith(`${basename(prefix)}_`) && name.endsWith(".json"));
  if (file === undefined) throw new Error(`${prefix}: ONNX Runtime wrote no trace.`);
  const profile = readProfile(join(folder, file), runs);
  rmSync(join(folder, file));
  return profile;
}

/** Lines for the terminal. */
export function profileTable(rows: readonly KernelTime[]): string[] {
  return formatTable([
    ["", "calls", "ms", "share"],
    ...rows.map(({ name, calls, milliseconds, share }) => [
      name,
      String(calls),
      milliseconds.toFixed(1),
      formatPercent(share),
    ]),
  ]);
}

/** Layers that are shown: the longest. */
const SHOWN_LAYERS = 20;

/** Families, phases and the longest layers as lines for the terminal. */
export const profileTables = ({ families, phases, layers }: Omit<Profile, "operators">): string[] => [
  ...profileTable(families),
  "",
  ...profileTable(phases),
  "",
  ...profileTable(layers.slice(0, SHOWN_LAYERS)),
];

function total(events: readonly TraceEvent[], nameOf: (event: TraceEvent) => string): KernelTime[] {
  const totals = new Map<string, { calls: number; microseconds: number }>();
  for (const event of events) {
    const name = nameOf(event);
    const { dur } = event;
    const { calls, microseconds } = totals.get(name) ?? { calls: 0, microseconds: 0 };
    totals.set(name, { calls: calls + 1, microseconds: microseconds + dur });
  }
  const all = [...totals.values()].reduce((sum, { microseconds }) => sum + microseconds, 0);
  return [...totals]
    .map(([name, { calls, microseconds }]) => ({
      name,
      calls,
      milliseconds: microseconds / 1000,
      share: microseconds / all,
    }))
    .sort((a, b) => b.milliseconds - a.milliseconds);
}
