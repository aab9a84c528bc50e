// Prints kernel time by operator from an ONNX Runtime trace. Usage: node scripts/profile-summary.mjs TRACE.json [RUNS]
import { readFileSync } from "node:fs";

const events = JSON.parse(readFileSync(process.argv[2], "utf8")).filter(
  (event) => event.cat === "Node" && event.name.endsWith("_kernel_time"),
);
const runs = Number(process.argv[3] ?? 1);
const totals = new Map();
for (const { args, dur } of events) {
  const [count, time] = totals.get(args.op_name) ?? [0, 0];
  totals.set(args.op_name, [count + 1, time + dur]);
}
const all = [...totals.values()].reduce((sum, [, time]) => sum + time, 0);
for (const [name, [count, time]] of [...totals].sort((a, b) => b[1][1] - a[1][1])) {
  console.log(
    name.padEnd(24),
    String(count / runs).padStart(7),
    `${(time / 1000 / runs).toFixed(1)} ms`.padStart(12),
    `${((100 * time) / all).toFixed(1)} %`.padStart(8),
  );
}
