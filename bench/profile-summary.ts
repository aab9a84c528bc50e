// Prints kernel time by operator from an ONNX Runtime trace (`profilePrefix` of compile()).
// Usage: npx tsx bench/profile-summary.ts TRACE.json [RUNS]

import { readFileSync } from "node:fs";

interface TraceEvent {
  cat: string;
  name: string;
  dur: number;
  args: { op_name: string };
}

const [path, runsText = "1"] = process.argv.slice(2);
if (!path) throw new Error("Usage: npx tsx bench/profile-summary.ts TRACE.json [RUNS]");
const runs = Number(runsText);
const events = (JSON.parse(readFileSync(path, "utf8")) as TraceEvent[]).filter(
  (event) => event.cat === "Node" && event.name.endsWith("_kernel_time"),
);
const totals = new Map<string, { count: number; microseconds: number }>();
for (const { args, dur } of events) {
  const total = totals.get(args.op_name) ?? { count: 0, microseconds: 0 };
  totals.set(args.op_name, { count: total.count + 1, microseconds: total.microseconds + dur });
}
const all = [...totals.values()].reduce((sum, { microseconds }) => sum + microseconds, 0);
for (const [name, { count, microseconds }] of [...totals].sort((a, b) => b[1].microseconds - a[1].microseconds)) {
  const cells = [
    String(count / runs),
    `${(microseconds / 1000 / runs).toFixed(1)} ms`,
    `${((100 * microseconds) / all).toFixed(1)} %`,
  ];
  console.log(name.padEnd(24), ...cells.map((cell) => cell.padStart(12)));
}
