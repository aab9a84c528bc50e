// Kernel time by operator and by family, from an ONNX Runtime trace (`profilePrefix` of compile()).

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

/** One operator, or one family of them, per run. */
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

/** Reads a trace. @param runs - How many runs it holds. @returns Operators and families, the longest first. */
export function readProfile(path: string, runs: number): { operators: KernelTime[]; families: KernelTime[] } {
  const events = (JSON.parse(readFileSync(path, "utf8")) as TraceEvent[]).filter(
    (event) => event.cat === "Node" && event.name.endsWith("_kernel_time"),
  );
  const familyOf = new Map(Object.entries(FAMILIES).flatMap(([family, names]) => names.map((name) => [name, family])));
  return {
    operators: total(events, runs, (operator) => operator),
    families: total(events, runs, (operator) => familyOf.get(operator) ?? "others"),
  };
}

/** Takes the trace that begins with a prefix, and removes the file. */
export function takeProfile(prefix: string, runs: number): ReturnType<typeof readProfile> {
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
    ["", "calls", "ms per run", "share"],
    ...rows.map(({ name, calls, milliseconds, share }) => [
      name,
      String(Math.round(calls)),
      milliseconds.toFixed(1),
      formatPercent(share),
    ]),
  ]);
}

function total(events: readonly TraceEvent[], runs: number, nameOf: (operator: string) => string): KernelTime[] {
  const totals = new Map<string, { calls: number; microseconds: number }>();
  for (const { args, dur } of events) {
    const name = nameOf(args.op_name);
    const { calls, microseconds } = totals.get(name) ?? { calls: 0, microseconds: 0 };
    totals.set(name, { calls: calls + 1, microseconds: microseconds + dur });
  }
  const all = [...totals.values()].reduce((sum, { microseconds }) => sum + microseconds, 0);
  return [...totals]
    .map(([name, { calls, microseconds }]) => ({
      name,
      calls: calls / runs,
      milliseconds: microseconds / 1000 / runs,
      share: microseconds / all,
    }))
    .sort((a, b) => b.milliseconds - a.milliseconds);
}
